"""Which windows of which trials make up an epoch, and in which order.

Everything here is a pure function of the trials, a seed, an epoch and a position in it: no state, no
clock, no threads. The same arguments give the same windows, whoever asks and in whatever order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sensorium_data.errors import UsageError

__all__ = [
    "BatchPlan",
    "SessionTrials",
    "count_batches",
    "count_steps",
    "plan_batch",
    "plan_epoch",
]


@dataclass(frozen=True)
class SessionTrials:
    """The trials of one session that windows may be cut from.

    Attributes
    ----------
    session : str
        The session's full name.
    trials : tuple of int
        Trial ids, each once. Their order does not matter to what is drawn from them as long as it is
        the same every time.
    n_frames : tuple of int
        Valid frames of each trial.

    Raises
    ------
    UsageError
        If there is no trial, or the two lengths differ.
    """

    session: str
    trials: tuple[int, ...]
    n_frames: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.trials:
            raise UsageError("no trials to draw windows from", session=self.session)
        if len(self.trials) != len(self.n_frames):
            raise UsageError(
                "every trial needs its number of frames",
                session=self.session,
                found=f"{len(self.n_frames)} numbers",
                expected=f"{len(self.trials)}",
            )

    def __len__(self) -> int:
        return len(self.trials)


@dataclass(frozen=True)
class BatchPlan:
    """One batch before it is read: windows of equal length from trials of one session.

    Attributes
    ----------
    session : str
        The session's full name.
    trials : tuple of int
        The trial id of each window.
    first_frames : tuple of int
        The first frame of each window.
    n_frames : int
        Frames in a window.
    """

    session: str
    trials: tuple[int, ...]
    first_frames: tuple[int, ...]
    n_frames: int

    def __len__(self) -> int:
        return len(self.trials)


def count_batches(n_trials: int, batch_size: int) -> int:
    """Return how many batches one pass over ``n_trials`` takes; the last one may be smaller.

    Raises
    ------
    UsageError
        If either is not positive.
    """
    if n_trials < 1 or batch_size < 1:
        raise UsageError(
            "an epoch needs trials and a batch size",
            found=f"{n_trials} trials, batch size {batch_size}",
            expected="at least 1 of each",
        )
    return -(-n_trials // batch_size)


def count_steps(sessions: Sequence[SessionTrials], batch_size: int, n_windows_per_trial: int = 1) -> int:
    """Return the optimizer steps of an epoch: the batches of the session with the most trials.

    Raises
    ------
    UsageError
        If there is no session, or a number is not positive.
    """
    if not sessions:
        raise UsageError("an epoch needs at least one session")
    if n_windows_per_trial < 1:
        raise UsageError("an epoch needs windows of each trial", found=n_windows_per_trial, expected="at least 1")
    return n_windows_per_trial * max(count_batches(len(trials), batch_size) for trials in sessions)


def plan_batch(trials: SessionTrials, step: int, *, n_frames: int, batch_size: int, seed: int, epoch: int) -> BatchPlan:
    """Return the batch that a session contributes to one step of an epoch.

    A session's trials are shuffled and dealt out in batches; when they are used up before the epoch
    is over, they are shuffled anew. Each trial gives one window a pass, at a first frame drawn uniformly
    from all that fit.

    The starter kit's crop draws from ``randint(0, n_trial_frames - n_frames)``, whose upper bound is
    exclusive: it never draws the last window and fails when the trial is as long as the window. Here
    the last window is drawn like any other.

    Parameters
    ----------
    trials : SessionTrials
        What to draw from.
    step : int
        Position in the epoch, from 0; any number, since a session restarts.
    n_frames : int
        Frames in a window.
    batch_size : int
        Windows in a batch; the last batch of a pass holds what is left.
    seed, epoch : int
        Not negative. Together with the session's name and ``step`` they decide everything.

    Raises
    ------
    UsageError
        If a trial is shorter than the window, or a number is out of range.
    """
    if step < 0 or epoch < 0 or seed < 0:
        raise UsageError(
            "seed, epoch and step cannot be negative",
            session=trials.session,
            found=f"seed {seed}, epoch {epoch}, step {step}",
        )
    _require_windows_fit(trials, n_frames)
    pass_index, batch_index = divmod(step, count_batches(len(trials), batch_size))
    order, first_frames = _shuffle_pass(trials, n_frames, (seed, epoch, pass_index))
    chosen = slice(batch_index * batch_size, (batch_index + 1) * batch_size)
    return BatchPlan(
        session=trials.session,
        trials=tuple(trials.trials[i] for i in order[chosen]),
        first_frames=tuple(int(frame) for frame in first_frames[chosen]),
        n_frames=n_frames,
    )


def plan_epoch(
    sessions: Sequence[SessionTrials],
    *,
    n_frames: int,
    batch_size: int,
    seed: int,
    epoch: int,
    n_windows_per_trial: int = 1,
) -> Iterator[BatchPlan]:
    """Yield an epoch's batches: one a session in turn, until every session was used up at least once.

    This is the starter kit's ``LongCycler``: a strict round-robin in the order of ``sessions``; the
    session with the most trials is seen exactly once, shorter ones start again, reshuffled. A session's windows
    do not depend on which other sessions take part, only their number does.

    Parameters
    ----------
    sessions : sequence of SessionTrials
        Each session once.
    n_frames, batch_size, seed, epoch
        As in :func:`plan_batch`.
    n_windows_per_trial : int
        Passes over the session with the most trials; each draws other windows.

    Yields
    ------
    BatchPlan
        ``count_steps(sessions, batch_size, n_windows_per_trial) * len(sessions)`` of them.

    Examples
    --------
    >>> short, long = SessionTrials("F", (0, 1), (300, 300)), SessionTrials("G", (5, 6, 7), (300, 300, 300))
    >>> [plan.session for plan in plan_epoch([short, long], n_frames=80, batch_size=1, seed=0, epoch=0)]
    ['F', 'G', 'F', 'G', 'F', 'G']
    """
    names = [trials.session for trials in sessions]
    if len(set(names)) != len(names):
        raise UsageError("a session takes part in an epoch once", found=", ".join(names))
    for step in range(count_steps(sessions, batch_size, n_windows_per_trial)):
        for trials in sessions:
            yield plan_batch(trials, step, n_frames=n_frames, batch_size=batch_size, seed=seed, epoch=epoch)


def _require_windows_fit(trials: SessionTrials, n_frames: int) -> None:
    if n_frames < 1:
        raise UsageError("a window needs frames", session=trials.session, found=n_frames, expected="at least 1")
    shortest = min(range(len(trials)), key=trials.n_frames.__getitem__)
    if trials.n_frames[shortest] < n_frames:
        raise UsageError(
            "a trial is shorter than the window",
            session=trials.session,
            trial=trials.trials[shortest],
            found=f"{trials.n_frames[shortest]} frames",
            expected=f"at least {n_frames}",
            remedy=f"choose a window of at most {trials.n_frames[shortest]} frames, or leave the trial out",
        )


def _shuffle_pass(trials: SessionTrials, n_frames: int, key: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return one pass over a session: positions of its trials in shuffled order, and their first frames."""
    # The session's name goes in through a digest: Python's own hash of a string differs between processes.
    name = int.from_bytes(hashlib.sha256(trials.session.encode()).digest()[:8], "big")
    generator = np.random.default_rng(np.random.SeedSequence((*key, name)))
    order = generator.permutation(len(trials))
    last_first_frames = np.asarray(trials.n_frames, dtype=np.int64)[order] - n_frames
    return order, generator.integers(0, last_first_frames, endpoint=True)
