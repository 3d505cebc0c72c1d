"""Objects brought to the disk while others are still being made, so that nobody waits for the disk afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

from sensorium_data.errors import StoreError
from sensorium_data.files import N_SYNCED_AT_ONCE, LocalObjects
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.store import StatisticsRecord, TrialRecord

__all__ = ["SyncAhead"]


class SyncAhead:
    """Brings the objects of finished trials and statistics to the disk, in threads of its own.

    A context manager, which waits at its end. What the disk lost is then forgotten, whatever ends the run: a disk tells
    once that it lost something, and a later run would find nothing wrong. What this process did not write, and an
    object store, which keeps what it has confirmed, need none of it.

    Parameters
    ----------
    workspace : Workspace
        Where the objects are.
    is_needed : bool
        Whether this process writes them.
    """

    def __init__(self, workspace: Workspace, *, is_needed: bool) -> None:
        self._workspace = workspace
        self._group = workspace.group if is_needed and isinstance(workspace.group, LocalObjects) else None
        self._pool = ThreadPoolExecutor(N_SYNCED_AT_ONCE, thread_name_prefix="sync")
        self._pending: list[tuple[Future[None], Callable[[], None]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future, forget in self._pending:
            if not future.cancelled() and future.exception() is not None:
                # Where not even that succeeds, the error that ends the run says more.
                with contextlib.suppress(StoreError):
                    forget()

    def add_trial(self, record: TrialRecord) -> None:
        """Have the objects of a trial brought to the disk."""
        self._add(record.objects, partial(self._workspace.records.forget, [record.trial]))

    def add_statistics(self, record: StatisticsRecord) -> None:
        """Have the objects of the archive's statistics brought to the disk."""
        self._add(record.objects, self._workspace.forget_statistics)

    def finish(self) -> bool:
        """Wait until all are on the disk, and return whether that was seen to.

        Raises
        ------
        StoreError
            If the disk fails.
        """
        for future, _ in self._pending:
            future.result()
        return self._group is not None

    def _add(self, keys: Iterable[str], forget: Callable[[], None]) -> None:
        if self._group is not None:
            self._pending.append((self._pool.submit(self._sync, self._group, tuple(keys)), forget))

    @staticmethod
    def _sync(group: LocalObjects, keys: Iterable[str]) -> None:
        for key in keys:
            group.sync(key)
