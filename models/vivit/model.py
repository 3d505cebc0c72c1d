"""Patches of a video, attention over space and then over time, and a readout for each session.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, P patches of a frame, E numbers
of a token, X independent rows of attention, L tokens of a row, S variables of the animal's state, 2 the axes x and y.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from models.core_readout_model import CoreReadoutModel
from models.layers import StateEncoder
from models.neurons import NeuronInfo
from models.vivit.config import VivitConfig
from models.vivit.patches import PatchEmbedding
from models.vivit.rotary import RotaryPositions
from models.vivit.transformer import Transformer
from sensorium_data.errors import UsageError
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["Vivit", "VivitCore"]

# Taken for smaller responses where a readout starts from the mean: no value has the exponential 0.
_SMALLEST_RESPONSE = 0.01


class Vivit(CoreReadoutModel):
    """A core of two transformers, and a readout, a shifter and, if asked for, a state encoder for each session.

    Attributes
    ----------
    state_encoders : ModuleDict of StateEncoder
        By full session name; empty where the readouts see the core's maps alone.
    is_causal : bool
        As the settings say.

    Notes
    -----
    ViV1T (Li et al.): the version of 2023 is https://github.com/bryanlimy/ViV1T, third place of SENSORIUM 2023; the
    causal one is https://github.com/bryanlimy/ViV1T-closed-loop (bioRxiv 2025.09.16.676524). Attention is factorized
    as in Arnab et al. 2021, "ViViT: a video vision transformer"; blocks have hidden units beside it.
    """

    config_class = VivitConfig
    config: VivitConfig
    core: VivitCore
    state_encoders: nn.ModuleDict

    def __init__(
        self,
        config: VivitConfig,
        neurons: Mapping[str, NeuronInfo],
        *,
        n_input_channels: int = 5,
        frame_size: tuple[int, int] = (FRAME_HEIGHT, FRAME_WIDTH),
    ) -> None:
        super().__init__(config, neurons, n_input_channels=n_input_channels, frame_size=frame_size)
        self.is_causal = config.is_causal
        n_variables = n_input_channels - 1
        if config.encodes_state and not n_variables:
            raise UsageError(
                "the model has no state of the animal to encode",
                found="a video of one channel",
                expected="channels of behavior or pupil center beside it",
                remedy="set input_layout to vivit, or model.encodes_state to false",
            )
        self.state_encoders = nn.ModuleDict(
            {session: StateEncoder(n_variables, config.embedding_size) for session in neurons if config.encodes_state}
        )

    def make_core(self, n_input_channels: int) -> VivitCore:
        """Return the core for a video of some channels."""
        return VivitCore(self.config, n_input_channels, self.frame_size)

    def encode_state(self, videos_BCTHW: torch.Tensor, session: str) -> torch.Tensor | None:
        """Return what a session's encoder makes of the planes beside the video, shape (batch, time, number)."""
        if not self.config.encodes_state:
            return None
        _, _, _, height, width = videos_BCTHW.shape
        # Constant over a frame but for its padding, which never reaches the middle.
        state_BST = videos_BCTHW[:, 1:, self.n_frames_lost :, height // 2, width // 2]
        # A part of the references' readouts: see `read_out`.
        with torch.autocast(videos_BCTHW.device.type, enabled=False):
            encoded_BTE: torch.Tensor = self.state_encoders[session](state_BST.transpose(1, 2))
        return encoded_BTE

    def activate(self, values: torch.Tensor) -> torch.Tensor:
        """Return responses of what the readouts return."""
        return values.exp() if self.config.output == "exp" else super().activate(values)

    def invert_activation(self, responses: torch.Tensor) -> torch.Tensor:
        """Return the values of which :meth:`activate` makes these responses."""
        if self.config.output == "exp":
            return responses.clamp(min=_SMALLEST_RESPONSE).log()
        return super().invert_activation(responses)

    def read_out(
        self,
        features_BTCHW: torch.Tensor,
        pupil_center_BT2: torch.Tensor,
        session: str,
        state_BTC: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return a session's responses to the maps of some trials, in the precision of the weights."""
        # The core alone computes in fewer bits, as the references' does: places are finer than those can tell.
        with torch.autocast(features_BTCHW.device.type, enabled=False):
            dtype = self._readout(session).bias.dtype
            state_BTC = None if state_BTC is None else state_BTC.to(dtype)
            return super().read_out(features_BTCHW.to(dtype), pupil_center_BT2, session, state_BTC)


class VivitCore(nn.Module):
    """Tokens of patches, attention over the patches of each frame, then over the frames of each place.

    Parameters
    ----------
    config : VivitConfig
        The architecture.
    n_input_channels : int
        Of the video.
    frame_size : tuple of int
        Its height and width, pixels.

    Attributes
    ----------
    patches : PatchEmbedding
    spatial_positions : Parameter, shape (patch, number)
        With positions ``learned``: added to the tokens.
    temporal_positions : Parameter, shape (time, number)
        The same, for ``max_frames``.
    spatial_registers, temporal_registers : Parameter, shape (register, number)
        With registers: tokens after those of a frame, and after those of a place.
    over_space, over_time : Transformer
    """

    def __init__(self, config: VivitConfig, n_input_channels: int, frame_size: tuple[int, int]) -> None:
        super().__init__()
        self._config = config
        self._map_size = config.map_size(*frame_size)
        size, n_patches = config.embedding_size, self._map_size[0] * self._map_size[1]
        self.patches = PatchEmbedding(config, n_input_channels)
        if config.positions == "learned":
            self.spatial_positions = nn.Parameter(torch.randn(n_patches, size))
            self.temporal_positions = nn.Parameter(torch.randn(config.max_frames - config.n_frames_lost, size))
        if config.n_registers:
            self.spatial_registers = nn.Parameter(torch.randn(config.n_registers, size))
            self.temporal_registers = nn.Parameter(torch.randn(config.n_registers, size))
        self.over_space = Transformer(config, config.n_spatial_blocks, is_causal=False)
        self.over_time = Transformer(config, config.n_temporal_blocks, is_causal=config.is_causal)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return a map for each frame but those lost, shape (batch, number, time, height, width).

        Learned positions end with ``max_frames``. Longer videos are seen in windows of so many frames: the first one
        begins with the video, and what it leaves is taken from others, the last of which ends with the video.
        """
        n_frames, longest = videos_BCTHW.shape[2], self._config.max_frames
        if self._config.positions == "rotary" or n_frames <= longest:
            return self._encode(videos_BCTHW)
        maps, n_done = [self._encode(videos_BCTHW[:, :, :longest])], longest
        while n_done < n_frames:
            end = min(n_done + longest - self._config.n_frames_lost, n_frames)
            maps.append(self._encode(videos_BCTHW[:, :, end - longest : end])[:, :, n_done - end :])
            n_done = end
        return torch.cat(maps, dim=2)

    def _encode(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        config = self._config
        tokens_BTPE = self.patches(videos_BCTHW)
        n_trials, n_frames, n_patches, _ = tokens_BTPE.shape
        if self.training:
            tokens_BTPE = self._drop(tokens_BTPE)
        if config.positions == "learned":
            tokens_BTPE = tokens_BTPE + self.spatial_positions + self.temporal_positions[:n_frames, None]
        tokens_XLE = tokens_BTPE.flatten(0, 1)
        if config.n_registers:
            tokens_XLE = _append(tokens_XLE, self.spatial_registers)
        tokens_XLE = self.over_space(tokens_XLE, self._place(n_patches, n_patches // 2, tokens_XLE))
        tokens_BTPE = tokens_XLE[:, :n_patches].unflatten(0, (n_trials, n_frames))

        tokens_XLE = tokens_BTPE.transpose(1, 2).flatten(0, 1)
        if config.n_registers:
            tokens_XLE = _append(tokens_XLE, self.temporal_registers)
            if config.is_causal:
                # They come last: no frame attends to them, and nothing else reads them. (Their gradient is 0.)
                tokens_XLE = tokens_XLE[:, :n_frames]
        middle = max(n_frames, config.max_frames - config.n_frames_lost) // 2
        tokens_XLE = self.over_time(tokens_XLE, self._place(n_frames, middle, tokens_XLE))
        tokens_BPTE = tokens_XLE[:, :n_frames].unflatten(0, (n_trials, n_patches))
        maps_BTPE = tokens_BPTE.transpose(1, 2).contiguous()
        return maps_BTPE.unflatten(2, self._map_size).permute(0, 4, 1, 2, 3)

    def _drop(self, tokens_BTPE: torch.Tensor) -> torch.Tensor:
        config = self._config
        tokens_BTPE = nn.functional.dropout(tokens_BTPE, config.patch_dropout)
        if not config.token_dropout:
            return tokens_BTPE
        kept_BTP1 = torch.rand(tokens_BTPE.shape[:3], device=tokens_BTPE.device)[..., None] >= config.token_dropout
        return tokens_BTPE * kept_BTP1 / (1 - config.token_dropout)

    def _place(self, n_tokens: int, middle: int, like: torch.Tensor) -> RotaryPositions | None:
        if self._config.positions != "rotary":
            return None
        return RotaryPositions(n_tokens, middle, self._config.head_size, device=like.device, dtype=like.dtype)


def _append(tokens_XLE: torch.Tensor, registers_LE: torch.Tensor) -> torch.Tensor:
    return torch.cat([tokens_XLE, registers_LE.to(tokens_XLE.dtype).expand(len(tokens_XLE), -1, -1)], dim=1)
