"""Weights of the recurrent models as the starter kit saves them.

``Stacked2dCore`` or ``RotationEquivariant2dCore`` of neuralpredictors, then ``ConvGRUCell``.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import torch

from models.checkpoints import CheckpointLayout, StarterKitLayout, WeightName, list_norm, shape_of
from models.gru.config import GruConfig
from models.layers import hermite_functions, rotation_matrices
from models.model_config import ModelConfig
from sensorium_data.errors import RunError

__all__ = ["CHECKPOINTS"]

_GRU = "gru_module.gru"
_ROTATION = re.compile(r"core\.features\.layer\d+\.hermite_conv\.rotate_hermite\.(?:H|Rs\.\d+)")


class _GruLayout(StarterKitLayout):
    """The GRU after whatever sees the frames."""

    kind = "gru"
    untold = ("stride",)

    @abstractmethod
    def list_frame_layer(self, here: str, there: str, layer: int) -> Iterator[WeightName]:
        """Yield the weights of a layer for frames."""

    def count_layers(self, config: ModelConfig) -> int:
        return len(cast(GruConfig, config).kernels)

    def list_core(self, n_layers: int) -> Iterator[WeightName]:
        for layer in range(n_layers):
            yield from self.list_frame_layer(f"core.frames.layers.{layer}", f"core.features.layer{layer}", layer)
        for gate, name in (("reset", "reset"), ("update", "update"), ("candidate", "out")):
            for source in ("input", "hidden"):
                for part in ("weight", "bias"):
                    yield WeightName(f"core.gru.{gate}_{source}.{part}", f"{_GRU}.{name}_gate_{source}.{part}")


class _PlainLayout(_GruLayout):
    title = "the GRU model"

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return any(name.startswith(f"{_GRU}.") for name in state) and not _is_equivariant(state)

    def takes(self, config: ModelConfig) -> bool:
        return isinstance(config, GruConfig) and config.n_rotations is None

    def list_frame_layer(self, here: str, there: str, layer: int) -> Iterator[WeightName]:
        for part in ("weight", "bias") if layer else ("weight",):
            yield WeightName(f"{here}.convolution.{part}", f"{there}.conv.{part}")
        yield from list_norm(f"{here}.norm", f"{there}.norm")

    def read_core(self, state: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Any]:
        shapes = [shape_of(state, f"core.features.layer{layer}.conv.weight", 4) for layer in range(n_layers)]
        return {
            "n_input_channels": shapes[0][1],
            "n_features": shapes[0][0],
            "n_rotations": None,
            "kernels": tuple(shape[2] for shape in shapes),
            "gru_kernel": shape_of(state, f"{_GRU}.update_gate_input.weight", 4)[2],
        }


class _EquivariantLayout(_GruLayout):
    title = "the rotation-equivariant GRU model"

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return _is_equivariant(state)

    def takes(self, config: ModelConfig) -> bool:
        return isinstance(config, GruConfig) and config.n_rotations is not None

    def list_frame_layer(self, here: str, there: str, layer: int) -> Iterator[WeightName]:
        yield WeightName(f"{here}.convolution.coefficients", f"{there}.hermite_conv.coeffs")
        yield from list_norm(f"{here}.norm", f"{there}.norm.batch_norm")

    def is_constant(self, name: str) -> bool:
        return _ROTATION.fullmatch(name) is not None or super().is_constant(name)

    def make_constants(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        constants = super().make_constants(config)
        gru = cast(GruConfig, config)
        for layer, kernel in enumerate(gru.kernels):
            functions_KHW, orders = hermite_functions(kernel)
            there = f"core.features.layer{layer}.hermite_conv.rotate_hermite"
            constants[f"{there}.H"] = torch.tensor(functions_KHW, dtype=torch.float32)
            for number, matrix_KK in enumerate(rotation_matrices(orders, gru.n_rotations or 1)):
                constants[f"{there}.Rs.{number}"] = torch.tensor(matrix_KK, dtype=torch.float32)
        return constants

    def read_core(self, state: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Any]:
        names = [f"core.features.layer{layer}.hermite_conv.coeffs" for layer in range(n_layers)]
        shapes = [shape_of(state, name, 3) for name in names]
        gates = shape_of(state, f"{_GRU}.update_gate_input.weight", 4)
        n_features = shapes[0][2]
        if not n_features or gates[1] % n_features:
            raise RunError(
                "the weights do not fit each other",
                found=f"a GRU of {gates[1]} channels after {n_features} features",
                expected="a multiple: each feature at all angles",
            )
        return {
            "n_input_channels": shapes[0][1],
            "n_features": n_features,
            "n_rotations": gates[1] // n_features,
            "kernels": tuple(_kernel_of(shape[0], name) for shape, name in zip(shapes, names, strict=True)),
            "gru_kernel": gates[2],
        }


def _is_equivariant(state: Mapping[str, torch.Tensor]) -> bool:
    return any(name.startswith("core.features.layer0.hermite_conv.") for name in state)


def _kernel_of(n_functions: int, name: str) -> int:
    """Return the side of the kernels that so many Hermite functions make: k (k + 1) / 2 of them."""
    kernel = (math.isqrt(8 * n_functions + 1) - 1) // 2
    if kernel * (kernel + 1) // 2 != n_functions:
        raise RunError(
            f"the weight {name} has the wrong shape",
            found=f"{n_functions} functions",
            expected="k (k + 1) / 2 for a kernel of k pixels",
        )
    return kernel


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType(
    {"starter-kit": (_PlainLayout(), _EquivariantLayout())}
)
