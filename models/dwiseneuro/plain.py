"""The steps of :mod:`models.dwiseneuro.fused` in torch's own functions, which ``torch.compile`` fuses by itself.

Arguments and results are those of the functions of the same names there.

Shape suffixes: B windows, T frames, H height, W width, M inner channels, C channels of the input, O channels of the
output, S squeezed channels. Channels come last in memory.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from models.dwiseneuro.norm import measure_variance

__all__ = ["filter_space", "filter_time", "project"]


def filter_space(
    maps_BTHWC: torch.Tensor,
    weight_MC: torch.Tensor,
    bias_M: torch.Tensor,
    kernel_M1KK: torch.Tensor,
    stride: int,
    *,
    measures: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Expand the channels, SiLU, and filter each channel of each frame."""
    dtype, n_windows = maps_BTHWC.dtype, len(maps_BTHWC)
    hidden_FHWM = functional.silu(functional.linear(maps_BTHWC.flatten(0, 1), weight_MC.to(dtype), bias_M.to(dtype)))
    made_FMHW = functional.conv2d(
        hidden_FHWM.permute(0, 3, 1, 2),
        kernel_M1KK.to(dtype),
        stride=stride,
        padding=kernel_M1KK.shape[2] // 2,
        groups=len(weight_MC),
    )
    maps_BTHWM = made_FMHW.permute(0, 2, 3, 1).unflatten(0, (n_windows, -1))
    return maps_BTHWM, *measure_variance(maps_BTHWM.flatten(0, 3), measures)


def filter_time(
    maps_BTHWM: torch.Tensor, scale_M: torch.Tensor, shift_M: torch.Tensor, kernel_M1K1: torch.Tensor, *, measures: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale, shift, SiLU, and filter each channel of each pixel over time."""
    dtype, n_taps, n_frames = maps_BTHWM.dtype, kernel_M1K1.shape[2], maps_BTHWM.shape[1]
    hidden_BTHWM = functional.silu(torch.addcmul(shift_M.to(dtype), maps_BTHWM, scale_M.to(dtype)))
    padded_BTHWM = functional.pad(hidden_BTHWM, (0, 0, 0, 0, 0, 0, n_taps // 2, n_taps // 2))
    taps_KM = kernel_M1K1[:, 0, :, 0].T.to(dtype)
    made_BTHWM = padded_BTHWM[:, :n_frames] * taps_KM[0]
    for tap in range(1, n_taps):
        made_BTHWM = torch.addcmul(made_BTHWM, padded_BTHWM[:, tap : tap + n_frames], taps_KM[tap])
    return made_BTHWM, *measure_variance(made_BTHWM.flatten(0, 3), measures)


def project(
    maps_BTHWM: torch.Tensor,
    scale_M: torch.Tensor,
    shift_M: torch.Tensor,
    excitation: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    weight_OM: torch.Tensor,
) -> torch.Tensor:
    """Scale, shift, SiLU, weigh the channels of each window by its means, and sum them up."""
    dtype = maps_BTHWM.dtype
    squeeze_SM, squeeze_bias_S, excite_MS, excite_bias_M = excitation
    hidden_BTHWM = functional.silu(torch.addcmul(shift_M.to(dtype), maps_BTHWM, scale_M.to(dtype)))
    mean_BM = hidden_BTHWM.to(torch.promote_types(dtype, torch.float32)).mean((1, 2, 3))
    squeezed_BS = functional.silu(functional.linear(mean_BM, squeeze_SM, squeeze_bias_S))
    share_BM = functional.linear(squeezed_BS, excite_MS, excite_bias_M).sigmoid()
    weight_BOM = (weight_OM * share_BM[:, None]).to(dtype)
    made_BNO = hidden_BTHWM.flatten(1, 3) @ weight_BOM.transpose(1, 2)
    return made_BNO.view(*maps_BTHWM.shape[:4], -1)
