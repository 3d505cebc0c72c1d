"""Convolutions over space and time at once, and a readout for each session.

Shape suffixes: B trials of a batch, C channels, O output channels, T frames, H height, W width, S pixels (H × W).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from models.core_readout_model import CoreReadoutModel
from models.full3d.config import Full3dConfig
from models.layers import NormalizedLayer, init_convolutions, spatial_roughness, temporal_roughness

__all__ = ["Full3d", "Full3dCore"]


class Full3d(CoreReadoutModel):
    """Filters over space and time at once, and a readout and a shifter for each session.

    Notes
    -----
    The full 3D model of ``models_demo.ipynb`` of https://github.com/ecker-lab/sensorium_2023, ``Basic3dCore`` of
    neuralpredictors.
    """

    config: Full3dConfig
    core: Full3dCore
    config_class = Full3dConfig
    is_causal = True

    def make_core(self, n_input_channels: int) -> Full3dCore:
        """Return the core for a video of some channels."""
        return Full3dCore(self.config, n_input_channels)

    def regularizer(self) -> torch.Tensor:
        """Return the penalty on rough filters in the core's first layer.

        Roughness over space is added up over the filters' frames, that over time over their pixels.
        """
        weights_OCTHW = cast(nn.Conv3d, cast(NormalizedLayer, self.core.layers[0]).convolution).weight
        penalty = weights_OCTHW.new_zeros(())
        if self.config.spatial_smoothness:
            by_frame_T = torch.func.vmap(spatial_roughness, in_dims=2)(weights_OCTHW)
            penalty = penalty + self.config.spatial_smoothness * by_frame_T.sum()
        if self.config.temporal_smoothness:
            by_pixel_S = torch.func.vmap(temporal_roughness, in_dims=3)(weights_OCTHW.flatten(3))
            penalty = penalty + self.config.temporal_smoothness * by_pixel_S.sum()
        return penalty


class Full3dCore(nn.Module):
    """Convolutions over space and time, each with batch norm and ELU. Frames are padded with zeros, time is not.

    Parameters
    ----------
    config : Full3dConfig
        The architecture.
    n_input_channels : int
        Of the video.
    """

    layers: nn.Sequential

    def __init__(self, config: Full3dConfig, n_input_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                NormalizedLayer(
                    nn.Conv3d(
                        n_in,
                        n_out,
                        (temporal_kernel, spatial_kernel, spatial_kernel),
                        stride=(1, stride, stride),
                        padding=(0, spatial_kernel // 2, spatial_kernel // 2),
                    ),
                    nn.BatchNorm3d(n_out, momentum=config.batch_norm_momentum),
                )
                for n_in, n_out, spatial_kernel, temporal_kernel, stride in zip(
                    (n_input_channels, *config.channels[:-1]),
                    config.channels,
                    config.spatial_kernels,
                    config.temporal_kernels,
                    config.spatial_strides,
                    strict=True,
                )
            )
        )
        init_convolutions(self)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the features of the last frames, shape (batch, channel, time, height, width)."""
        features_BCTHW: torch.Tensor = self.layers(videos_BCTHW)
        return features_BCTHW
