"""Models of a core that all sessions share, and a readout for each.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, F frames of all trials (B × T),
2 the axes x and y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn

from models.layers import FactorizedReadout, FullGaussianReadout, Shifter, elu1, invert_elu1
from models.neurons import NeuronInfo
from models.readout_settings import ReadoutSettings
from models.response_model import ResponseModel
from sensorium_data.counting import count_things
from sensorium_data.errors import UnknownNameError, UsageError

__all__ = ["CoreReadoutModel"]


class CoreReadoutModel(ResponseModel):
    """A core that turns a video into a map for each frame, and a readout and a shifter for each session.

    Subclasses build the core, and say what they penalize of it: :meth:`regularizer`.

    Parameters
    ----------
    core : Module
        Given videos, (batch, channel, time, height, width), it returns maps in the same order of axes, of all frames
        but the first ``settings.n_frames_lost``.
    settings : ReadoutSettings
        Of readouts and shifters.
    neurons : mapping of str to NeuronInfo
        By full session name.
    n_channels : int
        Of the maps.
    map_size : tuple of int
        Height and width of the maps.

    Attributes
    ----------
    readouts : ModuleDict of FullGaussianReadout or FactorizedReadout
        By full session name.
    shifters : ModuleDict of Shifter
        The same; empty with factorized readouts, and without one frames are not shifted.
    """

    readouts: nn.ModuleDict
    shifters: nn.ModuleDict

    def __init__(
        self,
        core: nn.Module,
        settings: ReadoutSettings,
        neurons: Mapping[str, NeuronInfo],
        *,
        n_channels: int,
        map_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.core = core
        self.n_frames_lost = settings.n_frames_lost
        self.settings = settings
        if settings.readout == "gaussian":
            self.readouts = nn.ModuleDict(
                {
                    session: FullGaussianReadout(
                        info.positions,
                        n_channels,
                        init_sigma=settings.readout_init_sigma,
                        n_hidden=settings.readout_units,
                    )
                    for session, info in neurons.items()
                }
            )
            self.shifters = nn.ModuleDict({session: Shifter(settings.shifter_units) for session in neurons})
        else:
            self.readouts = nn.ModuleDict(
                {session: FactorizedReadout(info.n_neurons, n_channels, map_size) for session, info in neurons.items()}
            )
            self.shifters = nn.ModuleDict()

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
        return [self._read_out(features_BTCHW[rows], pupil_center_BT2[rows], session) for session, rows in wanted]

    def session_regularizer(self, session: str) -> torch.Tensor | None:
        """Return the penalty on a readout's weights of channels and, if it has one, its mask."""
        if not self.settings.readout_sparsity:
            return None
        return self.settings.readout_sparsity * self._readout(session).length()

    @torch.no_grad()
    def initialize_readout_bias(self, session: str, mean_response_N: torch.Tensor) -> None:
        """Set the bias of a session's readout to the mean responses, or so that the output makes them of it."""
        if self.settings.starts_at_mean_response:
            mean_response_N = invert_elu1(mean_response_N)
        self._readout(session).bias.copy_(mean_response_N)

    def _readout(self, session: str) -> FullGaussianReadout | FactorizedReadout:
        return cast("FullGaussianReadout | FactorizedReadout", self.readouts[session])

    def _read_out(self, features_BTCHW: torch.Tensor, pupil_center_BT2: torch.Tensor, session: str) -> torch.Tensor:
        n_trials, n_frames = features_BTCHW.shape[:2]
        features_FCHW = features_BTCHW.flatten(0, 1)
        readout = self.readouts[session]
        if isinstance(readout, FullGaussianReadout):
            pupil_center_F2 = pupil_center_BT2.flatten(0, 1)
            is_shifted = session in self.shifters
            shift_F2 = self.shifters[session](pupil_center_F2) if is_shifted else torch.zeros_like(pupil_center_F2)
            responses_FN = readout(features_FCHW, shift_F2)
        else:
            responses_FN = readout(features_FCHW)
        return elu1(responses_FN).view(n_trials, n_frames, -1).transpose(1, 2)
