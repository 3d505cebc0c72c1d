"""Joining the trials of several sessions that show the same movie, without comparing each with each.

What is compared is two bytes a frame (:mod:`sensorium_data.movies.screens`): blocks of new trials, one after the other,
with all sessions before them. Signatures are read of the new sessions only, and videos of the trials that may show one
movie. The groups are those that :func:`sensorium_data.movies.grouping.join_groups` finds by comparing all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sensorium_data.movies.candidates import NO_GROUP, CandidateBlock
from sensorium_data.movies.grouping import LARGEST_DIFFERENCE, join_groups, same_movie
from sensorium_data.movies.joining import PairComparer, TrialGroups
from sensorium_data.movies.screens import LARGEST_SCREENED_ERROR, find_limit
from sensorium_data.progress import Progress

__all__ = ["ScreenedSession", "SessionTrials", "join_sessions"]

# With more trials in a block, frames have a common hash by chance too often.
_BLOCK_N_TRIALS = 2048
# Looked up at once: few at first, so that what they are joined with need not be looked up for the next.
_FIRST_LOOKED_UP, _MOST_LOOKED_UP = 2**9, 2**15


@dataclass(frozen=True, eq=False)
class ScreenedSession:
    """What joining has to know of a session.

    Attributes
    ----------
    name : str
        Its full name.
    is_known : bool
        Whether it was compared with the other known ones.
    groups : sequence of hashable
        For each trial, what is known of its movie: equal for trials that show the same.
    n_frames : np.ndarray
        (trial,), the valid frames.
    cells : np.ndarray
        (time, trial) uint16: :func:`sensorium_data.movies.screens.screen_trials`.
    largest_error : float
        Largest error of a pixel as it is read.
    """

    name: str
    is_known: bool
    groups: Sequence[Hashable]
    n_frames: np.ndarray
    cells: np.ndarray
    largest_error: float


class SessionTrials:
    """The trials of sessions, one after the other.

    Parameters
    ----------
    sessions : sequence of ScreenedSession
        The known ones first.
    """

    def __init__(self, sessions: Sequence[ScreenedSession]) -> None:
        self.sessions = sessions
        self.bounds = np.cumsum([0, *(len(session.n_frames) for session in sessions)])
        n_known = sum(session.is_known for session in sessions)
        batches = [0 if position < n_known else position + 1 for position in range(len(sessions))]
        #: For each trial, the session: all known ones are one.
        self.batches = np.repeat(np.array(batches, np.int64), np.diff(self.bounds))
        #: How many trials have been compared with each other.
        self.n_known = int(self.bounds[n_known])

    @property
    def names(self) -> list[str]:
        """The sessions' names."""
        return [session.name for session in self.sessions]

    @property
    def n_trials(self) -> int:
        """Trials of all sessions."""
        return int(self.bounds[-1])

    @property
    def groups(self) -> list[Hashable]:
        """What is known of each trial's movie."""
        return [group for session in self.sessions for group in session.groups]

    def locate(self, position: int) -> tuple[ScreenedSession, int]:
        """Return a trial's session, and its place in it."""
        number = int(np.searchsorted(self.bounds, position, "right")) - 1
        return self.sessions[number], position - int(self.bounds[number])

    def split(self, values: Sequence[int]) -> list[Sequence[int]]:
        """Return the values of each session's trials."""
        return [values[start:end] for start, end in zip(self.bounds[:-1], self.bounds[1:], strict=True)]

    def cut(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range of trials, one for each session."""
        inner = self.bounds[(self.bounds > start) & (self.bounds < end)].tolist()
        return list(zip([start, *inner], [*inner, end], strict=True)) if start < end else []

    def stack(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells (time, trial) and the valid frames (trial,) of a range of trials."""
        parts = []
        for part_start, part_end in self.cut(start, end):
            session, first = self.locate(part_start)
            chosen = slice(first, first + part_end - part_start)
            parts.append((session.cells[:, chosen], session.n_frames[chosen]))
        longest = max((len(cells) for cells, _ in parts), default=0)
        stacked = np.zeros((longest, end - start), np.uint16)
        column = 0
        for cells, _ in parts:
            stacked[: len(cells), column : column + cells.shape[1]] = cells
            column += cells.shape[1]
        return stacked, np.concatenate([np.empty(0, np.int64), *(n_frames for _, n_frames in parts)])


def join_sessions(
    trials: SessionTrials,
    read_signatures: Callable[[str], list[np.ndarray]],
    read_video: Callable[[str, int], np.ndarray],
    *,
    jobs: int,
    progress: Progress,
) -> list[int]:
    """Join the trials of different sessions that show the same movie.

    Parameters
    ----------
    trials : SessionTrials
        Of which sessions. Those of one session have been compared with each other, and so have those of the known ones.
    read_signatures : callable
        Takes a session's name, and returns its trials' signatures. Called for sessions that are not known.
    read_video : callable
        Takes a session's name and a trial's place in it, and returns its valid frames.
    jobs : int
        Pairs of videos compared at once.
    progress : Progress
        Told after each step how many trials have been compared with all before them.

    Returns
    -------
    list of int
        For each trial the position of the first trial of its group.
    """

    def read(position: int) -> np.ndarray:
        session, place = trials.locate(position)
        return read_video(session.name, place)

    def is_same(one: int, other: int, video: np.ndarray, other_video: np.ndarray) -> bool:
        errors = [trials.locate(position)[0].largest_error for position in (one, other)]
        return same_movie(video, other_video, LARGEST_DIFFERENCE + sum(errors))

    def tell(n_done: int) -> None:
        progress("link movies", n_done, trials.n_trials)

    n_batches = len(np.unique(trials.batches))
    if n_batches > 1 and max(session.largest_error for session in trials.sessions) > LARGEST_SCREENED_ERROR:
        return join_groups(
            [signature for name in trials.names for signature in read_signatures(name)],
            read,
            groups=trials.groups,
            batches=trials.batches.tolist(),
            largest_errors=[session.largest_error for session in trials.sessions for _ in range(len(session.n_frames))],
            jobs=jobs,
            progress=tell,
        )
    groups = TrialGroups(trials.groups)
    if n_batches > 1:
        with PairComparer(groups, read, is_same, jobs) as comparer:
            for start, end, signatures in _iter_blocks(trials, read_signatures):
                _join_block(trials, groups, comparer, (start, end), signatures, tell)
        tell(trials.n_trials)
    return groups.firsts()


def _iter_blocks(
    trials: SessionTrials, read_signatures: Callable[[str], list[np.ndarray]]
) -> Iterator[tuple[int, int, list[np.ndarray]]]:
    """Yield the new trials block by block, with their signatures: first, one past the last, and these."""
    start, signatures = trials.n_known, list[np.ndarray]()
    for session, session_end in zip(trials.sessions, trials.bounds[1:].tolist(), strict=True):
        if session.is_known:
            continue
        signatures += read_signatures(session.name)
        while len(signatures) >= _BLOCK_N_TRIALS or (signatures and session_end == trials.n_trials):
            block, signatures = signatures[:_BLOCK_N_TRIALS], signatures[_BLOCK_N_TRIALS:]
            yield start, start + len(block), block
            start += len(block)


def _join_block(
    trials: SessionTrials,
    groups: TrialGroups,
    comparer: PairComparer,
    bounds: tuple[int, int],
    signatures: Sequence[np.ndarray],
    tell: Callable[[int], None],
) -> None:
    """Compare a block of new trials with each other and with all trials before it."""
    start, end = bounds
    own_error = max(trials.locate(first)[0].largest_error for first, _ in trials.cut(start, end))
    other_error = max(session.largest_error for session in trials.sessions)
    block = CandidateBlock(signatures, find_limit(own_error, other_error))
    # Where the block's own sessions show one movie it is one group, before the others are looked up.
    n_done = 0
    for looked_up in [*trials.cut(start, end), *_grow_chunks(start)]:
        _join_looked_up(trials, groups, comparer, block, bounds, looked_up)
        n_done += looked_up[1] - looked_up[0]
        tell(start + (end - start) * n_done // end)


def _grow_chunks(end: int) -> Iterator[tuple[int, int]]:
    start, size = 0, _FIRST_LOOKED_UP
    while start < end:
        yield start, min(start + size, end)
        start, size = start + size, min(2 * size, _MOST_LOOKED_UP)


def _join_looked_up(
    trials: SessionTrials,
    groups: TrialGroups,
    comparer: PairComparer,
    block: CandidateBlock,
    bounds: tuple[int, int],
    looked_up: tuple[int, int],
) -> None:
    """Compare some trials with those of a block that come after them."""
    firsts_of_block, own = np.unique(np.array(groups.firsts(*bounds), np.int64), return_inverse=True)
    firsts = np.array(groups.firsts(*looked_up), np.int64)
    places = np.minimum(np.searchsorted(firsts_of_block, firsts), len(firsts_of_block) - 1)
    block.set_groups(own)
    others, chosen = block.find(
        *trials.stack(*looked_up), np.where(firsts_of_block[places] == firsts, places, NO_GROUP)
    )
    is_joined = firsts[others] == firsts_of_block[own[chosen]]
    pairs = np.column_stack([looked_up[0] + others, bounds[0] + chosen])
    of_groups = np.column_stack([firsts[others], firsts_of_block[own[chosen]]])
    # Each pair once, and none of one batch.
    is_due = ~is_joined & (pairs[:, 0] < pairs[:, 1]) & (trials.batches[pairs[:, 0]] != trials.batches[pairs[:, 1]])
    pairs, of_groups = pairs[is_due], of_groups[is_due]
    # One pair of any two groups first: that joins most of them, and then the other pairs need no videos.
    _, leading = np.unique(of_groups, axis=0, return_index=True)
    for chosen_pairs in (pairs[np.sort(leading)], np.delete(pairs, leading, axis=0)):
        for one, other in chosen_pairs.tolist():
            comparer.offer(one, other)
        comparer.settle()
