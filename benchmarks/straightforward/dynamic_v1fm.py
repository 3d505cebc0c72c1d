"""Dynamic-V1FM written the straightforward way, for comparison: as its parts are defined and its authors' code has it.

Tokens are padded, rolled and cut into windows, scores are masked and go through a softmax, filters are convolutions in
three dimensions, and every level of a readout samples the map, whether it counts or not.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames or steps, H height, W width, F frames of all
trials, L tokens of a window, 2 the axes x and y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.dynamic_v1fm import DynamicV1fm
from models.response_model import ResponseModel

__all__ = ["make_reference"]

LEVELS = (2, 4, 8, 16)


def make_reference(model: ResponseModel) -> nn.Module:
    """Return a module with a copy of the model's weights, and its ``predict_rows``.

    Parameters
    ----------
    model : ResponseModel
        A Dynamic-V1FM.
    """
    assert isinstance(model, DynamicV1fm)
    reference = _Straightforward(model)
    reference.to(next(model.parameters()))
    reference.load_state_dict(model.state_dict())
    for name, parameter in model.named_parameters():
        reference.get_parameter(name).requires_grad_(parameter.requires_grad)
    return reference.train(model.training)


class _Straightforward(nn.Module):
    def __init__(self, model: DynamicV1fm) -> None:
        super().__init__()
        config = model.config
        self.config = config
        self.core = _Core(config)
        n_neurons = {session: len(readout.bias) for session, readout in model.readouts.items()}
        self.readouts = nn.ModuleDict({session: _Readout(config, n) for session, n in n_neurons.items()})
        self.shifters = nn.ModuleDict({session: _Shifter(config.shifter_units) for session in n_neurons})

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        maps_BCTHW = self.core(videos_BCTHW)
        n_steps = maps_BCTHW.shape[2]
        predictions = []
        for session, rows in wanted:
            maps_FCHW = maps_BCTHW[rows].transpose(1, 2).flatten(0, 1)
            pupil_F2 = pupil_center_B2T[rows][..., -n_steps:].transpose(1, 2).flatten(0, 1)
            responses_FN = self.readouts[session](maps_FCHW, self.shifters[session].mlp(pupil_F2), n_steps)
            responses_FN = functional.elu(responses_FN) + 1
            predictions.append(responses_FN.unflatten(0, (-1, n_steps)).transpose(1, 2))
        return predictions


class _Core(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.patches = nn.Module()
        self.patches.projection = nn.Conv3d(1, config.channels, config.patch_size, stride=config.patch_size)
        self.patches.norm = nn.LayerNorm(config.channels)
        self.patch_size = config.patch_size
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.n_blocks))

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        height, width = videos_BCTHW.shape[-2:]
        video, state_BTS = videos_BCTHW[:, :1], videos_BCTHW[:, 1:, :, height // 2, width // 2].transpose(1, 2)
        lacking = [-length % patch for length, patch in zip(video.shape[2:], self.patch_size, strict=True)]
        video = functional.pad(video, (0, lacking[2], 0, lacking[1], 0, lacking[0]))
        tokens_BTHWC = self.patches.norm(self.patches.projection(video).permute(0, 2, 3, 4, 1))
        for block in self.blocks:
            tokens_BTHWC = block(tokens_BTHWC, state_BTS)
        return tokens_BTHWC.permute(0, 4, 1, 2, 3)


class _Block(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        channels, n_frames = config.channels, config.patch_size[0]
        self.n_frames = n_frames
        self.state = nn.Module()
        self.state.layers = nn.Sequential(
            nn.Linear(4, channels // 2), nn.Tanh(), nn.Linear(channels // 2, channels // n_frames), nn.Tanh()
        )
        self.attention = _Attention(channels, config.n_heads, config.window_size)
        self.perceptron = nn.Module()
        self.perceptron.inputs = nn.Linear(channels, 2 * config.perceptron_units)
        units = config.perceptron_units
        self.perceptron.neighbors = nn.Conv3d(units, units, 3, padding=1, groups=units)
        self.perceptron.outputs = nn.Linear(units, channels)

    def forward(self, tokens_BTHWC: torch.Tensor, state_BTS: torch.Tensor) -> torch.Tensor:
        n_trials, n_frames, _ = state_BTS.shape
        code_BTC = self.state.layers(state_BTS).reshape(n_trials, n_frames // self.n_frames, -1)
        tokens_BTHWC = tokens_BTHWC + code_BTC[:, :, None, None]
        tokens_BTHWC = tokens_BTHWC + self.attention(tokens_BTHWC)
        values, gates = self.perceptron.inputs(tokens_BTHWC).chunk(2, dim=-1)
        hidden_BCTHW = (functional.silu(gates) * values).permute(0, 4, 1, 2, 3)
        hidden_BCTHW = functional.gelu(self.perceptron.neighbors(hidden_BCTHW.contiguous()))
        return tokens_BTHWC + self.perceptron.outputs(hidden_BCTHW.permute(0, 2, 3, 4, 1))


class _Attention(nn.Module):
    def __init__(self, channels: int, n_heads: int, window_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.n_heads, self.window_size = n_heads, window_size
        self.inputs, self.outputs = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.biases = nn.Parameter(torch.zeros(math.prod(2 * size - 1 for size in window_size), n_heads))
        places = torch.stack(torch.meshgrid(*map(torch.arange, window_size), indexing="ij")).flatten(1)
        distances = places[:, :, None] - places[:, None, :] + torch.tensor(window_size)[:, None, None] - 1
        _, n_rows, n_columns = (2 * size - 1 for size in window_size)
        index = (distances[0] * n_rows + distances[1]) * n_columns + distances[2]
        self.register_buffer("index", index, persistent=False)

    def forward(self, tokens_BTHWC: torch.Tensor) -> torch.Tensor:
        n_trials, *size, channels = tokens_BTHWC.shape
        window = [min(w, s) for w, s in zip(self.window_size, size, strict=True)]
        shift = [w // 2 if s > w else 0 for w, s in zip(window, size, strict=True)]
        lacking = [-s % w for w, s in zip(window, size, strict=True)]
        padded = functional.pad(tokens_BTHWC, (0, 0, 0, lacking[2], 0, lacking[1], 0, lacking[0]))
        rolled = torch.roll(padded, [-s for s in shift], dims=(1, 2, 3)) if any(shift) else padded
        windows_BLC = _cut(rolled, window)
        n_windows, n_tokens, _ = windows_BLC.shape
        qkv = self.inputs(windows_BLC).view(n_windows, n_tokens, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv[0] * (channels // self.n_heads) ** -0.5, qkv[1], qkv[2]
        scores = queries @ keys.transpose(-2, -1)
        biases = self.biases[self.index[:n_tokens, :n_tokens].flatten()].view(n_tokens, n_tokens, -1)
        scores = scores + biases.permute(2, 0, 1)
        if any(shift):
            mask = _mask(padded.shape[1:4], window, shift).to(scores)
            scores = scores.view(n_trials, len(mask), self.n_heads, n_tokens, n_tokens) + mask[:, None]
            scores = scores.view(n_windows, self.n_heads, n_tokens, n_tokens)
        seen = (scores.softmax(-1) @ values).transpose(1, 2).reshape(n_windows, n_tokens, channels)
        joined = _join(self.outputs(seen), padded.shape, window)
        joined = torch.roll(joined, shift, dims=(1, 2, 3)) if any(shift) else joined
        return joined[:, : size[0], : size[1], : size[2]].contiguous()


def _cut(tokens: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Return the tokens of each window, shape (trial × window, token, channel)."""
    n_trials, t, h, w, channels = tokens.shape
    shape = (n_trials, t // window[0], window[0], h // window[1], window[1], w // window[2], window[2], channels)
    return tokens.view(shape).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, math.prod(window), channels)


