"""Groups of trials that show the same movie, joined pair by pair as their videos are compared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

__all__ = ["PairComparer", "TrialGroups"]


class TrialGroups:
    """Trials in groups that are joined: a union-find forest whose roots are the groups' first trials.

    Parameters
    ----------
    labels : sequence of hashable
        What is known: trials with equal labels are in one group.
    """

    def __init__(self, labels: Sequence[Hashable]) -> None:
        first: dict[Hashable, int] = {}
        self._parents = [first.setdefault(label, position) for position, label in enumerate(labels)]

    def join(self, one: int, other: int) -> None:
        """Join the groups of two trials."""
        root, root_of_other = self._find_root(one), self._find_root(other)
        self._parents[max(root, root_of_other)] = min(root, root_of_other)

    def are_joined(self, one: int, other: int) -> bool:
        """Whether two trials are in one group."""
        return self._find_root(one) == self._find_root(other)

    def first_of(self, position: int) -> int:
        """Return the position of the first trial of a trial's group."""
        return self._find_root(position)

    def firsts(self, start: int = 0, end: int | None = None) -> list[int]:
        """Return for each trial, from ``start`` to before ``end``, the position of the first trial of its group."""
        stop = len(self._parents) if end is None else end
        return [self._find_root(position) for position in range(start, stop)]

    def _find_root(self, position: int) -> int:
        while self._parents[position] != position:
            self._parents[position] = self._parents[self._parents[position]]
            position = self._parents[position]
        return position


class PairComparer:
    """Compares pairs of videos, several at once, and joins the groups of those that show the same movie.

    Parameters
    ----------
    groups : TrialGroups
        Pairs that are joined already are not compared.
    read_video : callable
        Returns the valid frames of the trial at a position; called from as many threads as there are jobs.
    is_same : callable
        Whether two trials' videos show the same movie; takes the positions and the videos.
    jobs : int
        Pairs compared at once.
    """

    def __init__(
        self,
        groups: TrialGroups,
        read_video: Callable[[int], np.ndarray],
        is_same: Callable[[int, int, np.ndarray, np.ndarray], bool],
        jobs: int = 1,
    ) -> None:
        self._groups = groups
        self._videos = _RecentVideos(read_video)
        self._is_same = is_same
        self._jobs = max(1, jobs)
        self._pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="movies")
        self._pending: list[tuple[int, int]] = []
        # Whoever shows the same as one of a group need not be compared with the others, which are often many.
        self._deferred: list[tuple[int, int]] = []
        self._pending_groups: set[tuple[int, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def offer(self, one: int, other: int) -> None:
        """Compare two trials, now or when as many pairs wait as there are jobs."""
        if self._groups.are_joined(one, other):
            return
        groups = (self._groups.first_of(one), self._groups.first_of(other))
        (self._deferred if groups in self._pending_groups else self._pending).append((one, other))
        self._pending_groups.add(groups)
        if len(self._pending) >= self._jobs:
            self.settle()

    def settle(self) -> None:
        """Compare the pairs that wait."""
        while self._pending:
            for pair, is_same in zip(self._pending, self._pool.map(self._compare, self._pending), strict=True):
                if is_same:
                    self._groups.join(*pair)
            self._pending = [pair for pair in self._deferred if not self._groups.are_joined(*pair)]
            self._deferred = []
        self._pending_groups.clear()

    def _compare(self, pair: tuple[int, int]) -> bool:
        one, other = pair
        return self._is_same(one, other, self._videos[one], self._videos[other])


class _RecentVideos:
    """The videos read last, so that a movie's first trial is not read again for every repeat."""

    _LIMIT = 48

    def __init__(self, read_video: Callable[[int], np.ndarray]) -> None:
        self._read_video = read_video
        self._videos: dict[int, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, position: int) -> np.ndarray:
        with self._lock:
            known = self._videos.pop(position, None)
            video = self._videos[position] = Future() if known is None else known
            if len(self._videos) > self._LIMIT:
                del self._videos[next(iter(self._videos))]
        if known is None:
            # Whoever wants the same video meanwhile waits for this.
            try:
                video.set_result(self._read_video(position))
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                video.set_exception(error)
        return video.result()
