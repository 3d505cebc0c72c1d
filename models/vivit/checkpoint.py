"""Weights of ViV1T as its two versions save them.

Names and shapes are those of https://github.com/bryanlimy/ViV1T and https://github.com/bryanlimy/ViV1T-closed-loop, and
so are the names of the arguments in ``args.yaml``.
"""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch

from models.checkpoints import CheckpointLayout, Structure, WeightName, read_positions, shape_of
from models.model_config import ModelConfig
from models.vivit.config import VivitConfig
from models.vivit.rotary import rotary_frequencies, rotary_scales
from sensorium_data.errors import RunError
from sensorium_data.sessions import Session

__all__ = ["CHECKPOINTS"]

_BLOCK = re.compile(r"core\.vivit\.(spatial|temporal)_transformer\.blocks\.(\d{1,9})\.")
_SESSION = re.compile(r"(?:readouts|shifters)\.([^.]+)\.")
#: A file that has more blocks lacks all weights of those between.
_MOST_BLOCKS = 100
_PREDICTOR = ("0.weight", "0.bias", "2.weight", "2.bias")
_SHIFTER = (*_PREDICTOR, "4.weight", "4.bias")


@dataclass(frozen=True)
class _VivitStructure(Structure):
    """``n_layers`` are the spatial blocks."""

    n_temporal: int = 1
    has_registers: bool = False
    encodes_state: bool = False


