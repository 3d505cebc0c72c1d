"""Normalization: what brings a session's arrays to a model's scale, and the competition's way of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.schema import VARIABLES
from sensorium_data.store import StoreLike, open_statistics

__all__ = [
    "Normalizer",
    "add_absent_variables",
    "competition_normalizer",
    "fill_missing_frames",
    "invert_scale",
    "read_competition_precision",
    "response_precision",
]

#: Neurons and frames whose standard deviation is below this share of the mean one are divided by the threshold.
_LEAST_RELATIVE_STD = 0.01


def response_precision(std: np.ndarray) -> np.ndarray:
    """Return the factors that bring responses to the competition's scale.

    ``1 / std`` where ``std`` exceeds 1 % of its mean over all neurons and frames, ``1 / threshold`` elsewhere. The
    evaluation server scores against responses multiplied by these, without centering; predictions made in raw
    units are multiplied by them before they are submitted.

    A frame where a neuron's ``std`` is missing (NaN) takes that of the last frame before it that has one, and frames
    before the first known one take that one's. The references cut trials at 300 frames, where the published statistics
    very probably end, and never see such a frame: their formula gives ``1 / threshold`` there, 50 to 100 times the
    factor of the frames before. A neuron whose ``std`` is missing at every frame gets ``1 / threshold``, as the starter
    kit has it. What is missing does not count in the mean.

    Parameters
    ----------
    std : np.ndarray
        (neuron, time), the archive's ``responses/all/std.npy``.

    Returns
    -------
    np.ndarray
        (neuron, time) float32.

    Raises
    ------
    UsageError
        If ``std`` has no positive finite mean.

    References
    ----------
    The normalization of the competition's starter kit (arXiv:2305.19654), also used by its winner.

    Examples
    --------
    >>> response_precision(np.array([[2.0, 0.0], [2.0, 4.0]])).tolist()
    [[0.5, 50.0], [0.5, 0.25]]
    >>> response_precision(np.array([[2.0, np.nan]])).tolist()
    [[0.5, 0.5]]
    """
    values = np.asarray(std, np.float64)
    present = values[~np.isnan(values)]
    threshold = _LEAST_RELATIVE_STD * float(present.mean()) if present.size else float("nan")
    if not (np.isfinite(threshold) and threshold > 0):
        raise UsageError(
            "the responses' standard deviations have no positive mean",
            found=f"a mean of {threshold / _LEAST_RELATIVE_STD:.4g}",
            remedy="use statistics of recorded responses",
        )
    filled = fill_missing_frames(values, axis=-1, missing=threshold)
    # Windows are cut along time, and multiplied: it runs slowest in memory here as in them.
    return (1 / np.where(filled > threshold, filled, threshold)).astype(np.float32, order="F")


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Brings arrays of one session to a model's scale, and responses from there to other scales.

    Every method takes float arrays whose other dimensions are as in the session store, and ``frames``: which of the
    session's frames the array's frame axis holds, a slice (``slice(20, 100, 2)``) or an index array; all by
    default. Results are float32, and NaN where the input is. The input is not changed. Those that normalize take
    ``out``, an array for the result.

    Made by :func:`competition_normalizer` and, by name, by :func:`sensorium_data.statistics.open_normalizer`.

    Attributes
    ----------
    name : str
        What :func:`~sensorium_data.statistics.open_normalizer` calls it.
    video_offset, video_scale : np.ndarray
        (time, height, width) float32.
    behavior_offset, behavior_scale : np.ndarray
        (behavior_channel, time) float32; without channels where the recording has none, as of the pupil center.
    pupil_center_offset, pupil_center_scale : np.ndarray
        (eye_axis, time) float32.
    precision : np.ndarray
        (neuron, time) float32, what responses are multiplied by.
    competition_precision : np.ndarray
        (neuron, time) float32, what the competition multiplies them by.
    least_response : float
        Normalized responses below this are set to it.
    """

    name: str
    video_offset: np.ndarray
    video_scale: np.ndarray
    behavior_offset: np.ndarray
    behavior_scale: np.ndarray
    pupil_center_offset: np.ndarray
    pupil_center_scale: np.ndarray
    precision: np.ndarray
    competition_precision: np.ndarray
    least_response: float = -np.inf

    def videos(
        self, values: np.ndarray, frames: slice | np.ndarray = slice(None), *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return ``(values - offset) * scale`` of videos, (…, time, height, width)."""
        return _shift_and_scale(values, self.video_offset[frames], self.video_scale[frames], out)

    def behavior(
        self, values: np.ndarray, frames: slice | np.ndarray = slice(None), *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return ``(values - offset) * scale`` of behavior, (…, behavior_channel, time)."""
        return _shift_and_scale(values, self.behavior_offset[:, frames], self.behavior_scale[:, frames], out)

    def pupil_center(
        self, values: np.ndarray, frames: slice | np.ndarray = slice(None), *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return ``(values - offset) * scale`` of pupil centers, (…, eye_axis, time)."""
        return _shift_and_scale(values, self.pupil_center_offset[:, frames], self.pupil_center_scale[:, frames], out)

    def responses(
        self, values: np.ndarray, frames: slice | np.ndarray = slice(None), *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return responses times their precision, (…, neuron, time), not below the least one."""
        scaled: np.ndarray = np.multiply(values, self.precision[:, frames], out=out, dtype=np.float32)
        if self.least_response > -np.inf:
            np.maximum(scaled, self.least_response, out=scaled)
        return scaled

    def select_neurons(self, rows: np.ndarray) -> Normalizer:
        """Return the normalization of some of the neurons, given by their places; what it rests on stays as it is."""
        precision = np.asfortranarray(self.precision[rows])
        competition_precision = (
            precision
            if self.precision is self.competition_precision
            else np.asfortranarray(self.competition_precision[rows])
        )
        return replace(self, precision=precision, competition_precision=competition_precision)

    def responses_to_raw(self, values: np.ndarray, frames: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return normalized responses, or predictions of them, in the archive's units, (…, neuron, time)."""
        raw: np.ndarray = np.divide(values, self.precision[:, frames], dtype=np.float32)
        return raw

    def responses_to_competition(self, values: np.ndarray, frames: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return normalized responses, or predictions of them, on the scale that the competition scores.

        (…, neuron, time). The two scales differ from frame to frame, so that one prediction on both has two
        correlations with the recording: whatever is compared or submitted belongs on this one.
        """
        if self.precision is self.competition_precision:
            return np.array(values, np.float32)
        ratio = np.divide(self.competition_precision[:, frames], self.precision[:, frames], dtype=np.float64)
        converted: np.ndarray = np.multiply(values, ratio, dtype=np.float32)
        return converted


def competition_normalizer(store: StoreLike, session: str) -> Normalizer:
    """Return the normalization that the competition's server and its published models use.

    With the archive's own statistics, frame by frame: videos ``(v - mean) / std`` for each pixel and frame, responses
    times their precision, behavior ``b / std`` without centering, pupil center ``(p - mean) / std``.

    Where a standard deviation is zero, the values equal the mean, and are divided by 1. Where a statistic is missing
    (NaN) at a frame, that of the last frame before it that has one stands in, or of the first known one: the statistics
    may end before the longest trial does. Where none is known, an input is not shifted and divided by 1; of responses
    see :func:`response_precision`.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.

    Raises
    ------
    StoreError
        If the session cannot be opened.
    UsageError
        If its responses' standard deviations have no positive mean.
    """
    with open_statistics(store, session) as stored:
        statistics = add_absent_variables(stored)

        def read(variable: str, statistic: str) -> np.ndarray:
            return np.asarray(statistics[variable].sel(statistic=statistic).values)

        precision = read_competition_precision(statistics)
        behavior_scale = invert_scale(read("behavior", "std"), axis=1)
        return Normalizer(
            name="competition",
            video_offset=fill_missing_frames(read("videos", "mean"), axis=0).astype(np.float32),
            video_scale=invert_scale(read("videos", "std"), axis=0),
            behavior_offset=np.zeros_like(behavior_scale),
            behavior_scale=behavior_scale,
            pupil_center_offset=fill_missing_frames(read("pupil_center", "mean"), axis=1).astype(np.float32),
            pupil_center_scale=invert_scale(read("pupil_center", "std"), axis=1),
            precision=precision,
            competition_precision=precision,
        )


def add_absent_variables(statistics: xr.Dataset) -> xr.Dataset:
    """Return statistics with variables that the recording lacks, as arrays without channels: nothing to normalize.

    Parameters
    ----------
    statistics : xarray.Dataset
        What :func:`~sensorium_data.store.open_statistics` or
        :func:`~sensorium_data.statistics.compute_train_statistics` returns.
    """
    added = {}
    for variable in ("behavior", "pupil_center"):
        if variable not in statistics:
            channel = VARIABLES[variable].dims[1]
            dims = ["statistic", channel, *(["time"] if "time" in statistics.dims else [])]
            shape = [0 if dim == channel else statistics.sizes[dim] for dim in dims]
            added[variable] = (dims, np.zeros(shape))
    return statistics.assign(added)


def read_competition_precision(statistics: xr.Dataset) -> np.ndarray:
    """Return :func:`response_precision` of what :func:`~sensorium_data.store.open_statistics` returns."""
    return response_precision(np.asarray(statistics["responses"].sel(statistic="std").values))


def invert_scale(scale: np.ndarray, axis: int) -> np.ndarray:
    """Return ``1 / scale`` as float32, NaN filled by :func:`fill_missing_frames`; 1 where it is zero or not known."""
    filled = fill_missing_frames(scale, axis, missing=1.0)
    return (1 / np.where(filled != 0, filled, 1.0)).astype(np.float32)


def fill_missing_frames(values: np.ndarray, axis: int, missing: float = 0.0) -> np.ndarray:
    """Replace what is missing by the last known value before it along the frame axis.

    Before the first known value, that one stands in; ``missing`` where there is none.

    Examples
    --------
    >>> fill_missing_frames(np.array([np.nan, 1.0, np.nan, 3.0]), axis=0).tolist()
    [1.0, 1.0, 1.0, 3.0]
    """
    known = np.isfinite(values)
    if known.all():
        return values
    frames = np.moveaxis(np.broadcast_to(np.arange(values.shape[axis]), np.moveaxis(values, axis, -1).shape), -1, axis)
    last = np.maximum.accumulate(np.where(known, frames, -1), axis=axis)
    first = np.expand_dims(np.argmax(known, axis=axis), axis)
    filled: np.ndarray = np.take_along_axis(values, np.where(last < 0, first, last), axis=axis)
    return np.where(known.any(axis=axis, keepdims=True), filled, missing)


def _shift_and_scale(
    values: np.ndarray, offset: np.ndarray, scale: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    shifted: np.ndarray = np.subtract(values, offset, out=out, dtype=np.float32)
    shifted *= scale
    return shifted
