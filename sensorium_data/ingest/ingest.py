"""Many sessions into one store: side by side, on one machine or over a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sensorium_data.archive import Mode, holds_session_files, list_sessions
from sensorium_data.errors import SensoriumError, SourceError, UnknownNameError
from sensorium_data.files import RetryPolicy
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.ingest.conversion_report import ConversionReport
from sensorium_data.ingest.session_converter import SESSIONS_AT_ONCE, SessionConverter
from sensorium_data.ordered_map import as_finished
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSION_NAME_RULE, Session, find_session, find_sessions
from sensorium_data.store import Precision, StoreLike, publish_root

__all__ = ["IngestReport", "choose_sessions", "ingest_sessions"]

_N_NAMED = 3
# Listing sessions in an object store's root takes a handful of requests, one after the other.
_PUBLISHING_INTERVAL_S = 60.0


@dataclass(frozen=True)
class IngestReport:
    """What :func:`ingest_sessions` did.

    Attributes
    ----------
    sessions : tuple of ConversionReport
        Of the sessions that the store holds now, in the order asked for.
    failures : tuple of SensoriumError
        Why others could not be converted.
    """

    sessions: tuple[ConversionReport, ...]
    failures: tuple[SensoriumError, ...]

    def _repr_html_(self) -> str:
        heads = ("session", "status", "trials", "size (MB)", "precision", "store")
        rows = [
            (one.alias, one.status, one.n_trials, one.store_size_bytes / 1e6, one.precision, one.path)
            for one in self.sessions
        ]
        notes = [f"{one.alias}: {note}" for one in self.sessions for note in one.notes]
        return write_html_table("Sessions", heads, rows) + write_html_lines([*map(str, self.failures), *notes])

    def raise_failures(self) -> None:
        """Raise the failure, or one error that names them all; nothing if there is none."""
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            raise SensoriumError(
                f"{len(self.failures)} of {len(self.failures) + len(self.sessions)} sessions could not be converted",
                found=" | ".join(str(failure) for failure in self.failures),
                remedy="fix what each message says and run the same command again; finished sessions are kept",
            )


def _ignore_warning(_: str) -> None:
    pass


def choose_sessions(
    names: Iterable[str], sources: Sequence[str] = (), *, warn: Callable[[str], None] = _ignore_warning
) -> tuple[Session, ...]:
    """Return the sessions that ``names`` mean; ``all`` means every archive at sources that can be listed.

    Parameters
    ----------
    names : iterable of str
        Aliases, full names, or ``new``, ``old`` and ``all``.
    sources : sequence of str
        Folders or URLs that hold archives.
    warn : callable
        Told, with ``all``, of each archive or folder that holds a session's files under a name that no session can
        have: it is left out.

    Raises
    ------
    UnknownNameError
        If a name means no session.
    SourceError
        If ``all`` is asked for and no source can be reached, or what lies there has no session's name.
    """
    names = list(names)
    found = _list_sources(sources) if "all" in map(str.lower, names) else {}
    if not found:
        return find_sessions(names)
    chosen = set(find_sessions(name for name in names if name.lower() != "all"))
    for name, source in sorted(found.items()):
        try:
            chosen.add(find_session(name))
        except UnknownNameError:  # other zip files may lie there
            if holds_session_files(source, name):
                left_out = SourceError(
                    "a session's files are left out: no session can have their name",
                    path=source,
                    found=repr(name),
                    expected=SESSION_NAME_RULE,
                    remedy="rename the folder or archive",
                )
                warn(str(left_out))
    if not chosen:
        raise SourceError(
            "no archive or folder there has a session's name",
            path=", ".join(sources),
            found=", ".join(map(repr, sorted(found)[:_N_NAMED])) + (" and others" if len(found) > _N_NAMED else ""),
            expected=SESSION_NAME_RULE,
            remedy="rename what holds a session's files, or check the --source given",
        )
    return tuple(sorted(chosen))


def _list_sources(sources: Sequence[str]) -> dict[str, str]:
    """Return the names of all archives at sources that can be listed, and the first source that has each.

    It is an error if none of the sources can be reached.
    """
    found: dict[str, str] = {}
    failures: list[SourceError] = []
    for source in sources:
        try:
            found = dict.fromkeys(list_sessions(source), source) | found
        except SourceError as failure:
            failures.append(failure)
    if failures and len(failures) == len(sources):
        raise failures[0]
    return found


def ingest_sessions(
    sessions: Sequence[Session],
    store: StoreLike,
    *,
    sources: Sequence[str] = (),
    mode: Mode = Mode.AUTO,
    downloads: str | Path | None = None,
    source_name: str | None = None,
    precision: Precision | None = None,
    resize: str | None = None,
    tier_map: Sequence[str] | None = None,
    repairs: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
    policy: RetryPolicy | None = None,
    lock: bool = True,
    progress: Progress = ignore_progress,
) -> IngestReport:
    """Convert the archives of sessions into a store; sessions that it holds already are left alone.

    One session's failure does not keep the others from being converted. The store's root lists new sessions at the end,
    and of an ingest that takes longer every minute or so.

    Parameters
    ----------
    sessions : sequence of Session
        Which sessions.
    store : Store or path
        The store, or the path or fsspec URL of its root; made if it does not exist.
    sources : sequence of str
        Folders, URLs or archives to read from, tried in this order; by default where the sessions are published.
    mode, downloads, source_name, precision, resize, tier_map, repairs, policy, lock
        As :func:`~sensorium_data.ingest.convert_session` takes them.
    jobs : int, optional
        Trials converted at once, of all sessions together; by default :func:`default_jobs`. Each needs about 100 MB.
        With ``dask`` this many threads read statistics and the like here.
    dask : str, optional
        Address of a Dask scheduler, whose workers convert the trials. They have to have this package, and to reach the
        archives and the store under the same names. The result does not depend on it.
    progress : Progress
        Told after each trial of each session.

    Raises
    ------
    UsageError
        If no Dask scheduler answers at the address.
    """
    reports: dict[Session, ConversionReport] = {}
    failures: dict[Session, SensoriumError] = {}
    # By session the group to list in the root; converting threads add to it.
    finished: dict[Session, str] = {}

    def publish(ended: Iterable[Session]) -> None:
        groups = {session: finished.pop(session) for session in tuple(ended) if session in finished}
        try:
            if groups:
                publish_root(converter.objects, groups, rereads=repairs)
        except SensoriumError as error:
            for session in groups:
                reports.pop(session, None)
                failures[session] = error

    with SessionConverter(
        store,
        sources=sources,
        mode=mode,
        downloads=downloads,
        source_name=source_name,
        precision=precision,
        resize=resize,
        tier_map=tier_map,
        repairs=repairs,
        jobs=jobs,
        dask=dask,
        policy=policy,
        lock=lock,
        progress=progress,
    ) as converter:
        pool = ThreadPoolExecutor(SESSIONS_AT_ONCE, thread_name_prefix="session")
        try:
            futures = {
                pool.submit(converter.convert, session, progress, publish=finished.__setitem__): session
                for session in sessions
            }
            published_s = time.monotonic()
            for future in as_finished(futures):
                session = futures[future]
                try:
                    reports[session] = future.result()
                except SensoriumError as error:
                    failures[session] = error
                if time.monotonic() - published_s >= _PUBLISHING_INTERVAL_S:
                    publish(reports)
                    published_s = time.monotonic()
        finally:
            # After Ctrl-C, trials that have begun are finished and the others are not begun.
            converter.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            publish(finished)
    return IngestReport(
        tuple(reports[session] for session in sessions if session in reports),
        tuple(failures[session] for session in sessions if session in failures),
    )
