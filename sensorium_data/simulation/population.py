"""A population of simulated neurons: from videos and behavior to noisy responses.

Suffixes of array names: N neuron, T time, K scan.
"""

from __future__ import annotations

import numpy as np

from sensorium_data.sessions import Stimulus
from sensorium_data.simulation.behavior import BehaviorStyle
from sensorium_data.simulation.neurons import Neurons
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.receptive_fields import ReceptiveFields
from sensorium_data.simulation.retina import standardize_luminance
from sensorium_data.simulation.sampling_grid import (
    N_PHASES,
    acquisition_operator,
    expectation_operator,
    resampling_operator,
)
from sensorium_data.simulation.stimuli import render_movie

__all__ = ["Population"]

_N_REFERENCE_MOVIES = 8
_N_REFERENCE_FRAMES = 300
# Frames at the start of a movie in which the filters still see the gray before it.
_N_ONSET_FRAMES = 12
# Activity grows with this power of the drive above threshold, and saturates at so many times its mean.
_EXPONENT = 1.5
_MOST_TIMES_MEAN = 60.0
_SPONTANEOUS_SHARE = (0.1, 0.75)

# An event's size is gamma distributed, times a lognormal factor that the events of one scan share.
_EVENT_SHAPE, _BURST_SIGMA = 2.0, 0.44
_BURST_SQUARE = np.exp(_BURST_SIGMA**2)
# Scans are interpolated linearly: what is independent from scan to scan keeps so much of its variance.
_INTERPOLATED_VARIANCE = 2 / 3

# The noise of deconvolution is half-normal; hardly a hundredth of it is negative, and much smaller.
_HALF_NORMAL_MEDIAN = 0.79
_NEGATIVE_FLOOR_BELOW, _NEGATIVE_FLOOR_SCALE, _FLOOR_LOWEST = -2.5, 0.03, -3e-7


