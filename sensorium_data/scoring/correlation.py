"""The competition's correlations, and their two aggregations over sessions, by their full names.

All take blocks of (neurons, frames), one a trial, and keep running moments in double precision: memory does not
grow with the number of trials.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from sensorium_data.errors import UsageError

__all__ = [
    "N_SKIPPED_FRAMES",
    "CorrelationAccumulator",
    "RepeatAverager",
    "correlation_to_average",
    "mean_over_mice",
    "mean_over_neurons",
    "single_trial_correlation",
    "standardized_covariance",
]

#: The first frames of every trial, which the competition does not score.
N_SKIPPED_FRAMES = 50

# On the standard deviation, not the variance: a constant trace then scores 0.
_EPSILON = 1e-8

Floats = npt.NDArray[np.float64]


class CorrelationAccumulator:
    """Each neuron's Pearson correlation of two signals that arrive block by block.

    Means and central moments are updated block by block (Chan, Golub and LeVeque, 1979), so a large
    offset does not cancel the digits that matter.

    Parameters
    ----------
    n_neurons : int
        Number of neurons.

    Examples
    --------
    >>> accumulator = CorrelationAccumulator(1)
    >>> accumulator.update(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]))
    >>> accumulator.update(np.array([[4.0]]), np.array([[9.0]]))
    >>> accumulator.correlation().round(6)
    array([1.])
    """

    def __init__(self, n_neurons: int) -> None:
        self._n_frames = 0
        self._mean_a = np.zeros(n_neurons)
        self._mean_b = np.zeros(n_neurons)
        # Sums over frames of the products of deviations from the mean.
        self._aa = np.zeros(n_neurons)
        self._bb = np.zeros(n_neurons)
        self._ab = np.zeros(n_neurons)

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self._mean_a.size

    @property
    def n_frames(self) -> int:
        """Frames so far."""
        return self._n_frames

    def update(self, a: npt.ArrayLike, b: npt.ArrayLike) -> None:
        """Add a block of frames.

        Parameters
        ----------
        a, b : array_like
            (neurons, frames) each. A neuron with a NaN or infinite value in any block scores 0.

        Raises
        ------
        UsageError
            If the shapes differ, or the number of neurons is another one.
        """
        block = CorrelationAccumulator(self.n_neurons)
        a_NT, b_NT = np.array(a, np.float64), np.array(b, np.float64)
        if a_NT.ndim != 2 or a_NT.shape != b_NT.shape or a_NT.shape[0] != self.n_neurons:
            raise UsageError(
                "signals that cannot be correlated",
                found=f"{a_NT.shape} and {b_NT.shape}",
                expected=f"two arrays of ({self.n_neurons}, frames)",
            )
        if a_NT.shape[1] == 0:
            return
        # An infinite value becomes NaN here, and the neuron's correlation 0 in the end.
        with np.errstate(invalid="ignore", over="ignore"):
            block._n_frames = a_NT.shape[1]
            block._mean_a, block._mean_b = a_NT.mean(axis=1), b_NT.mean(axis=1)
            a_NT -= block._mean_a[:, None]
            b_NT -= block._mean_b[:, None]
            block._aa = np.einsum("nt,nt->n", a_NT, a_NT)
            block._bb = np.einsum("nt,nt->n", b_NT, b_NT)
            block._ab = np.einsum("nt,nt->n", a_NT, b_NT)
        self.merge(block)

    def merge(self, other: CorrelationAccumulator) -> Self:
        """Add the frames that another accumulator has seen, and return this one.

        Raises
        ------
        UsageError
            If the numbers of neurons differ.
        """
        if other.n_neurons != self.n_neurons:
            raise UsageError("accumulators of different neurons", found=other.n_neurons, expected=self.n_neurons)
        n_frames = self._n_frames + other._n_frames
        if other._n_frames == 0:
            return self
        weight = self._n_frames * other._n_frames / n_frames
        with np.errstate(invalid="ignore", over="ignore"):
            delta_a, delta_b = other._mean_a - self._mean_a, other._mean_b - self._mean_b
            self._aa = self._aa + other._aa + weight * delta_a * delta_a
            self._bb = self._bb + other._bb + weight * delta_b * delta_b
            self._ab = self._ab + other._ab + weight * delta_a * delta_b
            self._mean_a = self._mean_a + delta_a * (other._n_frames / n_frames)
            self._mean_b = self._mean_b + delta_b * (other._n_frames / n_frames)
        self._n_frames = n_frames
        return self

    def correlation(self) -> Floats:
        """Return the correlation of each neuron, (neurons,): 0 where a trace is constant or not finite.

        Each trace is standardized with its population standard deviation plus 1e-8. Before any frame, NaN.
        """
        if self._n_frames == 0:
            return np.full(self.n_neurons, np.nan)
        zero = np.zeros(1)
        return standardized_covariance(zero, zero, *(x / self._n_frames for x in (self._aa, self._bb, self._ab)))


def standardized_covariance(mean_a: Floats, mean_b: Floats, aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Return the correlation that means over frames amount to.

    Each trace is standardized with its population standard deviation plus 1e-8, as all codes of the field do: a
    constant trace correlates 0 with everything, and one that is not finite counts as 0.

    Parameters
    ----------
    mean_a, mean_b : np.ndarray
        Means over frames of both signals, of the shape of the result or one that broadcasts to it.
    aa, bb, ab : np.ndarray
        Means over frames of their products.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        std_a = np.sqrt(np.maximum(aa - mean_a * mean_a, 0.0)) + _EPSILON
        std_b = np.sqrt(np.maximum(bb - mean_b * mean_b, 0.0)) + _EPSILON
        correlation = (ab - mean_a * mean_b) / (std_a * std_b)
    return np.nan_to_num(correlation, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


class RepeatAverager:
    """The average of a movie's repeats, added one by one; frames past the shortest repeat are dropped."""

    def __init__(self) -> None:
        self._sums: list[Floats] = []
        self.n_repeats = 0

    def add(self, *signals: npt.ArrayLike) -> None:
        """Add one repeat: the same number of signals each time, each (neurons, frames)."""
        arrays = [np.asarray(signal) for signal in signals]
        if not self._sums:
            self._sums = [array.astype(np.float64) for array in arrays]
        else:
            n_frames = min(self._sums[0].shape[1], *(array.shape[1] for array in arrays))
            self._sums = [
                total[:, :n_frames] + array[:, :n_frames] for total, array in zip(self._sums, arrays, strict=True)
            ]
        self.n_repeats += 1

    def averages(self) -> tuple[Floats, ...]:
        """Return each signal's average, (neurons, common frames)."""
        return tuple(total / self.n_repeats for total in self._sums)


