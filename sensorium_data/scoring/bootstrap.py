"""Bootstrap intervals: how far a score would move if other trials had been recorded.

For the single-trial correlation *trials* are drawn with replacement. For the correlation to average the movies stay and
the *repeats* of each are tilted: a random half of them counts one and a half times, the others half a time, and what
that changes is doubled. Drawing repeats with replacement would not do: how noisy an average is would
change from one resample to the next with how often some repeats are drawn, for all neurons alike, and the mean over
neurons would scatter from that alone; and averages much noisier than the recorded one respond to a change more
strongly.

An interval is made of percentiles of the resamples, moved as a whole so that the resamples' mean lies on the score.
What is moved away is the resamples' bias: unequal weights average to something noisier, which scores lower; and the
mean over thousands of neurons scatters so little that even a small bias would leave the score outside of its own
interval. The interval is for the score that as many trials give on average.

References
----------
Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 10 and 13. McCarthy (1969), Pseudo-replication:
half samples, Review of the International Statistical Institute 37. Praestgaard and Wellner (1993), Exchangeably
weighted bootstraps of the general empirical process, Annals of Probability 21 (weights other than counts).
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from sensorium_data.errors import UsageError
from sensorium_data.ordered_map import map_ahead

__all__ = [
    "LEAST_RESAMPLES",
    "MOST_RESAMPLES",
    "TILT",
    "Bootstrap",
    "Resampled",
    "WeightedCorrelation",
    "centered_interval",
    "cut_neurons",
]

Floats = npt.NDArray[np.float64]
_Weights = TypeVar("_Weights")

#: How far repeats are tilted, as a share of leaving half of them out; what it changes is divided by this.
TILT = 0.5

#: Fewer resamples say nothing about the ends of an interval.
LEAST_RESAMPLES = 100
#: More take memory and add nothing.
MOST_RESAMPLES = 20_000

# A thousand resamples of so many neurons stay in the processor's cache.
_NEURONS_AT_ONCE = 256


@dataclass(frozen=True)
class Bootstrap:
    """How to resample.

    Attributes
    ----------
    n_resamples : int
        How often.
    seed : int
        Equal seeds draw equal trials for the same session, tier and stimulus, whatever is predicted: scores of two
        entries on the same trials are paired.
    confidence : float
        How often an interval should hold the true value.

    Raises
    ------
    UsageError
        If there are too few resamples or too many, or seed or confidence are out of range.
    """

    n_resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not LEAST_RESAMPLES <= self.n_resamples <= MOST_RESAMPLES:
            few = "few" if self.n_resamples < LEAST_RESAMPLES else "many"
            raise UsageError(
                f"too {few} resamples",
                found=self.n_resamples,
                expected=f"{LEAST_RESAMPLES:,} to {MOST_RESAMPLES:,}",
                remedy="1,000 are enough",
            )
        if not 0 < self.confidence < 1:
            raise UsageError("no such confidence", found=self.confidence, expected="a number between 0 and 1")
        if self.seed < 0:
            raise UsageError("no such seed", found=self.seed, expected="0 or more")

    def draw(self, n: int, *labels: str) -> Floats:
        """Return how often each of ``n`` items is drawn, with replacement, (resample, item); ``n`` draws each.

        Parameters
        ----------
        n : int
            Items.
        labels : str
            What is drawn: other labels, other draws.
        """
        counts: Floats = self._generator(labels).multinomial(n, np.full(n, 1 / n), size=self.n_resamples).astype(float)
        return counts

    def tilt(self, n: int, *labels: str) -> Floats:
        """Return what each of ``n`` items counts for in a tilted average, (resample, item).

        The average of independent items scatters :data:`TILT` times as much as their plain mean does from one
        recording to the next, in every resample with equally noisy weights. Of an odd number one item keeps its weight.

        Parameters
        ----------
        n : int
            Items, two or more.
        labels : str
            As of :meth:`draw`.

        Examples
        --------
        >>> sorted(Bootstrap().tilt(4)[0].tolist())
        [0.125, 0.125, 0.375, 0.375]
        """
        n_half = n // 2
        # The scatter around the mean is the sum of the squared differences to equal weights: TILT² / n.
        step = TILT / np.sqrt(n * 2 * n_half)
        weights = 1 / n + step * np.array([1.0] * n_half + [-1.0] * n_half + [0.0] * (n % 2))
        tilted: Floats = self._generator(labels).permuted(np.tile(weights, (self.n_resamples, 1)), axis=1)
        return tilted

    def _generator(self, labels: Sequence[str]) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32("/".join(labels).encode())])


@dataclass(frozen=True, eq=False)
class Resampled:
    """A number, and what it is in each resample. Numbers that were resampled alike can be added with weights.

    Attributes
    ----------
    estimate : float
        The number, from the recorded trials.
    replicates : np.ndarray
        (resample,): the same from each resample; NaN where there is nothing to draw from.
    """

    estimate: float
    replicates: Floats

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the ends of the interval."""
        low, high = centered_interval(np.array([self.estimate]), self.replicates[:, None], confidence)
        return float(low[0]), float(high[0])

    @classmethod
    def add(cls, parts: Sequence[Resampled], weights: Sequence[float]) -> Resampled:
        """Return the weighted sum of several numbers: of sessions, or of two entries on the same trials."""
        return cls(
            estimate=float(sum(weight * part.estimate for part, weight in zip(parts, weights, strict=True))),
            replicates=np.sum([weight * part.replicates for part, weight in zip(parts, weights, strict=True)], axis=0),
        )


