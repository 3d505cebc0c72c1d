"""What drives each neuron: the video filtered in space and time.

Suffixes of array names: N neuron, P pixel of a band of columns, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.simulation.neurons import KINDS, Neurons

__all__ = ["ReceptiveFields"]

# Weights of the frames before the present one, the present one first. A positive lobe and a slower negative one: a
# change drives the neuron, a still image hardly does, and neither do frames in disorder.
_TEMPORAL_KERNELS = (
    (0.0, 0.45, 0.9, 0.5, -0.3, -0.6, -0.4, -0.2),
    (0.0, 0.0, 0.4, 0.8, 0.7, 0.2, -0.5, -0.6, -0.3),
)
# What prefers a direction of movement sees a quarter of a grating's period further so many frames later.
_DIRECTION_DELAY = 3

# Neurons that look at neighboring columns of the screen are filtered together, from the columns that they see.
_BAND_WIDTH = 6
# The far tails of an envelope would be denormal numbers in float32, which make products many times slower.
_LEAST_ENVELOPE = 1e-3


class ReceptiveFields:
    """The spatiotemporal filters of all neurons.

    Each neuron has two spatial filters, a quarter of a period apart. One that prefers a direction adds the second one's
    output, delayed. An energy neuron takes the root of the summed squares of both outputs (Adelson and Bergen 1985).

    Parameters
    ----------
    neurons : Neurons
        Whose they are.
    """

    def __init__(self, neurons: Neurons) -> None:
        self._n_neurons = len(neurons)
        bands = (neurons.rf_x // _BAND_WIDTH).astype(int)
        keys = sorted(set(zip(bands.tolist(), neurons.kernel.tolist(), strict=True)))
        self._groups = [
            _Group.of(neurons, kernel, np.flatnonzero((bands == b) & (neurons.kernel == kernel))) for b, kernel in keys
        ]

    def apply(self, video_THW: np.ndarray) -> np.ndarray:
        """Return the filtered video of each neuron: (time, neuron) float32.

        Parameters
        ----------
        video_THW : np.ndarray
            (time, height, width) float32, standardized luminance; gray before the first frame.
        """
        drive_TN = np.empty((len(video_THW), self._n_neurons), np.float32)
        for group in self._groups:
            drive_TN[:, group.members] = group.apply(video_THW)
        return drive_TN


@dataclass(frozen=True)
class _Group:
    """Neurons with one temporal kernel that look at the same columns, filtered by one matrix product."""

    kernel: int
    members: np.ndarray
    columns: slice
    filters: np.ndarray
    direction_weight: np.ndarray
    is_energy: np.ndarray

    @classmethod
    def of(cls, neurons: Neurons, kernel: int, members: np.ndarray) -> _Group:
        reach = np.sqrt(-2 * np.log(_LEAST_ENVELOPE)) * neurons.rf_sigma[members]
        first = max(0, int(np.floor((neurons.rf_x[members] - reach).min())))
        last = min(FRAME_WIDTH - 1, int(np.ceil((neurons.rf_x[members] + reach).max())))
        columns = slice(first, last + 1)
        return cls(
            kernel,
            members,
            columns,
            np.concatenate([_spatial_filters(neurons, members, columns, phase) for phase in (0.0, np.pi / 2)], axis=1),
            neurons.direction_weight[members].astype(np.float32),
            neurons.kind[members] == KINDS.index("energy"),
        )

    def apply(self, video_THW: np.ndarray) -> np.ndarray:
        video_TP = video_THW[:, :, self.columns].reshape(len(video_THW), -1)
        filtered = _temporal_operator(len(video_THW), self.kernel) @ (video_TP @ self.filters)
        even, odd = np.split(filtered, 2, axis=1)
        drive = even + self.direction_weight * _delay(odd)
        energy = self.is_energy
        quarter_later = odd[:, energy] - self.direction_weight[energy] * _delay(even[:, energy])
        drive[:, energy] = np.hypot(drive[:, energy], quarter_later)
        return np.asarray(drive)


def _delay(filtered_TN: np.ndarray) -> np.ndarray:
    delayed = np.zeros_like(filtered_TN)
    delayed[_DIRECTION_DELAY:] = filtered_TN[:-_DIRECTION_DELAY]
    return delayed


def _spatial_filters(neurons: Neurons, members: Sequence[int] | np.ndarray, columns: slice, phase: float) -> np.ndarray:
    """Return Gaussian filters, and Gabor ones without response to uniform luminance: (pixel, member) float32."""
    rows, seen = (grid.ravel() for grid in np.mgrid[:FRAME_HEIGHT, columns])
    filters = np.empty((len(rows), len(members)), np.float32)
    for column, n in enumerate(members):
        dx, dy = seen - neurons.rf_x[n], rows - neurons.rf_y[n]
        along = dx * np.cos(neurons.rf_orientation[n]) + dy * np.sin(neurons.rf_orientation[n])
        across = dy * np.cos(neurons.rf_orientation[n]) - dx * np.sin(neurons.rf_orientation[n])
        envelope = np.exp(-((along * neurons.rf_aspect[n]) ** 2 + across**2) / (2 * neurons.rf_sigma[n] ** 2))
        envelope[envelope < _LEAST_ENVELOPE] = 0.0
        carrier = np.cos(2 * np.pi * along / neurons.rf_period[n] + neurons.rf_phase[n] + phase)
        if KINDS[neurons.kind[n]] == "spot" and phase == 0.0:
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
