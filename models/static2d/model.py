"""Convolutions over single frames, and a readout for each session.

Shape suffixes: B trials of a batch, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from models.core_readout_model import CoreReadoutModel
from models.layers import FrameLayers, NormalizedLayer, init_convolutions, spatial_roughness
from models.static2d.config import Static2dConfig

__all__ = ["SeparableConvolution", "Static2d", "StaticCore"]


class Static2d(CoreReadoutModel):
    """A core that sees one frame at a time, and a readout and a shifter for each session.

    Whatever it predicts better than chance owes nothing to the past: what models of time add is measured against it.

    Notes
    -----
    The model with behavior of SENSORIUM 2022 (Willeke et al. 2022, "The Sensorium competition on predicting large-scale
    mouse primary visual cortex activity"), frame by frame, as
    https://github.com/124585083/neural-trajectory-evaluation trained it on the videos of 2023.
    """

    config: Static2dConfig
    core: StaticCore
    config_class = Static2dConfig
    is_causal = True

    def make_core(self, n_input_channels: int) -> StaticCore:
        """Return the core for a video of some channels."""
        return StaticCore(self.config, n_input_channels)

    def regularizer(self) -> torch.Tensor:
        """Return the penalty on rough filters in the core's first layer."""
        first = cast(NormalizedLayer, self.core.frames.layers[0])
        return self.config.spatial_smoothness * spatial_roughness(cast(nn.Conv2d, first.convolution).weight)


class StaticCore(nn.Module):
    """A convolution, and separable ones after it, each with batch norm and ELU.

    Parameters
    ----------
    config : Static2dConfig
        The architecture.
    n_input_channels : int
        Of the video.
    """

    def __init__(self, config: Static2dConfig, n_input_channels: int) -> None:
        super().__init__()
        self.n_frames_ignored = config.n_frames_ignored
        n_features = config.n_features
        convolutions: list[nn.Module] = [
            nn.Conv2d(n_input_channels, n_features, config.kernels[0], stride=config.stride, bias=False)
        ]
        convolutions += [SeparableConvolution(n_features, kernel) for kernel in config.kernels[1:]]
        self.frames = FrameLayers(
            NormalizedLayer(convolution, nn.BatchNorm2d(n_features, momentum=config.batch_norm_momentum))
            for convolution in convolutions
        )
        init_convolutions(self)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the features of the last frames, shape (batch, channel, time, height, width)."""
        # Those that are ignored count in batch norm, as in the reference.
        features_BTCHW: torch.Tensor = self.frames(videos_BCTHW)[:, self.n_frames_ignored :]
        return features_BTCHW.transpose(1, 2)


class SeparableConvolution(nn.Sequential):
    """A convolution of pixels' channels, one of each channel over space, and one of pixels' channels again.

    Parameters
    ----------
    n_features : int
        Channels, throughout.
    kernel : int
        Height and width of the kernels over space, odd, pixels; the map keeps its size.

    Notes
    -----
    ``DepthSeparableConv2d`` of neuralpredictors.
    """

    def __init__(self, n_features: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(n_features, n_features, 1),
            nn.Conv2d(n_features, n_features, kernel, padding=kernel // 2, groups=n_features),
            nn.Conv2d(n_features, n_features, 1),
        )
