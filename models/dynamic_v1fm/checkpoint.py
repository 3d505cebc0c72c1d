"""Weights of Dynamic-V1FM as its authors saved them: a bare ``state_dict``, whose names begin with ``module.``.

Names were read in https://github.com/zhuyu-cs/Dynamic-VFM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

import torch

from models.checkpoints import CheckpointLayout, Structure, WeightName, read_positions, shape_of
from models.dynamic_v1fm.config import LEVELS, DynamicV1fmConfig
from models.dynamic_v1fm.regions import index_distances
from models.model_config import ModelConfig
from sensorium_data.errors import RunError

__all__ = ["CHECKPOINTS"]

_BLOCK = re.compile(r"core\.transformer\.blocks\.(\d{1,9})\.")
_SESSION = re.compile(r"(?:readout|shifter)\.([^.]+)\.")
_CONSTANT = re.compile(r"core\.transformer\.(?:blocks\.\d{1,9}\.mha\.relative_position_index|drop_path\.keep_prop)")
#: A file that has more blocks lacks all weights of those between.
_MOST_BLOCKS = 100
_PATCHES = "core.patch_embedding.proj.weight"
#: Parts of a block, here and in a file.
_PARTS = MappingProxyType(
    {
        "attention.inputs": "mha.qkv",
        "attention.outputs": "mha.proj",
        "perceptron.inputs": "mlp.linear1.0",
        "perceptron.neighbors": "mlp.dwconv.0.conv",
        "perceptron.outputs": "mlp.linear2.0",
        "state.layers.0": "b-mlp.model.0",
        "state.layers.2": "b-mlp.model.3",
    }
)


class _Layout(CheckpointLayout):
    kind = "dynamic-v1fm"
    untold = ("levels", "n_frames", "window_size")
    fusion: ClassVar[Literal["mean", "adaptive"]]

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        is_adaptive = any(".fusion_block" in name for name in state)
        return is_adaptive == (self.fusion == "adaptive") and any(
            name.startswith(("core.patch_embedding.", "core.transformer.blocks.")) for name in state
        )

    def takes(self, config: ModelConfig) -> bool:
        return isinstance(config, DynamicV1fmConfig) and config.fusion == self.fusion

    def read_structure(self, state: Mapping[str, torch.Tensor]) -> Structure:
        blocks = [int(match[1]) for name in state if (match := _BLOCK.match(name))]
        sessions = dict.fromkeys(match[1] for name in state if (match := _SESSION.match(name)))
        return Structure(
            n_layers=min(max(blocks, default=0), _MOST_BLOCKS) + 1,
            sessions={session: session for session in sessions or ("<session>",)},
        )

    def structure_of(self, config: ModelConfig, sessions: Mapping[str, str]) -> Structure:
        return Structure(cast(DynamicV1fmConfig, config).n_blocks, sessions)

    def list_weights(self, structure: Structure) -> Iterator[WeightName]:
        yield from _list_layer("core.patches.projection", "core.patch_embedding.proj")
        yield from _list_layer("core.patches.norm", "core.patch_embedding.norm")
        for block in range(structure.n_layers):
            here, there = f"core.blocks.{block}", f"core.transformer.blocks.{block}"
            yield WeightName(f"{here}.attention.biases", f"{there}.mha.relative_position_bias_table")
            for part, name in _PARTS.items():
                yield from _list_layer(f"{here}.{part}", f"{there}.{name}")
        for key, session in structure.sessions.items():
            yield from self._list_readout(f"readouts.{session}", f"readout.{key}")
        for key, session in structure.sessions.items():
            for layer in (0, 2, 4):
                yield from _list_layer(f"shifters.{session}.mlp.{layer}", f"shifter.{key}.mlp.{layer}")

    def _list_readout(self, here: str, there: str) -> Iterator[WeightName]:
        yield WeightName(f"{here}.sigma", f"{there}.sigma", unit_axes=(0,))
        yield WeightName(f"{here}.features", f"{there}._features", unit_axes=(0, 2))
        for level in LEVELS:
            yield WeightName(f"{here}.coarse_features.{level}", f"{there}._features{level}", unit_axes=(0, 2))
        yield WeightName(f"{here}.bias", f"{there}.bias")
        yield WeightName(f"{here}.cortical_positions", f"{there}.source_grid")
        for layer in (0, 2):
            yield from _list_layer(f"{here}.position_predictor.{layer}", f"{there}.mu_transform.{layer}")
        for n_levels in range(2, len(LEVELS) + 2) if self.fusion == "adaptive" else ():
            for layer in (0, 2):
                name = f"{there}.fusion_block{n_levels}.module.{layer}"
                yield from _list_layer(f"{here}.fusions.{n_levels}.layers.{layer}", name)
        for level in LEVELS:
            yield from _list_layer(f"{here}.refinements.{level}.0", f"{there}.up_refine{level}.0")
            yield WeightName(f"{here}.refinements.{level}.2.weight", f"{there}.up_refine{level}.2.weight")

    def is_constant(self, name: str) -> bool:
        return _CONSTANT.fullmatch(name) is not None

    def make_constants(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        own = cast(DynamicV1fmConfig, config)
        index = torch.from_numpy(index_distances(own.window_size))
        blocks = {
            f"core.transformer.blocks.{block}.mha.relative_position_index": index for block in range(own.n_blocks)
        }
        # The share of residual branches that training keeps.
        return blocks | {"core.transformer.drop_path.keep_prop": torch.ones(())}

    def read_settings(self, state: Mapping[str, torch.Tensor], structure: Structure) -> dict[str, Any]:
        block = "core.transformer.blocks.0"
        channels, n_inputs, *patch = shape_of(state, _PATCHES, 5)
        if n_inputs != 1:
            raise RunError(
                f"the weight {_PATCHES} has the wrong shape", found=f"{n_inputs} channels", expected="1, the video"
            )
        first = next(iter(structure.sessions))
        return {
            "input_layout": "vivit",
            "model.channels": channels,
            "model.patch_size": tuple(patch),
            "model.n_blocks": structure.n_layers,
            "model.n_heads": shape_of(state, f"{block}.mha.relative_position_bias_table", 2)[1],
            "model.perceptron_units": shape_of(state, f"{block}.mlp.linear2.0.weight", 2)[1],
            "model.fusion": self.fusion,
            "model.readout_units": shape_of(state, f"readout.{first}.mu_transform.0.weight", 2)[0],
            "model.shifter_units": shape_of(state, f"shifter.{first}.mlp.0.weight", 2)[0],
        }

    def read_neurons(self, state: Mapping[str, torch.Tensor], session: str) -> tuple[int, torch.Tensor | None]:
        return read_positions(state, f"readout.{session}.source_grid")


class _MeanLayout(_Layout):
    title = "Dynamic-V1FM, its levels averaged"
    fusion = "mean"


class _AdaptiveLayout(_Layout):
    title = "Dynamic-V1FM, its levels fused adaptively"
    fusion = "adaptive"


def _list_layer(here: str, there: str) -> Iterator[WeightName]:
    for part in ("weight", "bias"):
        yield WeightName(f"{here}.{part}", f"{there}.{part}")


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType(
    {"dynamic-v1fm": (_MeanLayout(), _AdaptiveLayout())}
)
