"""Mean, standard deviation and range of arrays that come a block at a time."""

from __future__ import annotations

from types import EllipsisType

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]

FloatArray = npt.NDArray[np.float64]


class Moments:
    """Mean, standard deviation, least and greatest value, element by element, of blocks that come one after another.

    Each block is summed in two passes in float64, and merged with what came before by the pairwise formula, so that
    nothing cancels however large the mean is against the spread. NaN is left out. With infinity among the values,
    mean and standard deviation are infinite or NaN. The order of the blocks and their size, and nothing else, decide
    the last bits of the result.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.

    References
    ----------
    Chan, Golub & LeVeque (1983), Algorithms for computing the sample variance, The American Statistician 37.

    Examples
    --------
    >>> moments = Moments((2,))
    >>> moments.add(np.array([[1.0, 5.0], [3.0, np.nan]]), axis=(0,))
    >>> moments.mean.tolist(), moments.std.tolist()
    ([2.0, 5.0], [1.0, 0.0])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._n = np.zeros(shape, np.int64)
        self._mean = np.zeros(shape)
        self._squares = np.zeros(shape)
        self._lowest = np.full(shape, np.nan)
        self._highest = np.full(shape, np.nan)

    # Infinity less infinity is no number, which is no reason to warn: the result says it.
    @np.errstate(invalid="ignore", over="ignore")
    def add(self, values: npt.NDArray[np.floating], axis: tuple[int, ...], rows: slice | EllipsisType = ...) -> None:
        """Take in a block.

        Threads may add blocks to different rows at the same time.

        Parameters
        ----------
        values : np.ndarray
            Of any float dtype; without ``axis``, of the shape of the result's ``rows``.
        axis : tuple of int
            The axes that are summed over.
        rows : slice, optional
            The part of the result's first axis that the block belongs to; all of it by default.
        """
        block = np.array(values, np.float64)
        absent = np.isnan(block)
        n = np.sum(~absent, axis=axis)
        lowest = np.fmin.reduce(block, axis=axis, initial=np.nan)
        highest = np.fmax.reduce(block, axis=axis, initial=np.nan)
        block[absent] = 0.0
        mean = block.sum(axis=axis) / np.maximum(n, 1)
        block -= np.expand_dims(mean, axis)
        block[absent] = 0.0
        # What rounding of the mean left over is taken out again.
        rest = block.sum(axis=axis)
        np.square(block, out=block)
        squares = block.sum(axis=axis) - np.square(rest) / np.maximum(n, 1)
        self._merge(rows, n, mean, squares, lowest, highest)

    @np.errstate(invalid="ignore", over="ignore")
    def over_all(self) -> Moments:
        """Return the moments of all values together, of shape ``()``."""
        whole = Moments(())
        n = self._n.sum()
        mean = (self._n * self._mean).sum() / max(n, 1)
        squares = (self._squares + self._n * np.square(self._mean - mean)).sum()
        whole._merge(
            ...,
            n,
            mean,
            squares,
            np.fmin.reduce(self._lowest, axis=None, initial=np.nan),
            np.fmax.reduce(self._highest, axis=None, initial=np.nan),
        )
        return whole

    @property
    def n(self) -> npt.NDArray[np.int64]:
        """Number of values."""
        return self._n

    @property
    def mean(self) -> FloatArray:
        """Their mean; NaN where there is none."""
        return np.where(self._n > 0, np.where(self._is_constant, self._lowest, self._mean), np.nan)

    @property
    def std(self) -> FloatArray:
        """Their standard deviation (of the population, as NumPy's): exactly 0 where all are equal."""
        variance = np.maximum(self._squares, 0.0) / np.maximum(self._n, 1)
        return np.where(self._n > 0, np.where(self._is_constant, 0.0, np.sqrt(variance)), np.nan)

    @property
    def min(self) -> FloatArray:
        """The least."""
        return self._lowest

    @property
    def max(self) -> FloatArray:
        """The greatest."""
        return self._highest

    @property
    def _is_constant(self) -> npt.NDArray[np.bool_]:
        constant: npt.NDArray[np.bool_] = np.asarray(self._lowest == self._highest)
        return constant

    def _merge(
        self,
        rows: slice | EllipsisType,
        n: npt.NDArray[np.int64],
        mean: FloatArray,
        squares: FloatArray,
        lowest: FloatArray,
        highest: FloatArray,
    ) -> None:
        before = self._n[rows]
        total = np.maximum(before + n, 1)
        step = mean - self._mean[rows]
        self._mean[rows] += step * (n / total)
        self._squares[rows] += squares + np.square(step) * (before * (n / total))
        self._n[rows] += n
        self._lowest[rows] = np.fmin(self._lowest[rows], lowest)
        self._highest[rows] = np.fmax(self._highest[rows], highest)
