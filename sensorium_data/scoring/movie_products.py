"""Products of a movie's repeats with each other: the correlation to average of any choice of repeats follows.

The average over repeats, weighted in whatever way, is a linear combination of them; its variance and its
covariance with another average are quadratic forms of the repeats' products. So the frames are read once, and a
thousand resamples are a matrix product. For R repeats that takes 3 R² numbers a neuron and movie: 19 MB for ten
repeats of 8,000 neurons.

References
----------
Schoppe et al. (2016), Measuring the performance of neural models, Frontiers in Computational Neuroscience 10:10
(signal power SP and CC_norm). ViV1T's ``viv1t/metrics.py`` (CC_norm movie by movie, and where it is not defined).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensorium_data.errors import UsageError
from sensorium_data.scoring.bootstrap import TILT, Bootstrap, WeightedCorrelation, cut_neurons
from sensorium_data.scoring.correlation import standardized_covariance
from sensorium_data.scoring.reliability import OracleReliability

__all__ = ["LEAST_SIGNAL_POWER", "MovieProducts", "RepeatedMovies"]

Floats = npt.NDArray[np.float64]

#: A neuron with no more signal power in a movie has no normalized correlation there, as ViV1T's code has it; in squared
#: standardized units.
LEAST_SIGNAL_POWER = 1e-4

# What rounding leaves of the variance of a constant trace, relative to its mean square.
_ROUNDING = 1e-24


class MovieProducts:
    """The products of one movie's repeats, over the frames that all of them have.

    Parameters
    ----------
    a, b : sequence of np.ndarray
        Two signals of each repeat, (neuron, frame); lengths may differ by a few frames.

    Raises
    ------
    UsageError
        If there are fewer than two repeats or no common frame.
    """

    def __init__(self, a: Sequence[npt.NDArray[np.floating]], b: Sequence[npt.NDArray[np.floating]]) -> None:
        self.n_repeats = len(a)
        self.n_frames = min((signal.shape[1] for signal in (*a, *b)), default=0)
        if self.n_repeats < 2 or len(b) != len(a) or self.n_frames == 0:
            raise UsageError(
                "no repeats to average",
                found=f"{len(a)} and {len(b)} repeats with {self.n_frames} common frames",
                expected="two or more of both signals",
            )
        self.n_neurons = len(a[0])
        shape = (self.n_neurons, self.n_repeats)
        # Each neuron's mean over repeats and frames; the sums are of what is left.
        self._level_a, self._level_b = np.empty((2, self.n_neurons))
        self._sums_a, self._sums_b = np.empty((2, *shape))
        self._aa, self._bb, self._ab = np.empty((3, *shape, self.n_repeats))
        for cut in cut_neurons(self.n_neurons):
            a_NRT, self._level_a[cut], self._sums_a[cut] = self._center(a, cut)
            b_NRT, self._level_b[cut], self._sums_b[cut] = self._center(b, cut)
            with np.errstate(invalid="ignore", over="ignore"):
                np.matmul(a_NRT, a_NRT.swapaxes(1, 2), out=self._aa[cut])
                np.matmul(b_NRT, b_NRT.swapaxes(1, 2), out=self._bb[cut])
                np.matmul(a_NRT, b_NRT.swapaxes(1, 2), out=self._ab[cut])

    def _center(self, signals: Sequence[npt.NDArray[np.floating]], neurons: slice) -> tuple[Floats, Floats, Floats]:
        values = np.stack([signal[neurons, : self.n_frames] for signal in signals], axis=1).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            level = values.mean(axis=(1, 2))
            values -= level[:, None, None]
            return values, level, values.sum(axis=2)

    def levels(self, neurons: slice) -> tuple[Floats, Floats]:
        """Return the means of both signals over repeats and frames, (neuron,) each."""
        return self._level_a[neurons], self._level_b[neurons]

    def average_sums(self, weights: Floats, neurons: slice, mean_a: Floats, mean_b: Floats) -> tuple[Floats, ...]:
        """Return sums over frames of weighted averages of the repeats.

        Parameters
        ----------
        weights : np.ndarray
            (choice, repeat); each row adds up to 1.
        neurons : slice
            Which neurons.
        mean_a, mean_b : np.ndarray
            (neuron,): what is taken from the signals first.

        Returns
        -------
        tuple of np.ndarray
            (choice, neuron) each: sums of both averages and of their products aa, bb, ab.
        """
        pairs = (weights[:, :, None] * weights[:, None, :]).reshape(len(weights), -1)
        n = self.n_frames
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = self._level_a[neurons] - mean_a, self._level_b[neurons] - mean_b
            rest_a, rest_b = weights @ self._sums_a[neurons].T, weights @ self._sums_b[neurons].T
            aa, bb, ab = (
                pairs @ products[neurons].reshape(-1, self.n_repeats**2).T
                for products in (self._aa, self._bb, self._ab)
            )
            return (
                rest_a + n * a,
                rest_b + n * b,
                aa + a * (2 * rest_a + n * a),
                bb + b * (2 * rest_b + n * b),
                ab + a * rest_b + b * rest_a + n * a * b,
            )

    def signal_power(self) -> Floats:
        """Return the signal power of the first signal, the responses, (neuron,).

        ``SP = [var(Σ_r y_r) - Σ_r var(y_r)] / (R (R - 1))`` (Schoppe et al. 2016); variances are over the ``n`` frames,
        divided by ``n - 1``. It is not clipped: noise makes it negative. NaN for a movie of one frame.
        """
        n, n_repeats = self.n_frames, self.n_repeats
        if n < 2:
            return np.full(self.n_neurons, np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            of_sum = self._aa.sum(axis=(1, 2)) - self._sums_a.sum(axis=1) ** 2 / n
            of_each = np.einsum("nrr->n", self._aa) - np.einsum("nr,nr->n", self._sums_a, self._sums_a) / n
            power: Floats = (of_sum - of_each) / ((n - 1) * n_repeats * (n_repeats - 1))
        return power

    def normalized_correlation(self) -> Floats:
        """Return the normalized correlation of the second signal's average with the first's, (neuron,).

        ``CC_norm = cov(mean of y, mean of p) / sqrt(var(mean of p) SP)``. NaN where the signal power is at most
        :data:`LEAST_SIGNAL_POWER` or not finite; 0 where the average of the second signal is constant or not finite.
        """
        n, power = self.n_frames, self.signal_power()
        defined = power > LEAST_SIGNAL_POWER
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            a, b = self._sums_a.mean(axis=1), self._sums_b.mean(axis=1)
            covariance = (self._ab.mean(axis=(1, 2)) - a * b / n) / max(n - 1, 1)
            variance = (self._bb.mean(axis=(1, 2)) - b * b / n) / max(n - 1, 1)
            variance[variance <= _ROUNDING * self._level_b**2] = 0.0
            correlation: Floats = np.nan_to_num(covariance / np.sqrt(variance * power), nan=0.0, posinf=0.0, neginf=0.0)
        correlation[~defined] = np.nan
        return correlation

    def add_to(self, reliability: OracleReliability) -> None:
        """Add the first signal, the responses, to what tells how reliable the neurons are."""
        level, n = self._level_a, self.n_frames
        rest = self._sums_a.sum(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            sums = rest + self.n_repeats * n * level
            squares = np.einsum("nrr->n", self._aa) + level * (2 * rest + self.n_repeats * n * level)
            whole = self.n_repeats * level
            squared_sums = self._aa.sum(axis=(1, 2)) + whole * (2 * rest + n * whole)
            reliability.add_sums(self.n_repeats, n, sums, squares, squared_sums)


class RepeatedMovies(WeightedCorrelation[Sequence[Floats]]):
    """Several movies that were each shown more than once.

    Parameters
    ----------
    movies : sequence of MovieProducts
        At least one.

    Raises
    ------
    UsageError
        If there is none.
    """

    def __init__(self, movies: Sequence[MovieProducts]) -> None:
        if not movies:
            raise UsageError("no movie was shown twice")
        self._movies = tuple(movies)
        self._n_frames = sum(movie.n_frames for movie in movies)

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self._movies[0].n_neurons

    def weighted_correlation(self, weights: Sequence[Floats], neurons: slice) -> Floats:
        """Return the correlation to average for averages in which repeats count as weighted.

        Parameters
        ----------
        weights : sequence of np.ndarray
            For each movie (choice, repeat), rows that add up to 1.
        neurons : slice
            Which neurons.

        Returns
        -------
        np.ndarray
            (choice, neuron).
        """
        return self.readings(weights, neurons)[0]

    def readings(self, weights: Sequence[Floats], neurons: slice) -> tuple[Floats, ...]:
        """Return both readings of the correlation to average, (choice, neuron) each: movies joined, and per movie.

        Parameters
        ----------
        weights, neurons
            As of :meth:`weighted_correlation`.
        """
        shares = [movie.n_frames / self._n_frames for movie in self._movies]
        # Around the mean of all movies, so that a large offset costs no digits.
        levels = [movie.levels(neurons) for movie in self._movies]
        mean_a = np.sum([share * a for share, (a, _) in zip(shares, levels, strict=True)], axis=0)
        mean_b = np.sum([share * b for share, (_, b) in zip(shares, levels, strict=True)], axis=0)
        totals: list[Floats] = []
        per_movie: Floats = np.zeros(())
        for movie, rows in zip(self._movies, weights, strict=True):
            sums = movie.average_sums(rows, neurons, mean_a, mean_b)
            per_movie = per_movie + standardized_covariance(*(part / movie.n_frames for part in sums))
            totals = [total + part for total, part in zip(totals, sums, strict=True)] if totals else list(sums)
        joined = standardized_covariance(*(total / self._n_frames for total in totals))
        return joined, per_movie / len(self._movies)

    def correlation_per_movie(self) -> Floats:
        """Return the mean over movies of the correlation to average within each, (neuron,).

        ViV1T's reading of the correlation to average: all movies count the same. A trace that is constant or not finite
        in a movie counts as 0 there.
        """
        # Each around its own mean: what is left of a constant trace must not correlate with anything.
        by_movie = [RepeatedMovies([movie]).correlation() for movie in self._movies]
        mean: Floats = np.mean(by_movie, axis=0)
        return mean

    def normalized_correlation(self) -> Floats:
        """Return the mean over movies of the normalized correlation, (neuron,); see :class:`MovieProducts`.

        Movies in which it is not defined do not count; NaN where it is defined in none.
        """
        by_movie = np.stack([movie.normalized_correlation() for movie in self._movies])
        n_defined = np.isfinite(by_movie).sum(axis=0)
        mean: Floats = np.full(self.n_neurons, np.nan)
        np.divide(np.nansum(by_movie, axis=0), n_defined, out=mean, where=n_defined > 0)
        return mean

    def reliability(self) -> OracleReliability:
        """Return how reliably the neurons respond to the movies; the first signal is the responses."""
        reliability = OracleReliability(self.n_neurons)
        for movie in self._movies:
            movie.add_to(reliability)
        return reliability

    def _weigh_equally(self) -> Sequence[Floats]:
        return [np.full((1, movie.n_repeats), 1 / movie.n_repeats) for movie in self._movies]

    def _draw_weights(self, how: Bootstrap, labels: Sequence[str]) -> Sequence[Floats]:
        return [how.tilt(movie.n_repeats, "repeats", *labels, str(number)) for number, movie in enumerate(self._movies)]

    def _replicate(self, recorded: Sequence[Floats], drawn: Sequence[Floats], neurons: slice) -> Sequence[Floats]:
        tilted = self.readings(drawn, neurons)
        return [one + (many - one) / TILT for one, many in zip(recorded, tilted, strict=True)]
