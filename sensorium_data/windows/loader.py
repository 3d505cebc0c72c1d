"""Batches for training and whole trials for evaluation, prepared ahead of their use.

Trials are read whole, each by one dask task in a thread: forked worker processes and Zarr deadlock each other, and
threads share what they have read. A trial that gives several windows is read once, and kept while it gives some.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask import threaded

from sensorium_data.errors import UsageError
from sensorium_data.schema import BEHAVIOR_CHANNELS, EYE_AXES, FRAME_RATE_HZ
from sensorium_data.sessions import Tier
from sensorium_data.statistics import Normalizer
from sensorium_data.windows.plans import BatchPart, BatchPlan, EpochPlan, Windows
from sensorium_data.windows.recording import FloatArray, RecordedTrial
from sensorium_data.windows.trial_reader import TrialReader

__all__ = ["Batch", "WindowLoader"]

_Group = TypeVar("_Group")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of equal form from trials of one session.

    Attributes
    ----------
    session : str
        The session's full name.
    trials : tuple of int
        The trial id of each window.
    first_frames : tuple of int
        The first frame of each window.
    stride : int
        From one frame of a window to the next, in frames of the trial.
    videos : ndarray of float32, shape (batch, time, height, width)
    responses : ndarray of float32, shape (batch, neuron, time), or None
        None where they are withheld, or where they were not asked for. Time runs slower in memory than neurons do. NaN
        past their end, which only a whole trial reaches that was not chosen as labelled.
    behavior : ndarray of float32, shape (batch, 2, time)
    pupil_center : ndarray of float32, shape (batch, 2, time)
        Both (batch, 0, time) where the recording has none.
    unit_ids : ndarray of int, shape (neuron,)
        The session's neurons, in the order of ``responses``.
    """

    session: str
    trials: tuple[int, ...]
    first_frames: tuple[int, ...]
    stride: int
    videos: FloatArray
    responses: FloatArray | None
    behavior: FloatArray
    pupil_center: FloatArray
    unit_ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def n_frames(self) -> int:
        """Frames in a window."""
        return int(self.videos.shape[1])

    def to_xarray(self) -> xr.Dataset:
        """Return the batch with names: its dimensions, and each window's trial and first frame.

        ``time`` is in seconds from a window's first frame; nothing is copied.
        """
        variables: dict[str, tuple[tuple[str, ...], FloatArray]] = {
            "videos": (("window", "time", "height", "width"), self.videos),
        }
        if self.responses is not None:
            variables["responses"] = (("window", "neuron", "time"), self.responses)
        coordinates: dict[str, Any] = {
            "neuron": self.unit_ids,
            "trial": ("window", list(self.trials)),
            "first_frame": ("window", list(self.first_frames)),
            "time": ("time", np.arange(self.n_frames) * self.stride / FRAME_RATE_HZ, {"units": "s"}),
        }
        channels = (
            ("behavior", "behavior_channel", self.behavior, BEHAVIOR_CHANNELS),
            ("pupil_center", "eye_axis", self.pupil_center, EYE_AXES),
        )
        for name, dim, values, labels in channels:
            # What was not recorded is left out.
            if values.shape[1]:
                variables[name] = (("window", dim, "time"), values)
                coordinates[dim] = list(labels)
        return xr.Dataset(variables, coordinates, {"session": self.session})

    def frames(self, index: int) -> slice:
        """Return which frames of its trial a window holds."""
        first = self.first_frames[index]
        return slice(first, first + (self.n_frames - 1) * self.stride + 1, self.stride)


