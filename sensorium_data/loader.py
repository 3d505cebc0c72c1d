"""Batches for training and whole trials for evaluation, normalized, prepared ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from sensorium_data.errors import UsageError
from sensorium_data.sampling import BatchPlan, SessionTrials, count_steps, plan_epoch
from sensorium_data.schema import BEHAVIOR_CHANNELS, EYE_AXES, FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Tier
from sensorium_data.statistics import Normalizer
from sensorium_data.trial_reader import FloatArray, RecordedTrial, TrialReader

__all__ = ["Batch", "WindowLoader"]

_Plan = TypeVar("_Plan")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of equal length from trials of one session, normalized.

    Attributes
    ----------
    session : str
        The session's full name.
    trials : tuple of int
        The trial id of each window.
    first_frames : tuple of int
        The first frame of each window.
    videos : ndarray of float32, shape (batch, time, height, width)
    responses : ndarray of float32, shape (batch, neuron, time), or None
        None where they are withheld, or where they were not asked for.
    behavior : ndarray of float32, shape (batch, 2, time)
    pupil_center : ndarray of float32, shape (batch, 2, time)
    """

    session: str
    trials: tuple[int, ...]
    first_frames: tuple[int, ...]
    videos: FloatArray
    responses: FloatArray | None
    behavior: FloatArray
    pupil_center: FloatArray

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def n_frames(self) -> int:
        """Frames in a window."""
        return int(self.videos.shape[1])


