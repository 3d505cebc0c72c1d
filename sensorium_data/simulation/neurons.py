"""A population of simulated neurons: receptive fields, tuning, and noisy responses.

Suffixes of array names: N neuron, P pixel (36 × 64, row by row), T time, K scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Session, Stimulus
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.random_streams import random_stream
from sensorium_data.simulation.retina import standardize_luminance
from sensorium_data.simulation.sampling_grid import (
    N_PHASES,
    acquisition_operator,
    expectation_operator,
    resampling_operator,
)
from sensorium_data.simulation.stimuli import render_movie

__all__ = ["KINDS", "Neurons", "Population", "draw_neurons"]

#: Spot neurons like a place to get lighter or darker, grating neurons an edge or bar to come there, and energy
#: neurons an orientation to move there, whatever its phase.
KINDS = ("spot", "grating", "energy")
_KIND_SHARES = (0.5, 0.25, 0.25)

_N_ORIENTATIONS = 8
_DEPTHS = np.arange(200, 426, 25)
_STAGE_X, _STAGE_Y = (-1498, -143), (-728, 236)
_FIELD_SIZE = (1150, 720)

# Weights of the frames before the present one, the present one first. A positive lobe and a slower negative one: a
# change drives the neuron, a still image hardly does, and neither do frames in disorder.
_TEMPORAL_KERNELS = (
    (0.0, 0.45, 0.9, 0.5, -0.3, -0.6, -0.4, -0.2),
    (0.0, 0.0, 0.4, 0.8, 0.7, 0.2, -0.5, -0.6, -0.3),
)

_N_REFERENCE_MOVIES = 6
# Activity grows with this power of the drive above threshold, and saturates at so many events a scan.
_EXPONENT = 1.5
_MOST_EVENTS_PER_SCAN = 5.0
# Of the gamma distribution of an event's size: the smaller, the less reliable the responses.
_EVENT_SHAPE = 2.0

# The recordings' medians are about 1e-9 and their minima about -3e-7.
_FLOOR_MEDIAN, _FLOOR_SCALE, _FLOOR_LOWEST = 1e-9, 1.5e-9, -3e-7


@dataclass(frozen=True)
class Neurons:
    """What each neuron is; every attribute is an array over neurons.

    Attributes
    ----------
    unit_ids : np.ndarray
        Increasing, with gaps.
    positions : np.ndarray
        (neuron, 3) integers, stage coordinates in micrometers.
    rf_x, rf_y : np.ndarray
        Center of the receptive field, in pixels of the video from its left and top.
    rf_sigma, rf_period : np.ndarray
        Width of the Gaussian envelope and period of the grating in it, pixels.
    rf_orientation, rf_phase : np.ndarray
        Direction along which the grating varies, and its phase at the center, radians.
    kind : np.ndarray
        Index into :data:`KINDS`.
    kernel : np.ndarray
        Index of the temporal kernel.
    event_rate : np.ndarray
        Mean number of events a scan of 1/8 s, over natural movies.
    active_share : np.ndarray
        Share of the time in which a natural movie drives the neuron above its threshold.
    amplitude : np.ndarray
        Mean size of an event, arbitrary units.
    running_gain, dilation_gain : np.ndarray
        Relative change of the activity with running and with a wide pupil.
    """

    unit_ids: np.ndarray
    positions: np.ndarray
    rf_x: np.ndarray
    rf_y: np.ndarray
    rf_sigma: np.ndarray
    rf_period: np.ndarray
    rf_orientation: np.ndarray
    rf_phase: np.ndarray
    kind: np.ndarray
    kernel: np.ndarray
    event_rate: np.ndarray
    active_share: np.ndarray
    amplitude: np.ndarray
    running_gain: np.ndarray
    dilation_gain: np.ndarray

    def __len__(self) -> int:
        return len(self.unit_ids)


def draw_neurons(session: Session, n_neurons: int, seed: int) -> Neurons:
    """Draw the neurons of a session.

    All sessions share one retinotopic map from the stage to the screen, with scatter, so neurons at
    one place see about the same part of the screen in every mouse.
    """
    random = random_stream(seed, "neurons", session.name)
    corner = np.array(
        [random.uniform(low, high - size) for (low, high), size in zip((_STAGE_X, _STAGE_Y), _FIELD_SIZE, strict=True)]
    )
    plane = np.rint(corner + random.uniform(0, 1, (n_neurons, 2)) * _FIELD_SIZE).astype(np.int64)
    depth = random.choice(_DEPTHS, n_neurons)
    along = (plane - [_STAGE_X[0], _STAGE_Y[0]]) / [_STAGE_X[1] - _STAGE_X[0], _STAGE_Y[1] - _STAGE_Y[0]]
    scatter = 1.2 * random.standard_normal((n_neurons, 2))
    sigma = random.uniform(2.6, 3.6, n_neurons)
    kind = random.choice(len(KINDS), n_neurons, p=_KIND_SHARES)
    # The phases of a grating are a quarter of a period apart; a spot likes light or dark.
    phase = np.where(
        kind == KINDS.index("spot"), random.integers(0, 2, n_neurons) * 2, random.integers(0, 4, n_neurons)
    )
    return Neurons(
        unit_ids=np.cumsum(random.geometric(0.75, n_neurons)),
        positions=np.column_stack([plane, depth]),
        rf_x=np.clip(14 + 36 * along[:, 0] + scatter[:, 0], 8, FRAME_WIDTH - 8),
        rf_y=np.clip(9 + 18 * along[:, 1] + scatter[:, 1], 7, FRAME_HEIGHT - 7),
        rf_sigma=sigma,
        rf_period=sigma * random.uniform(3.3, 3.7, n_neurons),
        rf_orientation=random.integers(0, _N_ORIENTATIONS, n_neurons) * np.pi / _N_ORIENTATIONS,
        rf_phase=phase * np.pi / 2,
        kind=kind,
        kernel=random.integers(0, len(_TEMPORAL_KERNELS), n_neurons),
        event_rate=np.clip(0.16 * np.exp(0.25 * random.standard_normal(n_neurons)), 0.1, 0.35),
        active_share=random.uniform(0.12, 0.25, n_neurons),
        amplitude=np.clip(21.0 * np.exp(0.85 * random.standard_normal(n_neurons)), 1.2, 220.0),
        running_gain=random.uniform(0.0, 0.4, n_neurons),
        dilation_gain=random.uniform(0.0, 0.15, n_neurons),
    )


class Population:
    """Neurons that respond to videos.

    A response is a thresholded function of a filtered video, multiplied by a gain that grows with running and
    pupil dilation; events are drawn at 8 Hz with these rates and resampled to 30 Hz. The neurons are **more reliable
    than the recorded ones**: the best possible correlation with single trials is about 0.6, so that a small
    model learns them in minutes.

    Parameters
    ----------
    neurons : Neurons
        Who they are.
    seed : int
        Of the simulation; the natural movies by which thresholds are set hang on it.
    """

    def __init__(self, neurons: Neurons, seed: int) -> None:
        self.neurons = neurons
        self._groups = [
            _FilterGroup.of(neurons, kernel, kind)
            for kernel in range(len(_TEMPORAL_KERNELS))
            for kind in range(len(KINDS))
        ]
        self._groups = [group for group in self._groups if len(group.members)]
        self._calibrate(seed)

    def _calibrate(self, seed: int) -> None:
        """Set thresholds and gains so that natural movies give the wanted event rates."""
        movies = [Movie(f"reference/{k}", Stimulus.NATURAL_VIDEO, k) for k in range(_N_REFERENCE_MOVIES)]
        drives_TN = np.concatenate(
            [self.drive(standardize_luminance(render_movie(movie, 300, seed)))[10:] for movie in movies]
        )
        self._threshold = np.empty(len(self.neurons), np.float32)
        self._slope = np.empty(len(self.neurons), np.float32)
        for n, drive_T in enumerate(drives_TN.T):
            self._threshold[n] = np.quantile(drive_T, 1.0 - self.neurons.active_share[n])
            above = np.maximum(drive_T - self._threshold[n], 0.0) ** _EXPONENT
            self._slope[n] = self.neurons.event_rate[n] / above.mean()

    def drive(self, video_THW: np.ndarray) -> np.ndarray:
        """Return the filtered video of each neuron: (time, neuron) float32, before the threshold.

        Parameters
        ----------
        video_THW : np.ndarray
            (time, height, width) float32, standardized luminance; gray before the first frame.
        """
        n_frames = len(video_THW)
        video_TP = video_THW.reshape(n_frames, -1)
        drive_TN = np.empty((n_frames, len(self.neurons)), np.float32)
        filtered = {
            kernel: _temporal_operator(n_frames, kernel) @ video_TP for kernel in {g.kernel for g in self._groups}
        }
        for group in self._groups:
            drive_TN[:, group.members] = group.apply(filtered[group.kernel])
        return drive_TN

    def event_rates(self, video_THW: np.ndarray, behavior: np.ndarray) -> np.ndarray:
        """Return the expected number of events a scan at each frame: (time, neuron) float32, above 0 or 0.

        Parameters
        ----------
        video_THW : np.ndarray
            (time, height, width) float32: what falls on the retina, standardized luminance.
        behavior : np.ndarray
            (2, time): pupil dilation and running speed.
        """
        above = np.maximum(self.drive(video_THW) - self._threshold, 0.0)
        rate = self._slope * above**_EXPONENT
        rate /= 1.0 + rate / _MOST_EVENTS_PER_SCAN
        return np.asarray(rate * self._gain(behavior))

    def _gain(self, behavior: np.ndarray) -> np.ndarray:
        running = np.tanh(behavior[1] / 12.0) - 0.3
        dilation = np.clip((behavior[0] - 53.6) / 14.8, -2.0, 2.0)
        gain = 1.0 + np.outer(running, self.neurons.running_gain) + np.outer(dilation, self.neurons.dilation_gain)
        return np.asarray(gain, np.float32)

    def expect(self, event_rate_TN: np.ndarray) -> np.ndarray:
        """Return the expected response at 30 Hz, raw units: (time, neuron) float32."""
        expected = expectation_operator(len(event_rate_TN)) @ event_rate_TN
        return np.asarray(expected * self.neurons.amplitude.astype(np.float32))

    def respond(self, event_rate_TN: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw a response at 30 Hz, raw units: (time, neuron) float64, with the numerical noise of deconvolution.

        Its expectation is :meth:`expect` but for the noise of 1e-9.
        """
        n_frames = len(event_rate_TN)
        phase = int(random.integers(N_PHASES))
        rate_KN = acquisition_operator(n_frames, phase) @ event_rate_TN
        count_KN = random.poisson(rate_KN)
        size_KN = np.zeros(count_KN.shape, np.float32)
        fired = count_KN > 0
        # The sum of n gamma-distributed sizes is gamma-distributed with n times the shape.
        size_KN[fired] = random.standard_gamma(_EVENT_SHAPE * count_KN[fired]) / _EVENT_SHAPE
        size_KN *= self.neurons.amplitude.astype(np.float32)
        response = (resampling_operator(n_frames, phase) @ size_KN).astype(np.float64)
        floor = random.standard_normal(response.shape, dtype=np.float32) ** 3
        response += np.maximum(_FLOOR_SCALE * floor + _FLOOR_MEDIAN, _FLOOR_LOWEST)
        return response


