"""Which windows of which trials make up an epoch, and in which order.

Everything here is a pure function of the trials, a seed and an epoch: no state, no clock, no threads. The same
arguments give the same batches, whoever asks and from whichever batch on, which is why a position in an epoch is a
number and nothing else.

Several windows of a trial are not dealt out together, but each some visits to other trials later: whoever reads a
trial for its first window keeps it for its last one, a bounded number of visits later, while new trials come in evenly.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError

__all__ = [
    "BatchPart",
    "BatchPlan",
    "EpochPlan",
    "SessionTrials",
    "WindowPosition",
    "Windows",
    "is_count",
    "plan_in_turn",
    "plan_mixed",
]

WindowPosition = Literal["random", "tiling"]

#: Over how many visits a trial's windows are spread, unless told otherwise.
_N_TRIALS_SHUFFLED = 128


def is_count(value: Any, *, least: int) -> bool:
    """Whether something is a whole number, NumPy's included, of at least ``least``; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


@dataclass(frozen=True)
class Windows:
    """How windows lie in a trial.

    Attributes
    ----------
    n_frames : int
        Frames in a window.
    stride : int
        From one frame of a window to the next, in frames of the trial.
    position : {"random", "tiling"}
        ``random``: first frames are drawn uniformly from all that fit, also the last one, which the starter kit's crop
        never draws. ``tiling``: one window after the other from the trial's first frame on, as many as fit.
    n_per_trial : int
        Windows that are cut from a trial at a visit, where they are drawn; those of a tiling count themselves.

    Raises
    ------
    UsageError
        If a number is not positive, or there is no such position.
    """

    n_frames: int
    stride: int = 1
    position: WindowPosition = "random"
    n_per_trial: int = 1

    def __post_init__(self) -> None:
        for name in ("n_frames", "stride", "n_per_trial"):
            value = getattr(self, name)
            if not is_count(value, least=1):
                raise UsageError(f"{name} of a window", found=value, expected="a whole number, at least 1")
        if self.position not in ("random", "tiling"):
            raise UsageError("position of a window", found=repr(self.position), expected="random or tiling")

    @property
    def span(self) -> int:
        """Frames of the trial from a window's first to its last, both counted.

        Examples
        --------
        >>> Windows(n_frames=16, stride=2).span
        31
        """
        return (self.n_frames - 1) * self.stride + 1


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
                found=count_things(len(self.n_frames), "number"),
                expected=f"{len(self.trials)}",
            )

    def __len__(self) -> int:
        return len(self.trials)

    def require_fit(self, windows: Windows) -> None:
        """Raise a :class:`UsageError` if a trial is shorter than a window."""
        shortest = min(range(len(self)), key=self.n_frames.__getitem__)
        if self.n_frames[shortest] < windows.span:
            raise UsageError(
                "a trial is shorter than the window",
                session=self.session,
                trial=self.trials[shortest],
                found=count_things(self.n_frames[shortest], "frame"),
                expected=f"at least {windows.span}",
                remedy=f"choose a window of at most {count_things(self.n_frames[shortest], 'frame')}, "
                "or leave the trial out",
            )


@dataclass(frozen=True)
class BatchPart:
    """The windows of one session in a batch.

    Attributes
    ----------
    session : str
        The session's full name.
    trials : tuple of int
        The trial id of each window.
    first_frames : tuple of int
        The first frame of each window.
    visits : tuple of int
        The visit to the trial that each window is cut at, counted over the epoch.
    """

    session: str
    trials: tuple[int, ...]
    first_frames: tuple[int, ...]
    visits: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.trials)


@dataclass(frozen=True)
class BatchPlan:
    """One batch before it is read.

    Attributes
    ----------
    parts : tuple of BatchPart
        The windows by session.
    windows : Windows
        Their form.
    """

    parts: tuple[BatchPart, ...]
    windows: Windows

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def share(self, rank: int, n_ranks: int) -> BatchPlan:
        """Return the windows that one of several processes takes: every ``n_ranks``-th, counted over the parts.

        With fewer windows than ranks, some take none.
        """
        if n_ranks == 1:
            return self
        parts, start = [], 0
        for part in self.parts:
            taken = slice((rank - start) % n_ranks, None, n_ranks)
            if part.trials[taken]:
                parts.append(BatchPart(part.session, part.trials[taken], part.first_frames[taken], part.visits[taken]))
            start += len(part)
        return BatchPlan(tuple(parts), self.windows)


