"""Attention over patches of the video, and a readout of five levels for each session.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames or steps, H height, W width, F frames of all
trials, S variables of the animal's state, 2 the axes x and y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from models.core_readout_model import CoreMaps, CoreReadoutModel
from models.dynamic_v1fm.blocks import N_STATE_VARIABLES, Block, PatchEmbedding
from models.dynamic_v1fm.config import DynamicV1fmConfig
from models.dynamic_v1fm.readout import LeveledReadout
from models.dynamic_v1fm.regions import plan_windows
from models.neurons import NeuronInfo
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError

__all__ = ["DynamicV1fm", "DynamicV1fmCore"]


class DynamicV1fm(CoreReadoutModel):
    """A core of shifted-window attention, and readouts of five levels.

    A window's tokens stand for its last frames: with patches of two frames, half of a window has predictions.

    Notes
    -----
    Dynamic-V1FM of https://github.com/zhuyu-cs/Dynamic-VFM (Yu Zhu, second place of SENSORIUM 2023).
    """

    config: DynamicV1fmConfig
    core: DynamicV1fmCore
    config_class = DynamicV1fmConfig
    is_causal = False

    def make_core(self, n_input_channels: int) -> DynamicV1fmCore:
        """Return the core for a video with the animal's state as further channels."""
        if n_input_channels != 1 + N_STATE_VARIABLES:
            raise UsageError(
                "the model takes the video, pupil dilation, running speed, and the pupil's x and y",
                found=count_things(n_input_channels, "channel"),
                expected=1 + N_STATE_VARIABLES,
                remedy="set input_layout to vivit",
            )
        return DynamicV1fmCore(self.config)

    def make_readout(self, info: NeuronInfo, maps: CoreMaps) -> nn.Module:
        """Return a session's readout."""
        return LeveledReadout(
            info.positions,
            maps.n_channels,
            init_sigma=self.config.readout_init_sigma,
            n_hidden=self.config.readout_units,
            levels=self.config.levels,
            is_adaptive=self.config.fusion == "adaptive",
        )

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        """Predict several sessions' responses to parts of one batch, as :class:`ResponseModel` says.

        The channels after the video are taken as constant over space.
        """
        n_frames = videos_BCTHW.shape[2]
        if n_frames != self.config.n_frames and all(session in self.readouts for session, _ in wanted):
            raise UsageError(
                "the window has another length than the model takes",
                session=wanted[0][0] if wanted else None,
                found=count_things(n_frames, "frame"),
                expected=self.config.n_frames,
                remedy="predict whole trials with prediction_windows=sliding and this n_frames_window",
            )
        return super().predict_rows(videos_BCTHW, pupil_center_B2T, wanted)

    def read_out(
        self,
        features_BTCHW: torch.Tensor,
        pupil_center_BT2: torch.Tensor,
        session: str,
        state_BTC: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a session's responses, shape (batch, neuron, time); the state is known to the core alone."""
        n_trials, n_frames = features_BTCHW.shape[:2]
        shift_F2 = self.shifters[session](pupil_center_BT2.flatten(0, 1))
        readout = cast(LeveledReadout, self.readouts[session])
        responses_FN = readout.read_trials(features_BTCHW.flatten(0, 1), shift_F2, n_frames)
        return self.activate(responses_FN).view(n_trials, n_frames, -1).transpose(1, 2)


class DynamicV1fmCore(nn.Module):
    """Tokens of patches of the video that pass through blocks; there are no norms but the first.

    Parameters
    ----------
    config : DynamicV1fmConfig
        The architecture.
    """

    def __init__(self, config: DynamicV1fmConfig) -> None:
        super().__init__()
        self.window_size = config.window_size
        self.patches = PatchEmbedding(config.channels, config.patch_size)
        self.blocks = nn.ModuleList(
            Block(config.channels, config.n_heads, config.perceptron_units, config.window_size, config.patch_size[0])
            for _ in range(config.n_blocks)
        )
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return maps of the steps, shape (batch, channel, step, height, width).

        Parameters
        ----------
        videos_BCTHW : Tensor, shape (batch, 5, time, height, width)
            The video, then pupil dilation, running speed, and the pupil's x and y, each the same all over a frame.
        """
        height, width = videos_BCTHW.shape[-2:]
        tokens_BTHWC = self.patches(videos_BCTHW[:, 0])
        # Anywhere but at an edge, where a layout may pad.
        state_BTS = videos_BCTHW[:, 1:, :, height // 2, width // 2].transpose(1, 2)
        _, n_steps, n_rows, n_columns, _ = tokens_BTHWC.shape
        plan = plan_windows((n_steps, n_rows, n_columns), self.window_size, tokens_BTHWC.device)
        for block in self.blocks:
            tokens_BTHWC = block(tokens_BTHWC, state_BTS, plan)
        return tokens_BTHWC.permute(0, 4, 1, 2, 3)
