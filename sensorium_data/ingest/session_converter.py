"""The conversion of several sessions into one store, which share threads or a Dask cluster."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

from sensorium_data.archive import Mode
from sensorium_data.cluster import name_for_workers, open_cluster
from sensorium_data.files import Objects, RetryPolicy
from sensorium_data.ingest.conversion_report import ConversionReport
from sensorium_data.ingest.convert import convert_session
from sensorium_data.ingest.neighbors import counted_ingests
from sensorium_data.machine import bound_jobs, count_cores
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session
from sensorium_data.store import Precision, Store, StoreLike

__all__ = ["SESSIONS_AT_ONCE", "SessionConverter", "default_jobs"]

#: While one session reads its index or is read back, another keeps the threads busy.
SESSIONS_AT_ONCE = 2
# A server that gives each connection little, or lets every request wait, gives several more; a local disk does not.
_LEAST_JOBS_OVER_A_NETWORK = 8


def default_jobs(sources: Sequence[str] = (), store: str = "", n_ingests: int = 1) -> int:
    """Return how many trials to convert at once: one a core, and at least 8 where bytes travel over a network.

    They are fewer where memory is short, and where several ingests share the machine.

    Parameters
    ----------
    sources : sequence of str
        Where archives are; by default where the sessions are published.
    store : str
        Where the store is.
    n_ingests : int
        How many ingests run on the machine now.
    """
    n_cores = count_cores()
    are_local = bool(sources) and all("://" not in place or place.startswith("file:") for place in (*sources, store))
    n_jobs = n_cores if are_local else max(n_cores, _LEAST_JOBS_OVER_A_NETWORK)
    return bound_jobs(math.ceil(n_jobs / n_ingests))


class SessionConverter:
    """Converts sessions into a store, from several threads if asked to; all share the threads that convert trials.

    A context manager. Its end waits for the conversions under way, in which trials that have begun are finished and no
    others are begun.

    Parameters
    ----------
    store : Store or path
        As :func:`~sensorium_data.ingest.ingest_sessions` takes it, and so all others.
    jobs : int, optional
        Trials converted at once. By default this ingest's share of the machine, of which those that run already when
        it begins have theirs.
    progress : Progress
        Told while a Dask scheduler is waited for.

    Attributes
    ----------
    jobs : int
        Trials converted at once; what was given, or from the beginning of the block on the share of the machine.

    Raises
    ------
    UsageError
        At the beginning, if no Dask scheduler answers at the address.
    """

    def __init__(
        self,
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
    ) -> None:
        self._store = Store.at(store)
        self.jobs = 1 if jobs is None else jobs
        self._choose_jobs = None if jobs is not None else partial(default_jobs, sources, self._store.url)
        if dask is not None:
            # Workers have folders of their own.
            self._store = Store.at(name_for_workers(self._store.url))
            sources = [name_for_workers(source) for source in sources]
            downloads = None if downloads is None else name_for_workers(str(downloads))
        self._sources = sources or None
        self._mode = mode
        self._downloads = downloads
        self._source_name = source_name
        self._precision = precision
        self._resize = resize
        self._tier_map = tier_map
        self._repairs = repairs
        self._dask = dask
        self._policy = policy
        self._lock = lock
        self._progress = progress
        self._stopping = threading.Event()
        self._n_converting = 0
        self._is_idle = threading.Condition()
        self._stack = contextlib.ExitStack()
        self._executor: Executor | None = None

    def __enter__(self) -> Self:
        # A cluster has cores of its own.
        n_ingests = 1 if self._dask is not None else self._stack.enter_context(counted_ingests())
        if self._choose_jobs is not None:
            self.jobs = self._choose_jobs(n_ingests)
        self._executor = self._stack.enter_context(_trial_executor(self.jobs, self._dask, self._progress))
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        with self._stack, self._is_idle:
            # Nobody may ask the executor for more once it is shut down.
            self._is_idle.wait_for(lambda: self._n_converting == 0)

    def stop(self) -> None:
        """Let the conversions under way end early, and no others begin; they raise :class:`KeyboardInterrupt`."""
        self._stopping.set()

    @property
    def objects(self) -> Objects:
        """The store's root."""
        return self._store.objects

    def convert(
        self,
        session: Session,
        progress: Progress = ignore_progress,
        *,
        publish: Callable[[Session, str], None] | None = None,
    ) -> ConversionReport:
        """Convert a session's archive, or find that it is converted already.

        Parameters
        ----------
        session : Session
            The session.
        progress : Progress
            Told after each trial.
        publish : callable, optional
            As :func:`~sensorium_data.ingest.convert_session` takes it.

        Raises
        ------
        SensoriumError
            As :func:`~sensorium_data.ingest.convert_session` does.
        """

        def go_on(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None) -> None:
            # Downloads, and waits for another run, end here after Ctrl-C.
            if self._stopping.is_set():
                raise KeyboardInterrupt
            progress(label, n_done, n_total, n_bytes=n_bytes)

        with self._converting():
            return convert_session(
                session,
                self._store,
                source=self._sources,
                mode=self._mode,
                downloads=self._downloads,
                source_name=self._source_name,
                precision=self._precision,
                resize=self._resize,
                tier_map=self._tier_map,
                repairs=self._repairs,
                jobs=self.jobs,
                executor=self._executor,
                stopping=self._stopping,
                policy=self._policy,
                lock=self._lock,
                publish=publish,
                progress=go_on,
            )

    @contextlib.contextmanager
    def _converting(self) -> Iterator[None]:
        with self._is_idle:
            if self._stopping.is_set():
                raise KeyboardInterrupt
            self._n_converting += 1
        try:
            yield
        finally:
            with self._is_idle:
                self._n_converting -= 1
                self._is_idle.notify_all()


@contextlib.contextmanager
def _trial_executor(jobs: int, dask: str | None, progress: Progress) -> Iterator[Executor]:
    if dask is None:
        pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="convert")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return
    with open_cluster(dask, progress=progress) as client:
        # Pure tasks would be taken for done when the same call is made again, even if its result is lost.
        yield client.get_executor(pure=False)  # type: ignore[no-untyped-call]
