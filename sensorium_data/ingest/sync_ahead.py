"""Objects brought to the disk while others are still being made, so that nobody waits for the disk afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from sensorium_data.errors import StoreError
from sensorium_data.files import N_SYNCED_AT_ONCE, LocalObjects
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.store import TrialRecord

__all__ = ["SyncAhead"]


class SyncAhead:
    """Brings the objects of finished trials to the disk, in threads of its own.

    A context manager, which waits at its end. What this process did not write, and an object store, which keeps what it
    has confirmed, need none of it.

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
        self._pending: dict[int, Future[None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, record: TrialRecord) -> None:
        """Have the objects of a trial brought to the disk."""
        if self._group is not None:
            self._pending[record.trial] = self._pool.submit(self._sync, self._group, tuple(record.objects))

    def finish(self) -> bool:
        """Wait until all are on the disk, and return whether that was seen to.

        Raises
        ------
        StoreError
            If the disk fails. The trial is forgotten: a disk tells once that it lost something, and a later attempt
            would find nothing wrong.
        """
        for trial, future in self._pending.items():
            try:
                future.result()
            except StoreError:
                self._workspace.records.forget([trial])
                raise
        return self._group is not None

    @staticmethod
    def _sync(group: LocalObjects, keys: Iterable[str]) -> None:
        for key in keys:
            group.sync(key)
