"""What the mouse does: running, pupil dilation and gaze, smooth in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sensorium_data.simulation.random_streams import random_stream

__all__ = ["BehaviorStyle", "choose_style", "simulate_behavior", "simulate_pupil_center"]

_DILATION_MEAN, _DILATION_STD = 53.6, 14.8
_RUNNING_SLOPE, _RUNNING_CURVATURE, _RUNNING_MOST = 9.5, 3.0, 47.0
# The published means of session F's pupil center; the other sessions lie near 120.
_PUPIL_CENTERS = {"F": (151.0, 156.0)}
_CORRELATION_TIME_FRAMES = {"running": 45.0, "dilation": 90.0, "gaze": 25.0}


@dataclass(frozen=True)
class BehaviorStyle:
    """What distinguishes one mouse's behavior from another's.

    Attributes
    ----------
    pupil_mean, pupil_std : np.ndarray
        (2,), horizontal and vertical, pixels of the eye camera.
    """

    pupil_mean: np.ndarray
    pupil_std: np.ndarray


def choose_style(seed: int, name: str, alias: str) -> BehaviorStyle:
    """Return the behavior of the mouse of a session."""
    random = random_stream(seed, "style", name)
    mean = np.array(_PUPIL_CENTERS.get(alias, random.uniform(114.0, 126.0, 2)))
    spread = (4.0, 4.5) if alias in _PUPIL_CENTERS else (5.0, 7.0)
    return BehaviorStyle(mean, random.uniform(*spread, 2))


def simulate_behavior(random: np.random.Generator, n_frames: int) -> np.ndarray:
    """Simulate pupil dilation and running speed.

    A mouse stands still about half of the time; its pupil widens when it runs.

    Returns
    -------
    np.ndarray
        (2, time) float64: dilation (mean 53.6, std 14.8 over trials) and speed (mean 5.6, std 8.7, 0 to 47).
    """
    drive = 0.75 * random.standard_normal() + 0.66 * _smooth_noise(random, n_frames, "running")
    urge = np.maximum(drive, 0.0)
    running = np.minimum(_RUNNING_SLOPE * urge + _RUNNING_CURVATURE * urge**2, _RUNNING_MOST)
    own = 0.75 * random.standard_normal() + 0.66 * _smooth_noise(random, n_frames, "dilation")
    dilation = _DILATION_MEAN + _DILATION_STD * (0.45 * drive + 0.89 * own)
    return np.stack([np.maximum(dilation, 8.0), running])


def simulate_pupil_center(random: np.random.Generator, style: BehaviorStyle, n_frames: int) -> np.ndarray:
    """Simulate where the pupil is: (2, time) float64, pixels of the eye camera."""
    resting = 0.7 * random.standard_normal((2, 1))
    moving = np.stack([0.71 * _smooth_noise(random, n_frames, "gaze") for _ in range(2)])
    return style.pupil_mean[:, None] + style.pupil_std[:, None] * (resting + moving)


def _smooth_noise(random: np.random.Generator, n_frames: int, kind: str) -> np.ndarray:
    """Return an Ornstein-Uhlenbeck process smoothed over a tenth of a second: mean 0, std 1, (time,)."""
    time_frames = _CORRELATION_TIME_FRAMES[kind]
    lags = np.arange(int(6 * time_frames))
    kernel = np.convolve(np.exp(-lags / time_frames), np.hanning(9)[1:-1])
    kernel /= np.sqrt(np.sum(kernel**2))
    return np.convolve(random.standard_normal(n_frames + len(kernel) - 1), kernel, mode="valid")
