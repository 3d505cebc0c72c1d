"""Cores that see one frame at a time.

Shape suffixes: B trials of a batch, C channels, T frames, H height, W width, F frames of all trials (B × T).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["FrameLayers"]


class FrameLayers(nn.Module):
    """Two-dimensional layers that a video passes frame by frame: all frames of a batch at once.

    Parameters
    ----------
    layers : iterable of Module
        Each takes and returns maps, (frame, channel, height, width).
    """

    layers: nn.Sequential

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return a map for each frame, shape (batch, time, channel, height, width)."""
        n_trials, _, n_frames, _, _ = videos_BCTHW.shape
        # With the channels last in memory, convolutions and their gradients take less time, on CPUs and on GPUs.
        frames_FCHW = videos_BCTHW.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        maps_FCHW: torch.Tensor = self.layers(frames_FCHW)
        return maps_FCHW.unflatten(0, (n_trials, n_frames))
