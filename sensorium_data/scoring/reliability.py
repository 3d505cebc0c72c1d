"""How reliably each neuron answers the same movie, from the repeats in the oracle tier.

Two measures and what follows from them, all over the frames of all repeated movies joined along time, the first 50
frames of a trial left out as the competition does:

- *oracle reliability*: the Pearson correlation of a trial's response with the mean over the other repeats of its
  movie (leave one out), over all trials. It is the single-trial correlation of a model that predicts what the
  neuron did in the other repeats.
- *signal-to-noise ratio*: the variance of the response that the movie explains, over the variance that it does
  not. The noise is the unbiased variance over repeats, averaged over frames; the signal is the variance over
  frames of the repeats' mean, less the noise that is left in that mean (Sahani and Linden 2003). Whatever differs
  between repeats is noise, also a change of the whole trial's level.

Both follow from each frame's sum and sum of squares over the repeats. So a movie's repeats are added one by one, and
memory does not grow with their number.

References
----------
Sahani and Linden (2003), How linear are auditory cortical responses?, NeurIPS 15 (signal and noise power). Sinz et
al. (2018), Stimulus domain transfer in recurrent models for large scale cortical population prediction on video,
NeurIPS 31 (oracle correlation). Schoppe et al. (2016), Measuring the performance of neural models, Frontiers in
Computational Neuroscience 10:10 (CC_max and CC_norm). Cadena et al. (2019), PLoS Computational Biology 15:e1006897
(explainable variance).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensorium_data.scoring.correlation import N_SKIPPED_FRAMES

__all__ = ["OracleReliability", "RepeatMoments"]

Floats = npt.NDArray[np.float64]

# As in the competition's correlation: on the standard deviation, so that a constant trace scores 0.
_EPSILON = 1e-8
# What rounding leaves of the variance of a constant trace, relative to its mean square.
_ROUNDING = 1e-12


class RepeatMoments:
    """Sums over the repeats of one movie, frame by frame.

    Parameters
    ----------
    n_neurons, n_frames : int
        Neurons, and frames that all repeats have, the skipped ones included.
    skip_frames : int
        Frames left out at the start.
    """

    def __init__(self, n_neurons: int, n_frames: int, *, skip_frames: int = N_SKIPPED_FRAMES) -> None:
        self._frames = slice(skip_frames, max(skip_frames, n_frames))
        shape = (n_neurons, self._frames.stop - self._frames.start)
        self.n_repeats = 0
        self.sums: Floats = np.zeros(shape)
        self.squares: Floats = np.zeros(shape)

    def add(self, responses: npt.NDArray[np.floating]) -> None:
        """Add a repeat: (neuron, time) from the trial's first frame on; frames past the shortest one are dropped."""
        values = responses[:, self._frames].astype(np.float64)
        self.sums, self.squares = self.sums[:, : values.shape[1]], self.squares[:, : values.shape[1]]
        values = values[:, : self.sums.shape[1]]
        self.sums += values
        self.squares += np.square(values, out=values)
        self.n_repeats += 1


