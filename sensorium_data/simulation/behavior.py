"""What the mouse does over a whole session: running, pupil dilation and gaze, smooth in time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from sensorium_data.sessions import Session
from sensorium_data.simulation.mice import MICE, Mouse

__all__ = ["BehaviorStyle", "choose_style", "simulate_behavior", "simulate_pupil_center"]

# A process is the sum of a slow and a fast one: their correlation times in frames, and their standard deviations.
_PROCESSES = {
    "running": ((600.0, 0.9), (45.0, 0.44)),
    "dilation": ((900.0, 0.75), (90.0, 0.66)),
    "gaze": ((600.0, 0.7), (25.0, 0.71)),
}
# A pupil widens when the mouse runs.
_DILATION_WITH_RUNNING = 0.45
_RUNNING_SCALE = 12.0

# What a standard normal process takes on in a session, with its density.
_DRIVES = np.linspace(-3.4, 3.4, 1001)
_DENSITY = np.exp(-(_DRIVES**2) / 2)


@dataclass(frozen=True)
class BehaviorStyle:
    """What distinguishes one mouse's behavior from another's.

    Attributes
    ----------
    mouse : Mouse
        The recorded mouse.
    running_threshold, running_slope, running_power : float
        The mouse runs when a standard normal drive is above the threshold, and the faster the more.
    """

    mouse: Mouse
    running_threshold: float
    running_slope: float
    running_power: float

    @property
    def pupil_mean(self) -> np.ndarray:
        """(2,), horizontal and vertical, pixels of the eye camera."""
        return np.array(self.mouse.pupil_mean)

    @property
    def pupil_std(self) -> np.ndarray:
        """(2,), pixels of the eye camera."""
        return np.array(self.mouse.pupil_std)

    def arouse(self, behavior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how fast the mouse runs (0 to 1) and how wide its pupil is, each minus its mean over the session.

        Parameters
        ----------
        behavior : np.ndarray
            (2, time): pupil dilation and running speed.
        """
        mean, std, _, _ = self.mouse.dilation
        running = np.tanh(behavior[1] / _RUNNING_SCALE) - self._mean_running
        return running, np.clip((behavior[0] - mean) / std, -2.0, 2.0)

    @cached_property
    def _mean_running(self) -> float:
        return float(np.average(np.tanh(self.run(_DRIVES) / _RUNNING_SCALE), weights=_DENSITY))

    def run(self, drive: np.ndarray) -> np.ndarray:
        """Return the running speed for a standard normal drive."""
        excess = np.maximum(drive - self.running_threshold, 0.0)
        return np.asarray(np.minimum(self.running_slope * excess**self.running_power, self.mouse.running[3]))


def choose_style(session: Session) -> BehaviorStyle:
    """Return the behavior of the mouse of a session, with the recorded mean, std and maximum of the running speed."""
    mouse = MICE[session.alias]
    mean, std, _, most = mouse.running
    styles = []
    for power in np.arange(0.8, 2.6, 0.1).tolist():
        low, high = -1.0, 3.0
        # The larger the std against the mean, the rarer the mouse runs.
        while high - low > 1e-4:
            middle = (low + high) / 2
            excess = np.maximum(_DRIVES - middle, 0.0) ** power
            first, second = (np.average(excess**k, weights=_DENSITY) for k in (1, 2))
            low, high = (middle, high) if second / first**2 < 1 + (std / mean) ** 2 else (low, middle)
        styles.append(BehaviorStyle(mouse, middle, float(mean / first), power))
    fastest = [style.running_slope * (_DRIVES[-1] - style.running_threshold) ** style.running_power for style in styles]
    return min(zip(fastest, styles, strict=True), key=lambda pair: abs(pair[0] - most))[1]


def simulate_behavior(random: np.random.Generator, style: BehaviorStyle, n_frames: int) -> np.ndarray:
    """Simulate pupil dilation and running speed over a session.

    Returns
    -------
    np.ndarray
        (2, time) float64: dilation and speed, with the recorded mouse's mean, standard deviation and range.
    """
    drive = _simulate_process(random, n_frames, "running")
    own = _simulate_process(random, n_frames, "dilation")
    mean, std, least, most = style.mouse.dilation
    share = _DILATION_WITH_RUNNING
    dilation = np.clip(mean + std * _standardize(share * drive + np.sqrt(1 - share**2) * own), least, most)
    return np.stack([dilation, _add_jitter(style.run(drive), style, random)])


def _add_jitter(speed: np.ndarray, style: BehaviorStyle, random: np.random.Generator) -> np.ndarray:
    """Add what the treadmill reads when the mouse stands still; the median over the session is the recorded one."""
    median = style.mouse.running[2]
    share_still = NormalDist().cdf(style.running_threshold)
    if median == 0.0 or share_still <= 0.5:
        return speed
    scale = median / -np.log(1 - 0.5 / share_still)
    return np.asarray(np.where(speed > 0, speed, random.exponential(scale, len(speed))))


def simulate_pupil_center(random: np.random.Generator, style: BehaviorStyle, n_frames: int) -> np.ndarray:
    """Simulate where the pupil is over a session: (2, time) float64, pixels of the eye camera."""
    moving = np.stack([_simulate_process(random, n_frames, "gaze") for _ in range(2)])
    return np.asarray(style.pupil_mean[:, None] + style.pupil_std[:, None] * moving)


def _simulate_process(random: np.random.Generator, n_frames: int, kind: str) -> np.ndarray:
    parts = [weight * _smooth_noise(random, n_frames, time_frames) for time_frames, weight in _PROCESSES[kind]]
    return _standardize(np.sum(parts, axis=0))


def _standardize(trace: np.ndarray) -> np.ndarray:
    return np.asarray((trace - trace.mean()) / max(float(trace.std()), 1e-9))


def _smooth_noise(random: np.random.Generator, n_frames: int, time_frames: float) -> np.ndarray:
    """Return an Ornstein-Uhlenbeck process smoothed over a tenth of a second: mean 0, std 1, (time,)."""
    lags = np.arange(int(6 * time_frames))
    kernel = np.convolve(np.exp(-lags / time_frames), np.hanning(9)[1:-1])
    kernel /= np.sqrt(np.sum(kernel**2))
    noise = random.standard_normal(n_frames + len(kernel) - 1)
    # A product of spectra: the direct sum takes seconds for a session.
    size = len(noise) + len(kernel) - 1
    smooth = np.fft.irfft(np.fft.rfft(noise, size) * np.fft.rfft(kernel, size), size)
    return smooth[len(kernel) - 1 : len(noise)]
