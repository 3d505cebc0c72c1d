"""What a frame looks like in two bytes, so that most trials are told apart without their signatures.

The means of six blocks of a frame are rounded to cells, 8 units of luminance wide, and the cells are hashed. Where no
pixel of two frames differs by more than some limit, no mean does: the hash of one frame is then among those of the few
cells within the limit of the other's means. Frames of different movies share a hash by chance, or where both are gray.
Over pairs of different simulated movies, natural videos share one in less than 0.1 % of the frames, Gabors in 9 %, and
natural images, which have the gray between the images in common, in 35 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensorium_data.movies.grouping import LARGEST_DIFFERENCE, ROUNDING, signature_means

__all__ = ["LARGEST_SCREENED_ERROR", "N_HASHES", "find_limit", "mark_frames", "screen_trials"]

#: Hashes are less than this. Zero stands for no frame, or one that is equal to no other.
N_HASHES = 2**16

# Spread over the screen: of six blocks, three tell two Gabors apart that two would not.
_BLOCKS = (9, 11, 13, 18, 20, 22)
_CELL_WIDTH = 8.0
# The most common luminance, in the middle of a cell: on the border of two, it would lie within the limit of 64 cells.
_GRAY = 127.5
# No luminance is so far off; what is lies in one cell.
_MOST_CELLS = 2**30
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)

#: Where pixels have larger errors than this, too many cells lie within the limit.
LARGEST_SCREENED_ERROR = (_CELL_WIDTH / 2 - LARGEST_DIFFERENCE - ROUNDING) / 2


def screen_trials(signatures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the hash of each frame's cells.

    Parameters
    ----------
    signatures : sequence of np.ndarray
        A trial's :func:`sensorium_data.movies.sign_video` each.

    Returns
    -------
    np.ndarray
        (time, trial) uint16, 0 past a trial's end and where a mean is not finite. Frame by frame, because that is how
        they are compared.
    """
    means, trials, frames = _choose_means(signatures)
    longest = max((len(signature) for signature in signatures), default=0)
    screened = np.zeros((longest, len(signatures)), np.uint16)
    screened[frames, trials] = _finish(_mix_all(_find_cells(means, 0.0)))
    return screened


def find_limit(one_error: float, other_error: float) -> float:
    """Return by how much means of equal frames may differ whose pixels were stored with these errors."""
    return LARGEST_DIFFERENCE + ROUNDING + one_error + other_error


def mark_frames(signatures: Sequence[np.ndarray], limit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hashes of all cells in which a frame may lie that is equal to one of some trials'.

    Parameters
    ----------
    signatures : sequence of np.ndarray
        A trial's :func:`sensorium_data.movies.sign_video` each.
    limit : float
        By how much the means may differ: :func:`find_limit` of errors up to :data:`LARGEST_SCREENED_ERROR`.

    Returns
    -------
    trials, frames, hashes : np.ndarray
        (mark,) integers twice, and (mark,) uint16: several for each frame that has finite means.
    """
    if limit > _CELL_WIDTH / 2:
        raise ValueError(f"more than two cells of a width of {_CELL_WIDTH} lie within {limit}")
    means, trials, frames = _choose_means(signatures)
    lowest, highest = _find_cells(means, -limit), _find_cells(means, limit)
    rows, mixed = np.arange(len(means)), np.zeros(len(means), np.uint64)
    for block in range(len(_BLOCKS)):
        are_two = lowest[rows, block] != highest[rows, block]
        rows_of_two = rows[are_two]
        mixed = np.concatenate([_mix(mixed, lowest[rows, block]), _mix(mixed[are_two], highest[rows_of_two, block])])
        rows = np.concatenate([rows, rows_of_two])
    return trials[rows], frames[rows], _finish(mixed)


def _choose_means(signatures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the means of all frames that are finite, and which trial and frame each belongs to."""
    lengths = [len(signature) for signature in signatures]
    means = np.concatenate(
        [np.empty((0, len(_BLOCKS))), *(signature_means(signature)[:, _BLOCKS] for signature in signatures)]
    )
    trials = np.repeat(np.arange(len(lengths)), lengths)
    frames = np.arange(len(means)) - np.repeat(np.cumsum([0, *lengths])[:-1], lengths)
    is_finite = np.isfinite(means).all(axis=1)
    return means[is_finite], trials[is_finite], frames[is_finite]


def _find_cells(means: np.ndarray, offset: float) -> np.ndarray:
    cells = np.floor((means + offset - _GRAY) / _CELL_WIDTH + 0.5)
    return np.clip(cells, -_MOST_CELLS, _MOST_CELLS).astype(np.int64)


def _mix_all(cells: np.ndarray) -> np.ndarray:
    mixed = np.zeros(len(cells), np.uint64)
    for column in cells.T:
        mixed = _mix(mixed, column)
    return mixed


def _mix(mixed: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Mix the cells of one more block in. Hashes are kept in stores, so that this must never change."""
    mixed = (mixed ^ cells.astype(np.uint64)) * _MULTIPLIER
    return np.asarray(mixed ^ (mixed >> _SHIFT))


def _finish(mixed: np.ndarray) -> np.ndarray:
    return (mixed % np.uint64(N_HASHES - 1) + np.uint64(1)).astype(np.uint16)
