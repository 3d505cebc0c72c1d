"""Products of what a map has at some places with weights of its channels: what readouts of places compute.

Shape suffixes: F frames, C channels, H height, W width, N places in a frame, 2 the axes x and y, E the four pixels
around a place in all frames (F × 4), P the pixels of all frames (F × H × W).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["read_places"]

_DTYPES = (torch.float32, torch.float64)


def read_places(maps_FCHW: torch.Tensor, places_FN2: torch.Tensor, weights_CN: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum over channels of a map's values at places, between four pixels by bilinear interpolation.

    Parameters
    ----------
    maps_FCHW : Tensor, shape (frame, channel, height, width)
        The map is 0 outside.
    places_FN2 : Tensor, shape (frame, place, 2)
        x and y: −1 to 1 from the center of the first pixel to that of the last.
    weights_CN : Tensor, shape (channel, place)
        The same in all frames.

    Returns
    -------
    Tensor, shape (frame, place)

    Notes
    -----
    The same as ``(grid_sample(maps, places[:, :, None], align_corners=True)[..., 0] * weights).sum(1)``. On a CPU the
    sampled values, (frame, channel, place), are never formed: products of weights with the four pixels are those of two
    matrices at the few entries that count, and their gradients products with a sparse matrix. There it takes about a
    twentieth of the time.
    """
    same = maps_FCHW.dtype == places_FN2.dtype == weights_CN.dtype
    # Products with a sparse matrix need as many entries of a row as there are pixels around a place.
    is_large_enough = maps_FCHW.shape[2] * maps_FCHW.shape[3] >= 4
    has_products = maps_FCHW.device.type == "cpu" and is_large_enough and _has_sparse_products()
    if not has_products or not same or maps_FCHW.dtype not in _DTYPES:
        sampled_FCN = functional.grid_sample(
            maps_FCHW, places_FN2[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=True
        )[..., 0]
        return (sampled_FCN * weights_CN).sum(1)
    n_frames, n_channels = maps_FCHW.shape[:2]
    rows_PC = maps_FCHW.permute(0, 2, 3, 1).reshape(-1, n_channels)
    pixels_NE, shares_NE = _find_pixels(places_FN2, maps_FCHW.shape[2], maps_FCHW.shape[3])
    products_NE = _PixelProducts.apply(rows_PC, weights_CN.t().contiguous(), pixels_NE, shares_NE)
    responses_NF: torch.Tensor = products_NE.view(-1, n_frames, 4).sum(-1)
    return responses_NF.t()


def _has_sparse_products() -> bool:
    return torch.backends.mkl.is_available()


def _find_pixels(places_FN2: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which pixels of all frames are around each place, and their shares, 0 for those outside of the frame."""
    n_frames, n_places = places_FN2.shape[:2]
    size_2 = places_FN2.new_tensor([width - 1, height - 1])
    position_NF2 = (places_FN2.transpose(0, 1) + 1) * (size_2 / 2)
    corner_NF2 = position_NF2.detach().floor()
    beyond_NF2 = position_NF2 - corner_NF2
    # Of the pixel before a place on each axis, and of the one after.
    shares_NF22 = torch.stack([1 - beyond_NF2, beyond_NF2], dim=-1)
    pixels_NF22 = corner_NF2[..., None] + torch.arange(2)
    is_inside_NF22 = (pixels_NF22 >= 0) & (pixels_NF22 <= size_2[:, None])
    shares_NF22 = shares_NF22 * is_inside_NF22
    pixels_NF22 = torch.where(is_inside_NF22, pixels_NF22, 0).int()
    columns, rows = pixels_NF22[:, :, 0], pixels_NF22[:, :, 1]
    first_F = torch.arange(n_frames, dtype=torch.int32) * (height * width)
    pixels = first_F[:, None, None] + rows[..., :, None] * width + columns[..., None, :]
    shares = shares_NF22[:, :, 1, :, None] * shares_NF22[:, :, 0, None, :]
    return pixels.reshape(n_places, -1), shares.reshape(n_places, -1)


class _PixelProducts(torch.autograd.Function):
    """Each place's weights times each of its pixels' channels times the pixel's share."""

    @staticmethod
    def forward(
        ctx: Any, rows_PC: torch.Tensor, weights_NC: torch.Tensor, pixels_NE: torch.Tensor, shares_NE: torch.Tensor
    ) -> torch.Tensor:
        pattern_NP = _make_sparse(pixels_NE, torch.zeros_like(shares_NE), len(rows_PC))
        products = torch.sparse.sampled_addmm(pattern_NP, weights_NC, rows_PC.t(), beta=0.0).values()
        products_NE = products.view(shares_NE.shape)
        ctx.save_for_backward(rows_PC, weights_NC, pixels_NE, shares_NE, products_NE)
        return products_NE * shares_NE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NE: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows_PC, weights_NC, pixels_NE, shares_NE, products_NE = ctx.saved_tensors
        needs_rows, needs_weights, _, needs_shares = ctx.needs_input_grad
        of_rows = of_weights = of_shares = None
        if needs_rows or needs_weights:
            sparse_NP = _make_sparse(pixels_NE, gradient_NE * shares_NE, len(rows_PC))
            # Rows are summed up one by one: transposed products would add them up in whatever order threads come.
            of_rows = sparse_NP.t().to_sparse_csr() @ weights_NC if needs_rows else None
            of_weights = sparse_NP @ rows_PC if needs_weights else None
        if needs_shares:
            of_shares = gradient_NE * products_NE
        return of_rows, of_weights, None, of_shares


def _make_sparse(columns_NE: torch.Tensor, values_NE: torch.Tensor, n_columns: int) -> torch.Tensor:
    """Return the sparse matrix whose rows have some values in some columns, shape (row, column)."""
    n_rows, n_entries = columns_NE.shape
    starts = torch.arange(n_rows + 1, dtype=columns_NE.dtype) * n_entries
    with warnings.catch_warnings():
        # On the state of torch's support for it.
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(
            starts, columns_NE.reshape(-1), values_NE.reshape(-1), (n_rows, n_columns), check_invariants=False
        )