def centered_interval(estimates: Floats, replicates: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return percentile intervals, moved so that the mean of the resamples lies on the estimate.

    Parameters
    ----------
    estimates : np.ndarray
        (k,).
    replicates : np.ndarray
        (resample, k).
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : np.ndarray
        (k,) each.
    """
    tails = (0.5 * (1 - confidence), 0.5 * (1 + confidence))
    low, high = np.quantile(replicates, tails, axis=0) - replicates.mean(axis=0)
    return estimates + low, estimates + high


def cut_neurons(n_neurons: int, n_at_once: int = _NEURONS_AT_ONCE) -> Iterator[slice]:
    """Yield slices that cover all neurons, in order."""
    for first in range(0, n_neurons, n_at_once):
        yield slice(first, min(first + n_at_once, n_neurons))


class WeightedCorrelation(ABC, Generic[_Weights]):
    """A correlation of each neuron over recorded items that may count more or less: trials, or repeats of movies."""

    @property
    @abstractmethod
    def n_neurons(self) -> int:
        """Number of neurons."""

    @abstractmethod
    def weighted_correlation(self, weights: _Weights, neurons: slice) -> Floats:
        """Return the correlation of some neurons where items count as weighted, (choice of weights, neuron)."""

    def correlation(self) -> Floats:
        """Return the correlation where all items count the same, (neuron,): 0 where a trace is constant or not finite.

        The same as :mod:`sensorium_data.scoring.correlation` takes from the traces themselves.
        """
        correlation: Floats = self.weighted_correlation(self._weigh_equally(), slice(None))[0]
        return correlation

    def readings(self, weights: _Weights, neurons: slice) -> tuple[Floats, ...]:
        """Return :meth:`weighted_correlation`, and whatever else follows from the same sums at little cost."""
        return (self.weighted_correlation(weights, neurons),)

    def bootstrap(self, how: Bootstrap, *labels: str, jobs: int = 2) -> tuple[Resampled, Floats, Floats]:
        """Return what resampling the items says about the mean over neurons, and about each of them.

        Parameters
        ----------
        how : Bootstrap
            How often, and with what seed.
        labels : str
            What the items are of: session, tier, stimulus.
        jobs : int
            Threads. The result does not depend on their number.

        Returns
        -------
        mean : Resampled
            The mean over neurons.
        low, high : np.ndarray
            (neuron,) each: the ends of each neuron's interval.
        """
        (mean, *_), low, high = self.bootstrap_readings(how, *labels, jobs=jobs)
        return mean, low, high

    def bootstrap_readings(
        self, how: Bootstrap, *labels: str, jobs: int = 2
    ) -> tuple[tuple[Resampled, ...], Floats, Floats]:
        """Return the mean over neurons of each of the :meth:`readings`, and the neurons' intervals of the first."""
        low, high = np.empty(self.n_neurons), np.empty(self.n_neurons)

        def take(cut: slice, recorded: Floats, replicates: Floats) -> None:
            low[cut], high[cut] = centered_interval(recorded, replicates, how.confidence)

        return self._resample(how, labels, jobs, take), low, high

    def bootstrap_mean(self, how: Bootstrap, *labels: str, jobs: int = 2) -> Resampled:
        """Return what :meth:`bootstrap` says about the mean over neurons, in less time than it needs for each of them.

        Parameters
        ----------
        how, labels, jobs
            As of :meth:`bootstrap`; the same labels draw the same resamples.
        """
        return self._resample(how, labels, jobs, lambda cut, recorded, replicates: None)[0]

    def _resample(
        self,
        how: Bootstrap,
        labels: Sequence[str],
        jobs: int,
        take: Callable[[slice, Floats, Floats], None],
    ) -> tuple[Resampled, ...]:
        """Return the readings' means over neurons; ``take`` gets some neurons' first one, recorded and resampled."""
        equal, drawn = self._weigh_equally(), self._draw_weights(how, labels)

        def work(cut: slice) -> list[Resampled]:
            recorded = [reading[0] for reading in self.readings(equal, cut)]
            replicates = self._replicate(recorded, drawn, cut)
            take(cut, recorded[0], replicates[0])
            return [
                Resampled(float(one.sum()), many.sum(axis=1)) for one, many in zip(recorded, replicates, strict=True)
            ]

        totals: list[Resampled] = []
        # BLAS threads beside these would wait for each other by spinning.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(max(1, jobs), thread_name_prefix="resample") as pool:
            for _, parts in map_ahead(pool, work, cut_neurons(self.n_neurons), 2 * jobs):
                # One after the other: the result does not depend on which thread was first.
                both = zip(totals, parts, strict=True)
                totals = [Resampled.add([total, part], [1, 1]) for total, part in both] if totals else parts
        return tuple(Resampled.add([total], [1 / self.n_neurons]) for total in totals)

    @abstractmethod
    def _weigh_equally(self) -> _Weights:
        """Return one choice of weights: that of the recording."""

    @abstractmethod
    def _draw_weights(self, how: Bootstrap, labels: Sequence[str]) -> _Weights:
        """Return as many choices of weights as there are resamples."""

    @abstractmethod
    def _replicate(self, recorded: Sequence[Floats], drawn: _Weights, neurons: slice) -> Sequence[Floats]:
        """Return the resampled :meth:`readings` of some neurons, (resample, neuron) each, given the recorded ones."""
