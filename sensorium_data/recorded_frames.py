"""How many of a trial's valid frames a modality was recorded at: it may end a little before the video does."""

from __future__ import annotations

import numpy as np

__all__ = ["MOST_MISSING_FRAMES", "count_recorded_frames", "count_usable_frames", "fill_missing_end"]

#: So many frames at a trial's end a modality may lack before the trial is refused.
MOST_MISSING_FRAMES = 10


def count_recorded_frames(values: np.ndarray, n_frames: int) -> int:
    """Return the frames up to the last valid one at which no value is missing (NaN); 0 without any.

    What is missing before that is not looked for.

    Parameters
    ----------
    values : np.ndarray
        (row, time) of one trial, padded or not.
    n_frames : int
        The trial's valid frames: those of its video.

    Examples
    --------
    >>> count_recorded_frames(np.array([[1.0, np.nan, 3.0, np.nan, np.nan]]), n_frames=4)
    3
    """
    while n_frames > 0 and np.isnan(values[:, n_frames - 1]).any():
        n_frames -= 1
    return n_frames


def count_usable_frames(n_recorded: int, n_frames: int) -> int:
    """Return the frames at which a modality has to hold numbers: fewer than valid ones if it ends a little early.

    Parameters
    ----------
    n_recorded : int
        What :func:`count_recorded_frames` returns.
    n_frames : int
        The trial's valid frames.

    Examples
    --------
    >>> count_usable_frames(299, 300), count_usable_frames(200, 300)
    (299, 300)
    """
    is_usable = n_recorded > 0 and n_frames - n_recorded <= MOST_MISSING_FRAMES
    return n_recorded if is_usable else n_frames


def fill_missing_end(values: np.ndarray, n_recorded: int, n_frames: int) -> None:
    """Replace what is missing at the end of the valid frames by each row's last recorded value, in place.

    Parameters
    ----------
    values : np.ndarray
        (row, time) of one trial.
    n_recorded : int
        What :func:`count_recorded_frames` returns, more than 0.
    n_frames : int
        The trial's valid frames.
    """
    end = values[:, n_recorded:n_frames]
    np.copyto(end, values[:, n_recorded - 1 : n_recorded], where=np.isnan(end))
