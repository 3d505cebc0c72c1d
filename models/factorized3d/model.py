"""Convolutions over space, then over time, and a readout for each session.

Shape suffixes: B trials of a batch, C channels, T frames, H height, W width, S pixels (H × W), F frames of all trials
(B × T).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from models.core_readout_model import CoreReadoutModel
from models.factorized3d.config import Factorized3dConfig
from models.layers import init_convolutions, spatial_roughness, temporal_roughness

__all__ = ["Factorized3d", "FactorizedCore", "FactorizedLayer"]


class Factorized3d(CoreReadoutModel):
    """Filters over space and time in turn, and a readout and a shifter for each session.

    Notes
    -----
    The factorized 3D benchmark of https://github.com/ecker-lab/sensorium_2023 (Turishcheva et al. 2023, "The Dynamic
    Sensorium competition for predicting large-scale mouse visual cortex activity from videos").
    """

    config_class = Factorized3dConfig
    config: Factorized3dConfig
    core: FactorizedCore
    is_causal = True

    def make_core(self, n_input_channels: int) -> FactorizedCore:
        """Return the core for a video of some channels."""
        return FactorizedCore(self.config, n_input_channels)

    def regularizer(self) -> torch.Tensor:
        """Return the penalty on rough filters in the core's first layer."""
        first = cast(FactorizedLayer, self.core.layers[0])
        spatial = spatial_roughness(first.spatial.weight)
        temporal = temporal_roughness(first.temporal.weight[..., 0])
        return self.config.spatial_smoothness * spatial + self.config.temporal_smoothness * temporal


class FactorizedCore(nn.Module):
    """Layers that turn a video into a feature map for each frame.

    Parameters
    ----------
    config : Factorized3dConfig
        The architecture.
    n_input_channels : int
        Of the video.
    """

    layers: nn.Sequential

    def __init__(self, config: Factorized3dConfig, n_input_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                FactorizedLayer(
                    n_in,
                    n_out,
                    spatial_kernel=spatial_kernel,
                    temporal_kernel=temporal_kernel,
                    spatial_stride=spatial_stride,
                    pads_frames=config.pads_frames,
                    batch_norm_momentum=config.batch_norm_momentum,
                )
                for n_in, n_out, spatial_kernel, temporal_kernel, spatial_stride in zip(
                    (n_input_channels, *config.channels[:-1]),
                    config.channels,
                    config.spatial_kernels,
                    config.temporal_kernels,
                    config.spatial_strides,
                    strict=True,
                )
            )
        )

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the features of the last frames, shape (batch, channel, time, height, width)."""
        features_BCTHW: torch.Tensor = self.layers(videos_BCTHW)
        return features_BCTHW


class FactorizedLayer(nn.Module):
    """A convolution over space, one over time with nothing in between, batch norm, ELU.

    Parameters
    ----------
    n_in, n_out : int
        Channels before and after.
    spatial_kernel : int
        Height and width of the first kernel, pixels.
    temporal_kernel : int
        Length of the second, frames. Time is never padded.
    spatial_stride : int
        Step of the first kernel, pixels.
    pads_frames : bool
        Pad frames with zeros, by half a kernel on each side.
    batch_norm_momentum : float
        Weight of the newest batch in the running mean and variance.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        spatial_kernel: int,
        temporal_kernel: int,
        spatial_stride: int,
        pads_frames: bool,
        batch_norm_momentum: float,
    ) -> None:
        super().__init__()
        padding = spatial_kernel // 2 if pads_frames else 0
        self.spatial = nn.Conv2d(n_in, n_out, spatial_kernel, stride=spatial_stride, padding=padding)
        self.temporal = nn.Conv2d(n_out, n_out, (temporal_kernel, 1))
        self.norm = nn.BatchNorm2d(n_out, momentum=batch_norm_momentum)
        init_convolutions(self)

    def forward(self, features_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the features of the last frames, shape (batch, channel, time, height, width)."""
        n_trials, _, n_frames, _, _ = features_BCTHW.shape
        # Two-dimensional convolutions, over (height, width) and over (time, pixel), with the channels last in memory,
        # take half to two thirds of the time that the equal three-dimensional ones take on a CPU.
        frames_FCHW = features_BCTHW.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        spatial_FCHW = self.spatial(frames_FCHW)
        n_channels, height, width = spatial_FCHW.shape[1:]
        spatial_BCTS = spatial_FCHW.reshape(n_trials, n_frames, n_channels, height * width).transpose(1, 2)
        normalized_BCTS = self.norm(self.temporal(spatial_BCTS))
        return functional.elu(normalized_BCTS, inplace=True).reshape(n_trials, n_channels, -1, height, width)