def single_trial_correlation(
    responses: Iterable[npt.ArrayLike],
    predictions: Iterable[npt.ArrayLike],
    *,
    skip_frames: int = N_SKIPPED_FRAMES,
) -> Floats:
    """Correlate each neuron's predicted and recorded activity over the trials joined along time.

    This ranks the competition's tracks (Turishcheva et al. 2023, arXiv:2305.19654).

    Parameters
    ----------
    responses, predictions : iterable of array_like
        One array a trial, (neurons, frames), both from the trial's first frame to its last valid one.
    skip_frames : int
        Frames cut from the start of every trial.

    Returns
    -------
    np.ndarray
        (neurons,); 0 where a trace is constant or holds a NaN.

    Raises
    ------
    UsageError
        If there is no trial, the shapes differ, or no frame is left.
    """
    accumulator: CorrelationAccumulator | None = None
    for response, prediction in zip(responses, predictions, strict=True):
        response_NT, prediction_NT = np.asarray(response), np.asarray(prediction)
        accumulator = accumulator or CorrelationAccumulator(len(response_NT))
        accumulator.update(response_NT[:, skip_frames:], prediction_NT[:, skip_frames:])
    if accumulator is None or accumulator.n_frames == 0:
        raise UsageError("no frame to score", expected=f"trials of more than {skip_frames} frames")
    return accumulator.correlation()


def correlation_to_average(
    responses: Iterable[npt.ArrayLike],
    predictions: Iterable[npt.ArrayLike],
    movies: Sequence[Hashable],
    *,
    skip_frames: int = N_SKIPPED_FRAMES,
) -> Floats:
    """Correlate activity averaged over the repeats of a movie.

    Responses and predictions are averaged over the repeats first, over the frames that all repeats have; the
    averages of all movies are joined along time and correlated. Movies shown once are left out.

    Parameters
    ----------
    responses, predictions : iterable of array_like
        As in :func:`single_trial_correlation`.
    movies : sequence of hashable
        The movie each trial shows.
    skip_frames : int
        Frames cut from the start of every trial.

    Returns
    -------
    np.ndarray
        (neurons,); NaN for all neurons where no movie was shown twice.

    Raises
    ------
    UsageError
        If there is no trial or the shapes differ.
    """
    averagers: dict[Hashable, RepeatAverager] = {}
    n_neurons: int | None = None
    for response, prediction, movie in zip(responses, predictions, movies, strict=True):
        response_NT, prediction_NT = np.asarray(response), np.asarray(prediction)
        if response_NT.shape != prediction_NT.shape:
            raise UsageError(
                "responses and predictions of different shape", found=prediction_NT.shape, expected=response_NT.shape
            )
        n_neurons = len(response_NT)
        averager = averagers.setdefault(movie, RepeatAverager())
        averager.add(response_NT[:, skip_frames:], prediction_NT[:, skip_frames:])
    if n_neurons is None:
        raise UsageError("no trial to score")
    accumulator = CorrelationAccumulator(n_neurons)
    for averager in averagers.values():
        if averager.n_repeats > 1:
            accumulator.update(*averager.averages())
    return accumulator.correlation()


def mean_over_neurons(correlations: Iterable[npt.NDArray[np.floating]]) -> float:
    """Return the mean over the neurons of all sessions pooled, as the starter kit averages.

    Parameters
    ----------
    correlations : iterable of np.ndarray
        (neurons,) for each session; without any, the mean is NaN.
    """
    pooled = [np.asarray(c, np.float64) for c in correlations]
    return float(np.concatenate(pooled).mean()) if pooled else float("nan")


def mean_over_mice(correlations: Iterable[npt.NDArray[np.floating]]) -> float:
    """Return the mean over mice of the mean over a mouse's neurons, as the winner's code averages.

    Parameters
    ----------
    correlations : iterable of np.ndarray
        (neurons,) for each session, which is a mouse; without any, the mean is NaN.
    """
    means = [float(np.mean(c)) for c in correlations]
    return float(np.mean(means)) if means else float("nan")