class WindowLoader:
    """Hands out normalized batches for training, and whole trials for evaluation.

    While a batch is being used, the next ones are read and cut in the background. Which
    batches come, and in which order, is decided by :mod:`sensorium_data.sampling` alone, so the
    number of threads and the size of the cache change nothing but speed.

    Memory: the cache, and ``read_ahead + 1`` batches with the blocks they are cut from.

    Parameters
    ----------
    reader : TrialReader
        Where blocks come from.
    normalizers : mapping of str to Normalizer
        By full session name.
    read_ahead : int
        Batches prepared ahead of their use.

    Examples
    --------
    >>> reader = TrialReader("store", ["F", "G"])                                       # doctest: +SKIP
    >>> normalizers = {s.name: competition_normalizer("store", s.name) for s in reader.sessions}  # doctest: +SKIP
    >>> loader = WindowLoader(reader, normalizers)                                      # doctest: +SKIP
    >>> for batch in loader.iter_batches([Tier.TRAIN], n_frames=80, batch_size=8, seed=42, epoch=0):
    ...     train_on(batch)                                                             # doctest: +SKIP
    """

    def __init__(self, reader: TrialReader, normalizers: Mapping[str, Normalizer], *, read_ahead: int = 2) -> None:
        missing = [session.name for session in reader.sessions if session.name not in normalizers]
        if missing:
            raise UsageError("no normalizer", session=missing[0], found=", ".join(normalizers) or "none")
        if read_ahead < 1:
            raise UsageError("reading ahead needs a batch", found=read_ahead, expected="at least 1")
        self.reader = reader
        self._normalizers = dict(normalizers)
        self._read_ahead = read_ahead

    def count_batches(self, tiers: Iterable[Tier], *, batch_size: int, n_windows_per_trial: int = 1) -> int:
        """Return the number of batches that :meth:`iter_batches` yields."""
        n_steps = count_steps(self._training_trials(tiers), batch_size, n_windows_per_trial)
        return n_steps * len(self.reader.sessions)

    def iter_batches(
        self,
        tiers: Iterable[Tier],
        *,
        n_frames: int,
        batch_size: int,
        seed: int,
        epoch: int,
        n_windows_per_trial: int = 1,
    ) -> Generator[Batch, None, None]:
        """Yield one epoch: a batch a session in turn, as :func:`~sensorium_data.sampling.plan_epoch` says.

        Parameters
        ----------
        tiers : iterable of Tier
            Whose labelled trials are used.
        n_frames, batch_size, seed, epoch, n_windows_per_trial
            As in :func:`~sensorium_data.sampling.plan_epoch`.

        Raises
        ------
        UsageError
            If a session has no labelled trial in ``tiers``, or a trial is shorter than the window.
        """
        plans = plan_epoch(
            self._training_trials(tiers),
            n_frames=n_frames,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            n_windows_per_trial=n_windows_per_trial,
        )
        yield from _prepare_ahead(plans, self._load, self._read_ahead)

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
        session : str
            Alias or full name.
        tiers : iterable of Tier
            Which trials.
        labelled : bool
            Only trials whose responses are published.
        only : collection of int, optional
            Only these of them.
        """
        selected = self.reader.select_trials(session, tiers, labelled=labelled)
        plans = [
            BatchPlan(selected.session, (trial,), (0,), n_frames)
            for trial, n_frames in zip(selected.trials, selected.n_frames, strict=True)
            if only is None or trial in only
        ]
        at_once = self.reader.n_threads
        groups = (plans[start : start + at_once] for start in range(0, len(plans), at_once))
        for batches in _prepare_ahead(groups, self._load_all, 1):
            yield from batches

    def _training_trials(self, tiers: Iterable[Tier]) -> list[SessionTrials]:
        tiers = tuple(tiers)
        return [self.reader.select_trials(s.name, tiers, labelled=True) for s in self.reader.sessions]

    def _load(self, plan: BatchPlan) -> Batch:
        return self._load_all([plan])[0]

    def _load_all(self, plans: Sequence[BatchPlan]) -> list[Batch]:
        """Return one session's batches, all of their trials read at once."""
        session = plans[0].session
        normalizer = self._normalizers[session]
        batches = [self._allocate(plan) for plan in plans]
        places = [(batch, index) for batch in batches for index in range(len(batch))]

        def fill(block: RecordedTrial, position: int) -> None:
            batch, index = places[position]
            _fill_window(batch, index, block, normalizer)

        self.reader.map_blocks(fill, session, [batch.trials[index] for batch, index in places])
        return batches

    def _allocate(self, plan: BatchPlan) -> Batch:
        """Return a plan's batch, its arrays yet to be filled."""
        n_neurons = self.reader.coordinates(plan.session).sizes["neuron"]
        has_responses = all(self.reader.has_responses(plan.session, trial) for trial in plan.trials)

        def empty(*shape: int) -> FloatArray:
            return np.empty((len(plan), *shape), np.float32)

        return Batch(
            session=plan.session,
            trials=plan.trials,
            first_frames=plan.first_frames,
            videos=empty(plan.n_frames, FRAME_HEIGHT, FRAME_WIDTH),
            responses=empty(n_neurons, plan.n_frames) if has_responses else None,
            behavior=empty(len(BEHAVIOR_CHANNELS), plan.n_frames),
            pupil_center=empty(len(EYE_AXES), plan.n_frames),
        )


def _fill_window(batch: Batch, index: int, block: RecordedTrial, normalizer: Normalizer) -> None:
    frames = slice(batch.first_frames[index], batch.first_frames[index] + batch.n_frames)
    batch.videos[index] = normalizer.videos(block.videos[frames], frames)
    batch.behavior[index] = normalizer.behavior(block.behavior[:, frames], frames)
    batch.pupil_center[index] = normalizer.pupil_center(block.pupil_center[:, frames], frames)
    if batch.responses is not None and block.responses is not None:
        batch.responses[index] = normalizer.responses(block.responses[:, frames], frames)


def _prepare_ahead(plans: Iterable[_Plan], load: Callable[[_Plan], _Result], n_ahead: int) -> Iterator[_Result]:
    """Yield ``load(plan)`` for each plan, in order, with up to ``n_ahead`` results prepared in a thread."""
    pending: deque[Future[_Result]] = deque()
    remaining = iter(plans)
    with _CancellingExecutor() as executor:
        while True:
            while len(pending) < n_ahead + 1 and (plan := next(remaining, None)) is not None:
                pending.append(executor.submit(load, plan))
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