class WindowLoader:
    """Hands out batches for training, and whole trials for evaluation.

    While a batch is being used, the next ones are read and cut in the background. Which batches come, and in which
    order, is decided by :mod:`sensorium_data.windows.plans` alone, so the number of threads and the size of the
    cache change nothing but speed, and an epoch can be entered at any batch.

    Memory: the reader's cache, ``3 * read_ahead`` batches, and the trials that give further windows
    (``n_trials_shuffled`` of the plan).

    Parameters
    ----------
    reader : TrialReader
        Where blocks come from.
    normalizers : mapping of str to Normalizer, optional
        By full session name. Without them batches hold what the store does: for callers that normalize elsewhere.
    read_ahead : int
        Batches prepared together, while others are used and others wait.

    Raises
    ------
    UsageError
        If a session has no normalizer, or no batch shall be read ahead.

    Examples
    --------
    >>> reader = TrialReader("store", ["F", "G"])                                       # doctest: +SKIP
    >>> normalizers = {s.name: competition_normalizer("store", s.name) for s in reader.sessions}  # doctest: +SKIP
    >>> loader = WindowLoader(reader, normalizers)                                      # doctest: +SKIP
    >>> trials = [reader.select_trials(s.name, [Tier.TRAIN], labelled=True) for s in reader.sessions]  # doctest: +SKIP
    >>> plan = plan_in_turn(trials, Windows(80), batch_size=8, seed=42, epoch=0)        # doctest: +SKIP
    >>> for parts in loader.iter_batches(plan):                                         # doctest: +SKIP
    ...     train_on(parts)                                                             # doctest: +SKIP
    """

    def __init__(
        self, reader: TrialReader, normalizers: Mapping[str, Normalizer] | None = None, *, read_ahead: int = 2
    ) -> None:
        if normalizers is not None:
            missing = [session.name for session in reader.sessions if session.name not in normalizers]
            if missing:
                raise UsageError("no normalizer", session=missing[0], found=", ".join(normalizers) or "none")
        if read_ahead < 1:
            raise UsageError("reading ahead needs a batch", found=read_ahead, expected="at least 1")
        self.reader = reader
        self.normalizers = None if normalizers is None else dict(normalizers)
        self._read_ahead = read_ahead

    def iter_batches(
        self, plan: EpochPlan, *, first_batch: int = 0, rank: int = 0, n_ranks: int = 1
    ) -> Generator[tuple[Batch, ...], None, None]:
        """Yield an epoch's batches, each as its parts: one for each session that it mixes.

        Parameters
        ----------
        plan : EpochPlan
            What :func:`~sensorium_data.windows.plan_in_turn` or :func:`~sensorium_data.windows.plan_mixed` returns.
        first_batch : int
            Where to enter the epoch: as many batches are passed over, unread.
        rank, n_ranks : int
            Which of several processes this is: each takes its share of every batch
            (:meth:`~sensorium_data.windows.plans.BatchPlan.share`), which may be none of it.

        Raises
        ------
        StoreError
            If a trial cannot be read, is damaged, or holds values that are no numbers.
        """
        yield from self.map_batches(plan, self._assemble, first_batch=first_batch, rank=rank, n_ranks=n_ranks)

    def map_batches(
        self,
        plan: EpochPlan,
        work: Callable[[BatchPlan, list[RecordedTrial]], _Result],
        *,
        first_batch: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> Generator[_Result, None, None]:
        """Yield what ``work`` makes of each batch and the trials it is cut from, prepared ahead, in order.

        Parameters
        ----------
        plan, first_batch, rank, n_ranks
            As in :meth:`iter_batches`.
        work : callable
            Takes a batch's plan and the trial of each of its windows, part after part; runs in some thread.
        """
        last_batches = plan.find_last_batches().tolist()
        held: dict[int, RecordedTrial] = {}

        def prepare(numbers: range) -> list[_Result]:
            """Read what a few batches need beyond what is held, and work on them, in one dask graph."""
            plans = [plan[number].share(rank, n_ranks) for number in numbers]
            graph: dict[tuple[str, int], Any] = {("trial", visit): trial for visit, trial in held.items()}
            for part in (part for one in plans for part in one.parts):
                for trial, visit in zip(part.trials, part.visits, strict=True):
                    graph.setdefault(("trial", visit), (self.reader.read, part.session, trial))
            still_used = [visit for _, visit in graph if last_batches[visit] >= numbers.stop]
            for number, one in zip(numbers, plans, strict=True):
                trials = [("trial", visit) for part in one.parts for visit in part.visits]
                graph["result", number] = (partial(work, one), trials)
            done, kept = self._compute(
                graph, [[("result", number) for number in numbers], [("trial", visit) for visit in still_used]]
            )
            held.clear()
            held.update(zip(still_used, kept, strict=True))
            return list(done)

        yield from self._map_groups(prepare, range(first_batch, len(plan)))

    def map_new_trials(
        self,
        plan: EpochPlan,
        work: Callable[[RecordedTrial], _Result],
        *,
        first_batch: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
        is_known: Callable[[str, int], bool] = lambda session, trial: False,
    ) -> Generator[tuple[BatchPlan, Mapping[int, _Result]], None, None]:
        """Yield each batch's plan and what ``work`` makes of the trials visited for the first time, by visit.

        For who keeps trials elsewhere and cuts windows there, on a GPU for one: nothing is held here.

        Parameters
        ----------
        plan, first_batch, rank, n_ranks
            As in :meth:`iter_batches`.
        work : callable
            Takes a trial; runs in some thread.
        is_known : callable
            Takes a session and a trial, and says whether it is to be passed over.
        """
        seen: set[int] = set()

        def prepare(numbers: range) -> list[tuple[BatchPlan, Mapping[int, _Result]]]:
            graph: dict[tuple[str, int], Any] = {}
            batches = []
            for number in numbers:
                one = plan[number].share(rank, n_ranks)
                new = []
                for part in one.parts:
                    for trial, visit in zip(part.trials, part.visits, strict=True):
                        if visit not in seen and not is_known(part.session, trial):
                            graph["trial", visit] = (self.reader.read, part.session, trial)
                            graph["result", visit] = (work, ("trial", visit))
                            new.append(visit)
                        seen.add(visit)
                batches.append((one, new))
            done = self._compute(graph, [[("result", visit) for visit in new] for _, new in batches])
            return [
                (one, dict(zip(new, results, strict=True))) for (one, new), results in zip(batches, done, strict=True)
            ]

        yield from self._map_groups(prepare, range(first_batch, len(plan)))

    def _map_groups(self, prepare: Callable[[range], list[_Result]], numbers: range) -> Generator[_Result, None, None]:
        """Yield what ``prepare`` makes of a few batches at a time, ahead of their use."""
        groups = (numbers[start : start + self._read_ahead] for start in range(0, len(numbers), self._read_ahead))
        for results in _prepare_ahead(groups, prepare, 1):
            yield from results

    def iter_trials(
        self,
        session: str,
        tiers: Iterable[Tier],
        *,
        labelled: bool = False,
        only: Collection[int] | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield a session's valid trials whole, a batch each, in the store's order.

        Parameters
        ----------
        session, tiers, labelled
            As in :meth:`TrialReader.select_trials`.
        only : collection of int, optional
            Only these of them; none at all is no error.
        """
        selected = self.reader.select_trials(session, tiers, labelled=labelled)
        chosen = [
            (trial, n_frames)
            for trial, n_frames in zip(selected.trials, selected.n_frames, strict=True)
            if only is None or trial in only
        ]

        def read(trials: list[tuple[int, int]]) -> list[Batch]:
            def load(trial: int, n_frames: int) -> Batch:
                plan = BatchPlan((BatchPart(selected.session, (trial,), (0,), (0,)),), Windows(n_frames))
                return self._assemble(plan, [self.reader.read(selected.session, trial)])[0]

            graph = {("trial", trial): (load, trial, n_frames) for trial, n_frames in trials}
            return list(self._compute(graph, list(graph)))

        at_once = self.reader.n_threads
        groups = (chosen[start : start + at_once] for start in range(0, len(chosen), at_once))
        for batches in _prepare_ahead(groups, read, 1):
            yield from batches

    def _compute(self, graph: Mapping[Any, Any], keys: list[Any]) -> Any:
        # The graph itself, and no dask collection around it: that costs as much as cutting a window does.
        return threaded.get(graph, keys, num_workers=self.reader.n_threads)

    def _assemble(self, plan: BatchPlan, trials: list[RecordedTrial]) -> tuple[Batch, ...]:
        parts, start = [], 0
        for part in plan.parts:
            batch = self._allocate(part, plan.windows)
            for index in range(len(part)):
                self._fill_window(batch, index, trials[start + index])
            parts.append(batch)
            start += len(part)
        return tuple(parts)

    def _allocate(self, part: BatchPart, windows: Windows) -> Batch:
        """Return a batch whose arrays are yet to be filled."""
        unit_ids = self.reader.unit_ids(part.session)
        has_responses = all(self.reader.has_responses(part.session, trial) for trial in part.trials)

        def empty(*shape: int) -> FloatArray:
            return self.reader.pool.empty((len(part), *shape))

        return Batch(
            session=part.session,
            trials=part.trials,
            first_frames=part.first_frames,
            stride=windows.stride,
            videos=empty(windows.n_frames, *self.reader.shape_of(part.session, "videos")),
            responses=empty(windows.n_frames, len(unit_ids)).transpose(0, 2, 1) if has_responses else None,
            behavior=empty(*self.reader.shape_of(part.session, "behavior"), windows.n_frames),
            pupil_center=empty(*self.reader.shape_of(part.session, "pupil_center"), windows.n_frames),
            unit_ids=unit_ids,
        )

    def _fill_window(self, batch: Batch, index: int, block: RecordedTrial) -> None:
        frames = batch.frames(index)
        has_responses = batch.responses is not None and block.responses is not None
        if self.normalizers is None:
            batch.videos[index] = block.videos[frames]
            batch.behavior[index] = block.behavior[:, frames]
            batch.pupil_center[index] = block.pupil_center[:, frames]
            if has_responses:
                batch.responses[index] = block.responses[:, frames]  # type: ignore[index]
            return
        normalizer = self.normalizers[batch.session]
        normalizer.videos(block.videos[frames], frames, out=batch.videos[index])
        normalizer.behavior(block.behavior[:, frames], frames, out=batch.behavior[index])
        normalizer.pupil_center(block.pupil_center[:, frames], frames, out=batch.pupil_center[index])
        if has_responses:
            normalizer.responses(block.responses[:, frames], frames, out=batch.responses[index])  # type: ignore[index]


def _prepare_ahead(
    groups: Iterable[_Group], prepare: Callable[[_Group], list[_Result]], n_ahead: int
) -> Iterator[list[_Result]]:
    """Yield ``prepare(group)`` for each group, in order, with up to ``n_ahead`` of them prepared in a thread."""
    pending: deque[Future[list[_Result]]] = deque()
    remaining = iter(groups)
    with _CancellingExecutor() as executor:
        while True:
            while len(pending) < n_ahead + 1 and (group := next(remaining, None)) is not None:
                pending.append(executor.submit(prepare, group))
            if not pending:
                return
            yield pending.popleft().result()


class _CancellingExecutor(ThreadPoolExecutor):
    """One thread whose waiting work is dropped when its user stops early."""

    def __init__(self) -> None:
        super().__init__(max_workers=1, thread_name_prefix="read-ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown(wait=True, cancel_futures=True)
