"""What all sessions of DwiseNeuro share: a stem, blocks of depth-wise filters, and the cortex.

Shape suffixes: B windows, T frames, H height, W width, C channels, M inner channels, G groups of channels, R rows of
all windows, frames and pixels. Channels come last in memory.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional

from models.dwiseneuro.config import BlockShape, DwiseNeuroConfig
from models.dwiseneuro.fused import filter_space, filter_time, project
from models.dwiseneuro.norm import ChannelNorm, measure_covariance, measure_variance
from models.dwiseneuro.positions import encode_positions

__all__ = ["Block", "CortexLayer", "DwiseNeuroCore", "Stem", "init_weights", "multiply_groups", "skip_windows"]


class DwiseNeuroCore(nn.Module):
    """Stem, blocks and cortex: from videos to channels that have no place.

    Parameters
    ----------
    config : DwiseNeuroConfig
        The architecture.
    n_input_channels : int
        Of the video.
    """

    def __init__(self, config: DwiseNeuroConfig, n_input_channels: int) -> None:
        super().__init__()
        self.stem = Stem(n_input_channels, config.channels[0])
        self.blocks = nn.ModuleList(
            Block(shape, config.spatial_kernel, config.temporal_kernel) for shape in config.list_blocks()
        )
        sizes = (config.channels[-1], *config.cortex_channels)
        self.cortex = nn.ModuleList(
            CortexLayer(n_in, n_out, config.cortex_groups, config.drop_path)
            for n_in, n_out in itertools.pairwise(sizes)
        )
        init_weights(self)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the cortex's channels, shape (batch, time, channel)."""
        device = videos_BCTHW.device.type
        is_mixed = torch.is_autocast_enabled(device)
        # The maps have the precision that is asked for; what is summed over the batch, and weights, have 32 bits.
        dtype = torch.get_autocast_dtype(device) if is_mixed else videos_BCTHW.dtype
        with torch.autocast(device, enabled=False):
            maps_BTHWC = self.stem(videos_BCTHW.float() if is_mixed else videos_BCTHW).to(dtype)
            for block in self.blocks:
                maps_BTHWC = block(maps_BTHWC)
            channels_BTC: torch.Tensor = maps_BTHWC.mean((2, 3))
        for layer in self.cortex:
            channels_BTC = layer(channels_BTC)
        return channels_BTC


class Stem(nn.Module):
    """Sums of the video's channels, normalized.

    Parameters
    ----------
    n_in, n_out : int
        Channels of the video, and of the sums.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(n_in, n_out, 1, bias=False)
        self.norm = ChannelNorm(n_out)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return maps of the same size, shape (batch, time, height, width, channel)."""
        maps_BTHWC = videos_BCTHW.movedim(1, -1).contiguous()
        rows_RC = maps_BTHWC.flatten(0, 3)
        weight_OC = self.convolution.weight.flatten(1)
        mean_C, covariance_CC = measure_covariance(rows_RC, self.training)
        weight_OC, bias_O = self.norm.fold(weight_OC, mean_C, covariance_CC, len(rows_RC))
        return functional.linear(maps_BTHWC, weight_OC, bias_O)