def _join(windows: torch.Tensor, shape: Sequence[int], window: Sequence[int]) -> torch.Tensor:
    n_trials, t, h, w, channels = shape
    grid = (n_trials, t // window[0], h // window[1], w // window[2], *window, channels)
    return windows.view(grid).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


def _mask(size: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> torch.Tensor:
    """Return -100 for two tokens of a window that were no neighbors before the roll, shape (window, token, token)."""
    numbers = torch.zeros(tuple(size))
    parts = [
        [slice(0, -w), slice(-w, -s), slice(-s, None)] if s else [slice(None)]
        for w, s in zip(window, shift, strict=True)
    ]
    count = 0
    for t in parts[0]:
        for h in parts[1]:
            for w in parts[2]:
                numbers[t, h, w] = count
                count += 1
    numbers_WL = _cut(numbers[None, ..., None], window)[..., 0]
    return torch.where(numbers_WL[:, :, None] == numbers_WL[:, None, :], 0.0, -100.0)


class _Shifter(nn.Module):
    def __init__(self, n_units: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2, n_units), nn.Tanh(), nn.Linear(n_units, n_units), nn.Tanh(), nn.Linear(n_units, 2), nn.Tanh()
        )


class _Readout(nn.Module):
    def __init__(self, config: Any, n_neurons: int) -> None:
        super().__init__()
        channels = config.channels
        self.levels, self.is_adaptive = config.levels, config.fusion == "adaptive"
        self.register_buffer("cortical_positions", torch.zeros(n_neurons, 2))
        self.position_predictor = nn.Sequential(
            nn.Linear(2, config.readout_units), nn.ELU(), nn.Linear(config.readout_units, 2), nn.Tanh()
        )
        self.sigma = nn.Parameter(torch.zeros(n_neurons, 2, 2))
        self.features = nn.Parameter(torch.zeros(channels, n_neurons))
        self.bias = nn.Parameter(torch.zeros(n_neurons))
        self.coarse_features = nn.ParameterDict(
            {str(level): nn.Parameter(torch.zeros(channels, max(1, n_neurons // level))) for level in LEVELS}
        )
        self.refinements = nn.ModuleDict(
            {
                str(level): nn.Sequential(nn.Conv1d(1, units, 1), nn.ELU(), nn.Conv1d(units, 1, 1, bias=False))
                for level, units in zip(LEVELS, (32, 64, 128, 256), strict=True)
            }
        )
        self.fusions = nn.ModuleDict()
        for n in range(2, len(LEVELS) + 2) if self.is_adaptive else ():
            fusion = nn.Module()
            fusion.layers = nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, n), nn.Sigmoid())
            self.fusions[str(n)] = fusion

    def forward(self, maps_FCHW: torch.Tensor, shift_F2: torch.Tensor, n_steps: int) -> torch.Tensor:
        n_frames, n_neurons = len(maps_FCHW), len(self.bias)
        places_FN2 = self.position_predictor(self.cortical_positions).expand(n_frames, -1, -1)
        if self.training:
            noise_FN2 = torch.randn_like(places_FN2)
            places_FN2 = (places_FN2 + torch.einsum("ncd,fnd->fnc", self.sigma, noise_FN2)).clamp(-1, 1)
        grid = (places_FN2 + shift_F2[:, None])[:, :, None]
        responses = (functional.grid_sample(maps_FCHW, grid, align_corners=True)[..., 0] * self.features).sum(1)
        levels = {}
        for level in LEVELS:
            features = self.coarse_features[str(level)]
            size = (features.shape[1], 2)
            coarse_grid = functional.interpolate(grid.permute(0, 2, 1, 3), size=size, mode="nearest").permute(
                0, 2, 1, 3
            )
            coarse = (functional.grid_sample(maps_FCHW, coarse_grid, align_corners=True)[..., 0] * features).sum(1)
            coarse = functional.interpolate(coarse[:, None, None], size=(1, n_neurons), mode="nearest")[:, 0]
            levels[level] = self.refinements[str(level)](coarse)[:, 0]
        if not self.levels:
            return responses + self.bias
        chosen = [responses, *(levels[level] for level in self.levels)]
        if not self.is_adaptive:
            return sum(chosen) / len(chosen) + self.bias
        stacked = torch.stack([one.view(-1, n_steps, n_neurons) for one in chosen], dim=1)
        means = functional.adaptive_avg_pool2d(stacked, 1).flatten(1)
        weights = self.fusions[str(len(chosen))].layers(means)
        return (stacked * weights[:, :, None, None]).sum(1).flatten(0, 1) + self.bias