class OracleReliability:
    """Each neuron's oracle reliability and signal-to-noise ratio, movie by movie.

    Parameters
    ----------
    n_neurons : int
        Number of neurons.

    Examples
    --------
    >>> reliability, movie = OracleReliability(1), RepeatMoments(1, 3, skip_frames=0)
    >>> movie.add(np.array([[0.0, 2.0, 1.0]]))
    >>> movie.add(np.array([[0.0, 4.0, 2.0]]))
    >>> reliability.add(movie)
    >>> reliability.correlation().round(6)
    array([0.565217])
    """

    def __init__(self, n_neurons: int) -> None:
        self.n_movies = 0
        self.n_trials = 0
        # Over the frames of all trials: of the response x, and of the mean m over the other repeats.
        self._n = 0
        self._x, self._xx, self._mm, self._xm = np.zeros((4, n_neurons))
        # Over the frames of all movies: of the mean over repeats, and of the variance over them.
        self._n_frames = 0
        self._mean, self._mean_square, self._noise, self._noise_of_mean = np.zeros((4, n_neurons))

    def add(self, movie: RepeatMoments) -> None:
        """Add a movie; one that was shown once, or is no longer than the skipped frames, tells nothing."""
        self.add_sums(
            movie.n_repeats,
            movie.sums.shape[1],
            movie.sums.sum(axis=1),
            movie.squares.sum(axis=1),
            np.einsum("nt,nt->n", movie.sums, movie.sums),
        )

    def add_sums(self, n_repeats: int, n_frames: int, sums: Floats, squares: Floats, squared_sums: Floats) -> None:
        """Add a movie of which no more than this is known, summed over its frames; otherwise as :meth:`add`.

        Parameters
        ----------
        n_repeats, n_frames : int
            Repeats, and frames that all of them have.
        sums, squares : np.ndarray
            (neuron,): the responses' and their squares', over repeats too.
        squared_sums : np.ndarray
            (neuron,): the squares of each frame's sum over repeats.
        """
        n = n_repeats
        if n < 2 or n_frames == 0:
            return
        self.n_movies += 1
        self.n_trials += n
        # With S the sum over repeats, m = (S - x) / (n - 1); summed over repeats, x m is (S² - Σx²) / (n - 1).
        self._n += n * n_frames
        self._x += sums
        self._xx += squares
        self._xm += (squared_sums - squares) / (n - 1)
        self._mm += ((n - 2) * squared_sums + squares) / (n - 1) ** 2
        noise = (squares - squared_sums / n) / (n - 1)
        self._n_frames += n_frames
        self._mean += sums / n
        self._mean_square += squared_sums / n**2
        self._noise += noise
        self._noise_of_mean += noise / n

    def correlation(self) -> Floats:
        """Return the oracle reliability, (neuron,): 0 where a trace is constant, NaN where it holds a NaN.

        NaN for all neurons where no movie was shown twice.
        """
        if self._n == 0:
            return np.full(len(self._x), np.nan)
        # Over all repeats, the means of x and of m are the same number.
        mean = self._x / self._n
        std_x = np.sqrt(_variance(self._xx / self._n, mean)) + _EPSILON
        std_m = np.sqrt(_variance(self._mm / self._n, mean)) + _EPSILON
        covariance = self._xm / self._n - mean**2
        constant = (std_x == _EPSILON) | (std_m == _EPSILON)
        correlation: Floats = np.where(constant, 0.0, covariance / (std_x * std_m))
        return correlation

    def signal_to_noise(self) -> Floats:
        """Return the signal-to-noise ratio, (neuron,): 0 where noise alone explains the mean over repeats.

        NaN where the repeats do not differ at all, and for all neurons where no movie was shown twice.
        """
        signal, noise, _ = self._powers()
        ratio: Floats = np.full(len(signal), np.nan)
        np.divide(signal, noise, out=ratio, where=noise > 0)
        return ratio

    def explainable_variance(self) -> Floats:
        """Return the share of a single trial's variance that the movie explains, (neuron,), from 0 to 1.

        Signal power over the sum of signal and noise power. Its root is the largest single-trial correlation that a
        prediction from the movie alone can reach (Schoppe et al. 2016; Cadena et al. 2019 scale by it). 0 for a
        constant trace, NaN where it holds a NaN, and for all neurons where no movie was shown twice.
        """
        signal, noise, _ = self._powers()
        return _divide(signal, signal + noise)

    def attainable_correlation(self) -> Floats:
        """Return the largest correlation to average that the noise left in the average allows, (neuron,), 0 to 1.

        ``CC_max`` of Schoppe et al. (2016): the root of the signal power over the variance of the repeats' mean. The
        correlation to average divided by it is their ``CC_norm``. 0 where there is no signal, NaN as above.
        """
        signal, _, total = self._powers()
        attainable: Floats = np.sqrt(_divide(signal, total))
        return attainable

    def _powers(self) -> tuple[Floats, Floats, Floats]:
        """Return the variance of the signal, of the noise, and of the mean over repeats, (neuron,) each."""
        if self._n_frames == 0:
            unknown = np.full(len(self._mean), np.nan)
            return unknown, unknown, unknown
        mean = self._mean / self._n_frames
        mean_square = self._mean_square / self._n_frames
        total = _variance(mean_square, mean)
        signal = np.maximum(total - self._noise_of_mean / self._n_frames, 0.0)
        noise = self._noise / self._n_frames
        # A comparison with NaN is false, and NaN stays.
        noise[noise <= _ROUNDING * mean_square] = 0.0
        return signal, noise, total


def _divide(part: Floats, whole: Floats) -> Floats:
    """Return the share that ``part`` is; 0 where there is nothing to share."""
    share = np.zeros_like(whole)
    np.divide(part, whole, out=share, where=whole != 0)
    return share


def _variance(mean_square: Floats, mean: Floats) -> Floats:
    variance = mean_square - mean**2
    # A comparison with NaN is false, and NaN stays.
    variance[variance <= _ROUNDING * mean_square] = 0.0
    return variance
