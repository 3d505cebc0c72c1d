"""Linear receptive fields of neurons in space and time, from all trials of a session.

Suffixes of array names: N neuron, L lag, P pixel, T time, C response of one neuron at one lag.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.arguments import parse_integer, parse_labels, parse_number, show_value
from sensorium_data.explore.blocks import TrialBlock, find_counted, label_neurons, map_blocks, require_counted
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.explore.lookup import find_position
from sensorium_data.schema import FRAME_RATE_HZ

__all__ = ["RECEPTIVE_FIELD_METHODS", "ReceptiveFieldMethod", "map_receptive_fields"]

#: How receptive fields are found.
ReceptiveFieldMethod = Literal["spike-triggered average", "ridge"]
RECEPTIVE_FIELD_METHODS: tuple[str, ...] = get_args(ReceptiveFieldMethod)

# What the products of a trial and the sums over all may take.
_MOST_RESULT_BYTES = 500_000_000
# The ridge's covariance matrix is made and factorized in memory.
_MOST_RIDGE_WEIGHTS = 6000

Sums = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


def map_receptive_fields(
    dataset: xr.Dataset,
    neurons: Iterable[int] | None = None,
    lags: Iterable[int] = range(10),
    method: str = "spike-triggered average",
    *,
    bin_pixels: int | None = None,
    penalty: float = 1.0,
    jobs: int | None = None,
) -> xr.DataArray:
    """Return what each neuron's response depends on linearly: the video, pixel by pixel, some frames before.

    - ``spike-triggered average``: the mean of the frames that came ``lag`` frames before a response, weighted by the
      response, less their mean without weights: luminance. Where a stimulus is correlated in space and time, as movies
      are, it is the receptive field blurred by these correlations.
    - ``ridge``: the weights that predict the response from the frames at all lags with the least squared error plus
      ``penalty`` times the mean variance of a pixel times the squared weights: response per luminance. It takes the
      correlations into account. Pixels are averaged in squares of 2 first, unless told otherwise.

    A neuron that answers a pattern whatever its phase, as complex cells do, has no linear receptive field: its weights
    are noise.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its trials. Valid trials whose responses are there count, and of them the frames
        that have a frame at every lag before them. Each trial is read once.
    neurons : iterable of int, optional
        Unit ids; all neurons of the dataset by default. More than about 1,000 do not fit.
    lags : iterable of int
        Frames from the video to the response, 0 or more.
    method : {"spike-triggered average", "ridge"}
        See above.
    bin_pixels : int, optional
        Side of the squares in which pixels are averaged, a divisor of the frame's height and width; by default 1, and 2
        for ``ridge``.
    penalty : float
        Of ``ridge``, more than 0: the larger, the smoother and smaller are the fields.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    xarray.DataArray
        (neuron, lag, height, width), with the coordinates ``lag`` (frames), ``lag_s`` (seconds), ``height`` and
        ``width`` (pixels of the video, the centers of the squares) and those of the neurons; ``attrs`` has
        ``method``, ``n_trials`` and ``n_frames`` that counted. NaN for a neuron that lacks a value, and
        for one whose response is 0 or negative on average.

    Raises
    ------
    UnknownNameError
        If there is no such method.
    UsageError
        If an argument cannot be, a neuron is not in the dataset, no trial counts, or the result would not fit.

    References
    ----------
    Chichilnisky (2001), Network: Computation in Neural Systems 12:199 (spike-triggered average); Sahani and Linden
    (2003), Evidence optimization techniques for estimating stimulus-response functions, NeurIPS 15 (ridge regression).
    """
    if method not in RECEPTIVE_FIELD_METHODS:
        raise UnknownNameError.of("method", str(method), RECEPTIVE_FIELD_METHODS)
    dataset = arrange_session(dataset, "responses", "videos", whole_start=True)
    is_ridge = method == "ridge"
    lag_frames = _parse_lags(lags)
    side = _parse_bin(dataset, (2 if is_ridge else 1) if bin_pixels is None else bin_pixels)
    penalty = parse_number(penalty, "penalty", above=0)
    if neurons is not None:
        units = parse_labels(neurons, "neuron")
        dataset = dataset.isel(neuron=[find_position(dataset, "neuron", unit) for unit in units])
    height, width = dataset.sizes["height"] // side, dataset.sizes["width"] // side
    if not dataset.sizes["neuron"]:
        raise UsageError("no neuron to map", session=session_name(dataset), remedy="select at least one neuron")
    n_neurons, n_lags, n_pixels = dataset.sizes["neuron"], len(lag_frames), height * width
    _require_fitting(dataset, n_neurons, n_lags, n_pixels, is_ridge=is_ridge)
    positions = find_counted(dataset)
    require_counted(dataset, positions, "receptive fields")

    sums = _Sums(n_neurons, lag_frames, n_pixels, needs_covariance=is_ridge)

    def add_up(block: TrialBlock) -> _Part | None:
        if block.n_frames <= lag_frames.max():
            return None
        return sums.measure(_average_squares(block.videos, side), block.responses)

    for part in map_blocks(dataset, positions, ["responses", "videos"], add_up, jobs=jobs):
        if part is not None:
            sums.add(part)
    if sums.n_frames == 0:
        raise UsageError(
            "no trial is longer than the largest lag",
            session=session_name(dataset),
            found=f"lags up to {lag_frames.max()} frames",
            remedy="give smaller lags",
        )
    fields = sums.solve_ridge(penalty) if is_ridge else sums.average()
    units_of = str(dataset["responses"].attrs.get("units", "arbitrary units"))
    return xr.DataArray(
        fields.reshape(n_neurons, n_lags, height, width),
        dims=("neuron", "lag", "height", "width"),
        coords={
            **label_neurons(dataset),
            "lag": ("lag", lag_frames, {"long_name": "frames from the video to the response", "units": "frames"}),
            "lag_s": ("lag", lag_frames / FRAME_RATE_HZ, {"long_name": "time to the response", "units": "s"}),
            "height": ("height", (np.arange(height) + 0.5) * side - 0.5, {"units": "pixels"}),
            "width": ("width", (np.arange(width) + 0.5) * side - 0.5, {"units": "pixels"}),
        },
        name="receptive_fields",
        attrs={
            "long_name": method,
            "units": f"{units_of} per luminance (0-255)" if is_ridge else "luminance (0-255)",
            "method": method,
            "n_trials": sums.n_trials,
            "n_frames": sums.n_frames,
        },
    )


class _Part:
    """What one trial adds; of the frames at its start and end the ridge alone needs any."""

    n_frames: int
    products: Floats
    responses: Sums
    videos: Sums
    covariances: dict[int, Floats]
    start: Floats
    end: Floats


class _Sums:
    """Sums over trials from which both kinds of fields follow.

    The covariance of the frames at two lags is, but for a few frames at the ends of each trial, that of lag 0 and their
    difference. So one product a difference is enough, and the ends are kept to make it exact.
    """

    # Luminance is taken from here: products of small numbers keep more of float32's digits.
    _LEVEL = np.float32(100.0)

    def __init__(self, n_neurons: int, lags: npt.NDArray[np.int64], n_pixels: int, *, needs_covariance: bool) -> None:
        self._lags, self._most = lags, int(lags.max())
        self._needs_covariance = needs_covariance
        shape = (n_neurons, len(lags), n_pixels)
        self.n_trials = self.n_frames = 0
        self._products: Sums = np.zeros(shape)
        self._responses: Sums = np.zeros(n_neurons)
        self._videos: Sums = np.zeros(shape[1:])
        differences = {int(abs(a - b)) for a in lags for b in lags} if needs_covariance else set()
        self._covariances: dict[int, Sums] = {d: np.zeros((n_pixels, n_pixels)) for d in sorted(differences)}
        self._ends: list[tuple[Floats, Floats]] = []

    def measure(self, videos_TP: Floats, responses_NT: npt.NDArray[np.floating]) -> _Part:
        """Return what a trial adds: a product for all lags and neurons at once, in any thread."""
        part, most = _Part(), self._most
        videos_TP = videos_TP - self._LEVEL
        n_all = len(videos_TP)
        part.n_frames = n_all - most
        counted = np.asarray(responses_NT[:, most:], np.float32)
        # Each neuron's response, moved to the frames that it belongs to at each lag.
        moved = np.zeros((len(counted), len(self._lags), n_all), np.float32)
        for place, lag in enumerate(self._lags.tolist()):
            moved[:, place, most - lag : n_all - lag] = counted
        part.products = moved.reshape(-1, n_all) @ videos_TP
        part.responses = counted.sum(axis=1, dtype=np.float64)
        part.videos = np.stack(
            [videos_TP[most - lag : n_all - lag].sum(axis=0, dtype=np.float64) for lag in self._lags.tolist()]
        )
        if self._needs_covariance:
            # Of the frames at lags 0 and d, over all that count.
            part.covariances = {d: videos_TP[most:].T @ videos_TP[most - d : n_all - d] for d in self._covariances}
            part.start, part.end = videos_TP[:most].copy(), videos_TP[n_all - most :].copy()
        return part

    def add(self, part: _Part) -> None:
        """Add what a trial adds."""
        self.n_trials += 1
        self.n_frames += part.n_frames
        self._products += part.products.reshape(self._products.shape)
        self._responses += part.responses
        self._videos += part.videos
        if self._needs_covariance:
            for difference, covariance in part.covariances.items():
                self._covariances[difference] += covariance
            self._ends.append((part.start, part.end))

    def average(self) -> Floats:
        """Return the weighted mean of the frames less their mean, (neuron, lag, pixel)."""
        total = np.where(self._responses > 0, self._responses, np.nan)[:, np.newaxis, np.newaxis]
        return np.asarray(self._products / total - self._videos / self.n_frames, np.float32)

    def solve_ridge(self, penalty: float) -> Floats:
        """Return the weights of the regression, (neuron, lag, pixel)."""
        n_lags, n_pixels = self._videos.shape
        mean = self._videos.reshape(-1) / self.n_frames
        matrix = self._compose_covariance()
        scale = float(np.trace(matrix)) / len(matrix)
        if not scale > 0:
            raise UsageError(
                "the videos do not change", found="one luminance in all frames", remedy="take other trials"
            )
        matrix.flat[:: len(matrix) + 1] += penalty * scale
        products = self._products.reshape(len(self._products), -1) / self.n_frames
        products -= np.outer(self._responses / self.n_frames, mean)
        # What is missing stays with its neuron: a solver would spread it, or refuse it.
        known = np.isfinite(products).all(axis=1) & (self._responses > 0)
        weights = np.full(products.shape, np.nan)
        weights[known] = np.linalg.solve(matrix, products[known].T).T
        return np.asarray(weights.reshape(-1, n_lags, n_pixels), np.float32)

    def _compose_covariance(self) -> Sums:
        """Return the covariance of every two pixels at every two lags, (lag × pixel, lag × pixel)."""
        n_lags, n_pixels = self._videos.shape
        place_of = {lag: place for place, lag in enumerate(self._lags.tolist())}
        means = self._videos / self.n_frames
        matrix = np.empty((n_lags, n_pixels, n_lags, n_pixels))
        starts, ends = (np.stack(frames) for frames in zip(*self._ends, strict=True))
        for difference, total in self._covariances.items():
            for lag in range(self._most - difference + 1):
                if lag > 0:
                    # One frame at each trial's start comes in that a smaller lag does not see, and one at its end goes.
                    near, far = self._most - lag, self._most - lag - difference
                    total += starts[:, near].T @ starts[:, far]
                    total -= ends[:, near].T @ ends[:, far]
                i, j = place_of.get(lag), place_of.get(lag + difference)
                if i is not None and j is not None:
                    block = total / self.n_frames - np.outer(means[i], means[j])
                    matrix[i, :, j] = block
                    matrix[j, :, i] = block.T
        return matrix.reshape(n_lags * n_pixels, n_lags * n_pixels)


def _average_squares(videos: npt.NDArray[np.floating], side: int) -> Floats:
    """Return the mean luminance of each square of pixels, (time, pixel) float32."""
    n_frames, height, width = videos.shape
    if side == 1:
        return np.asarray(videos.reshape(n_frames, -1), np.float32)
    squares = videos.reshape(n_frames, height // side, side, width // side, side)
    return np.asarray(squares.mean(axis=(2, 4), dtype=np.float32).reshape(n_frames, -1))


def _parse_lags(lags: Iterable[int]) -> npt.NDArray[np.int64]:
    try:
        given = np.asarray(list(lags)).tolist()
        if any(isinstance(lag, bool) for lag in given):
            raise TypeError("a mask")
        frames = np.array([int(lag) for lag in given], np.int64)
        is_sound = len(frames) > 0 and frames.min() >= 0 and len(set(frames.tolist())) == len(frames)
        is_sound = is_sound and frames.tolist() == given
    except (TypeError, ValueError, OverflowError):
        given, is_sound = [lags], False
    if not is_sound:
        raise UsageError("no lags", found=given, expected="frames, 0 or more, each once, as range(10)")
    return frames


def _parse_bin(dataset: xr.Dataset, given: int) -> int:
    height, width = dataset.sizes["height"], dataset.sizes["width"]
    try:
        side = parse_integer(given, "bin_pixels", least=1)
    except UsageError:
        side = 0
    if side < 1 or height % side or width % side:
        raise UsageError(
            "pixels cannot be averaged in such squares",
            found=show_value(given),
            expected=f"a divisor of {height} and {width}, as 1, 2 or 4",
        )
    return side


def _require_fitting(dataset: xr.Dataset, n_neurons: int, n_lags: int, n_pixels: int, *, is_ridge: bool) -> None:
    # Float64 sums, and a float32 product for each of the trials under work.
    size_bytes = n_neurons * n_lags * n_pixels * 20
    if size_bytes > _MOST_RESULT_BYTES:
        most = _MOST_RESULT_BYTES // (n_lags * n_pixels * 20)
        raise UsageError(
            "the receptive fields do not fit into the memory that they may take",
            session=session_name(dataset),
            found=f"{count_things(n_neurons, 'neuron')} × {n_lags} lags × {n_pixels:,} pixels",
            expected=f"at most {count_things(most, 'neuron')} at once",
            remedy="name fewer neurons, fewer lags, or a larger bin_pixels",
        )
    if is_ridge and n_lags * n_pixels > _MOST_RIDGE_WEIGHTS:
        raise UsageError(
            "too many weights for one regression",
            session=session_name(dataset),
            found=f"{n_lags} lags × {n_pixels:,} pixels",
            expected=f"at most {_MOST_RIDGE_WEIGHTS:,}",
            remedy="name fewer lags, or a larger bin_pixels",
        )
