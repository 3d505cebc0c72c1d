"""The layers of Dynamic-V1FM's core beside its attention.

Shape suffixes: B trials of a batch, C channels, T frames or steps, H height, W width, S variables of the state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.dynamic_v1fm.attention import ShiftedWindowAttention
from models.dynamic_v1fm.regions import WindowPlan

__all__ = ["Block", "DepthwiseConv3d", "PatchEmbedding", "StatePerceptron"]

#: Pupil dilation, running speed, and the pupil's x and y.
N_STATE_VARIABLES = 4


class PatchEmbedding(nn.Module):
    """Turn patches of the video into tokens.

    Parameters
    ----------
    n_channels : int
        Of a token.
    patch_size : tuple of int
        Frames, rows and columns.
    """

    def __init__(self, n_channels: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv3d(1, n_channels, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(n_channels)

    def forward(self, video_BTHW: torch.Tensor) -> torch.Tensor:
        """Return tokens, shape (batch, step, row, column, channel); what lacks at an end to whole patches is 0."""
        t, h, w = self.patch_size
        n_trials, *size = video_BTHW.shape
        lacks_t, lacks_h, lacks_w = (-length % patch for length, patch in zip(size, self.patch_size, strict=True))
        if lacks_t or lacks_h or lacks_w:
            video_BTHW = functional.pad(video_BTHW, (0, lacks_w, 0, lacks_h, 0, lacks_t))
        n_t, n_h, n_w = (-(-length // patch) for length, patch in zip(size, self.patch_size, strict=True))
        # Patches do not overlap: the convolution is a linear layer, whose channels come last without a copy.
        patches = video_BTHW.reshape(n_trials, n_t, t, n_h, h, n_w, w).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        tokens = functional.linear(patches, self.projection.weight.flatten(1), self.projection.bias)
        normed: torch.Tensor = self.norm(tokens)
        return normed


class StatePerceptron(nn.Module):
    """Turn the animal's state in the frames of a step into what is added to all tokens of the step.

    Parameters
    ----------
    n_channels : int
        Of a token.
    n_frames : int
        Of a step; each has its part of the channels.
    """

    def __init__(self, n_channels: int, n_frames: int) -> None:
        super().__init__()
        self.n_frames = n_frames
        self.layers = nn.Sequential(
            nn.Linear(N_STATE_VARIABLES, n_channels // 2),
            nn.Tanh(),
            nn.Linear(n_channels // 2, n_channels // n_frames),
            nn.Tanh(),
        )

    def forward(self, state_BTS: torch.Tensor) -> torch.Tensor:
        """Return (batch, step, channel) of the state of each frame."""
        n_trials, n_frames, _ = state_BTS.shape
        code: torch.Tensor = self.layers(state_BTS)
        return code.reshape(n_trials, n_frames // self.n_frames, -1)


class DepthwiseConv3d(nn.Conv3d):
    """A 3 × 3 × 3 filter for each channel, over maps whose channels come last; the map keeps its size.

    Parameters
    ----------
    n_channels : int

    Notes
    -----
    Equal to :class:`torch.nn.Conv3d` with ``groups=n_channels``. It is the sum of three filters over frames, one for
    each step in time: torch has fast kernels for those, on channels that come last, and none for filters over time.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels, n_channels, 3, padding=1, groups=n_channels)

    def forward(self, maps_BTHWC: torch.Tensor) -> torch.Tensor:
        """Return maps of the same shape."""
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(maps_BTHWC.device.type):
            # Autocast does not see what a function of one's own computes.
            dtype = torch.get_autocast_dtype(maps_BTHWC.device.type)
            maps_BTHWC, weight = maps_BTHWC.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        filtered: torch.Tensor = _DepthwiseConvolution.apply(maps_BTHWC, weight, bias)
        return filtered


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        maps = maps.contiguous()
        ctx.save_for_backward(maps, weight)
        return _filter(maps, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        needs_maps, needs_weight, needs_bias = ctx.needs_input_grad
        of_maps = _filter(gradient, weight.flip(2, 3, 4), None) if needs_maps else None
        of_weight = None
        if needs_weight:
            parts = [_weight_gradient(maps, _delay(gradient, step - 1), weight[:, :, step]) for step in range(3)]
            of_weight = torch.stack(parts, dim=2)
        return of_maps, of_weight, gradient.sum(dim=(0, 1, 2, 3)) if needs_bias else None


def _filter(maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the maps filtered, shape (batch, time, height, width, channel)."""
    before, now, after = (
        functional.conv2d(
            _join_frames(maps),
            weight[:, :, step].contiguous(),
            bias if step == 1 else None,
            padding=1,
            groups=len(weight),
        )
        .permute(0, 2, 3, 1)
        .view(maps.shape)
        for step in range(3)
    )
    now[:, 1:] += before[:, :-1]
    now[:, :-1] += after[:, 1:]
    return now


def _weight_gradient(maps: torch.Tensor, gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    of_weight: torch.Tensor = torch.ops.aten.convolution_backward(
        _join_frames(gradient),
        _join_frames(maps),
        weight.contiguous(),
        None,
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [False, True, False],
    )[1]
    return of_weight


def _join_frames(maps_BTHWC: torch.Tensor) -> torch.Tensor:
    """Return (frame, channel, height, width), with channels last in memory."""
    return maps_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)


def _delay(maps: torch.Tensor, n_steps: int) -> torch.Tensor:
    """Return maps some steps later (or, negative, earlier), with zeros where there are none."""
    if not n_steps:
        return maps
    padding = (0, 0, 0, 0, 0, 0)
    if n_steps > 0:
        return functional.pad(maps[:, :-n_steps], (*padding, n_steps, 0))
    return functional.pad(maps[:, -n_steps:], (*padding, 0, -n_steps))


class _GatedPerceptron(nn.Module):
    """Two linear layers with a gate after the first, and a filter over neighboring tokens between them."""

    def __init__(self, n_channels: int, n_units: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(n_channels, 2 * n_units)
        self.neighbors = DepthwiseConv3d(n_units)
        self.outputs = nn.Linear(n_units, n_channels)

    def forward(self, tokens_BTHWC: torch.Tensor) -> torch.Tensor:
        values, gates = self.inputs(tokens_BTHWC).chunk(2, dim=-1)
        gated = functional.silu(gates) * values
        outputs: torch.Tensor = self.outputs(functional.gelu(self.neighbors(gated)))
        return outputs


class Block(nn.Module):
    """Add the state, what is seen by attention, and what a perceptron makes of the tokens around.

    Parameters
    ----------
    n_channels, n_heads, n_units : int
        Channels of a token, heads of the attention, hidden units of the perceptron.
    window_size : tuple of int
        Of the attention.
    n_frames : int
        Frames of the video in a step.
    """

    def __init__(
        self, n_channels: int, n_heads: int, n_units: int, window_size: tuple[int, int, int], n_frames: int
    ) -> None:
        super().__init__()
        self.state = StatePerceptron(n_channels, n_frames)
        self.attention = ShiftedWindowAttention(n_channels, n_heads, window_size)
        self.perceptron = _GatedPerceptron(n_channels, n_units)

    def forward(self, tokens_BTHWC: torch.Tensor, state_BTS: torch.Tensor, plan: WindowPlan) -> torch.Tensor:
        """Return tokens of the same shape; ``plan`` says which of them see each other."""
        tokens_BTHWC = tokens_BTHWC + self.state(state_BTS)[:, :, None, None]
        tokens_BTHWC = tokens_BTHWC + self.attention(tokens_BTHWC, plan)
        tokens_BTHWC = tokens_BTHWC + self.perceptron(tokens_BTHWC)
        return tokens_BTHWC
