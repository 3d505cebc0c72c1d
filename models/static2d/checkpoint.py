"""Weights of the frame-by-frame model as the starter kit's software saves them.

``Stacked2dCore`` of neuralpredictors with separable convolutions; the names are those of the model that
https://github.com/124585083/neural-trajectory-evaluation prints in its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

import torch

from models.checkpoints import CheckpointLayout, StarterKitLayout, WeightName, list_norm, shape_of
from models.model_config import ModelConfig
from models.static2d.config import Static2dConfig

__all__ = ["CHECKPOINTS"]

_FIRST = "core.features.layer0.conv.weight"
#: The three convolutions of a separable one, in the order in which they are applied.
_PARTS = ("in_depth_conv", "spatial_conv", "out_depth_conv")


class _Static2dLayout(StarterKitLayout):
    kind = "static2d"
    title = "the frame-by-frame 2D model"
    untold = ("stride", "n_frames_ignored")

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        is_recurrent = any(name.startswith("gru_module.") for name in state)
        is_separable = any(name.startswith("core.features.layer1.ds_conv.") for name in state)
        return not is_recurrent and (is_separable or (_FIRST in state and state[_FIRST].ndim == 4))

    def count_layers(self, config: ModelConfig) -> int:
        return len(cast(Static2dConfig, config).kernels)

    def list_core(self, n_layers: int) -> Iterator[WeightName]:
        for layer in range(n_layers):
            here, there = f"core.frames.layers.{layer}", f"core.features.layer{layer}"
            if layer == 0:
                yield WeightName(f"{here}.convolution.weight", f"{there}.conv.weight")
            for number, name in enumerate(_PARTS if layer else ()):
                for part in ("weight", "bias"):
                    yield WeightName(f"{here}.convolution.{number}.{part}", f"{there}.ds_conv.{name}.{part}")
            yield from list_norm(f"{here}.norm", f"{there}.norm")

    def read_core(self, state: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Any]:
        names = [f"core.features.layer{layer}.ds_conv.spatial_conv.weight" for layer in range(1, n_layers)]
        shapes = [shape_of(state, name, 4) for name in (_FIRST, *names)]
        return {
            "n_input_channels": shapes[0][1],
            "n_features": shapes[0][0],
            "kernels": tuple(shape[2] for shape in shapes),
        }


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType({"starter-kit": (_Static2dLayout(),)})
