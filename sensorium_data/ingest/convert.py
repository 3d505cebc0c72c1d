"""Archive to session store: trial by trial, resumable, published whole.

Each trial is read, checked, cut and encoded by itself; its objects are written, and last of all a record of it. A run
that was interrupted continues with the trials that have no record. Objects are brought to the disk while other trials
are converted. When every trial is there, all objects are read back and compared with what was written, and the session
appears under its name in one step.

A published group is never changed. When the archive has changed, the session is converted into a group of another name,
into which the blocks of unchanged trials are copied, and then the store's pointer moves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from sensorium_data.archive import Mode, open_archive
from sensorium_data.errors import SourceChangedError, StoreError
from sensorium_data.files import RetryPolicy
from sensorium_data.ingest.adaptation import parse_frame_size, parse_tier_map
from sensorium_data.ingest.conversion import Conversion
from sensorium_data.ingest.conversion_report import ConversionReport
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session
from sensorium_data.store import (
    ROOT_LOCK,
    Precision,
    Store,
    StoreLike,
    exclusive_access,
    read_attributes,
    repair_versions,
)

__all__ = ["convert_session"]

# How often an archive may change under a run before the run gives up.
_N_RESTARTS = 3


def convert_session(
    session: Session,
    store: StoreLike,
    *,
    source: str | Sequence[str] | None = None,
    mode: Mode = Mode.AUTO,
    downloads: str | Path | None = None,
    source_name: str | None = None,
    precision: Precision | None = None,
    resize: str | None = None,
    tier_map: Sequence[str] | None = None,
    repairs: bool = False,
    jobs: int = 2,
    executor: Executor | None = None,
    stopping: threading.Event | None = None,
    policy: RetryPolicy | None = None,
    lock: bool = True,
    publish: Callable[[Session, str], None] | None = None,
    progress: Progress = ignore_progress,
) -> ConversionReport:
    """Convert a session's archive into a store; do nothing if the store already holds it.

    Two runs at once do no harm: on a local disk the second waits, and finds the work done. In an object store it says
    who is at work, and ends.

    Parameters
    ----------
    session : Session
        Which session.
    store : Store or path
        The store, or the path or fsspec URL of its root; made if it does not exist. A store that was opened says
        what is done already, and is not read anew for that.
    source : str or sequence of str, optional
        Folders, URLs or archives to read from, tried in this order; by default where the session is published.
    mode : Mode
        Whether to read the archive in place or to download it first.
    downloads : path, optional
        The folder that downloaded archives are kept in.
    source_name : str, optional
        What the store calls the archive's place, for archives that are deleted afterwards
        (``sensorium_data.schema.SOURCE_NOT_KEPT``). By default the place.
    precision : Precision, optional
        What to keep of the values; by default what the store holds, or ``exact``.
    resize : str, optional
        Frame size that videos are resized to, such as ``"36x64"``, by the mean over areas
        (:func:`~sensorium_data.ingest.resize_frames`); ``"none"`` keeps the archive's. By default as the store has it.
        Another size than the store's makes a new version of the session.
    tier_map : sequence of str, optional
        New names of tiers, such as ``["validation=oracle"]``; ``["none"]`` keeps the archive's. By default as the store
        has it.
    repairs : bool
        Read every object of a store that holds the session already, and convert anew what is damaged.
    jobs : int
        Trials converted at once, in threads; each needs about 100 MB. The result does not depend on it.
    executor : Executor, optional
        What converts the trials in place of ``jobs`` threads; may be in other processes or on other machines.
    stopping : threading.Event, optional
        Once set, no further trial is begun.
    policy : RetryPolicy, optional
        How long to insist where a server does not deliver.
    lock : bool
        Whether to lock the session in an object store, so that no other machine converts it meanwhile. A store that
        cannot be locked is refused otherwise. A local disk is always locked.
    publish : callable, optional
        Takes the session and its group, and sees to it that the store's root lists them. By default they are listed at
        once.
    progress : Progress
        Told after each trial, and after each group of objects when the result is verified.

    Raises
    ------
    SourceError, ArchiveError
        If the archive cannot be read or is damaged.
    TrialError
        If an array in it has the wrong dtype or shape.
    UsageError
        If ``resize`` or ``tier_map`` cannot be read, or a tier to be renamed is not there.
    LockedError
        If another process is converting the session into the same object store.
    StoreError
        If the store cannot be written or locked, holds the session in another precision, or is damaged and not to be
        repaired.
    """
    started = time.monotonic()
    stopping = stopping or threading.Event()
    # Before anything is read.
    parse_frame_size(resize), parse_tier_map(tier_map or ())
    sources = () if source is None else (source,) if isinstance(source, str) else tuple(source)
    known = Store.at(store)
    known.refuse_other_root()
    if repairs:
        with exclusive_access(known.objects, ROOT_LOCK):
            repair_versions(known.objects)
    sources = sources or _list_published(session, known)
    with contextlib.ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(_own_threads(jobs))
        for n_changes in range(_N_RESTARTS + 1):
            try:
                with open_archive(
                    session, sources, mode=mode, downloads=downloads, policy=policy, jobs=jobs, progress=progress
                ) as archive:
                    conversion = Conversion(
                        session,
                        known,
                        archive,
                        executor,
                        jobs,
                        stopping,
                        policy,
                        lock,
                        publish,
                        progress,
                        source_name,
                    )
                    return conversion.run(precision, resize, tier_map, repairs, started)
            except SourceChangedError:
                # What is finished and has not changed is found by its members' CRC and kept.
                if n_changes == _N_RESTARTS:
                    raise
    raise AssertionError("the loop returns or raises")


@contextlib.contextmanager
def _own_threads(jobs: int) -> Iterator[Executor]:
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="convert")
    try:
        yield pool
    finally:
        # After an error or Ctrl-C the trials under way are finished, so that nothing is written once the lock is gone.
        pool.shutdown(wait=True, cancel_futures=True)


def _list_published(session: Session, store: Store) -> tuple[str, ...]:
    """Return where the session is published, up to the place that the store was made from.

    A later place is an earlier repository. It is good enough to begin with; what a better one gave is not replaced by
    it while the better one cannot be reached.
    """
    if len(session.urls) < 2:
        return session.urls
    attributes: Mapping[str, object] | None = None
    with contextlib.suppress(StoreError):  # reported where the store's state is looked at, or repaired there
        attributes = read_attributes(store.objects, session, store.group(session))
    source = (attributes or {}).get("source")
    return session.urls[: session.urls.index(source) + 1] if source in session.urls else session.urls