class _VivitLayout(CheckpointLayout):
    """What both versions have in common: transformers, readouts, shifters.

    Attributes
    ----------
    settings_by_argument : mapping of str to str
        Settings of the model that arguments tell, by the argument's name.
    required : mapping of str to tuple
        The only values of other arguments whose models are known here.
    """

    kind = "vivit"
    settings_by_argument: ClassVar[Mapping[str, str]]
    required: ClassVar[Mapping[str, tuple[object, ...]]]
    patches: ClassVar[Mapping[str, str]]
    _input: ClassVar[str]
    _normalization: ClassVar[str]
    _untold: ClassVar[tuple[str, ...]]
    untold: tuple[str, ...]  # type: ignore[misc]

    def __init__(self) -> None:
        self.untold = self._untold
        self._arguments: dict[str, object] = {}

    def with_parameters(self, beside: Mapping[str, object]) -> CheckpointLayout:
        arguments = beside.get("args")
        if not isinstance(arguments, Mapping):
            return self
        known = self.required.keys() | self.settings_by_argument.keys()
        if not known & arguments.keys():
            raise RunError(
                f"the arguments are not those of {self.title}",
                found="none of its names",
                expected=f"some of {', '.join(sorted(known))}",
                remedy="give the args.yaml that the training wrote, or move this one away",
            )
        told = copy.copy(self)
        told._arguments = dict(arguments)
        for name, allowed in self.required.items():
            if name in arguments and arguments[name] not in allowed:
                raise RunError(
                    f"the arguments are not those of {self.title}",
                    found=f"{name} {arguments[name]}",
                    expected=" or ".join(map(str, allowed)),
                )
        for name in self.settings_by_argument.keys() & _WHOLE & arguments.keys():
            value = arguments[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RunError("an argument is no size", found=f"{name} {value}", expected="a whole number, at least 1")
        names = {setting for name, setting in self.settings_by_argument.items() if name in arguments}
        told.untold = tuple(setting for setting in self._untold if setting not in names)
        return told

    def read_structure(self, state: Mapping[str, torch.Tensor]) -> Structure:
        n_blocks = {"spatial": 0, "temporal": 0}
        for match in filter(None, map(_BLOCK.match, state)):
            n_blocks[match[1]] = max(n_blocks[match[1]], min(int(match[2]), _MOST_BLOCKS) + 1)
        sessions = dict.fromkeys(match[1] for name in state if (match := _SESSION.match(name)))
        return _VivitStructure(
            n_layers=max(1, n_blocks["spatial"]),
            sessions={session: session for session in sessions or ("<mouse>",)},
            n_temporal=max(1, n_blocks["temporal"]),
            has_registers=any(name.startswith("core.vivit.reg_s_tokens") for name in state),
            encodes_state=any(".state_encoder." in name for name in state),
        )

    def structure_of(self, config: ModelConfig, sessions: Mapping[str, str]) -> Structure:
        vivit = cast(VivitConfig, config)
        return _VivitStructure(
            n_layers=vivit.n_spatial_blocks,
            sessions=sessions,
            n_temporal=vivit.n_temporal_blocks,
            has_registers=vivit.n_registers > 0,
            encodes_state=vivit.encodes_state,
        )

    @abstractmethod
    def list_positions(self, structure: _VivitStructure) -> Iterator[WeightName]:
        """Yield the weights that say where a token is, and the registers."""

    def list_weights(self, structure: Structure) -> Iterator[WeightName]:
        vivit = cast(_VivitStructure, structure)
        yield from self.list_positions(vivit)
        for here, there in self.patches.items():
            for part in ("weight", "bias"):
                yield WeightName(f"core.patches.{here}.{part}", f"{there}.{part}")
        for here, name, n_blocks in (("space", "spatial", vivit.n_layers), ("time", "temporal", vivit.n_temporal)):
            for block in range(n_blocks):
                own, theirs = f"core.over_{here}.blocks.{block}", f"core.vivit.{name}_transformer.blocks.{block}"
                for part in ("weight", "bias"):
                    yield WeightName(f"{own}.norm.{part}", f"{theirs}.norm.{part}")
                for mine, their in (
                    ("fused", "fused_linear"),
                    ("attention_out", "attn_out"),
                    ("hidden_out", "ff_out.2"),
                ):
                    yield WeightName(f"{own}.{mine}.weight", f"{theirs}.{their}.weight")
        for key, session in vivit.sessions.items():
            for part in _SHIFTER:
                yield WeightName(f"shifters.{session}.mlp.{part}", f"shifters.{key}.mlp.{part}")
        for key, session in vivit.sessions.items():
            own, theirs = f"readouts.{session}", f"readouts.{key}"
            yield WeightName(f"{own}.sigma", f"{theirs}.sigma", unit_axes=(0,))
            yield WeightName(f"{own}.features", f"{theirs}.features", unit_axes=(0,))
            yield WeightName(f"{own}.bias", f"{theirs}.bias")
            yield WeightName(f"{own}.cortical_positions", f"{theirs}.source_grid")
            for part in _PREDICTOR:
                yield WeightName(f"{own}.position_predictor.{part}", f"{theirs}.mu_transform.{part}")
            for layer in (0, 1, 4) if vivit.encodes_state else ():
                for part in ("weight", "bias"):
                    yield WeightName(
                        f"state_encoders.{session}.mlp.{layer}.{part}", f"{theirs}.state_encoder.{layer}.{part}"
                    )

    def is_constant(self, name: str) -> bool:
        return name.endswith((".reg_scale", ".scale", ".keep_prob"))

    def make_constants(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        constants = {"core.vivit.reg_scale": torch.tensor(0.0)}
        vivit = cast(VivitConfig, config)
        for name, n_blocks in (("spatial", vivit.n_spatial_blocks), ("temporal", vivit.n_temporal_blocks)):
            for block in range(n_blocks):
                for part, value in self.make_block_constants(vivit).items():
                    constants[f"core.vivit.{name}_transformer.blocks.{block}.{part}"] = value
        return constants

    @abstractmethod
    def make_block_constants(self, config: VivitConfig) -> dict[str, torch.Tensor]:
        """Return the constants of each block."""

    def make_session_constants(self, config: ModelConfig, session: str) -> dict[str, torch.Tensor]:
        return {f"{part}.{session}.reg_scale": torch.tensor(0.0) for part in ("shifters", "readouts")}

    def call_session(self, session: Session) -> str:
        # Its data, with the neurons' places, are kept by the mice's letters.
        return session.alias or session.name

    def read_settings(self, state: Mapping[str, torch.Tensor], structure: Structure) -> dict[str, Any]:
        vivit = cast(_VivitStructure, structure)
        first = next(iter(vivit.sessions))
        block = "core.vivit.spatial_transformer.blocks.0"
        settings = {
            "embedding_size": shape_of(state, f"{self.patches['linear']}.weight", 2)[0],
            "n_spatial_blocks": vivit.n_layers,
            "n_temporal_blocks": vivit.n_temporal,
            "hidden_units": shape_of(state, f"{block}.ff_out.2.weight", 2)[1],
            "n_registers": shape_of(state, "core.vivit.reg_s_tokens", 2)[0] if vivit.has_registers else 0,
            "encodes_state": vivit.encodes_state,
            "readout": "gaussian",
            "readout_units": shape_of(state, f"readouts.{first}.mu_transform.0.weight", 2)[0],
            "shifter_units": shape_of(state, f"shifters.{first}.mlp.0.weight", 2)[0],
        }
        for name, setting in self.settings_by_argument.items():
            if name in self._arguments:
                settings[setting] = self.convert_argument(name, self._arguments[name])
        settings |= self.read_own(state, settings)
        own = {"input_layout": self._input, "normalization": self._normalization}
        return {f"model.{name}": value for name, value in settings.items()} | own

    def convert_argument(self, name: str, value: object) -> object:
        """Return a setting's value from an argument's."""
        return value

    @abstractmethod
    def read_own(self, state: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings that the weights of one version tell."""

    def read_neurons(self, state: Mapping[str, torch.Tensor], session: str) -> tuple[int, torch.Tensor | None]:
        return read_positions(state, f"readouts.{session}.source_grid")


#: Arguments that are sizes.
_WHOLE = frozenset(
    {
        "core_spatial_patch_size",
        "core_spatial_patch_stride",
        "core_temporal_patch_size",
        "core_num_heads",
        "core_head_dim",
        "max_frame",
    }
)
#: Of both versions.
_SETTINGS = {
    "core_spatial_patch_size": "patch_size",
    "core_spatial_patch_stride": "patch_stride",
    "core_temporal_patch_size": "patch_frames",
    "max_frame": "max_frames",
    "core_num_heads": "n_heads",
    "core_head_dim": "head_size",
    "core_ff_activation": "activation",
    "core_mha_dropout": "attention_dropout",
    "core_ff_dropout": "hidden_dropout",
    "core_drop_path": "drop_path",
    "output_mode": "output",
}
_REQUIRED: dict[str, tuple[object, ...]] = {
    "center_crop": (1,),
    "core": ("vivit",),
    "core_behavior_mode": (2,),
    "core_patch_mode": (0,),
    "core_temporal_patch_stride": (1,),
    "core_parallel_attention": (True,),
    "core_norm_qk": (False,),
    "core_ff_activation": ("gelu", "relu"),
    "shifter_mode": (1,),
    "shifter_layers": (3,),
    "readout_grid_mode": (1,),
    "readout_bias_mode": (1, 2),
}


class _Vivit2023Layout(_VivitLayout):
    title = "ViV1T of 2023"
    settings_by_argument = MappingProxyType(_SETTINGS | {"core_p_dropout": "patch_dropout"})
    required = MappingProxyType(
        _REQUIRED
        | {
            "core_pos_encoding": (3,),
            "transform_mode": (2,),
            "stat_mode": (1,),
            "output_mode": (0, 1),
            "readout": ("gaussian2d",),
            "modulator_mode": (0,),
            "critic_mode": (0,),
        }
    )
    patches = MappingProxyType(
        {
            "norm": "core.vivit.tokenizer.tokenizer.1",
            "linear": "core.vivit.tokenizer.tokenizer.2",
            "token_norm": "core.vivit.tokenizer.tokenizer.3",
        }
    )
    _input = "vivit"
    # With the mistake that the code has: the weights were trained so.
    _normalization = "vivit-legacy"
    _untold = (
        "patch_size", "patch_stride", "patch_frames", "n_heads", "head_size", "activation", "output", "max_frames",
    )  # fmt: skip

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return any(name.startswith("core.vivit.tokenizer.") for name in state)

    def takes(self, config: ModelConfig) -> bool:
        return isinstance(config, VivitConfig) and (
            (config.positions, config.n_registers, config.pads_time, config.is_causal, config.readout)
            == ("learned", 0, False, False, "gaussian")
        )

    def wrap(self, weights: Mapping[str, torch.Tensor], n_neurons: Mapping[str, int]) -> Mapping[str, object]:
        return {"epoch": 0, "value": 0.0, "model": dict(weights)}

    def list_positions(self, structure: _VivitStructure) -> Iterator[WeightName]:
        theirs = "core.vivit.tokenizer"
        yield WeightName("core.spatial_positions", f"{theirs}.spatial_pos_embedding", unit_axes=(0, 1))
        yield WeightName("core.temporal_positions", f"{theirs}.temporal_pos_embedding", unit_axes=(0, 2))

    def make_block_constants(self, config: VivitConfig) -> dict[str, torch.Tensor]:
        kept = torch.tensor(1 - config.drop_path)
        return {
            "scale": torch.tensor(config.head_size**-0.5),
            "drop_path1.keep_prob": kept,
            "drop_path2.keep_prob": kept,
        }

    def convert_argument(self, name: str, value: object) -> object:
        return {0: "elu1", 1: "exp"}[cast(int, value)] if name == "output_mode" else value

    def read_own(self, state: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
        kept = state.get("core.vivit.spatial_transformer.blocks.0.drop_path1.keep_prob")
        told: dict[str, Any] = {}
        if "patch_frames" in settings:
            n_times = shape_of(state, "core.vivit.tokenizer.temporal_pos_embedding", 4)[1]
            told["max_frames"] = n_times + settings["patch_frames"] - 1
        # The rate that a file was trained with decides its constants, and nothing that is predicted.
        if kept is not None and kept.numel() == 1:
            told["drop_path"] = round(1 - float(kept), 6)
        return told


class _ClosedLoopLayout(_VivitLayout):
    title = "ViV1T of 2025, the closed-loop version"
    settings_by_argument = MappingProxyType(
        _SETTINGS
        | {
            "core_p_dropout": "token_dropout",
            "core_use_causal_attention": "is_causal",
            "core_pad_frame": "pads_time",
        }
    )
    required = MappingProxyType(
        _REQUIRED
        | {
            "core_pos_encoding": (5,),
            "core_pad_frame": (1,),
            "core_activation": ("none",),
            "core_norm": ("layernorm",),
            "transform_input": (1,),
            "transform_output": (1,),
            "output_mode": (1,),
            "readout": ("gaussian",),
        }
    )
    patches = MappingProxyType(
        {
            "norm": "core.tokenizer.tokenizer.norm",
            "linear": "core.tokenizer.tokenizer.linear",
            "token_norm": "core.tokenizer.norm",
        }
    )
    _input = _normalization = "vivit-closed-loop"
    _untold = (
        "patch_size", "patch_stride", "patch_frames", "n_heads", "head_size", "activation", "is_causal", "max_frames",
    )  # fmt: skip

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return any(name.startswith("core.tokenizer.") for name in state)

    def takes(self, config: ModelConfig) -> bool:
        return isinstance(config, VivitConfig) and (
            (config.positions, config.pads_time, config.encodes_state, config.output, config.readout)
            == ("rotary", True, False, "elu1", "gaussian")
        )

    def list_positions(self, structure: _VivitStructure) -> Iterator[WeightName]:
        if structure.has_registers:
            yield WeightName("core.spatial_registers", "core.vivit.reg_s_tokens")
            yield WeightName("core.temporal_registers", "core.vivit.reg_t_tokens")

    def is_constant(self, name: str) -> bool:
        # Numbers of the rotation, and the 1 that ELU is raised by.
        return super().is_constant(name) or name.endswith((".inv_freq", ".one"))

    def make_block_constants(self, config: VivitConfig) -> dict[str, torch.Tensor]:
        rotary = "rotary_position_embedding"
        return {
            "scale": torch.tensor(config.head_size**-0.5),
            f"{rotary}.inv_freq": rotary_frequencies(config.head_size).float(),
            f"{rotary}.scale": rotary_scales(config.head_size).float(),
        }

    def make_session_constants(self, config: ModelConfig, session: str) -> dict[str, torch.Tensor]:
        own = super().make_session_constants(config, session)
        return own | {f"output_activation.{session}.one": torch.tensor(1.0)}

    def convert_argument(self, name: str, value: object) -> object:
        if name == "output_mode":
            return "elu1"
        return bool(value) if name == "core_pad_frame" else value

    def read_own(self, state: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"positions": "rotary", "pads_time": True, "output": "elu1"}


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType(
    {"vivit": (_Vivit2023Layout(),), "vivit-closed-loop": (_ClosedLoopLayout(),)}
)
