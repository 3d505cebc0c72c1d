"""Sums over each trial's frames, from which the single-trial correlation of any choice of trials follows.

The frames are read once. Then the correlation over all trials, over those of one stimulus, without one trial, or over a
thousand resamples is a matrix product of trials' weights with trials' sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensorium_data.errors import UsageError
from sensorium_data.scoring.bootstrap import Bootstrap, WeightedCorrelation, cut_neurons
from sensorium_data.scoring.correlation import standardized_covariance

__all__ = ["TrialMoments", "sum_differences", "sum_trial"]

Floats = npt.NDArray[np.float64]

_N_SUMS = 5


def sum_trial(a_NT: npt.NDArray[np.floating], b_NT: npt.NDArray[np.floating]) -> Floats:
    """Return a trial's sums: what :class:`TrialMoments` is made of.

    Parameters
    ----------
    a_NT, b_NT : np.ndarray
        (neuron, frame) each, of the same shape and at least one frame.

    Returns
    -------
    np.ndarray
        (5, neuron) float64: the means of both over frames, and the sums over frames of the products of deviations from
        them: of a with a, b with b, and a with b. NaN where a trace is not finite.

    Raises
    ------
    UsageError
        If the shapes differ or there is no frame.
    """
    _require_pair(a_NT, b_NT)
    sums = np.empty((_N_SUMS, len(a_NT)))
    for cut in cut_neurons(len(a_NT)):
        _sum_products(a_NT[cut].astype(np.float64), b_NT[cut].astype(np.float64), sums[:, cut])
    return sums


def sum_differences(a_NT: npt.NDArray[np.floating], b_NT: npt.NDArray[np.floating]) -> Floats:
    """Return the sums of a trial's first differences: each frame less the one before it, within the trial.

    A trial of ``n`` frames has ``n - 1`` differences; that is its number of frames for :class:`TrialMoments`.

    Parameters
    ----------
    a_NT, b_NT : np.ndarray
        As of :func:`sum_trial`.

    Returns
    -------
    np.ndarray
        (5, neuron) float64, as :func:`sum_trial` returns; 0 for a trial of one frame, which has no difference.

    Raises
    ------
    UsageError
        If the shapes differ or there is no frame.
    """
    _require_pair(a_NT, b_NT)
    sums = np.zeros((_N_SUMS, len(a_NT)))
    if a_NT.shape[1] == 1:
        return sums
    with np.errstate(invalid="ignore", over="ignore"):
        for cut in cut_neurons(len(a_NT)):
            # In double precision first: the difference of two float32 values need not be one.
            a, b = (np.diff(values[cut].astype(np.float64), axis=1) for values in (a_NT, b_NT))
            _sum_products(a, b, sums[:, cut])
    return sums


def _require_pair(a_NT: npt.NDArray[np.floating], b_NT: npt.NDArray[np.floating]) -> None:
    if a_NT.ndim != 2 or a_NT.shape != b_NT.shape or a_NT.shape[1] == 0:
        raise UsageError(
            "signals that cannot be correlated",
            found=f"{a_NT.shape} and {b_NT.shape}",
            expected="two arrays of (neurons, frames), of equal shape, with a frame at least",
        )


def _sum_products(a: Floats, b: Floats, sums: Floats) -> None:
    """Write what :func:`sum_trial` returns into ``sums``; the signals are changed."""
    # An infinite value becomes NaN here, and the neuron's correlation 0 in the end.
    with np.errstate(invalid="ignore", over="ignore"):
        for row, values in enumerate((a, b)):
            mean = values.mean(axis=1)
            sums[row] = mean
            values -= mean[:, None]
        for row, (first, second) in enumerate(((a, a), (b, b), (a, b)), start=2):
            sums[row] = np.einsum("nt,nt->n", first, second)


class TrialMoments(WeightedCorrelation[Floats]):
    """The sums of several trials.

    Parameters
    ----------
    n_frames : sequence of int
        Frames of each trial.
    sums : sequence of np.ndarray
        What :func:`sum_trial` returns for each.

    Raises
    ------
    UsageError
        If there is no trial.

    Examples
    --------
    >>> trials = [(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]])), (np.array([[4.0]]), np.array([[9.0]]))]
    >>> TrialMoments([2, 1], [sum_trial(a, b) for a, b in trials]).correlation().round(6)
    array([1.])
    """

    def __init__(self, n_frames: Sequence[int], sums: Sequence[Floats]) -> None:
        if not sums:
            raise UsageError("no trial to correlate over")
        self._n_frames = np.asarray(n_frames, np.float64)
        # (trial, 5, neuron)
        self._sums = np.stack(sums)

    @property
    def n_trials(self) -> int:
        """Number of trials."""
        return len(self._sums)

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return int(self._sums.shape[2])

    def weighted_correlation(self, weights: Floats, neurons: slice) -> Floats:
        """Return the correlation over trials that each count as often as weighted.

        Parameters
        ----------
        weights : np.ndarray
            (choice, trial), a row for each choice of trials; no row is all 0.
        neurons : slice
            Which neurons.

        Returns
        -------
        np.ndarray
            (choice, neuron).
        """
        n_frames = self._n_frames[:, None]
        mean_a, mean_b, aa, bb, ab = self._sums[:, :, neurons].swapaxes(0, 1)
        share = n_frames / n_frames.sum()
        # Around the mean of all trials, so that a large offset costs no digits.
        with np.errstate(invalid="ignore", over="ignore"):
            a = mean_a - (share * mean_a).sum(axis=0)
            b = mean_b - (share * mean_b).sum(axis=0)
            n = weights @ n_frames
            sums = (n_frames * a, n_frames * b, aa + n_frames * a * a, bb + n_frames * b * b, ab + n_frames * a * b)
            return standardized_covariance(*(weights @ values / n for values in sums))

    def _weigh_equally(self) -> Floats:
        return np.ones((1, self.n_trials))

    def _draw_weights(self, how: Bootstrap, labels: Sequence[str]) -> Floats:
        return how.draw(self.n_trials, "trials", *labels)

    def _replicate(self, recorded: Sequence[Floats], drawn: Floats, neurons: slice) -> Sequence[Floats]:
        if self.n_trials == 1:
            # Drawing the only trial again and again does not tell how far it is off.
            return [np.full((len(drawn), one.size), np.nan) for one in recorded]
        return self.readings(drawn, neurons)
