"""The small DwiseNeuro with places: how much of its distance to the baselines they explain.

DwiseNeuro takes the mean of its last maps over the frame, and the cortex and the readouts see nothing else. Here each
session has the baselines' Gaussian readout and shifter in their place, so that every neuron looks at a place of the
maps. Blocks, input and recipe are those of the preset ``dwiseneuro-debug``; ``dwiseneuro_finely_placed`` has maps of
twice the resolution.

    python benchmarks/model_comparison.py --name model_comparison_places --seeds 2 --work /tmp/comparison \\
        --presets factorized3d-debug dwiseneuro-debug \\
        benchmarks/placed_dwiseneuro.py:dwiseneuro_placed benchmarks/placed_dwiseneuro.py:dwiseneuro_finely_placed
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import models
from models.dwiseneuro import DwiseNeuroConfig
from models.dwiseneuro.core import DwiseNeuroCore

_PRESET = models.get_preset("dwiseneuro-debug")


class PlacedConfig(models.CoreConfig):
    """The readouts' settings, and the step of each block's spatial filters."""

    strides: tuple[int, ...] = _PRESET.model.strides


class Maps(DwiseNeuroCore):
    """The stem and the blocks of DwiseNeuro alone."""

    def __init__(self, config: DwiseNeuroConfig, n_input_channels: int) -> None:
        super().__init__(config, n_input_channels)
        self.cortex = nn.ModuleList()

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the last block's maps, shape (batch, channel, time, height, width)."""
        maps_BTHWC = self.stem(videos_BCTHW)
        for block in self.blocks:
            maps_BTHWC = block(maps_BTHWC)
        return maps_BTHWC.movedim(-1, 1)


class PlacedDwiseNeuro(models.CoreModel):
    """Blocks of the small DwiseNeuro, and a Gaussian readout and a shifter for each session."""

    config_class = PlacedConfig

    def make_core(self, n_input_channels: int) -> Maps:
        """Return the blocks."""
        return Maps(_PRESET.model.model_copy(update={"strides": self.config.strides}), n_input_channels)


def dwiseneuro_placed() -> Any:
    """The recipe of the small DwiseNeuro."""
    return _make("dwiseneuro-placed", _PRESET.model.strides)


def dwiseneuro_finely_placed() -> Any:
    """The same with maps of 16 × 16 pixels, the frame's padding included, in place of 8 × 8."""
    return _make("dwiseneuro-finely-placed", (2, 2, 1))


def _make(name: str, strides: tuple[int, ...]) -> Any:
    recipe = {field: getattr(_PRESET, field) for field in type(_PRESET).model_fields if field not in ("model", "name")}
    return models.make_preset(PlacedDwiseNeuro, name=name, model={"strides": strides}, **recipe)
