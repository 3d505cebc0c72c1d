"""Models of a core that all sessions share, and a readout for each.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, F frames of all trials (B × T),
2 the axes x and y.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from models.layers import FactorizedReadout, FullGaussianReadout, Shifter, elu1, invert_elu1
from models.neurons import NeuronInfo
from models.readout_settings import CoreSettings, ReadoutSettings
from models.response_model import ResponseModel
from sensorium_data.counting import count_things
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["CoreMaps", "CoreReadoutModel"]


@dataclass(frozen=True)
class CoreMaps:
    """The maps that a core makes.

    Attributes
    ----------
    n_channels : int
    size : tuple of int
        Height and width, pixels.
    n_frames_lost : int
        Frames at the start of a video that have none.
    """

    n_channels: int
    size: tuple[int, int]
    n_frames_lost: int


class CoreReadoutModel(ResponseModel):
    """A core that turns a video into a map for each frame, and a readout and a shifter for each session.

    Subclasses make the core (:meth:`make_core`), and say what they penalize of it (:meth:`regularizer`). Their settings
    are a :class:`models.readout_settings.CoreSettings`, or they measure the maps (:meth:`describe_maps`). They may add
    what they make of the animal's state to the maps (:meth:`encode_state`), and have another output nonlinearity than
    ELU + 1 (:meth:`activate`, :meth:`invert_activation`).

    Parameters
    ----------
    config : ReadoutSettings
        The architecture.
    neurons : mapping of str to NeuronInfo
        By full session name.
    n_input_channels : int
        Of the video; the references' are the video itself, pupil dilation and running speed.
    frame_size : tuple of int
        Height and width of the video, pixels.

    Attributes
    ----------
    frame_size : tuple of int
        As given.
    core : Module
        Given videos, (batch, channel, time, height, width), it returns maps in the same order of axes, of all frames
        but the first ``n_frames_lost``.
    readouts : ModuleDict of FullGaussianReadout or FactorizedReadout
        By full session name.
    shifters : ModuleDict of Shifter
        The same; empty with factorized readouts, and without one frames are not shifted.
    """

    config: ReadoutSettings
    readouts: nn.ModuleDict
    shifters: nn.ModuleDict

    def __init__(
        self,
        config: ReadoutSettings,
        neurons: Mapping[str, NeuronInfo],
        *,
        n_input_channels: int = 3,
        frame_size: tuple[int, int] = (FRAME_HEIGHT, FRAME_WIDTH),
    ) -> None:
        super().__init__()
        self.config = config
        self.frame_size = frame_size
        self.core = self.make_core(n_input_channels)
        maps = self.describe_maps(n_input_channels, frame_size)
        self.n_frames_lost = maps.n_frames_lost
        self.readouts = nn.ModuleDict({session: self.make_readout(info, maps) for session, info in neurons.items()})
        is_shifted = config.readout == "gaussian"
        self.shifters = nn.ModuleDict({s: Shifter(config.shifter_units) for s in neurons} if is_shifted else {})

    @abstractmethod
    def make_core(self, n_input_channels: int) -> nn.Module:
        """Return the core, a module from videos to a feature map for each frame.

        It takes (batch, channel, time, height, width) and returns the same axes, of whatever channels, height and
        width, for all frames or the last ones. ``self.config`` has the settings.
        """

    def make_readout(self, info: NeuronInfo, maps: CoreMaps) -> nn.Module:
        """Return the readout of a session with these neurons, of the kind that the settings name."""
        if self.config.readout == "factorized":
            return FactorizedReadout(info.n_neurons, maps.n_channels, maps.size)
        return FullGaussianReadout(
            info.positions,
            maps.n_channels,
            init_sigma=self.config.readout_init_sigma,
            n_hidden=self.config.readout_units,
        )

    def encode_state(self, videos_BCTHW: torch.Tensor, session: str) -> torch.Tensor | None:
        """Return what the animal's state adds to the maps of Gaussian readouts; by default nothing.

        Parameters
        ----------
        videos_BCTHW : Tensor, shape (batch, channel, time, height, width)
            As the model gets them, the planes of behavior among their channels.
        session : str
            Full name.

        Returns
        -------
        Tensor, shape (batch, time, channel), or None
            Of the predicted frames.
        """
        return None

    def activate(self, values: torch.Tensor) -> torch.Tensor:
        """Return responses, never negative, of what the readouts return; by default ELU + 1."""
        return elu1(values)

    def invert_activation(self, responses: torch.Tensor) -> torch.Tensor:
        """Return the values of which :meth:`activate` makes these responses."""
        return invert_elu1(responses)

    def describe_maps(self, n_input_channels: int, frame_size: tuple[int, int]) -> CoreMaps:
        """Return what maps the core makes of videos; by default, what the settings tell.

        Parameters
        ----------
        n_input_channels : int
            Of the video.
        frame_size : tuple of int
            Its height and width, pixels.
        """
        settings = cast(CoreSettings, self.config)
        return CoreMaps(settings.n_channels, settings.map_size(*frame_size), settings.n_frames_lost)

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
        features_BCTHW = self.core(videos_BCTHW)
        dtype = next(self.readouts.parameters()).dtype
        if features_BCTHW.dtype != dtype and not torch.is_autocast_enabled(videos_BCTHW.device.type):
            raise UsageError(
                "the core returns numbers of another kind than its readouts take",
                session=wanted[0][0],
                found=features_BCTHW.dtype,
                expected=dtype,
            )
        n_frames = n_frames_window - self.n_frames_lost
        if len(features_BCTHW) != len(videos_BCTHW) or features_BCTHW.shape[2] != n_frames:
            raise UsageError(
                "the core returns another number of frames than it should",
                session=wanted[0][0],
                found=f"shape {tuple(features_BCTHW.shape)} of a video of shape {tuple(videos_BCTHW.shape)}",
                expected=f"{n_frames} frames, {self.n_frames_lost} fewer than the video has",
            )
        features_BTCHW = features_BCTHW.transpose(1, 2)
        pupil_center_BT2 = pupil_center_B2T[..., self.n_frames_lost :].transpose(1, 2)
        return [
            self.read_out(
                features_BTCHW[rows], pupil_center_BT2[rows], session, self.encode_state(videos_BCTHW[rows], session)
            )
            for session, rows in wanted
        ]

    def session_regularizer(self, session: str) -> torch.Tensor | None:
        """Return the penalty on a readout's weights of channels and, if it has one, its mask."""
        if not self.config.readout_sparsity:
            return None
        return self.config.readout_sparsity * self._readout(session).length()

    @torch.no_grad()
    def initialize_readout_bias(self, session: str, mean_response_N: torch.Tensor) -> None:
        """Set the bias of a session's readout to the mean responses, or so that the output makes them of it."""
        if self.config.starts_at_mean_response:
            mean_response_N = self.invert_activation(mean_response_N)
        self._readout(session).bias.copy_(mean_response_N)

    def _readout(self, session: str) -> FullGaussianReadout | FactorizedReadout:
        return cast("FullGaussianReadout | FactorizedReadout", self.readouts[session])

    def read_out(
        self,
        features_BTCHW: torch.Tensor,
        pupil_center_BT2: torch.Tensor,
        session: str,
        state_BTC: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return a session's responses to the maps of some trials, shape (batch, neuron, time)."""
        n_trials, n_frames = features_BTCHW.shape[:2]
        features_FCHW = features_BTCHW.flatten(0, 1)
        readout = self.readouts[session]
        if isinstance(readout, FullGaussianReadout):
            pupil_center_F2 = pupil_center_BT2.flatten(0, 1)
            is_shifted = session in self.shifters
            shift_F2 = self.shifters[session](pupil_center_F2) if is_shifted else torch.zeros_like(pupil_center_F2)
            responses_FN = readout(features_FCHW, shift_F2, None if state_BTC is None else state_BTC.flatten(0, 1))
        else:
            responses_FN = readout(features_FCHW)
        return self.activate(responses_FN).view(n_trials, n_frames, -1).transpose(1, 2)
