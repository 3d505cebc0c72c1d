"""The three steps of a block that see its many inner channels, each as one function with its own gradient.

A block's inner maps have seven times the channels of its input: written layer by layer, a training step moves them
through memory some thirty times. Here each step takes a few of them at a time, as many as fit into a processor's cache,
and does all that lies between two sums over the whole batch. What is left in memory are the maps after the spatial and
after the temporal filters; all else is computed again for the gradient, which takes less time than to fetch it.

Sums over the batch are batch norm's. Those before the spatial filters follow from the covariance of the block's input,
since a sum of channels has a variance that the covariance tells (:meth:`models.dwiseneuro.norm.ChannelNorm.fold`); the
others are formed while the maps are in the cache.

On a GPU, whose memory is faster and whose kernels are started one by one, all maps are taken at once. Where
``torch.compile`` compiles the core, :mod:`models.dwiseneuro.plain` takes the place of these functions.

Shape suffixes: B windows, T frames, H height, W width, P pixels of a map, M inner channels, C channels of the input,
O channels of the output, S squeezed channels. Channels come last in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.dwiseneuro import plain

__all__ = ["filter_space", "filter_time", "project"]

#: Of inner maps that are worked on at a time on a CPU: what a core's share of the last cache holds.
_CHUNK_BYTES = 4 * 2**20


def filter_space(
    maps_BTHWC: torch.Tensor,
    weight_MC: torch.Tensor,
    bias_M: torch.Tensor,
    kernel_M1KK: torch.Tensor,
    stride: int,
    *,
    measures: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Expand the channels, SiLU, and filter each channel of each frame.

    Parameters
    ----------
    maps_BTHWC : Tensor
        Of shape (batch, time, height, width, channel).
    weight_MC, bias_M : Tensor
        Of the expansion, batch norm included.
    kernel_M1KK : Tensor
        The filters, of odd sides; they are padded.
    stride : int
        Step of the filters, pixels.
    measures : bool
        Whether mean and variance are wanted; without, they are 0 and 1.

    Returns
    -------
    (Tensor, Tensor, Tensor)
        The maps, (batch, time, height, width, inner channel), and the mean and the variance of each channel, float32.
    """
    if torch.compiler.is_compiling():
        return plain.filter_space(maps_BTHWC, weight_MC, bias_M, kernel_M1KK, stride, measures=measures)
    with torch.autocast(maps_BTHWC.device.type, enabled=False):
        return _FilterSpace.apply(maps_BTHWC, weight_MC, bias_M, kernel_M1KK, stride, measures)  # type: ignore[no-any-return]


