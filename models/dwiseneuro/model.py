"""DwiseNeuro: depth-wise filters over space and time, a cortex without places, and a readout for each session.

Shape suffixes: B windows of a batch, C channels, N neurons, T frames, H height, W width, G groups of channels, R rows
of all windows and frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from models.dwiseneuro.config import DwiseNeuroConfig
from models.dwiseneuro.core import DwiseNeuroCore, init_weights, multiply_groups
from models.neurons import NeuronInfo
from models.response_model import ResponseModel
from sensorium_data.errors import UnknownNameError

__all__ = ["ChannelReadout", "DwiseNeuro"]


class DwiseNeuro(ResponseModel):
    """A core and a cortex that all sessions share, and a readout of all its channels for each session.

    Neurons' places in the cortex are not used, and the eye's position is an input of the core.

    Parameters
    ----------
    config : DwiseNeuroConfig
        The architecture.
    neurons : mapping of str to NeuronInfo
        By full session name.
    n_input_channels : int
        Of the video; the reference's are the video itself, pupil dilation, running speed, and the pupil's x and y.

    Attributes
    ----------
    readouts : ModuleDict of ChannelReadout
        By full session name.

    Notes
    -----
    The winner of SENSORIUM 2023: https://github.com/lRomul/sensorium.
    """

    config_class = DwiseNeuroConfig
    is_causal = False
    core: DwiseNeuroCore

    def __init__(
        self, config: DwiseNeuroConfig, neurons: Mapping[str, NeuronInfo], *, n_input_channels: int = 5
    ) -> None:
        super().__init__()
        self.config = config
        self.core = DwiseNeuroCore(config, n_input_channels)
        self.readouts = nn.ModuleDict(
            {session: ChannelReadout(info.n_neurons, config) for session, info in neurons.items()}
        )
        init_weights(self.readouts)

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        """Predict several sessions' responses to parts of one batch, as :class:`ResponseModel` says.

        A readout sees all rows that are wanted of it at once.
        """
        for session, _ in wanted:
            if session not in self.readouts:
                raise UnknownNameError.of("session of the model", session, self.readouts)
        channels_BTC = self.core(videos_BCTHW)
        predictions: list[torch.Tensor | None] = [None] * len(wanted)
        for session in dict.fromkeys(session for session, _ in wanted):
            places = [place for place, (other, _) in enumerate(wanted) if other == session]
            parts = [channels_BTC[wanted[place][1]] for place in places]
            responses_BNT = self._readout(session)(parts[0] if len(parts) == 1 else torch.cat(parts))
            for place, part in zip(places, responses_BNT.split([len(part) for part in parts]), strict=True):
                predictions[place] = part
        return cast("list[torch.Tensor]", predictions)

    @torch.no_grad()
    def initialize_readout_bias(self, session: str, mean_response_N: torch.Tensor) -> None:
        """Set the bias of a session's readout so that the output makes the mean responses of it, if that is set.

        Each neuron's mean is brought halfway to that of all neurons: a few windows, in which it may not respond at all,
        tell it poorly, and from a response close to 0 the weights move slowly.
        """
        if self.config.starts_at_mean_response:
            halfway_N = (mean_response_N + mean_response_N.mean()) / 2
            bias_N = _invert_softplus(halfway_N, self.config.softplus_beta)
            self._readout(session).bias[: len(bias_N)].copy_(bias_N)

    def _readout(self, session: str) -> ChannelReadout:
        return cast(ChannelReadout, self.readouts[session])


class ChannelReadout(nn.Conv1d):
    """Responses of a session's neurons: sums of channels, and softplus.

    The first half of the neurons sees the first half of the channels, and so on for other numbers of groups. Where the
    neurons cannot be divided evenly, there are sums that belong to none; they keep weights as the reference has them.

    Parameters
    ----------
    n_neurons : int
    config : DwiseNeuroConfig
        The architecture.
    """

    def __init__(self, n_neurons: int, config: DwiseNeuroConfig) -> None:
        n_groups = config.cortex_groups
        n_sums = n_groups * math.ceil(n_neurons / n_groups)
        super().__init__(config.cortex_channels[-1], n_sums, 1, groups=n_groups)
        self.n_neurons = n_neurons
        self.dropout = config.readout_dropout
        self.beta = config.softplus_beta

    def forward(self, channels_BTC: torch.Tensor) -> torch.Tensor:
        """Return responses, shape (batch, neuron, time)."""
        n_windows, n_frames, _ = channels_BTC.shape
        # A channel is dropped at all frames of a window.
        kept_BTC = functional.dropout1d(channels_BTC.transpose(1, 2), self.dropout, self.training).transpose(1, 2)
        sums_GRN = multiply_groups(kept_BTC.flatten(0, 1), self.weight.squeeze(2), self.groups)
        sums_RN = sums_GRN.transpose(0, 1).flatten(1) + cast(torch.Tensor, self.bias)
        responses_RN = functional.softplus(sums_RN[:, : self.n_neurons], self.beta)
        return responses_RN.view(n_windows, n_frames, -1).transpose(1, 2)


def _invert_softplus(responses: torch.Tensor, beta: float, *, smallest: float = 0.01) -> torch.Tensor:
    """Return the values of which softplus makes these responses, or ``smallest`` of smaller ones."""
    scaled = beta * responses.clamp(min=smallest)
    return (scaled + torch.log(-torch.expm1(-scaled))) / beta