class EpochPlan(Sequence[BatchPlan]):
    """The batches of an epoch, in order, made when they are looked at.

    Made by :func:`plan_in_turn` and :func:`plan_mixed`.

    Parameters
    ----------
    windows : Windows
        Form of all windows.
    sessions : sequence of str
        Full names; windows name them by their place here.
    places : ndarray of int, shape (window, 4)
        Session, trial id, first frame and visit of each window, batch after batch.
    ends : ndarray of int, shape (batch,)
        Where each batch ends in ``places``.
    """

    def __init__(self, windows: Windows, sessions: Sequence[str], places: np.ndarray, ends: np.ndarray) -> None:
        self.windows = windows
        self.sessions = tuple(sessions)
        self._places = places
        self._ends = ends

    @property
    def n_windows(self) -> int:
        """Windows of all batches."""
        return len(self._places)

    def find_last_batches(self) -> np.ndarray:
        """Return the batch that uses a visit's trial for the last time, by visit; -1 for a visit without a window."""
        visits = self._places[:, 3]
        last = np.full(int(visits.max()) + 1, -1)
        np.maximum.at(last, visits, np.searchsorted(self._ends, np.arange(len(visits)), side="right"))
        return last

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> BatchPlan: ...

    @overload
    def __getitem__(self, index: slice) -> list[BatchPlan]: ...

    def __getitem__(self, index: int | slice) -> BatchPlan | list[BatchPlan]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = int(self._ends[position - 1]) if position else 0
        places = self._places[start : self._ends[position]]
        parts = []
        for number in np.unique(places[:, 0]).tolist():
            trials, first_frames, visits = places[places[:, 0] == number, 1:].T.tolist()
            parts.append(BatchPart(self.sessions[number], tuple(trials), tuple(first_frames), tuple(visits)))
        return BatchPlan(tuple(parts), self.windows)


def plan_in_turn(
    sessions: Sequence[SessionTrials],
    windows: Windows,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    n_trials_shuffled: int = _N_TRIALS_SHUFFLED,
) -> EpochPlan:
    """Plan an epoch whose batches hold one session each, a session in turn, until every trial was used.

    This is the starter kit's ``LongCycler``: a strict round-robin in the order of ``sessions``; every trial of the
    session with the most windows is visited once, shorter sessions start again, reshuffled. A session's windows do not
    depend on which other sessions take part, only their number does.

    Parameters
    ----------
    sessions : sequence of SessionTrials
        Each session once.
    windows : Windows
        What to cut.
    batch_size : int
        Windows in a batch; the last batch of a pass over a session holds what is left.
    seed, epoch : int
        Not negative. Together with the sessions' names they decide everything.
    n_trials_shuffled : int
        Trials, of all sessions together, that are in use at a time: over so many visits a trial's windows are spread.

    Raises
    ------
    UsageError
        If there is no session or one twice, a trial is shorter than the window, or a number is out of range.

    Examples
    --------
    >>> short, long = SessionTrials("F", (0, 1), (300, 300)), SessionTrials("G", (5, 6, 7), (300, 300, 300))
    >>> plan = plan_in_turn([short, long], Windows(80), batch_size=1, seed=0, epoch=0)
    >>> [batch.parts[0].session for batch in plan]
    ['F', 'G', 'F', 'G', 'F', 'G']
    """
    _check(sessions, windows, batch_size, seed, epoch, n_trials_shuffled)

    n_spread = max(1, n_trials_shuffled // len(sessions))
    n_visits = 0

    def deal_pass(number: int, pass_index: int) -> list[np.ndarray]:
        nonlocal n_visits
        trials = sessions[number]
        key = (seed, epoch, pass_index)
        places, visits = _visit_trials(trials, windows, key)
        # Numbers of its own: over how many visits windows are spread must not change which ones are drawn.
        order = _spread(visits, n_spread, _generator(trials.session, *key, 1))
        places = _label(places, visits + n_visits, number)[order]
        n_visits += len(trials)
        return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]

    turns = [deal_pass(number, 0) for number in range(len(sessions))]
    n_steps = max(len(batches) for batches in turns)
    for number, batches in enumerate(turns):
        for pass_index in itertools.count(1):
            if len(batches) >= n_steps:
                break
            batches += deal_pass(number, pass_index)
    dealt = [batches[step] for step in range(n_steps) for batches in turns]
    ends = np.cumsum([len(batch) for batch in dealt])
    return EpochPlan(windows, [s.session for s in sessions], np.concatenate(dealt), ends)


