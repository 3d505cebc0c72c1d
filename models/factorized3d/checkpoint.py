"""Weights of the factorized 3D model as the starter kit saves them: ``Factorized3dCore`` of neuralpredictors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch

from models.checkpoints import CheckpointLayout, StarterKitLayout, WeightName, list_norm, shape_of
from models.factorized3d.config import Factorized3dConfig
from models.layers import SPATIAL_LAPLACIAN, TEMPORAL_LAPLACIAN
from models.model_config import ModelConfig

__all__ = ["CHECKPOINTS"]


class _Factorized3dLayout(StarterKitLayout):
    kind = "factorized3d"
    title = "the factorized 3D model"
    untold = ("pads_frames", "spatial_strides")
    laplacians: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "core._input_weight_regularizer.laplace.filter": SPATIAL_LAPLACIAN,
        "core.temporal_regularizer.laplace.filter": TEMPORAL_LAPLACIAN,
    }

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return any(name.startswith("core.features.layer0.conv_spatial.") for name in state)

    def count_layers(self, config: ModelConfig) -> int:
        return len(cast(Factorized3dConfig, config).channels)

    def list_core(self, n_layers: int) -> Iterator[WeightName]:
        for layer in range(n_layers):
            here, there = f"core.layers.{layer}", f"core.features.layer{layer}"
            # Convolutions are named with the number of their layer, except in the first.
            number = f"_{layer}" if layer else ""
            yield WeightName(f"{here}.spatial.weight", f"{there}.conv_spatial{number}.weight", unit_axes=(2,))
            yield WeightName(f"{here}.spatial.bias", f"{there}.conv_spatial{number}.bias")
            yield WeightName(f"{here}.temporal.weight", f"{there}.conv_temporal{number}.weight", unit_axes=(4,))
            yield WeightName(f"{here}.temporal.bias", f"{there}.conv_temporal{number}.bias")
            yield from list_norm(f"{here}.norm", f"{there}.norm")

    def read_core(self, state: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Any]:
        numbers = ["", *(f"_{layer}" for layer in range(1, n_layers))]
        names = [f"core.features.layer{layer}.conv_{{}}{number}.weight" for layer, number in enumerate(numbers)]
        spatial = [shape_of(state, name.format("spatial"), 5) for name in names]
        temporal = [shape_of(state, name.format("temporal"), 5) for name in names]
        return {
            "n_input_channels": spatial[0][1],
            "channels": tuple(shape[0] for shape in spatial),
            "spatial_kernels": tuple(shape[3] for shape in spatial),
            "temporal_kernels": tuple(shape[2] for shape in temporal),
        }


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType({"starter-kit": (_Factorized3dLayout(),)})
