"""Which tokens of a map see each other in shifted windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product

import numpy as np
import torch

__all__ = ["Order", "Region", "WindowPlan", "index_distances", "plan_windows"]


@dataclass(frozen=True, eq=False)
class Order:
    """An order of tokens, with padding between them.

    Attributes
    ----------
    take : Tensor, shape (place,)
        Which token comes at each place; any where padding does.
    inverse : Tensor, shape (token,)
        At which place each token comes.
    padding : Tensor, shape (padding,)
        The places of padding.
    """

    take: torch.Tensor
    inverse: torch.Tensor
    padding: torch.Tensor


@dataclass(frozen=True)
class Region:
    """Tokens of a window that see each other, in several windows.

    Attributes
    ----------
    n_windows : int
    first : tuple of int
        Step, row and column of the window at which it begins.
    query_shape, key_shape : tuple of int
        Steps, rows and columns, without and with the padding at its end.
    """

    n_windows: int
    first: tuple[int, int, int]
    query_shape: tuple[int, int, int]
    key_shape: tuple[int, int, int]

    @property
    def n_queries(self) -> int:
        """Tokens in a window without padding."""
        return math.prod(self.query_shape)

    @property
    def n_keys(self) -> int:
        """Tokens in a window with padding."""
        return math.prod(self.key_shape)

    def cut_pairs(self, pairs: torch.Tensor, window_size: tuple[int, int, int]) -> torch.Tensor:
        """Return the region's part of what there is for each pair of tokens of a window.

        Parameters
        ----------
        pairs : Tensor, shape (head, token × token)
            For all tokens of a window.
        window_size : tuple of int
            Of the window.

        Returns
        -------
        Tensor, shape (head, token without padding, token)
        """
        return self._view_pairs(pairs, window_size).reshape(-1, self.n_queries, self.n_keys)

    def add_pairs(self, pairs: torch.Tensor, values: torch.Tensor, window_size: tuple[int, int, int]) -> None:
        """Add values, as :meth:`cut_pairs` returns them, to those of all pairs of a window's tokens."""
        part = self._view_pairs(pairs, window_size)
        part += values.view(part.shape)

    def _view_pairs(self, pairs: torch.Tensor, window_size: tuple[int, int, int]) -> torch.Tensor:
        boxes = [
            slice(first, first + length)
            for shape in (self.query_shape, self.key_shape)
            for first, length in zip(self.first, shape, strict=True)
        ]
        return pairs.view(-1, *window_size, *window_size)[(slice(None), *boxes)]


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Which tokens of a map see each other.

    Attributes
    ----------
    window_size : tuple of int
        Not longer than the map on any axis.
    regions : tuple of Region
        In the order of their tokens.
    queries, keys, back : Order
        From the map's order of tokens to that of regions, window by window, without padding and with it; and back from
        the former.
    """

    window_size: tuple[int, int, int]
    regions: tuple[Region, ...]
    queries: Order
    keys: Order
    back: Order

    @property
    def window_volume(self) -> int:
        """Tokens of a window."""
        return math.prod(self.window_size)


@dataclass(frozen=True, eq=False)
class _Stretch:
    """A region on one axis: for each window that has it, the positions on the map, those beyond its end at last."""

    first: int
    n_inside: int
    positions: np.ndarray


# What NumPy computes once is nothing to compile.
@torch.compiler.disable
@cache
def plan_windows(size: tuple[int, int, int], window_size: tuple[int, int, int], device: torch.device) -> WindowPlan:
    """Return which tokens see each other in windows that are shifted by half a window.

    Parameters
    ----------
    size : tuple of int
        Steps, rows and columns of the map.
    window_size : tuple of int
        Of a window. Where it is not shorter than the map it shrinks to it, and is not shifted.
    device : torch.device
        Where the indices are used.
    """
    window = tuple(min(w, s) for w, s in zip(window_size, size, strict=True))
    axes = [_cut_axis(s, w, w // 2 if s > w else 0) for s, w in zip(size, window, strict=True)]
    regions, queries, keys = [], [], []
    for stretches in product(*axes):
        counts = [len(stretch.positions) for stretch in stretches]
        # Windows before positions in them, each (steps, rows, columns).
        order = (0, 2, 4, 1, 3, 5)
        steps, rows, columns = np.meshgrid(*(stretch.positions for stretch in stretches), indexing="ij")
        tokens = (steps * size[1] + rows) * size[2] + columns
        is_inside = (steps < size[0]) & (rows < size[1]) & (columns < size[2])
        lengths = [stretch.positions.shape[1] for stretch in stretches]
        shape = tuple(n for pair in zip(counts, lengths, strict=True) for n in pair)
        keys.append(np.where(is_inside, tokens, -1).reshape(shape).transpose(order).reshape(-1))
        queries.append(keys[-1][keys[-1] >= 0])
        n_t, n_h, n_w = (stretch.n_inside for stretch in stretches)
        first_t, first_h, first_w = (stretch.first for stretch in stretches)
        regions.append(
            Region(
                math.prod(counts), (first_t, first_h, first_w), (n_t, n_h, n_w), (lengths[0], lengths[1], lengths[2])
            )
        )
    take_queries = np.concatenate(queries)
    inverse = np.argsort(take_queries)
    none = np.zeros(0, dtype=np.int64)
    return WindowPlan(
        window_size=(window[0], window[1], window[2]),
        regions=tuple(regions),
        queries=_make_order(take_queries, inverse, none, device),
        keys=_make_key_order(np.concatenate(keys), device),
        back=_make_order(inverse, take_queries, none, device),
    )


def index_distances(window_size: tuple[int, int, int]) -> np.ndarray:
    """Return the number of the distance between each two tokens of a window, shape (token, token).

    Parameters
    ----------
    window_size : tuple of int
        Steps, rows and columns: an axis of L has 2 L − 1 distances, from −(L − 1) on.
    """
    index = np.zeros((math.prod(window_size),) * 2, dtype=np.int64)
    for length, positions in zip(window_size, np.indices(window_size).reshape(3, -1), strict=True):
        index = index * (2 * length - 1) + positions[:, None] - positions[None, :] + length - 1
    return index


def _cut_axis(size: int, window: int, shift: int) -> list[_Stretch]:
    """Return an axis's regions: windows that agree in them together."""
    n_windows = -(-size // window)
    positions = (np.arange(n_windows * window) + shift) % (n_windows * window)
    blocks = [(0, block) for block in positions.reshape(n_windows, window)]
    if shift:
        # What the roll brought to the end of the last window comes from the map's start.
        _, last = blocks.pop()
        blocks += [(0, last[: window - shift]), (window - shift, last[window - shift :])]
    counted = [(first, len(block), int((block < size).sum()), block) for first, block in blocks]
    return [
        _Stretch(first, n_inside, np.stack([block for *_, block in group]))
        for (first, _, n_inside), group in groupby(counted, key=lambda one: one[:3])
        if n_inside
    ]


def _make_key_order(keys: np.ndarray, device: torch.device) -> Order:
    places = np.flatnonzero(keys >= 0)
    inverse = np.empty(len(places), dtype=np.int64)
    inverse[keys[places]] = places
    return _make_order(np.maximum(keys, 0), inverse, np.flatnonzero(keys < 0), device)


def _make_order(take: np.ndarray, inverse: np.ndarray, padding: np.ndarray, device: torch.device) -> Order:
    return Order(*(torch.from_numpy(one).to(device) for one in (take, inverse, padding)))