def plan_mixed(
    sessions: Sequence[SessionTrials],
    windows: Windows,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    n_windows_per_session: int | None = None,
    n_trials_shuffled: int = _N_TRIALS_SHUFFLED,
) -> EpochPlan:
    """Plan an epoch whose batches mix the sessions, each of which gives the same number of windows.

    DwiseNeuro trains so, with 7,200 windows of each session in an epoch. Trials are visited in a
    random order over all sessions; a session that was used up starts again, reshuffled.

    Parameters
    ----------
    sessions, windows, batch_size, seed, epoch
        As in :func:`plan_in_turn`.
    n_windows_per_session : int, optional
        Windows of each session in the epoch; by default, those of the session with the most.
    n_trials_shuffled : int
        As in :func:`plan_in_turn`.

    Raises
    ------
    UsageError
        As :func:`plan_in_turn` does.
    """
    _check(sessions, windows, batch_size, seed, epoch, n_trials_shuffled)
    passes = [_visit_trials(trials, windows, (seed, epoch, 0)) for trials in sessions]
    if n_windows_per_session is None:
        n_windows_per_session = max(len(places) for places, _ in passes)
    elif n_windows_per_session < 1:
        raise UsageError("windows of a session in an epoch", found=n_windows_per_session, expected="at least 1")
    drawn_places, n_visits = [], 0
    for number, trials in enumerate(sessions):
        drawn = [passes[number]]
        while sum(len(places) for places, _ in drawn) < n_windows_per_session:
            drawn.append(_visit_trials(trials, windows, (seed, epoch, len(drawn))))
        visits = np.concatenate([visits + n * len(trials) for n, (_, visits) in enumerate(drawn)])
        visits = visits[:n_windows_per_session] + n_visits
        places = np.concatenate([places for places, _ in drawn])[:n_windows_per_session]
        drawn_places.append(_label(places, visits, number))
        n_visits += len(drawn) * len(trials)
    all_places = np.concatenate(drawn_places)
    # Every session goes into the key: which windows meet in a batch depends on all of them.
    generator = _generator("/".join(s.session for s in sessions), seed, epoch)
    # Trials are visited in a random order over all sessions.
    visited = generator.permutation(n_visits)[all_places[:, 3]]
    places = all_places[_spread(visited, n_trials_shuffled, generator)]
    ends = np.minimum(np.arange(1, -(-len(places) // batch_size) + 1) * batch_size, len(places))
    return EpochPlan(windows, [s.session for s in sessions], places, ends)


def _visit_trials(trials: SessionTrials, windows: Windows, key: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Visit every trial of a session once, in shuffled order.

    Returns
    -------
    places : ndarray of int, shape (window, 2)
        Trial id and first frame of each window, in the order of the visits.
    visits : ndarray of int, shape (window,)
        At which visit it is cut, from 0.
    """
    generator = _generator(trials.session, *key)
    order = generator.permutation(len(trials))
    last = np.asarray(trials.n_frames, dtype=np.int64)[order] - windows.span
    if windows.position == "random":
        n_per_visit = np.full(len(trials), windows.n_per_trial)
        first_frames = generator.integers(
            0, last[:, None], size=(len(trials), windows.n_per_trial), endpoint=True
        ).ravel()
    else:
        n_per_visit = last // windows.span + 1
        first_frames = np.concatenate([np.arange(n) * windows.span for n in n_per_visit.tolist()])
    visits = np.repeat(np.arange(len(trials)), n_per_visit)
    return np.stack([np.asarray(trials.trials)[order][visits], first_frames], axis=1), visits


def _label(places: np.ndarray, visits: np.ndarray, session: int) -> np.ndarray:
    """Return places as an :class:`EpochPlan` holds them."""
    return np.column_stack([np.full(len(places), session), places, visits])


def _spread(visits: np.ndarray, n_spread: int, generator: np.random.Generator) -> np.ndarray:
    """Return an order of windows in which each comes up to ``n_spread`` visits after its own, at random."""
    return np.argsort(visits + n_spread * generator.random(len(visits)), kind="stable")


def _generator(session: str, *key: int) -> np.random.Generator:
    # The session's name goes in through a digest: Python's own hash of a string differs between processes.
    name = int.from_bytes(hashlib.sha256(session.encode()).digest()[:8], "big")
    return np.random.default_rng(np.random.SeedSequence((*key, name)))


def _check(
    sessions: Sequence[SessionTrials],
    windows: Windows,
    batch_size: int,
    seed: int,
    epoch: int,
    n_trials_shuffled: int,
) -> None:
    if not sessions:
        raise UsageError("an epoch needs at least one session")
    names = [trials.session for trials in sessions]
    if len(set(names)) != len(names):
        raise UsageError("a session takes part in an epoch once", found=", ".join(names))
    for name, number in (("batch size", batch_size), ("trials shuffled", n_trials_shuffled)):
        if number < 1:
            raise UsageError(name, found=number, expected="at least 1")
    if epoch < 0 or seed < 0:
        raise UsageError("seed and epoch cannot be negative", found=f"seed {seed}, epoch {epoch}")
    for trials in sessions:
        trials.require_fit(windows)
