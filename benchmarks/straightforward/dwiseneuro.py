"""DwiseNeuro as its reference writes it: layer by layer, of torch's own three-dimensional modules.

Shape suffixes: B windows of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from models.dwiseneuro import DwiseNeuro, DwiseNeuroConfig
from models.response_model import ResponseModel

__all__ = ["make_reference"]


def make_reference(model: ResponseModel) -> nn.Module:
    """Return a model that predicts the same, written straightforwardly.

    Parameters
    ----------
    model : DwiseNeuro
        Whose weights are copied.

    Returns
    -------
    Module
        With the same ``predict_rows``, and weights of the same names, on the same device and of the same dtype.
    """
    original = cast(DwiseNeuro, model)
    n_inputs = original.core.stem.convolution.in_channels
    n_neurons = {session: cast(int, readout.n_neurons) for session, readout in original.readouts.items()}
    reference = _DwiseNeuro(original.config, n_inputs, n_neurons).to(next(model.parameters()))
    reference.load_state_dict(model.state_dict())
    return reference.train(model.training)


class _DwiseNeuro(nn.Module):
    def __init__(self, config: DwiseNeuroConfig, n_inputs: int, n_neurons: Mapping[str, int]) -> None:
        super().__init__()
        self.core = _Core(config, n_inputs)
        self.readouts = nn.ModuleDict({session: _Readout(n, config) for session, n in n_neurons.items()})

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        channels_BCT = self.core(videos_BCTHW)
        return [self.readouts[session](channels_BCT[rows]) for session, rows in wanted]


class _Core(nn.Module):
    def __init__(self, config: DwiseNeuroConfig, n_inputs: int) -> None:
        super().__init__()
        self.stem = nn.Module()
        self.stem.convolution = nn.Conv3d(n_inputs, config.channels[0], 1, bias=False)
        self.stem.norm = nn.BatchNorm3d(config.channels[0])
        self.blocks = nn.ModuleList(
            _Block(config, number, n_in, n_out, stride)
            for number, (n_in, n_out, stride) in enumerate(
                zip(config.channels, config.channels[1:], config.strides, strict=False)
            )
        )
        sizes = (config.channels[-1], *config.cortex_channels)
        self.cortex = nn.ModuleList(_Layer(config, *pair) for pair in itertools.pairwise(sizes))

    def forward(self, maps_BCTHW: torch.Tensor) -> torch.Tensor:
        maps_BCTHW = self.stem.norm(self.stem.convolution(maps_BCTHW))
        for block in self.blocks:
            maps_BCTHW = block(maps_BCTHW)
        channels_BCT = functional.adaptive_avg_pool3d(maps_BCTHW, (None, 1, 1))[..., 0, 0]
        for layer in self.cortex:
            channels_BCT = layer(channels_BCT)
        return channels_BCT


class _Block(nn.Module):
    def __init__(self, config: DwiseNeuroConfig, number: int, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        n_inner, n_squeezed = n_in * config.expansion, max(1, n_in * config.expansion // config.squeeze_reduction)
        space, time = config.spatial_kernel, config.temporal_kernel
        self.stride, self.n_out = stride, n_out
        self.drop_path = config.drop_path * number / len(config.strides)
        self.expand = nn.Conv3d(n_in, n_inner, 1, bias=False)
        self.expand_norm = nn.BatchNorm3d(n_inner)
        self.space = nn.Conv3d(
            n_inner, n_inner, (1, space, space), (1, stride, stride), (0, space // 2, space // 2), 1, n_inner, False
        )
        self.space_norm = nn.BatchNorm3d(n_inner)
        self.time = nn.Conv3d(n_inner, n_inner, (time, 1, 1), 1, (time // 2, 0, 0), 1, n_inner, False)
        self.time_norm = nn.BatchNorm3d(n_inner)
        self.squeeze = nn.Conv3d(n_inner, n_squeezed, 1)
        self.excite = nn.Conv3d(n_squeezed, n_inner, 1)
        self.project = nn.Conv3d(n_inner, n_out, 1, bias=False)
        self.project_norm = nn.BatchNorm3d(n_out)
        self.shortcut_norm = nn.BatchNorm3d(n_out)

    def forward(self, maps_BCTHW: torch.Tensor) -> torch.Tensor:
        maps_BCTHW = maps_BCTHW + _encode_positions(maps_BCTHW)
        inner = functional.silu(self.expand_norm(self.expand(maps_BCTHW)))
        inner = functional.silu(self.space_norm(self.space(inner)))
        inner = functional.silu(self.time_norm(self.time(inner)))
        means = inner.mean((2, 3, 4), keepdim=True)
        inner = inner * self.excite(functional.silu(self.squeeze(means))).sigmoid()
        made = _drop_path(self.project_norm(self.project(inner)), self.drop_path, training=self.training)
        shortcut = maps_BCTHW
        if self.stride > 1:
            n_frames, height, width = shortcut.shape[2:]
            size = (n_frames, math.ceil(height / self.stride), math.ceil(width / self.stride))
            shortcut = functional.interpolate(shortcut, size, mode="nearest")
        return made + self.shortcut_norm(_tile(shortcut, self.n_out))


class _Layer(nn.Module):
    def __init__(self, config: DwiseNeuroConfig, n_in: int, n_out: int) -> None:
        super().__init__()
        self.n_groups, self.n_out, self.drop_path = config.cortex_groups, n_out, config.drop_path
        self.convolution = nn.Conv1d(n_in, n_out, 1, groups=config.cortex_groups, bias=False)
        self.norm = nn.BatchNorm1d(n_out)
        self.shortcut_norm = nn.BatchNorm1d(n_out)

    def forward(self, channels_BCT: torch.Tensor) -> torch.Tensor:
        made = functional.silu(self.norm(self.convolution(channels_BCT)))
        made = made.unflatten(1, (self.n_groups, -1)).transpose(1, 2).flatten(1, 2)
        made = _drop_path(made, self.drop_path, training=self.training)
        return made + self.shortcut_norm(_tile(channels_BCT, self.n_out))


class _Readout(nn.Conv1d):
    def __init__(self, n_neurons: int, config: DwiseNeuroConfig) -> None:
        n_groups = config.cortex_groups
        super().__init__(config.cortex_channels[-1], n_groups * math.ceil(n_neurons / n_groups), 1, groups=n_groups)
        self.n_neurons, self.dropout, self.beta = n_neurons, config.readout_dropout, config.softplus_beta

    def forward(self, channels_BCT: torch.Tensor) -> torch.Tensor:
        channels_BCT = functional.dropout1d(channels_BCT, self.dropout, self.training)
        return functional.softplus(super().forward(channels_BCT)[:, : self.n_neurons], self.beta)


def _encode_positions(maps_BCTHW: torch.Tensor) -> torch.Tensor:
    n_channels = maps_BCTHW.shape[1]
    n_of_axis = 2 * math.ceil(n_channels / 6)
    frequencies = 1 / 10_000 ** (torch.arange(0, n_of_axis, 2, device=maps_BCTHW.device).float() / n_of_axis)
    encoding = maps_BCTHW.new_zeros((3 * n_of_axis, *maps_BCTHW.shape[2:]))
    for axis in range(3):
        places = torch.arange(maps_BCTHW.shape[2 + axis], device=maps_BCTHW.device).float()
        angles = frequencies[:, None] * places
        shape = [n_of_axis, 1, 1, 1]
        shape[1 + axis] = -1
        encoding[axis * n_of_axis : (axis + 1) * n_of_axis] = torch.cat((angles.sin(), angles.cos())).view(shape)
    return encoding[:n_channels]


def _tile(channels: torch.Tensor, n_channels: int) -> torch.Tensor:
    n_times = math.ceil(n_channels / channels.shape[1])
    return torch.cat([channels] * n_times, dim=1)[:, :n_channels]


def _drop_path(values: torch.Tensor, share: float, *, training: bool) -> torch.Tensor:
    if not training or not share:
        return values
    kept = values.new_empty(len(values), *[1] * (values.ndim - 1)).bernoulli_(1 - share)
    return values * kept / (1 - share)
