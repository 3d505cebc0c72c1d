"""The recipes of the recurrent models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.debug_recipe import make_debug_preset
from models.gru.config import GruConfig

__all__ = ["PRESETS"]

# Of both small models.
_DEBUG_SIZES = {"kernels": (9, 3), "stride": 2, "gru_kernel": 3, "spatial_smoothness": 10.0, "filter_sparsity": 0.0}


def _gru() -> TrainingConfig:
    """The first model of the starter kit's demo: convolutions on each frame, then a convolutional GRU."""
    return TrainingConfig(name="gru", model=GruConfig(), n_frames_window=60, batch_size=16)


def _gru_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    return make_debug_preset("gru-debug", GruConfig, {"n_features": 12, **_DEBUG_SIZES})


def _gru_equivariant() -> TrainingConfig:
    """The GRU benchmark of the starter kit: filters at eight angles, then a convolutional GRU."""
    return TrainingConfig(name="gru-equivariant", model=GruConfig(n_features=8, n_rotations=8, gru_kernel=9))


def _gru_equivariant_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    sizes = {"n_features": 3, "n_rotations": 4, **_DEBUG_SIZES}
    return make_debug_preset("gru-equivariant-debug", GruConfig, sizes)


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {
        "gru": _gru,
        "gru-debug": _gru_debug,
        "gru-equivariant": _gru_equivariant,
        "gru-equivariant-debug": _gru_equivariant_debug,
    }
)
