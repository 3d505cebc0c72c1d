"""Which trials may show the same movie as one of a block of trials, told by two bytes a frame.

A block's trials are laid out as a table by frame and hash, and a trial of another session is looked up frame by frame.
It is a candidate if so many of its frames are in the table that one trial of the block may have enough of them. Looking
it up takes as long however many trials the block has. Only candidates are compared with each trial of the block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensorium_data.movies.grouping import LEAST_SHARE_EQUAL, LEAST_SHARE_OF_LENGTH
from sensorium_data.movies.screens import N_HASHES, mark_frames

__all__ = ["NO_GROUP", "CandidateBlock"]

#: The group of trials that are joined with none of a block.
NO_GROUP = -3
_EMPTY, _SEVERAL = -1, -2

# Counts of shared frames that are held at once.
_N_COUNTS = 2**22


class CandidateBlock:
    """A block of trials, among which those of other sessions are looked up.

    Parameters
    ----------
    signatures : sequence of np.ndarray
        A trial's :func:`sensorium_data.movies.sign_video` each; at most 32,767.
    limit : float
        By how much the means of equal frames may differ, for any trial that is looked up:
        :func:`sensorium_data.movies.screens.find_limit`.
    """

    def __init__(self, signatures: Sequence[np.ndarray], limit: float) -> None:
        self._n_frames = np.array([len(signature) for signature in signatures], np.int64)
        trials, frames, hashes = mark_frames(signatures, limit)
        order = hashes.argsort(kind="stable")
        order = order[frames[order].argsort(kind="stable")]
        self._hashes, self._trials = hashes[order], trials[order].astype(np.int16)
        n_longest = int(self._n_frames.max(initial=0))
        self._bounds = np.searchsorted(frames[order], np.arange(n_longest + 1))
        self._groups = self._trials

    def set_groups(self, groups: np.ndarray) -> None:
        """Say which trials of the block are joined.

        Parameters
        ----------
        groups : np.ndarray
            (trial,) integers from 0, less than 32,768, equal for trials that are joined.
        """
        self._groups = groups.astype(np.int16)[self._trials]

    def find(self, cells: np.ndarray, n_frames: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of trials that may show the same movie; those that are joined may be left out.

        A pair that is not returned shows two movies, unless :func:`set_groups` says that it is joined.

        Parameters
        ----------
        cells : np.ndarray
            (time, trial) uint16, :func:`sensorium_data.movies.screens.screen_trials` of the trials to look up.
        n_frames : np.ndarray
            (trial,), their valid frames.
        groups : np.ndarray
            (trial,), the group of the block that each is joined with, or :data:`NO_GROUP`.

        Returns
        -------
        others, trials : np.ndarray
            (pair,), positions among the trials looked up and in the block, ordered by both.
        """
        least = self._find_least_shared(n_frames)
        chosen = np.flatnonzero((least > 0) & (self._count_foreign(cells, groups) >= least))
        n_rows = max(1, _N_COUNTS // max(1, len(self._n_frames)))
        found = [
            self._find_pairs(chosen[start : start + n_rows], cells, n_frames, least)
            for start in range(0, len(chosen), n_rows)
        ]
        none = np.empty(0, np.intp)
        return (np.concatenate([none, *(others for others, _ in found)]),
                np.concatenate([none, *(trials for _, trials in found)]))  # fmt: skip

    def _find_least_shared(self, n_frames: np.ndarray) -> np.ndarray:
        """Return how many frames each trial has to share with one of the block; 0 where no length fits."""
        lengths = np.unique(self._n_frames)
        unique, places = np.unique(n_frames, return_inverse=True)
        n_common, fits = _compare_lengths(unique[:, None], lengths[None])
        least = np.where(fits, np.floor(LEAST_SHARE_EQUAL * n_common).astype(np.int64) + 1, np.iinfo(np.int64).max)
        least = least.min(axis=1, initial=np.iinfo(np.int64).max)
        return np.where(least == np.iinfo(np.int64).max, 0, least)[places]

    def _count_foreign(self, cells: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return how many frames of each trial a trial of the block may share that is not joined with it."""
        counts = np.zeros(cells.shape[1], np.int32)
        own = groups.astype(np.int16)
        table = np.empty(N_HASHES, np.int16)
        for frame in range(min(len(cells), len(self._bounds) - 1)):
            marks = slice(self._bounds[frame], self._bounds[frame + 1])
            hashes, in_groups = self._hashes[marks], self._groups[marks]
            table.fill(_EMPTY)
            table[hashes] = in_groups
            table[hashes[table[hashes] != in_groups]] = _SEVERAL
            found = table[cells[frame]]
            counts += found != own
            counts -= found == _EMPTY
        return counts

    def _find_pairs(
        self, chosen: np.ndarray, cells: np.ndarray, n_frames: np.ndarray, least: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of chosen trials and trials of the block that may share enough frames."""
        n_trials = len(self._n_frames)
        counts = np.zeros(len(chosen) * n_trials, np.int32)
        for frame in range(min(len(cells), len(self._bounds) - 1)):
            marks = slice(self._bounds[frame], self._bounds[frame + 1])
            hashes, trials = self._hashes[marks], self._trials[marks]
            looked_up = cells[frame, chosen]
            starts = np.searchsorted(hashes, looked_up, "left")
            n_found = np.searchsorted(hashes, looked_up, "right") - starts
            rows = np.repeat(np.arange(len(chosen)), n_found)
            steps = np.arange(len(rows)) - np.repeat(np.cumsum(n_found) - n_found, n_found)
            # Two cells of one trial that have one hash count once.
            counts[rows * n_trials + trials[np.repeat(starts, n_found) + steps]] += 1
        rows, columns = np.nonzero(counts.reshape(len(chosen), n_trials) >= least[chosen, None])
        n_common, fits = _compare_lengths(n_frames[chosen][rows], self._n_frames[columns])
        is_near = fits & (counts[rows * n_trials + columns] > LEAST_SHARE_EQUAL * n_common)
        return chosen[rows[is_near]], columns[is_near]


def _compare_lengths(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many frames two trials have in common, and whether that is enough for one to repeat the other."""
    n_common = np.minimum(one, other)
    return n_common, (n_common > 0) & (n_common > LEAST_SHARE_OF_LENGTH * np.maximum(one, other))
