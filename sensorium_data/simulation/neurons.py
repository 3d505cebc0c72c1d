"""The neurons of a simulated session: where they lie, what they see, and how active and reliable they are."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Session
from sensorium_data.simulation.mice import MICE, draw_skewed
from sensorium_data.simulation.random_streams import random_stream

__all__ = ["KINDS", "Neurons", "draw_neurons"]

#: Spot neurons like a place to get lighter or darker, grating neurons an edge or bar to come there, and energy
#: neurons an orientation to move there, whatever its phase.
KINDS = ("spot", "grating", "energy")
_KIND_SHARES = (0.5, 0.25, 0.25)
_N_KERNELS = 2

_N_ORIENTATIONS = 8
_DEPTHS = np.arange(200, 426, 25)
_STAGE_X, _STAGE_Y = (-1498, -143), (-728, 236)
_FIELD_SIZE = (1150, 720)

# The noise of deconvolution differs between neurons by this much (std of its logarithm).
_FLOOR_SPREAD = 1.3
_SILENT_BELOW = 1e-6


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
    rf_aspect : np.ndarray
        By how much the envelope is narrower along the orientation than across it.
    rf_orientation, rf_phase : np.ndarray
        Direction along which the grating varies, and its phase at the center, radians.
    direction_weight : np.ndarray
        -1 to 1: how much a movement along the orientation (positive) or against it is preferred.
    kind : np.ndarray
        Index into :data:`KINDS`.
    kernel : np.ndarray
        Index of the temporal kernel.
    active_share : np.ndarray
        Share of the time in which a natural movie drives the neuron above its threshold.
    mean_response : np.ndarray
        Mean response to natural movies, arbitrary units.
    variation : np.ndarray
        Standard deviation of the response over its mean.
    reliability : np.ndarray
        Correlation of a single trial's response with its expectation.
    running_gain, dilation_gain : np.ndarray
        Relative change of the activity with running and with a wide pupil.
    floor : np.ndarray
        Median of the numerical noise that deconvolution leaves, arbitrary units.
    """

    unit_ids: np.ndarray
    positions: np.ndarray
    rf_x: np.ndarray
    rf_y: np.ndarray
    rf_sigma: np.ndarray
    rf_aspect: np.ndarray
    rf_period: np.ndarray
    rf_orientation: np.ndarray
    rf_phase: np.ndarray
    direction_weight: np.ndarray
    kind: np.ndarray
    kernel: np.ndarray
    active_share: np.ndarray
    mean_response: np.ndarray
    variation: np.ndarray
    reliability: np.ndarray
    running_gain: np.ndarray
    dilation_gain: np.ndarray
    floor: np.ndarray

    def __len__(self) -> int:
        return len(self.unit_ids)


def draw_neurons(session: Session, n_neurons: int, seed: int) -> Neurons:
    """Draw the neurons of a session.

    All sessions share one retinotopic map from the stage to the screen, with scatter, so neurons at
    one place see about the same part of the screen in every mouse. How active they are, and how this falls with depth,
    is the recorded mouse's.
    """
    random = random_stream(seed, "neurons", session.name)
    mouse = MICE[session.alias]
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
        rf_aspect=np.where(kind == KINDS.index("spot"), random.uniform(1.4, 2.0, n_neurons), 1.0),
        rf_period=sigma * random.uniform(3.3, 3.7, n_neurons),
        rf_orientation=random.integers(0, _N_ORIENTATIONS, n_neurons) * np.pi / _N_ORIENTATIONS,
        rf_phase=phase * np.pi / 2,
        direction_weight=random.uniform(-0.5, 0.5, n_neurons),
        kind=kind,
        kernel=random.integers(0, _N_KERNELS, n_neurons),
        active_share=random.uniform(0.05, 0.15, n_neurons),
        mean_response=draw_skewed(mouse.response_mean, _tilt_with_depth(depth, mouse.depth_correlation, random)),
        variation=draw_skewed(mouse.response_cv, random.standard_normal(n_neurons)),
        reliability=np.clip(0.48 + 0.08 * random.standard_normal(n_neurons), 0.2, 0.7),
        running_gain=random.uniform(0.0, 0.4, n_neurons),
        dilation_gain=random.uniform(0.0, 0.15, n_neurons),
        floor=_draw_floor(mouse.silent_share, random.standard_normal(n_neurons)),
    )


def _tilt_with_depth(depth: np.ndarray, correlation: float, random: np.random.Generator) -> np.ndarray:
    """Return standard normal values that correlate with depth."""
    standardized = (depth - _DEPTHS.mean()) / _DEPTHS.std()
    return np.asarray(
        correlation * standardized + np.sqrt(1 - correlation**2) * random.standard_normal(len(standardized))
    )


def _draw_floor(silent_share: float, normal: np.ndarray) -> np.ndarray:
    """Return medians of which this share is below 1e-6."""
    return np.asarray(_SILENT_BELOW * np.exp(_FLOOR_SPREAD * (normal - NormalDist().inv_cdf(silent_share))))