class Block(nn.Module):
    """An inverted residual: expand the channels, filter each over space, then over time, weigh them, and sum them up.

    The encoding of positions is added to its input. The shortcut has a batch norm of its own, takes about every
    ``stride``-th pixel, and repeats channels where the output has more.

    Parameters
    ----------
    shape : BlockShape
        Its channels and its stride.
    spatial_kernel, temporal_kernel : int
        Sides of the filters, pixels and frames.
    """

    def __init__(self, shape: BlockShape, spatial_kernel: int, temporal_kernel: int) -> None:
        super().__init__()
        self.shape = shape
        n_inner = shape.n_hidden
        self.expand = nn.Conv3d(shape.n_in, n_inner, 1, bias=False)
        self.expand_norm = ChannelNorm(n_inner)
        self.space = nn.Conv3d(n_inner, n_inner, (1, spatial_kernel, spatial_kernel), groups=n_inner, bias=False)
        self.space_norm = ChannelNorm(n_inner)
        self.time = nn.Conv3d(n_inner, n_inner, (temporal_kernel, 1, 1), groups=n_inner, bias=False)
        self.time_norm = ChannelNorm(n_inner)
        self.squeeze = nn.Conv3d(n_inner, shape.n_squeezed, 1)
        self.excite = nn.Conv3d(shape.n_squeezed, n_inner, 1)
        self.project = nn.Conv3d(n_inner, shape.n_out, 1, bias=False)
        self.project_norm = ChannelNorm(shape.n_out)
        self.shortcut_norm = ChannelNorm(shape.n_out)

    def forward(self, maps_BTHWC: torch.Tensor) -> torch.Tensor:
        """Return maps of the output's channels, shape (batch, time, height, width, channel)."""
        _, n_frames, height, width, n_channels = maps_BTHWC.shape
        places_THWC = encode_positions(n_channels, (n_frames, height, width), maps_BTHWC.device)
        maps_BTHWC = maps_BTHWC + places_THWC.to(maps_BTHWC.dtype)
        mean_C, covariance_CC = measure_covariance(maps_BTHWC.flatten(0, 3), self.training)
        summed_BTHWC = self._sum_filtered(maps_BTHWC, mean_C, covariance_CC)
        scale_C, shift_C = self.project_norm.scale_and_shift(
            *measure_variance(summed_BTHWC.flatten(0, 3), self.training), summed_BTHWC[..., 0].numel()
        )
        if self.training and self.shape.drop_path:
            kept_B = skip_windows(len(maps_BTHWC), self.shape.drop_path, maps_BTHWC.device).to(scale_C.dtype)
            kept_B1111 = kept_B[:, None, None, None, None]
            scale_C, shift_C = scale_C * kept_B1111, shift_C * kept_B1111
        shortcut_BTHWC, shortcut_scale_C, shortcut_shift_C = self._shortcut(maps_BTHWC, mean_C, covariance_CC)
        dtype = maps_BTHWC.dtype
        return torch.addcmul(
            torch.addcmul((shift_C + shortcut_shift_C).to(dtype), summed_BTHWC, scale_C.to(dtype)),
            shortcut_BTHWC,
            shortcut_scale_C.to(dtype),
        )

    def _sum_filtered(
        self, maps_BTHWC: torch.Tensor, mean_C: torch.Tensor, covariance_CC: torch.Tensor
    ) -> torch.Tensor:
        n_rows, measures = maps_BTHWC[..., 0].numel(), self.training
        weight_MC, bias_M = self.expand_norm.fold(self.expand.weight.flatten(1), mean_C, covariance_CC, n_rows)
        maps_BTHWM, *moments = filter_space(
            maps_BTHWC, weight_MC, bias_M, self.space.weight.squeeze(2), self.shape.stride, measures=measures
        )
        n_rows = maps_BTHWM[..., 0].numel()
        scale_M, shift_M = self.space_norm.scale_and_shift(*moments, n_rows)
        maps_BTHWM, *moments = filter_time(maps_BTHWM, scale_M, shift_M, self.time.weight.squeeze(4), measures=measures)
        scale_M, shift_M = self.time_norm.scale_and_shift(*moments, n_rows)
        excitation = (
            self.squeeze.weight.flatten(1),
            self.squeeze.bias,
            self.excite.weight.flatten(1),
            self.excite.bias,
        )
        return project(maps_BTHWM, scale_M, shift_M, excitation, self.project.weight.flatten(1))

    def _shortcut(
        self, maps_BTHWC: torch.Tensor, mean_C: torch.Tensor, covariance_CC: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what is added to the sums, and its batch norm."""
        variance_C = covariance_CC.diagonal()
        if self.shape.stride > 1:
            maps_BTHWC = _thin_out(maps_BTHWC, self.shape.stride)
            mean_C, variance_C = measure_variance(maps_BTHWC.flatten(0, 3), self.training)
        n_out = self.shape.n_out
        scale_C, shift_C = self.shortcut_norm.scale_and_shift(
            _repeat(mean_C, n_out), _repeat(variance_C, n_out), maps_BTHWC[..., 0].numel()
        )
        return _repeat(maps_BTHWC, n_out), scale_C, shift_C


class CortexLayer(nn.Module):
    """Sums of channels in groups, normalized, SiLU, then the groups are shuffled; beside a shortcut.

    Parameters
    ----------
    n_in, n_out, n_groups : int
        Channels, and the parts that they are divided into.
    drop_path : float
        Share of windows that skip the layer in training.
    """

    def __init__(self, n_in: int, n_out: int, n_groups: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.n_groups = n_groups
        self.convolution = nn.Conv1d(n_in, n_out, 1, groups=n_groups, bias=False)
        self.norm = ChannelNorm(n_out)
        self.shortcut_norm = ChannelNorm(n_out)

    def forward(self, channels_BTC: torch.Tensor) -> torch.Tensor:
        """Return the shuffled channels, shape (batch, time, channel)."""
        n_windows, n_frames, _ = channels_BTC.shape
        n_out = len(self.norm.weight)
        rows_RC = channels_BTC.flatten(0, 1)
        made_RGC = multiply_groups(rows_RC, self.convolution.weight.squeeze(2), self.n_groups).transpose(0, 1)
        made_RC = functional.silu(self.norm.normalize(made_RGC.flatten(1)))
        shuffled_BTC = made_RC.unflatten(1, (self.n_groups, -1)).transpose(1, 2).reshape(n_windows, n_frames, n_out)
        if self.training and self.drop_path:
            shuffled_BTC = shuffled_BTC * skip_windows(n_windows, self.drop_path, rows_RC.device)[:, None, None]
        return shuffled_BTC + self.shortcut_norm.normalize(_repeat(rows_RC, n_out)).view(shuffled_BTC.shape)


def multiply_groups(rows_RC: torch.Tensor, weight_OC: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Return sums of the channels of each group: what a convolution of one frame does.

    Parameters
    ----------
    rows_RC : Tensor
        Of shape (row, channel).
    weight_OC : Tensor
        Of shape (sum, channel of its group), the sums of the first group first.
    n_groups : int
        Which divides both.

    Returns
    -------
    Tensor, shape (group, row, sum of the group)
    """
    rows_GCR = rows_RC.unflatten(1, (n_groups, -1)).permute(1, 2, 0)
    # In this order, the weights' gradient is made as it is stored.
    return (weight_OC.unflatten(0, (n_groups, -1)) @ rows_GCR).transpose(1, 2)


def skip_windows(n_windows: int, share: float, device: torch.device) -> torch.Tensor:
    """Return what each window's layer is multiplied with: 0 for about ``share`` of them, else 1 / (1 - share)."""
    return torch.empty(n_windows, device=device).bernoulli_(1 - share).div_(1 - share)


def init_weights(module: nn.Module) -> None:
    """Draw the weights of convolutions from a normal distribution of variance 2 / fan-out; biases are 0.

    Parameters
    ----------
    module : Module
        Changed in place.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv3d)):
            n_sums = part.weight.shape[2:].numel() * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=(2 / n_sums) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _repeat(channels_last: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Return so many channels: all, again from the first one, and so on."""
    n_there = channels_last.shape[-1]
    if n_there == n_channels:
        return channels_last
    n_times = -(-n_channels // n_there)
    return torch.cat([channels_last] * n_times, dim=-1)[..., :n_channels]


def _thin_out(maps_BTHWC: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the nearest pixels of maps whose sides are divided by ``stride``, rounded up."""
    for axis in (2, 3):
        n_pixels = maps_BTHWC.shape[axis]
        n_left = -(-n_pixels // stride)
        chosen = torch.arange(n_left, device=maps_BTHWC.device) * n_pixels // n_left
        maps_BTHWC = maps_BTHWC.index_select(axis, chosen)
    return maps_BTHWC
