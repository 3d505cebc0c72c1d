"""Convolutions over space, then over time, and a Gaussian readout for each session.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, S pixels (H × W), F frames of
all trials (B × T), 2 the axes x and y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from models.factorized3d.config import Factorized3dConfig
from models.layers import FullGaussianReadout, Shifter, elu1, invert_elu1, spatial_roughness, temporal_roughness
from models.neurons import NeuronInfo
from models.response_model import ResponseModel
from sensorium_data.counting import count_things
from sensorium_data.errors import UnknownNameError, UsageError

__all__ = ["Factorized3d", "FactorizedCore", "FactorizedLayer"]


class Factorized3d(ResponseModel):
    """A convolutional core that all sessions share, and a readout and a shifter for each.

    Parameters
    ----------
    config : Factorized3dConfig
        The architecture.
    neurons : mapping of str to NeuronInfo
        By full session name.
    n_input_channels : int
        Of the video; the reference's are the video itself, pupil dilation and running speed.

    Attributes
    ----------
    n_frames_lost : int
        Frames at the start of a window that have no prediction.

    Notes
    -----
    The factorized 3D benchmark of https://github.com/ecker-lab/sensorium_2023 (Turishcheva et al. 2023, "The Dynamic
    Sensorium competition for predicting large-scale mouse visual cortex activity from videos").
    """

    config_class = Factorized3dConfig
    core: FactorizedCore
    readouts: nn.ModuleDict
    shifters: nn.ModuleDict

    def __init__(
        self, config: Factorized3dConfig, neurons: Mapping[str, NeuronInfo], *, n_input_channels: int = 3
    ) -> None:
        super().__init__()
        self.config = config
        self.n_frames_lost = config.n_frames_lost
        self.core = FactorizedCore(config, n_input_channels)
        self.readouts = nn.ModuleDict(
            {
                session: FullGaussianReadout(
                    info.positions,
                    config.channels[-1],
                    init_sigma=config.readout_init_sigma,
                    n_hidden=config.readout_units,
                )
                for session, info in neurons.items()
            }
        )
        self.shifters = nn.ModuleDict({session: Shifter(config.shifter_units) for session in neurons})

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        """Predict several sessions' responses to parts of one batch, as :class:`ResponseModel` says.

        (The starter kit's models return (batch, time, neuron).)
        """
        n_frames_window = videos_BCTHW.shape[2]
        for session, _ in wanted:
            if session not in self.readouts:
                raise UnknownNameError.of("session of the model", session, self.readouts)
            if n_frames_window <= self.n_frames_lost:
                raise UsageError(
                    "the window is too short for the model",
                    session=session,
                    found=count_things(n_frames_window, "frame"),
                    expected=f"at least {self.n_frames_lost + 1}",
                )
        features_BTCHW = self.core(videos_BCTHW).transpose(1, 2)
        pupil_center_BT2 = pupil_center_B2T[..., self.n_frames_lost :].transpose(1, 2)
        return [self._read_out(features_BTCHW[rows], pupil_center_BT2[rows], session) for session, rows in wanted]

    def regularizer(self) -> torch.Tensor:
        """Return the penalty on rough filters in the core's first layer."""
        first = cast(FactorizedLayer, self.core.layers[0])
        spatial = spatial_roughness(first.spatial.weight)
        temporal = temporal_roughness(first.temporal.weight[..., 0])
        return self.config.spatial_smoothness * spatial + self.config.temporal_smoothness * temporal

    @torch.no_grad()
    def initialize_readout_bias(self, session: str, mean_response_N: torch.Tensor) -> None:
        """Set the bias of a session's readout to the mean responses, or so that the output makes them of it."""
        if self.config.starts_at_mean_response:
            mean_response_N = invert_elu1(mean_response_N)
        cast(FullGaussianReadout, self.readouts[session]).bias.copy_(mean_response_N)

    def _read_out(self, features_BTCHW: torch.Tensor, pupil_center_BT2: torch.Tensor, session: str) -> torch.Tensor:
        n_trials, n_frames = features_BTCHW.shape[:2]
        shift_F2 = self.shifters[session](pupil_center_BT2.flatten(0, 1))
        responses_FN = elu1(self.readouts[session](features_BTCHW.flatten(0, 1), shift_F2))
        return responses_FN.view(n_trials, n_frames, -1).transpose(1, 2)


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
        for convolution in (self.spatial, self.temporal):
            nn.init.xavier_normal_(convolution.weight)
            nn.init.zeros_(cast(torch.Tensor, convolution.bias))

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