def filter_time(
    maps_BTHWM: torch.Tensor, scale_M: torch.Tensor, shift_M: torch.Tensor, kernel_M1K1: torch.Tensor, *, measures: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale, shift, SiLU, and filter each channel of each pixel over time.

    Parameters
    ----------
    maps_BTHWM : Tensor
        Of shape (batch, time, height, width, inner channel).
    scale_M, shift_M : Tensor
        Batch norm.
    kernel_M1K1 : Tensor
        The filters, of odd length; they are padded.
    measures : bool
        As in :func:`filter_space`.

    Returns
    -------
    (Tensor, Tensor, Tensor)
        As from :func:`filter_space`.
    """
    if torch.compiler.is_compiling():
        return plain.filter_time(maps_BTHWM, scale_M, shift_M, kernel_M1K1, measures=measures)
    with torch.autocast(maps_BTHWM.device.type, enabled=False):
        maps_BTPM, mean_M, variance_M = _FilterTime.apply(
            maps_BTHWM.flatten(2, 3), scale_M, shift_M, kernel_M1K1, measures
        )
    return maps_BTPM.view(maps_BTHWM.shape), mean_M, variance_M


def project(
    maps_BTHWM: torch.Tensor,
    scale_M: torch.Tensor,
    shift_M: torch.Tensor,
    excitation: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    weight_OM: torch.Tensor,
) -> torch.Tensor:
    """Scale, shift, SiLU, weigh the channels of each window by its means (squeeze and excitation), and sum them up.

    Parameters
    ----------
    maps_BTHWM : Tensor
        Of shape (batch, time, height, width, inner channel).
    scale_M, shift_M : Tensor
        Batch norm.
    excitation : tuple of Tensor
        Weight (S, M) and bias of the squeezing layer, weight (M, S) and bias of the exciting one.
    weight_OM : Tensor
        Of the sums.

    Returns
    -------
    Tensor, shape (batch, time, height, width, output channel)
    """
    if torch.compiler.is_compiling():
        return plain.project(maps_BTHWM, scale_M, shift_M, excitation, weight_OM)
    with torch.autocast(maps_BTHWM.device.type, enabled=False):
        out_BNO = _Project.apply(maps_BTHWM.flatten(1, 3), scale_M, shift_M, *excitation, weight_OM)
    return out_BNO.view(*maps_BTHWM.shape[:4], -1)  # type: ignore[no-any-return]


class _Moments:
    """Mean and variance of channels over rows that come in parts; parts are merged as Chan et al. (1983) do."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.mean_M: Any = 0.0
        self.squares_M: Any = 0.0

    def add(self, rows_RM: torch.Tensor) -> None:
        rows_RM = rows_RM.float() if rows_RM.dtype in (torch.float16, torch.bfloat16) else rows_RM
        n_new = len(rows_RM)
        mean_M = rows_RM.mean(0)
        squares_M = (rows_RM - mean_M).square_().sum(0)
        n_total = self.n_rows + n_new
        distance_M = mean_M - self.mean_M
        self.squares_M = self.squares_M + squares_M + distance_M.square() * (self.n_rows * n_new / n_total)
        self.mean_M = self.mean_M + distance_M * (n_new / n_total)
        self.n_rows = n_total

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean_M, self.squares_M / self.n_rows


def _no_moments(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(maps.dtype, torch.float32)
    shape = maps.shape[-1:]
    return maps.new_zeros(shape, dtype=dtype), maps.new_ones(shape, dtype=dtype)


def _with_moments(
    gradient: torch.Tensor, maps: torch.Tensor, mean_M: torch.Tensor, offset_M: torch.Tensor, slope_M: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of maps to which their mean and variance add: offset + slope × (maps − mean)."""
    return torch.addcmul(gradient + (offset_M - slope_M * mean_M).to(maps.dtype), maps, slope_M.to(maps.dtype))


def _chunks(n_items: int, item_bytes: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of items that together are all, each of which the cache holds."""
    n_at_once = n_items if device.type != "cpu" else max(1, min(n_items, _CHUNK_BYTES // max(1, item_bytes)))
    for start in range(0, n_items, n_at_once):
        yield slice(start, min(n_items, start + n_at_once))


def _convolve(maps: torch.Tensor, kernel: torch.Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Any:
    return functional.conv2d(maps, kernel, None, stride, padding, 1, maps.shape[1])


def _convolve_back(
    gradient: torch.Tensor,
    maps: torch.Tensor,
    kernel: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of :func:`_convolve`'s maps and kernel."""
    of_maps, of_kernel, _ = torch.ops.aten.convolution_backward(
        gradient, maps, kernel, None, stride, padding, (1, 1), False, (0, 0), maps.shape[1], (True, True, False)
    )
    return of_maps, of_kernel


def _silu_back(gradient: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.silu_backward(gradient, values)  # type: ignore[no-any-return]


class _FilterSpace(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        maps_BTHWC: torch.Tensor,
        weight_MC: torch.Tensor,
        bias_M: torch.Tensor,
        kernel_M1KK: torch.Tensor,
        stride: int,
        measures: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps_FHWC = maps_BTHWC.contiguous().flatten(0, 1)
        weights = weight_MC, bias_M, kernel_M1KK
        weight_MC, bias_M, kernel_M1KK = (one.to(maps_FHWC.dtype) for one in weights)
        n_frames, *size, _ = maps_FHWC.shape
        n_inner, padding = len(weight_MC), kernel_M1KK.shape[2] // 2
        out_size = [(side + 2 * padding - kernel_M1KK.shape[2]) // stride + 1 for side in size]
        out_FHWM = maps_FHWC.new_empty((n_frames, *out_size, n_inner))
        moments = _Moments()
        ctx.geometry = ((stride, stride), (padding, padding))
        for frames in _chunks(n_frames, _inner_bytes(maps_FHWC, n_inner), maps_FHWC.device):
            hidden_FHWM = functional.silu(functional.linear(maps_FHWC[frames], weight_MC, bias_M), inplace=True)
            made_FMHW = _convolve(hidden_FHWM.permute(0, 3, 1, 2), kernel_M1KK, *ctx.geometry)
            out_FHWM[frames] = made_FMHW.permute(0, 2, 3, 1)
            if measures:
                moments.add(out_FHWM[frames].flatten(0, 2))
        mean_M, variance_M = moments.result() if measures else _no_moments(out_FHWM)
        ctx.measures = measures
        ctx.save_for_backward(maps_BTHWC, *weights, out_FHWM, mean_M)
        return out_FHWM.view(*maps_BTHWC.shape[:2], *out_size, n_inner), mean_M, variance_M

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, gradient: torch.Tensor, of_mean_M: torch.Tensor, of_variance_M: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        maps_BTHWC, *weights, out_FHWM, mean_M = ctx.saved_tensors
        weight_MC, bias_M, kernel_M1KK = (one.to(maps_BTHWC.dtype) for one in weights)
        maps_FHWC, gradient_FHWM = maps_BTHWC.contiguous().flatten(0, 1), gradient.contiguous().flatten(0, 1)
        n_rows = out_FHWM[..., 0].numel()
        offset_M, slope_M = of_mean_M / n_rows, of_variance_M * (2 / n_rows)
        of_maps_FHWC = torch.empty_like(maps_FHWC)
        of_weight_MC, of_bias_M, of_kernel = (torch.zeros_like(one) for one in weights)
        for frames in _chunks(len(maps_FHWC), _inner_bytes(maps_FHWC, len(weight_MC)), maps_FHWC.device):
            own_FHWC, of_out_FHWM = maps_FHWC[frames], gradient_FHWM[frames]
            if ctx.measures:
                of_out_FHWM = _with_moments(of_out_FHWM, out_FHWM[frames], mean_M, offset_M, slope_M)
            before_FHWM = functional.linear(own_FHWC, weight_MC, bias_M)
            of_hidden_FMHW, of_own_kernel = _convolve_back(
                of_out_FHWM.permute(0, 3, 1, 2),
                functional.silu(before_FHWM).permute(0, 3, 1, 2),
                kernel_M1KK,
                *ctx.geometry,
            )
            of_before_RM = _silu_back(of_hidden_FMHW.permute(0, 2, 3, 1), before_FHWM).flatten(0, 2)
            of_maps_FHWC[frames] = (of_before_RM @ weight_MC).view(own_FHWC.shape)
            of_weight_MC += of_before_RM.T @ own_FHWC.flatten(0, 2)
            of_bias_M += of_before_RM.sum(0, dtype=of_bias_M.dtype)
            of_kernel += of_own_kernel
        return of_maps_FHWC.view(maps_BTHWC.shape), of_weight_MC, of_bias_M, of_kernel, None, None


class _FilterTime(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        maps_BTPM: torch.Tensor,
        scale_M: torch.Tensor,
        shift_M: torch.Tensor,
        kernel_M1K1: torch.Tensor,
        measures: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weights = scale_M, shift_M, kernel_M1K1
        scale_M, shift_M, kernel_M1K1 = (one.to(maps_BTPM.dtype) for one in weights)
        out_BTPM = torch.empty_like(maps_BTPM)
        moments = _Moments()
        ctx.geometry = ((1, 1), (kernel_M1K1.shape[2] // 2, 0))
        for window, pixels in _pixel_chunks(maps_BTPM):
            hidden_1TPM = functional.silu(torch.addcmul(shift_M, maps_BTPM[window, :, pixels], scale_M), inplace=True)
            made_1MTP = _convolve(hidden_1TPM.permute(0, 3, 1, 2), kernel_M1K1, *ctx.geometry)
            made_1TPM = made_1MTP.permute(0, 2, 3, 1)
            out_BTPM[window, :, pixels] = made_1TPM
            if measures:
                moments.add(made_1TPM.flatten(0, 2))
        mean_M, variance_M = moments.result() if measures else _no_moments(out_BTPM)
        ctx.measures = measures
        ctx.save_for_backward(maps_BTPM, *weights, out_BTPM, mean_M)
        return out_BTPM, mean_M, variance_M

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, gradient_BTPM: torch.Tensor, of_mean_M: torch.Tensor, of_variance_M: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        maps_BTPM, *weights, out_BTPM, mean_M = ctx.saved_tensors
        scale_M, shift_M, kernel_M1K1 = (one.to(maps_BTPM.dtype) for one in weights)
        n_rows = out_BTPM[..., 0].numel()
        offset_M, slope_M = of_mean_M / n_rows, of_variance_M * (2 / n_rows)
        of_maps_BTPM = torch.empty_like(maps_BTPM)
        of_scale_M, of_shift_M, of_kernel = (torch.zeros_like(one) for one in weights)
        for window, pixels in _pixel_chunks(maps_BTPM):
            own_1TPM, of_out_1TPM = maps_BTPM[window, :, pixels], gradient_BTPM[window, :, pixels]
            if ctx.measures:
                of_out_1TPM = _with_moments(of_out_1TPM, out_BTPM[window, :, pixels], mean_M, offset_M, slope_M)
            before_1TPM = torch.addcmul(shift_M, own_1TPM, scale_M)
            of_hidden_1MTP, of_own_kernel = _convolve_back(
                of_out_1TPM.contiguous().permute(0, 3, 1, 2),
                functional.silu(before_1TPM).permute(0, 3, 1, 2),
                kernel_M1K1,
                *ctx.geometry,
            )
            of_before_1TPM = _silu_back(of_hidden_1MTP.permute(0, 2, 3, 1), before_1TPM)
            torch.mul(of_before_1TPM, scale_M, out=of_maps_BTPM[window, :, pixels])
            of_shift_M += of_before_1TPM.sum((0, 1, 2), dtype=of_shift_M.dtype)
            of_scale_M += (of_before_1TPM * own_1TPM).sum((0, 1, 2), dtype=of_scale_M.dtype)
            of_kernel += of_own_kernel
        return of_maps_BTPM, of_scale_M, of_shift_M, of_kernel, None


class _Project(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        maps_BNM: torch.Tensor,
        scale_M: torch.Tensor,
        shift_M: torch.Tensor,
        squeeze_SM: torch.Tensor,
        squeeze_bias_S: torch.Tensor,
        excite_MS: torch.Tensor,
        excite_bias_M: torch.Tensor,
        weight_OM: torch.Tensor,
    ) -> torch.Tensor:
        excitation = squeeze_SM, squeeze_bias_S, excite_MS, excite_bias_M
        norm, (scale_M, shift_M) = (scale_M, shift_M), (one.to(maps_BNM.dtype) for one in (scale_M, shift_M))
        sums_BM = torch.zeros_like(maps_BNM[:, 0], dtype=torch.promote_types(maps_BNM.dtype, torch.float32))
        for windows, rows in _row_chunks(maps_BNM):
            hidden_BNM = functional.silu(torch.addcmul(shift_M, maps_BNM[windows, rows], scale_M), inplace=True)
            sums_BM[windows] += hidden_BNM.sum(1, dtype=sums_BM.dtype)
        mean_BM = sums_BM / maps_BNM.shape[1]
        weight_BOM = (weight_OM * _excite(mean_BM, *excitation)[:, None]).to(maps_BNM.dtype)
        out_BNO = maps_BNM.new_empty((*maps_BNM.shape[:2], len(weight_OM)))
        for windows, rows in _row_chunks(maps_BNM):
            hidden_BNM = functional.silu(torch.addcmul(shift_M, maps_BNM[windows, rows], scale_M), inplace=True)
            out_BNO[windows, rows] = hidden_BNM @ weight_BOM[windows].transpose(1, 2)
        ctx.save_for_backward(maps_BNM, *norm, *excitation, weight_OM, mean_BM)
        return out_BNO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BNO: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        maps_BNM, *norm, squeeze_SM, squeeze_bias_S, excite_MS, excite_bias_M, weight_OM, mean_BM = ctx.saved_tensors
        excitation = squeeze_SM, squeeze_bias_S, excite_MS, excite_bias_M
        scale_M, shift_M = (one.to(maps_BNM.dtype) for one in norm)
        gradient_BNO = gradient_BNO.contiguous()
        of_weight_BOM = weight_OM.new_zeros((len(maps_BNM), *weight_OM.shape))
        for windows, rows in _row_chunks(maps_BNM):
            hidden_BNM = functional.silu(torch.addcmul(shift_M, maps_BNM[windows, rows], scale_M), inplace=True)
            of_weight_BOM[windows] += gradient_BNO[windows, rows].transpose(1, 2) @ hidden_BNM
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_() for one in (mean_BM, *excitation, weight_OM)]
            weight_BOM = leaves[-1] * _excite(*leaves[:-1])[:, None]
        of_mean_BM, *of_others = torch.autograd.grad(weight_BOM, leaves, of_weight_BOM)
        weight_BOM = weight_BOM.detach().to(maps_BNM.dtype)
        of_mean_B1M = (of_mean_BM[:, None] / maps_BNM.shape[1]).to(maps_BNM.dtype)
        of_maps_BNM = torch.empty_like(maps_BNM)
        of_scale_M, of_shift_M = (torch.zeros_like(one) for one in norm)
        for windows, rows in _row_chunks(maps_BNM):
            own_BNM = maps_BNM[windows, rows]
            of_hidden_BNM = torch.baddbmm(of_mean_B1M[windows], gradient_BNO[windows, rows], weight_BOM[windows])
            of_before_BNM = _silu_back(of_hidden_BNM, torch.addcmul(shift_M, own_BNM, scale_M))
            torch.mul(of_before_BNM, scale_M, out=of_maps_BNM[windows, rows])
            of_shift_M += of_before_BNM.sum((0, 1), dtype=of_shift_M.dtype)
            of_scale_M += (of_before_BNM * own_BNM).sum((0, 1), dtype=of_scale_M.dtype)
        return (of_maps_BNM, of_scale_M, of_shift_M, *of_others)


def _excite(
    mean_BM: torch.Tensor,
    squeeze_SM: torch.Tensor,
    squeeze_bias_S: torch.Tensor,
    excite_MS: torch.Tensor,
    excite_bias_M: torch.Tensor,
) -> torch.Tensor:
    squeezed_BS = functional.silu(functional.linear(mean_BM, squeeze_SM, squeeze_bias_S))
    return functional.linear(squeezed_BS, excite_MS, excite_bias_M).sigmoid()


def _inner_bytes(maps_FHWC: torch.Tensor, n_inner: int) -> int:
    return maps_FHWC[0, ..., 0].numel() * n_inner * maps_FHWC.element_size()


def _pixel_chunks(maps_BTPM: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield windows and pixels: few pixels of one window on a CPU."""
    n_windows, n_frames, n_pixels, n_inner = maps_BTPM.shape
    for windows in _chunks(n_windows, _CHUNK_BYTES, maps_BTPM.device):
        for pixels in _chunks(n_pixels, n_frames * n_inner * maps_BTPM.element_size(), maps_BTPM.device):
            yield windows, pixels


def _row_chunks(maps_BNM: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield windows and rows: few rows of one window on a CPU."""
    for windows in _chunks(len(maps_BNM), _CHUNK_BYTES, maps_BNM.device):
        for rows in _chunks(maps_BNM.shape[1], maps_BNM.shape[2] * maps_BNM.element_size(), maps_BNM.device):
            yield windows, rows
