"""Convolutions over single frames, a recurrent layer over time, and a readout for each session.

Shape suffixes: B trials of a batch, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import nn

from models.core_readout_model import CoreReadoutModel
from models.gru.config import GruConfig
from models.layers import (
    ConvolutionalGru,
    FrameLayers,
    HermiteConv2d,
    NormalizedLayer,
    RotationBatchNorm2d,
    group_sparsity,
    init_convolutions,
    spatial_roughness,
)

__all__ = ["Gru", "GruCore"]


class Gru(CoreReadoutModel):
    """A core that remembers, and a readout and a shifter for each session.

    Notes
    -----
    The models with a GRU of https://github.com/ecker-lab/sensorium_2023 (Turishcheva et al. 2023, "The Dynamic
    Sensorium competition for predicting large-scale mouse visual cortex activity from videos"), after Sinz et al. 2018,
    "Stimulus domain transfer in recurrent models for large scale cortical population prediction on video".
    """

    config: GruConfig
    core: GruCore
    config_class = GruConfig
    is_causal = True

    def make_core(self, n_input_channels: int) -> GruCore:
        """Return the core for a video of some channels."""
        return GruCore(self.config, n_input_channels)

    def regularizer(self) -> torch.Tensor:
        """Return the penalty on rough filters of the first layer, and on the length of those of the others.

        Filters that are made of Hermite functions are penalized as they are rendered, at all angles.
        """
        first_OCHW, *others = self.core.filters()
        penalty = self.config.spatial_smoothness * spatial_roughness(first_OCHW)
        if others:
            lengths = torch.stack([group_sparsity(filters_OCHW) for filters_OCHW in others])
            penalty = penalty + self.config.filter_sparsity * lengths.mean()
        return penalty


class GruCore(nn.Module):
    """Layers for each frame, each with batch norm and, but for the last, ELU; then a recurrent layer.

    Parameters
    ----------
    config : GruConfig
        The architecture.
    n_input_channels : int
        Of the video.
    """

    def __init__(self, config: GruConfig, n_input_channels: int) -> None:
        super().__init__()
        last = len(config.kernels) - 1
        self.frames = FrameLayers(
            NormalizedLayer(
                _make_convolution(config, n_input_channels, layer), _make_norm(config), ends_in_elu=layer < last
            )
            for layer in range(len(config.kernels))
        )
        init_convolutions(self)
        self.gru = ConvolutionalGru(config.n_channels, config.n_channels, config.gru_kernel)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the recurrent layer's states, shape (batch, channel, time, height, width)."""
        states_BTCHW: torch.Tensor = self.gru(self.frames(videos_BCTHW))
        return states_BTCHW.transpose(1, 2)

    def filters(self) -> Iterator[torch.Tensor]:
        """Yield the filters of each layer for frames, shape (output channel, input channel, height, width)."""
        for layer in self.frames.layers:
            convolution = cast("nn.Conv2d | HermiteConv2d", layer.convolution)
            yield convolution.render_filters() if isinstance(convolution, HermiteConv2d) else convolution.weight


def _make_convolution(config: GruConfig, n_input_channels: int, layer: int) -> nn.Module:
    n_in = n_input_channels if layer == 0 else config.n_channels
    kernel = config.kernels[layer]
    stride, padding = (config.stride, 0) if layer == 0 else (1, kernel // 2)
    if config.n_rotations is None:
        # The biases have no effect before batch norm; the reference has them in all layers but the first.
        return nn.Conv2d(n_in, config.n_channels, kernel, stride=stride, padding=padding, bias=layer > 0)
    return HermiteConv2d(
        n_in,
        config.n_features,
        kernel,
        config.n_rotations,
        sees_rotations=layer > 0,
        stride=stride,
        padding=padding,
    )


def _make_norm(config: GruConfig) -> nn.Module:
    momentum = config.batch_norm_momentum
    if config.n_rotations is None:
        return nn.BatchNorm2d(config.n_channels, momentum=momentum)
    return RotationBatchNorm2d(config.n_features, config.n_rotations, momentum=momentum)
