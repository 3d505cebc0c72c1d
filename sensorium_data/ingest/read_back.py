"""What a conversion has written, compared with what it was to write, before it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from sensorium_data.files import ObjectStatus, StoredObject
from sensorium_data.ingest.trial_conversion import ConversionPlan, check_written
from sensorium_data.ordered_map import as_finished, drop
from sensorium_data.progress import Progress

__all__ = ["ReadBack"]

# Objects that one task reads back: few enough to spread, many enough that a cluster's overhead does not count.
_CHECKED_AT_ONCE = 16

Submit = Callable[..., Future[dict[str, str]]]


class ReadBack:
    """Reads objects back while others are still being written; a context manager, which waits at its end.

    An object whose tag the store confirmed when it was written is compared with the tag in a listing; every other one
    is read back.

    Parameters
    ----------
    plan : ConversionPlan
        Of the session.
    submit : callable
        Has a function called with arguments, here or by a worker.
    """

    def __init__(self, plan: ConversionPlan, submit: Submit) -> None:
        self._plan = plan
        self._submit = submit
        self._written: dict[str, StoredObject] = {}
        self._batches: dict[Future[dict[str, str]], list[tuple[str, StoredObject]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        drop(self._batches)

    def add(self, written: Mapping[str, StoredObject], *, synced: bool = False) -> None:
        """Begin to read back what was written.

        Parameters
        ----------
        written : mapping of str to StoredObject
            What was written, by key.
        synced : bool
            Whether it is on the disk already; otherwise it is brought there first.
        """
        self._written.update(written)
        unread = [(key, stored) for key, stored in written.items() if stored.tag is None]
        for start in range(0, len(unread), _CHECKED_AT_ONCE):
            batch = unread[start : start + _CHECKED_AT_ONCE]
            self._batches[self._submit(check_written, self._plan, batch, synced)] = batch

    def find_problems(self, listed: Mapping[str, ObjectStatus], *, label: str, progress: Progress) -> dict[str, str]:
        """Return what is wrong with objects that were written, by key.

        Parameters
        ----------
        listed : mapping of str to ObjectStatus
            What a listing says of them.
        label : str
            What progress is reported under.
        progress : Progress
            Told after each group of objects.
        """
        n_objects = len(self._written)
        problems, n_bytes = _compare_listed(self._written, listed)
        n_done = n_objects - sum(map(len, self._batches.values()))
        if n_done:
            progress(label, n_done, n_objects, n_bytes=n_bytes)
        for future in as_finished(self._batches):
            problems.update(future.result())
            n_done += len(self._batches[future])
            n_bytes += sum(stored.size_bytes for _, stored in self._batches[future])
            progress(label, n_done, n_objects, n_bytes=n_bytes)
        return problems


def _compare_listed(
    written: Mapping[str, StoredObject], listed: Mapping[str, ObjectStatus]
) -> tuple[dict[str, str], int]:
    """Return what a listing says is wrong with objects that have tags, by key, and the size of those that are right.

    The store confirmed each tag when the object was written. The same tag now means the same bytes.
    """
    tagged = {key: stored for key, stored in written.items() if stored.tag is not None}
    found = {key: stored.find_listed_difference(listed.get(key)) for key, stored in tagged.items()}
    problems = {key: problem for key, problem in found.items() if problem is not None}
    return problems, sum(stored.size_bytes for key, stored in tagged.items() if key not in problems)
