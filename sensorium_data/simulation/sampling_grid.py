"""Activity acquired at 8 Hz and resampled to the 30 Hz of the stimulus, as linear operators on the frame axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sensorium_data.schema import FRAME_RATE_HZ

__all__ = ["ACQUISITION_RATE_HZ", "N_PHASES", "acquisition_operator", "expectation_operator", "resampling_operator"]

ACQUISITION_RATE_HZ = 8.0
#: A trial's first scan falls on one of so many moments, evenly spread over the time between scans.
N_PHASES = 8

_FRAMES_PER_SCAN = FRAME_RATE_HZ / ACQUISITION_RATE_HZ


@lru_cache(maxsize=512)
def acquisition_operator(n_frames: int, phase: int) -> np.ndarray:
    """Return the matrix that averages frames into scans.

    Each scan holds the mean over the time since the scan before it.

    Parameters
    ----------
    n_frames : int
        Frames of the trial.
    phase : int
        0 to ``N_PHASES - 1``: when the first scan falls.

    Returns
    -------
    np.ndarray
        (scan, frame) float32, each row summing to 1. The scans reach past both ends of the trial, so that
        every frame lies between two of them; the first and last frame stand for what is outside.
    """
    ends = _scan_times(n_frames, phase)
    edges = np.arange(n_frames + 1, dtype=np.float64)
    # What lies before the first frame and after the last counts as that frame.
    edges[0], edges[-1] = -np.inf, np.inf
    overlap = np.minimum(ends[:, None], edges[1:]) - np.maximum(ends[:, None] - _FRAMES_PER_SCAN, edges[:-1])
    return np.asarray(np.maximum(overlap, 0.0) / _FRAMES_PER_SCAN, np.float32)


@lru_cache(maxsize=512)
def resampling_operator(n_frames: int, phase: int) -> np.ndarray:
    """Return the matrix that interpolates scans linearly at the middle of each frame: (frame, scan) float32."""
    distance = np.abs(np.arange(n_frames)[:, None] + 0.5 - _scan_times(n_frames, phase))
    return np.asarray(np.maximum(0.0, 1.0 - distance / _FRAMES_PER_SCAN), np.float32)


@lru_cache(maxsize=64)
def expectation_operator(n_frames: int) -> np.ndarray:
    """Return the matrix that maps activity to what acquisition and resampling make of it on average over phases.

    The phase of a trial is not published, so this is what a response to a known stimulus can be expected to be.

    Returns
    -------
    np.ndarray
        (frame, frame) float32, each row summing to 1.
    """
    operators = [resampling_operator(n_frames, p) @ acquisition_operator(n_frames, p) for p in range(N_PHASES)]
    return np.asarray(np.mean(operators, axis=0, dtype=np.float64), np.float32)


def _scan_times(n_frames: int, phase: int) -> np.ndarray:
    """Return when the scans end, in frames from stimulus onset."""
    first = _FRAMES_PER_SCAN * ((phase + 0.5) / N_PHASES - 1.0)
    return first + _FRAMES_PER_SCAN * np.arange(int(np.ceil(n_frames / _FRAMES_PER_SCAN)) + 2)
