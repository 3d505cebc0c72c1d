"""The video as it falls on the retina: standardized, and shifted by the gaze."""

from __future__ import annotations

import numpy as np

from sensorium_data.simulation.behavior import BehaviorStyle

__all__ = ["GAZE_PIXELS_PER_PUPIL_PIXEL", "shift_by_gaze", "standardize_luminance"]

#: How far the stimulus moves on the retina when the pupil's center moves by a pixel of the eye camera.
GAZE_PIXELS_PER_PUPIL_PIXEL = 0.16

_LUMINANCE_MEAN, _LUMINANCE_STD = 79.0, 57.0


def standardize_luminance(video: np.ndarray) -> np.ndarray:
    """Return luminance in standard deviations of natural movies around their mean, float32."""
    return (video - np.float32(_LUMINANCE_MEAN)) * np.float32(1 / _LUMINANCE_STD)


def shift_by_gaze(video_THW: np.ndarray, pupil_center: np.ndarray, style: BehaviorStyle) -> np.ndarray:
    """Shift each frame of a video against the gaze, by fractions of a pixel.

    Parameters
    ----------
    video_THW : np.ndarray
        (time, height, width) float32.
    pupil_center : np.ndarray
        (2, time), pixels of the eye camera.
    style : BehaviorStyle
        The session's; at its mean position of the pupil nothing is shifted.

    Returns
    -------
    np.ndarray
        (time, height, width) float32; edge pixels are repeated outward.
    """
    shift = GAZE_PIXELS_PER_PUPIL_PIXEL * (pupil_center - style.pupil_mean[:, None])
    shifted = _shift_axis(video_THW, shift[0], axis=2)
    return _shift_axis(shifted, shift[1], axis=1)


def _shift_axis(video_THW: np.ndarray, shift_T: np.ndarray, axis: int) -> np.ndarray:
    """Return ``video`` read at its positions plus ``shift`` along an axis, linearly interpolated."""
    lines = video_THW.swapaxes(1, axis)
    frame, last = np.arange(len(lines))[:, None], lines.shape[1] - 1
    whole = np.floor(shift_T).astype(np.intp)
    positions = whole[:, None] + np.arange(last + 1)
    near, far = lines[frame, np.clip(positions, 0, last)], lines[frame, np.clip(positions + 1, 0, last)]
    rest = (shift_T - whole).astype(np.float32)[:, None, None]
    return np.asarray((near + (far - near) * rest).swapaxes(1, axis))
