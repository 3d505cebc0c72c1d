"""Normalization with the archive's own statistics, frame by frame, as the competition does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sensorium_data.errors import UsageError
from sensorium_data.store import open_statistics

__all__ = ["Normalizer", "competition_normalizer", "response_precision"]

#: Neurons and frames whose standard deviation is below this share of the mean one are divided by the threshold.
_LEAST_RELATIVE_STD = 0.01


def response_precision(std: np.ndarray) -> np.ndarray:
    """Return the factors that bring responses to the competition's scale.

    ``1 / std`` where ``std`` exceeds 1 % of its mean over all neurons and frames, ``1 / threshold`` elsewhere, also
    where ``std`` is NaN. The evaluation server scores against responses multiplied by these, without
    centering; predictions made in raw units are multiplied by them before they are submitted.

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
    # NaN compares as false, and gets the threshold.
    return (1 / np.where(values > threshold, values, threshold)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Brings arrays of one session to the competition's scale, frame by frame.

    Every method takes float arrays whose other dimensions are as in the session store, and ``frames``: which of the
    session's frames the array's frame axis holds, a slice (``slice(20, 100, 2)``) or an index array; all by
    default. Results are float32, and NaN where the input is. The input is not changed.

    Made by :func:`competition_normalizer`.

    Attributes
    ----------
    video_mean, video_scale : np.ndarray
        (time, height, width) float32; the scale is 1 / std.
    precision : np.ndarray
        (neuron, time) float32, :func:`response_precision`.
    behavior_scale : np.ndarray
        (behavior_channel, time) float32, 1 / std.
    pupil_center_mean, pupil_center_scale : np.ndarray
        (eye_axis, time) float32.
    """

    video_mean: np.ndarray
    video_scale: np.ndarray
    precision: np.ndarray
    behavior_scale: np.ndarray
    pupil_center_mean: np.ndarray
    pupil_center_scale: np.ndarray

    def videos(self, values: np.ndarray, frames: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return ``(values - mean) / std`` of videos, (…, time, height, width)."""
        return _standardize(values, self.video_mean[frames], self.video_scale[frames])

    def responses(self, values: np.ndarray, frames: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return responses times their precision, (…, neuron, time)."""
        return _scale(values, self.precision[:, frames])

    def behavior(self, values: np.ndarray, frames: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return ``values / std`` of behavior, (…, behavior_channel, time); the mean stays."""
        return _scale(values, self.behavior_scale[:, frames])

    def pupil_center(self, values: np.ndarray, frames: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return ``(values - mean) / std`` of pupil centers, (…, eye_axis, time)."""
        return _standardize(values, self.pupil_center_mean[:, frames], self.pupil_center_scale[:, frames])


def competition_normalizer(store: str, session: str) -> Normalizer:
    """Return the normalization that the competition's server and its published models use.

    Videos ``(v - mean) / std`` for each pixel and frame, responses times their precision, behavior ``b / std``
    without centering, pupil center ``(p - mean) / std``.

    Where a standard deviation is zero, the values equal the mean, and are divided by 1. Where a statistic of an
    input is missing (NaN) at a frame, the last frame before it that has one stands in: the statistics may end before
    the longest trial does.

    Parameters
    ----------
    store : str
        Path or fsspec URL of a store's root.
    session : str
        Alias or full name.

    Raises
    ------
    StoreError
        If the session cannot be opened.
    UsageError
        If its responses' standard deviations have no positive mean.
    """
    with open_statistics(store, session) as statistics:

        def read(variable: str, statistic: str) -> np.ndarray:
            return np.asarray(statistics[variable].sel(statistic=statistic).values)

        return Normalizer(
            video_mean=_fill_mean(read("videos", "mean"), axis=0),
            video_scale=_invert_std(read("videos", "std"), axis=0),
            precision=response_precision(read("responses", "std")),
            behavior_scale=_invert_std(read("behavior", "std"), axis=1),
            pupil_center_mean=_fill_mean(read("pupil_center", "mean"), axis=1),
            pupil_center_scale=_invert_std(read("pupil_center", "std"), axis=1),
        )


def _standardize(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    centered: np.ndarray = np.subtract(values, mean, dtype=np.float32)
    centered *= scale
    return centered


def _scale(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.multiply(values, scale, dtype=np.float32)
    return scaled


def _invert_std(std: np.ndarray, axis: int) -> np.ndarray:
    filled = _fill_forward(std, axis, missing=1.0)
    return (1 / np.where(filled > 0, filled, 1.0)).astype(np.float32)


def _fill_mean(mean: np.ndarray, axis: int) -> np.ndarray:
    return _fill_forward(mean, axis, missing=0.0).astype(np.float32)


def _fill_forward(values: np.ndarray, axis: int, missing: float) -> np.ndarray:
    """Replace NaN by the last value before it along ``axis``, or by ``missing`` where there is none."""
    absent = ~np.isfinite(values)
    if not absent.any():
        return values
    frames = np.moveaxis(np.broadcast_to(np.arange(values.shape[axis]), np.moveaxis(values, axis, -1).shape), -1, axis)
    last = np.maximum.accumulate(np.where(absent, -1, frames), axis=axis)
    filled: np.ndarray = np.take_along_axis(values, np.maximum(last, 0), axis=axis)
    return np.where(last < 0, missing, filled)