class Population:
    """Neurons that respond to videos.

    A neuron's rate of events is a constant part and a thresholded function of the filtered video, multiplied by a gain
    that grows with running and pupil dilation. Events are drawn at 8 Hz with these rates and resampled to 30 Hz.

    The size of the constant part, the rate and the size of events are chosen for each neuron so that natural movies
    give it the mean, the variation and the reliability that were drawn for it.

    Parameters
    ----------
    neurons : Neurons
        Who they are.
    style : BehaviorStyle
        The mouse's, whose usual behavior has the gain 1.
    seed : int
        Of the simulation; the natural movies by which neurons are calibrated depend on it.

    Attributes
    ----------
    spontaneous_share : np.ndarray
        Share of the activity in natural movies that does not depend on the video.
    event_rate : np.ndarray
        Mean number of events a scan of 1/8 s, over natural movies.
    amplitude : np.ndarray
        Mean size of an event, arbitrary units.
    """

    def __init__(self, neurons: Neurons, style: BehaviorStyle, seed: int) -> None:
        self.neurons = neurons
        self._style = style
        self._fields = ReceptiveFields(neurons)
        driven = self._calibrate_drive(seed)
        self._choose_event_rates(driven)

    def _calibrate_drive(self, seed: int) -> np.ndarray:
        """Set thresholds and slopes, and return the driven activity: (movie, time, neuron), mean 1."""
        movies = [Movie(f"reference/{k}", Stimulus.NATURAL_VIDEO, k) for k in range(_N_REFERENCE_MOVIES)]
        drives = np.stack(
            [
                self.drive(standardize_luminance(render_movie(movie, _N_REFERENCE_FRAMES, seed)))[_N_ONSET_FRAMES:]
                for movie in movies
            ]
        )
        ordered = np.sort(drives.reshape(-1, len(self.neurons)), axis=0)
        place = np.rint((1.0 - self.neurons.active_share) * (len(ordered) - 1)).astype(int)
        self._threshold = ordered[place, np.arange(len(place))]
        del ordered
        above = np.maximum(drives - self._threshold, 0.0) ** np.float32(_EXPONENT)
        self._slope = (1.0 / above.mean(axis=(0, 1))).astype(np.float32)
        # Saturation takes some of the mean away; the scale brings it back.
        saturated = _saturate(self._slope * above)
        self._scale = (1.0 / saturated.mean(axis=(0, 1))).astype(np.float32)
        return np.asarray(self._scale * saturated)

    def _choose_event_rates(self, driven: np.ndarray) -> None:
        neurons = self.neurons
        smooth = expectation_operator(driven.shape[1])
        expected = np.concatenate([smooth @ movie for movie in driven])
        variance = expected.var(axis=0, dtype=np.float64)
        wanted_signal = (neurons.reliability * neurons.variation) ** 2
        share = 1.0 - np.sqrt(wanted_signal / variance)
        self.spontaneous_share = np.clip(share, *_SPONTANEOUS_SHARE)
        signal = (1.0 - self.spontaneous_share) ** 2 * variance
        # Variance over squared mean of a compound Poisson process whose rate varies, interpolated from scans.
        burst = _INTERPOLATED_VARIANCE * (_BURST_SQUARE - 1.0) * (1.0 + signal)
        noise = np.maximum(neurons.variation**2 - signal - burst, 0.2 * neurons.variation**2)
        self.event_rate = _INTERPOLATED_VARIANCE * _BURST_SQUARE * (1.0 + 1.0 / _EVENT_SHAPE) / noise
        self.amplitude = neurons.mean_response / self.event_rate

    def drive(self, video_THW: np.ndarray) -> np.ndarray:
        """Return the filtered video of each neuron: (time, neuron) float32, before the threshold.

        Parameters
        ----------
        video_THW : np.ndarray
            (time, height, width) float32, standardized luminance; gray before the first frame.
        """
        return self._fields.apply(video_THW)

    def event_rates(self, video_THW: np.ndarray, behavior: np.ndarray) -> np.ndarray:
        """Return the expected number of events a scan at each frame: (time, neuron) float32, above 0.

        Parameters
        ----------
        video_THW : np.ndarray
            (time, height, width) float32: what falls on the retina, standardized luminance.
        behavior : np.ndarray
            (2, time): pupil dilation and running speed.
        """
        above = np.maximum(self.drive(video_THW) - self._threshold, 0.0)
        driven = _saturate(self._slope * above ** np.float32(_EXPONENT))
        share = self.spontaneous_share
        rate = (self.event_rate * (1.0 - share) * self._scale).astype(np.float32) * driven
        rate += (self.event_rate * share).astype(np.float32)
        return np.asarray(rate * self._gain(behavior))

    def _gain(self, behavior: np.ndarray) -> np.ndarray:
        running, dilation = self._style.arouse(behavior)
        gain = 1.0 + np.outer(running, self.neurons.running_gain) + np.outer(dilation, self.neurons.dilation_gain)
        return np.asarray(gain, np.float32)

    def expect(self, event_rate_TN: np.ndarray) -> np.ndarray:
        """Return the expected response at 30 Hz, raw units: (time, neuron) float32."""
        expected = expectation_operator(len(event_rate_TN)) @ event_rate_TN
        return np.asarray(expected * self.amplitude.astype(np.float32))

    def respond(self, event_rate_TN: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw a response at 30 Hz, raw units: (time, neuron) float64, with the numerical noise of deconvolution.

        Its expectation is :meth:`expect` but for that noise.
        """
        n_frames = len(event_rate_TN)
        phase = int(random.integers(N_PHASES))
        rate_KN = acquisition_operator(n_frames, phase) @ event_rate_TN
        count_KN = random.poisson(rate_KN)
        size_KN = np.zeros(count_KN.shape, np.float32)
        fired = count_KN > 0
        n_events = count_KN[fired]
        # The sum of n gamma-distributed sizes is gamma-distributed with n times the shape.
        sizes = random.standard_gamma(_EVENT_SHAPE * n_events) / _EVENT_SHAPE
        sizes *= np.exp(_BURST_SIGMA * random.standard_normal(len(sizes)) - _BURST_SIGMA**2 / 2)
        size_KN[fired] = sizes
        size_KN *= self.amplitude.astype(np.float32)
        response = (resampling_operator(n_frames, phase) @ size_KN).astype(np.float64)
        response += self._draw_floor(n_frames, random)
        return response

    def _draw_floor(self, n_frames: int, random: np.random.Generator) -> np.ndarray:
        normal = random.standard_normal((n_frames, len(self.neurons)), dtype=np.float32)
        below = normal < _NEGATIVE_FLOOR_BELOW
        negative = _NEGATIVE_FLOOR_SCALE * normal[below]
        noise = np.abs(normal, out=normal)
        noise[below] = negative
        noise *= (self.neurons.floor / _HALF_NORMAL_MEDIAN).astype(np.float32)
        return np.maximum(noise, np.float32(_FLOOR_LOWEST), out=noise)


def _saturate(driven: np.ndarray) -> np.ndarray:
    driven /= 1.0 + driven / np.float32(_MOST_TIMES_MEAN)
    return driven