@dataclass(frozen=True)
class _FilterGroup:
    """Neurons with one temporal kernel and of one kind, filtered by one matrix product."""

    kernel: int
    kind: int
    members: np.ndarray
    filters: np.ndarray

    @classmethod
    def of(cls, neurons: Neurons, kernel: int, kind: int) -> _FilterGroup:
        members = np.flatnonzero((neurons.kernel == kernel) & (neurons.kind == kind))
        phases = (0.0, np.pi / 2) if KINDS[kind] == "energy" else (0.0,)
        filters = np.concatenate([_spatial_filters(neurons, members, phase) for phase in phases], axis=1)
        return cls(kernel, kind, members, filters)

    def apply(self, video_TP: np.ndarray) -> np.ndarray:
        filtered = video_TP @ self.filters
        if KINDS[self.kind] != "energy":
            return np.asarray(filtered)
        even, odd = np.split(filtered, 2, axis=1)
        return np.asarray(np.hypot(even, odd))


def _spatial_filters(neurons: Neurons, members: np.ndarray, phase: float) -> np.ndarray:
    """Return Gaussian filters, and Gabor ones without response to uniform luminance: (pixel, member) float32."""
    rows, columns = np.divmod(np.arange(FRAME_HEIGHT * FRAME_WIDTH), FRAME_WIDTH)
    filters = np.empty((FRAME_HEIGHT * FRAME_WIDTH, len(members)), np.float32)
    for column, n in enumerate(members):
        dx, dy = columns - neurons.rf_x[n], rows - neurons.rf_y[n]
        along = dx * np.cos(neurons.rf_orientation[n]) + dy * np.sin(neurons.rf_orientation[n])
        envelope = np.exp(-(dx**2 + dy**2) / (2 * neurons.rf_sigma[n] ** 2))
        # The far tails would be denormal numbers in float32, which make products many times slower.
        envelope[envelope < 1e-6] = 0.0
        carrier = np.cos(2 * np.pi * along / neurons.rf_period[n] + neurons.rf_phase[n] + phase)
        if KINDS[neurons.kind[n]] == "spot":
            carrier = np.full(len(envelope), np.cos(neurons.rf_phase[n]))
        else:
            carrier -= np.sum(envelope * carrier) / envelope.sum()
        field = envelope * carrier
        filters[:, column] = field / np.sqrt(np.sum(field**2))
    return filters


@lru_cache(maxsize=256)
def _temporal_operator(n_frames: int, kernel: int) -> np.ndarray:
    """Return the matrix that filters causally along time: (frame, frame) float32."""
    weights = np.array(_TEMPORAL_KERNELS[kernel])
    operator = np.zeros((n_frames, n_frames), np.float32)
    for lag, weight in enumerate(weights / np.sqrt(np.sum(weights**2))):
        operator += np.diag(np.full(max(0, n_frames - lag), weight, np.float32), -lag)[:n_frames, :n_frames]
    return operator
