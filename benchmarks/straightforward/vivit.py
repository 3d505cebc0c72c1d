"""ViV1T as one writes it at first: patches unfolded and copied, attention as products and a softmax, masks for what is
skipped. It takes the weights of :class:`models.vivit.Vivit` by their names, and predicts the same.

Shape suffixes are those of :mod:`models.vivit.model`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from models.vivit import Vivit, VivitConfig

__all__ = ["make_reference"]


def make_reference(model: Vivit) -> nn.Module:
    """Return the straightforward module with a model's weights, and its ``predict_rows``."""
    reference = _Model(model).to(next(model.parameters()))
    reference.load_state_dict(model.state_dict())
    return reference.train(model.training)


class _Model(nn.Module):
    def __init__(self, model: Vivit) -> None:
        super().__init__()
        config, n_channels = model.config, model.core.patches.norm.normalized_shape[0]
        n_channels //= config.patch_frames * config.patch_size**2
        self.config = config
        self.core = _Core(config, n_channels, config.map_size(*model.frame_size))
        sizes = {session: len(readout.bias) for session, readout in model.readouts.items()}
        self.readouts = nn.ModuleDict({session: _Readout(config, n) for session, n in sizes.items()})
        self.shifters = nn.ModuleDict({session: _Shifter(config.shifter_units) for session in sizes})
        self.state_encoders = nn.ModuleDict(
            {session: _StateEncoder(n_channels - 1, config.embedding_size) for session in model.state_encoders}
        )

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        maps_BETHW = self.core(videos_BCTHW)
        n_lost = self.config.n_frames_lost
        return [
            self._read_out(
                maps_BETHW[rows], videos_BCTHW[rows, :, n_lost:], pupil_center_B2T[rows, :, n_lost:], session
            )
            for session, rows in wanted
        ]

    def _read_out(
        self, maps_BETHW: torch.Tensor, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, session: str
    ) -> torch.Tensor:
        n_trials, n_frames = len(maps_BETHW), maps_BETHW.shape[2]
        frames_FEHW = maps_BETHW.transpose(1, 2).reshape(n_trials * n_frames, -1, *maps_BETHW.shape[3:])
        shift_F2 = self.shifters[session](pupil_center_B2T.transpose(1, 2).reshape(-1, 2))
        sampled_FEN = self.readouts[session].sample(frames_FEHW, shift_F2)
        if self.config.encodes_state:
            height, width = videos_BCTHW.shape[3:]
            state_BTS = videos_BCTHW[:, 1:, :, height // 2, width // 2].transpose(1, 2)
            state_FE = self.state_encoders[session](state_BTS).flatten(0, 1)
            sampled_FEN = sampled_FEN + state_FE[:, :, None]
        values_FN = (
            torch.einsum("fen,en->fn", sampled_FEN, self.readouts[session].features) + self.readouts[session].bias
        )
        responses_FN = values_FN.exp() if self.config.output == "exp" else functional.elu(values_FN) + 1
        return responses_FN.view(n_trials, n_frames, -1).transpose(1, 2)


class _Core(nn.Module):
    def __init__(self, config: VivitConfig, n_channels: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.map_size = config, map_size
        size, n_registers = config.embedding_size, config.n_registers
        self.patches = _Patches(config, n_channels)
        if config.positions == "learned":
            self.spatial_positions = nn.Parameter(torch.empty(map_size[0] * map_size[1], size))
            self.temporal_positions = nn.Parameter(torch.empty(config.max_frames - config.n_frames_lost, size))
        if n_registers:
            self.spatial_registers = nn.Parameter(torch.empty(n_registers, size))
            self.temporal_registers = nn.Parameter(torch.empty(n_registers, size))
        n_places, n_times = map_size[0] * map_size[1], config.max_frames - config.n_frames_lost
        self.over_space = _Transformer(config, config.n_spatial_blocks, n_places, is_causal=False)
        self.over_time = _Transformer(config, config.n_temporal_blocks, n_times, is_causal=config.is_causal)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        config = self.config
        tokens_BTPE = functional.dropout(self.patches(videos_BCTHW), config.patch_dropout, self.training)
        if self.training and config.token_dropout:
            kept_BTP = torch.rand(tokens_BTPE.shape[:3], device=tokens_BTPE.device) >= config.token_dropout
            tokens_BTPE = tokens_BTPE * kept_BTP[..., None] / (1 - config.token_dropout)
        n_trials, n_frames, n_patches, _ = tokens_BTPE.shape
        if config.positions == "learned":
            tokens_BTPE = tokens_BTPE + self.spatial_positions + self.temporal_positions[:n_frames, None]
        tokens = tokens_BTPE.reshape(n_trials * n_frames, n_patches, -1)
        if config.n_registers:
            tokens = torch.cat([tokens, self.spatial_registers.expand(len(tokens), -1, -1)], dim=1)
        tokens = self.over_space(tokens)[:, :n_patches].reshape(n_trials, n_frames, n_patches, -1)
        tokens = tokens.transpose(1, 2).reshape(n_trials * n_patches, n_frames, -1)
        if config.n_registers:
            tokens = torch.cat([tokens, self.temporal_registers.expand(len(tokens), -1, -1)], dim=1)
        tokens = self.over_time(tokens)[:, :n_frames].reshape(n_trials, *self.map_size, n_frames, -1)
        return tokens.permute(0, 4, 3, 1, 2)


class _Patches(nn.Module):
    def __init__(self, config: VivitConfig, n_channels: int) -> None:
        super().__init__()
        self.config = config
        n_numbers = n_channels * config.patch_frames * config.patch_size**2
        self.norm = nn.LayerNorm(n_numbers)
        self.linear = nn.Linear(n_numbers, config.embedding_size)
        self.token_norm = nn.LayerNorm(config.embedding_size)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        config = self.config
        if config.pads_time:
            videos_BCTHW = functional.pad(videos_BCTHW, (0, 0, 0, 0, config.patch_frames - 1, 0))
        patches = videos_BCTHW.unfold(2, config.patch_frames, 1)
        patches = patches.unfold(3, config.patch_size, config.patch_stride)
        patches = patches.unfold(4, config.patch_size, config.patch_stride)
        patches_BTPN = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(2, 3)
        tokens_BTPE: torch.Tensor = self.token_norm(self.linear(self.norm(patches_BTPN)))
        return tokens_BTPE


class _Transformer(nn.Module):
    def __init__(self, config: VivitConfig, n_blocks: int, n_places: int, *, is_causal: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config, n_places, is_causal=is_causal) for _ in range(n_blocks))

    def forward(self, tokens_XLE: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            tokens_XLE = block(tokens_XLE)
        return tokens_XLE


class _Block(nn.Module):
    def __init__(self, config: VivitConfig, n_places: int, *, is_causal: bool) -> None:
        super().__init__()
        self.config, self.n_places, self.is_causal = config, n_places, is_causal
        n_inner = config.n_heads * config.head_size
        self.sizes = (n_inner, n_inner, n_inner, config.hidden_units)
        self.norm = nn.LayerNorm(config.embedding_size)
        self.fused = nn.Linear(config.embedding_size, sum(self.sizes), bias=False)
        self.attention_out = nn.Linear(n_inner, config.embedding_size, bias=False)
        self.hidden_out = nn.Linear(config.hidden_units, config.embedding_size, bias=False)

    def forward(self, tokens_XLE: torch.Tensor) -> torch.Tensor:
        config = self.config
        *compared, hidden_XLU = self.fused(self.norm(tokens_XLE)).split(self.sizes, dim=-1)
        queries, keys, values = (one.unflatten(2, (config.n_heads, -1)).transpose(1, 2) for one in compared)
        if config.positions == "rotary":
            queries, keys = self._turn(queries), self._turn(keys)
        logits_XHLL = torch.einsum("xhld,xhmd->xhlm", queries, keys) * config.head_size**-0.5
        if self.is_causal:
            n_tokens = tokens_XLE.shape[1]
            later = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=tokens_XLE.device).triu(1)
            logits_XHLL = logits_XHLL.masked_fill(later, float("-inf"))
        attended = torch.einsum("xhlm,xhmd->xhld", logits_XHLL.softmax(-1), values).transpose(1, 2).flatten(2)
        attended = self.attention_out(functional.dropout(attended, config.attention_dropout, self.training))
        hidden_XLU = functional.gelu(hidden_XLU) if config.activation == "gelu" else functional.relu(hidden_XLU)
        hidden = self.hidden_out(functional.dropout(hidden_XLU, config.hidden_dropout, self.training))
        return tokens_XLE + self._drop_rows(attended) + self._drop_rows(hidden)

    def _drop_rows(self, added_XLE: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.config.drop_path:
            return added_XLE
        share_kept = 1 - self.config.drop_path
        kept_X = (torch.rand(len(added_XLE)) < share_kept).to(added_XLE.device)
        return added_XLE * kept_X[:, None, None] / share_kept

    def _turn(self, values_XHLD: torch.Tensor) -> torch.Tensor:
        size, n_registers = self.config.head_size, self.config.n_registers
        n_placed = values_XHLD.shape[2] - n_registers
        n_places = max(self.n_places, n_placed)
        like = {"dtype": values_XHLD.dtype, "device": values_XHLD.device}
        pairs = torch.arange(0, size, 2, **like)
        places_L1 = torch.arange(n_placed, **like)[:, None]
        angles_LD = (places_L1 * 10_000 ** (-pairs / size)).repeat(1, 2)
        bases = (pairs + 0.4 * size) / (1.4 * size)
        scales_LD = (bases ** ((places_L1 - n_places // 2) / 512)).repeat(1, 2)
        placed, registers = values_XHLD[:, :, :n_placed], values_XHLD[:, :, n_placed:]
        first, second = placed.chunk(2, dim=-1)
        rotated = torch.cat([-second, first], dim=-1)
        placed = (placed * angles_LD.cos() + rotated * angles_LD.sin()) * scales_LD
        return torch.cat([placed, registers], dim=2)


class _Readout(nn.Module):
    def __init__(self, config: VivitConfig, n_neurons: int) -> None:
        super().__init__()
        self.register_buffer("cortical_positions", torch.empty(n_neurons, 2))
        units = config.readout_units
        self.position_predictor = nn.Sequential(nn.Linear(2, units), nn.ELU(), nn.Linear(units, 2), nn.Tanh())
        self.sigma = nn.Parameter(torch.empty(n_neurons, 2, 2))
        self.features = nn.Parameter(torch.empty(config.embedding_size, n_neurons))
        self.bias = nn.Parameter(torch.empty(n_neurons))

    def sample(self, frames_FEHW: torch.Tensor, shift_F2: torch.Tensor) -> torch.Tensor:
        mean_N2 = self.position_predictor(self.cortical_positions)
        places_FN2 = mean_N2.expand(len(frames_FEHW), -1, -1)
        if self.training:
            noise_FN2 = torch.randn_like(places_FN2)
            places_FN2 = (mean_N2 + torch.einsum("ncd,fnd->fnc", self.sigma, noise_FN2)).clamp(-1, 1)
        places_FN2 = places_FN2 + shift_F2[:, None]
        return functional.grid_sample(frames_FEHW, places_FN2[:, :, None], align_corners=True)[..., 0]


class _Shifter(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        layers = nn.Linear(2, units), nn.Tanh(), nn.Linear(units, units), nn.Tanh(), nn.Linear(units, 2), nn.Tanh()
        self.mlp = nn.Sequential(*layers)

    def forward(self, pupil_center_F2: torch.Tensor) -> torch.Tensor:
        shift_F2: torch.Tensor = self.mlp(pupil_center_F2)
        return shift_F2


class _StateEncoder(nn.Module):
    def __init__(self, n_variables: int, size: int) -> None:
        super().__init__()
        layers = nn.Linear(n_variables, size), nn.LayerNorm(size), nn.GELU(), nn.Dropout(0.0), nn.Linear(size, size)
        self.mlp = nn.Sequential(*layers, nn.Tanh())

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        encoded: torch.Tensor = self.mlp(state)
        return encoded
