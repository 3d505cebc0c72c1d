"""A Dask cluster that somebody else has started."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from sensorium_data.errors import UsageError
from sensorium_data.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["WORKERS_TIMEOUT_S", "name_for_workers", "open_cluster"]

#: How long to go on without a worker: clusters that adapt start them when there is work, and queues let them wait.
WORKERS_TIMEOUT_S = 1800.0

_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 2.0
_REMEDY = "see to the cluster, and run it again: what is finished is kept"


def name_for_workers(place: str) -> str:
    """Return a path as processes in other folders understand it: whole; URLs stay as they are."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


@contextlib.contextmanager
def open_cluster(
    address: str, *, workers_timeout_s: float = WORKERS_TIMEOUT_S, progress: Progress = ignore_progress
) -> Iterator[Client]:
    """Connect to a cluster while the block runs, and see to it that the block ends if the cluster is gone.

    Parameters
    ----------
    address : str
        The scheduler's, e.g. ``tcp://host:8786``.
    workers_timeout_s : float
        How long to wait where the cluster has no worker, at the beginning and later.
    progress : Progress
        Told while there is none.

    Raises
    ------
    UsageError
        If no scheduler answers there, it ends meanwhile, or it is without workers for too long.
    """
    # Imported here: it takes a second, and few need it.
    from distributed import Client

    try:
        client = Client(address, timeout=_TIMEOUT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(
            "no Dask scheduler answers here",
            path=address,
            found=str(error),
            expected="an address such as tcp://host:8786",
            remedy="start one with `dask scheduler`, and workers with `dask worker ADDRESS`; or leave out --dask",
        ) from error
    watch = _Watch(client, workers_timeout_s, progress)
    # What it logs of a lost scheduler is said here in a line.
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with client, watch:
            try:
                yield client
            except (CancelledError, OSError, RuntimeError) as error:
                if watch.problem is None and client.status == "running":
                    raise
                problem = watch.problem or "the Dask scheduler is gone"
                raise UsageError(problem, path=address, found=type(error).__name__, remedy=_REMEDY) from error
    finally:
        logger.setLevel(level)


class _Watch:
    """Looks at a cluster from a thread of its own: what waits for results would wait for ever if its workers died."""

    def __init__(self, client: Client, workers_timeout_s: float, progress: Progress) -> None:
        self._client: Any = client
        self._timeout_s = workers_timeout_s
        self._progress = progress
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch Dask", daemon=True)
        #: What is wrong with the cluster, as a clause.
        self.problem: str | None = None

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        since_s = time.monotonic()
        is_waiting = False
        while not self._ending.wait(_LOOK_EVERY_S if self._has_worker() or is_waiting else 0.0):
            if self._client.status in ("closed", "closing"):
                return
            if self._has_worker():
                if is_waiting:
                    self._progress("wait for a Dask worker", 1, 1)
                since_s, is_waiting = time.monotonic(), False
                continue
            if not is_waiting:
                self._progress("wait for a Dask worker", 0, 1)
                is_waiting = True
            if time.monotonic() - since_s > self._timeout_s:
                self.problem = f"the Dask cluster has had no worker for {self._timeout_s:.0f} s"
                # Ends whoever waits for a result.
                self._client.close(timeout=_LOOK_EVERY_S)
                return

    def _has_worker(self) -> bool:
        try:
            return bool(self._client.scheduler_info()["workers"])
        except (OSError, ValueError, KeyError):
            return False
