"""Weights of the full 3D model as the starter kit saves them: ``Basic3dCore`` of neuralpredictors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch

from models.checkpoints import CheckpointLayout, StarterKitLayout, WeightName, list_norm, shape_of
from models.full3d.config import Full3dConfig
from models.layers import SPATIAL_LAPLACIAN, TEMPORAL_LAPLACIAN
from models.model_config import ModelConfig

__all__ = ["CHECKPOINTS"]

_FIRST = "core.features.layer0.conv.weight"


class _Full3dLayout(StarterKitLayout):
    kind = "full3d"
    title = "the full 3D model"
    untold = ("spatial_strides",)
    laplacians: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "core._input_weight_regularizer.laplace.filter": SPATIAL_LAPLACIAN,
        "core.temporal_regularizer.laplace.filter": TEMPORAL_LAPLACIAN,
    }

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return _FIRST in state and state[_FIRST].ndim == 5

    def count_layers(self, config: ModelConfig) -> int:
        return len(cast(Full3dConfig, config).channels)

    def list_core(self, n_layers: int) -> Iterator[WeightName]:
        for layer in range(n_layers):
            here, there = f"core.layers.{layer}", f"core.features.layer{layer}"
            # Convolutions are named with the number of their layer, except in the first.
            number = f"_{layer}" if layer else ""
            for part in ("weight", "bias"):
                yield WeightName(f"{here}.convolution.{part}", f"{there}.conv{number}.{part}")
            yield from list_norm(f"{here}.norm", f"{there}.norm")

    def read_core(self, state: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Any]:
        names = [_FIRST, *(f"core.features.layer{layer}.conv_{layer}.weight" for layer in range(1, n_layers))]
        shapes = [shape_of(state, name, 5) for name in names]
        return {
            "n_input_channels": shapes[0][1],
            "channels": tuple(shape[0] for shape in shapes),
            "spatial_kernels": tuple(shape[3] for shape in shapes),
            "temporal_kernels": tuple(shape[2] for shape in shapes),
        }


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType({"starter-kit": (_Full3dLayout(),)})
