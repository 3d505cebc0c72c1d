"""The recipes of the recurrent models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.gru.config import GruConfig

__all__ = ["PRESETS"]

# Small models with a recipe for simulated recordings on a CPU.
_DEBUG_MODEL = {
    "kernels": (9, 3),
    "stride": 2,
    "gru_kernel": 3,
    "batch_norm_momentum": 0.1,
    "spatial_smoothness": 10.0,
    "filter_sparsity": 0.0,
    "readout_init_sigma": 0.6,
    "starts_at_mean_response": True,
}
_DEBUG_RECIPE = {
    "n_frames_window": 32,
    "n_windows_per_trial": 4,
    "batch_size": 4,
    "learning_rate": 0.01,
    "core_learning_rate_factor": 0.15,
    "schedule": "cosine",
    "min_learning_rate": 0.0005,
    "max_epochs": 12,
}


def _gru() -> TrainingConfig:
    """The first model of the starter kit's demo: convolutions on each frame, then a convolutional GRU."""
    return TrainingConfig(name="gru", model=GruConfig(), n_frames_window=60, batch_size=16)


def _gru_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    return TrainingConfig(name="gru-debug", model=GruConfig(n_features=12, **_DEBUG_MODEL), **_DEBUG_RECIPE)


def _gru_equivariant() -> TrainingConfig:
    """The GRU benchmark of the starter kit: filters at eight angles, then a convolutional GRU."""
    return TrainingConfig(name="gru-equivariant", model=GruConfig(n_features=8, n_rotations=8, gru_kernel=9))


def _gru_equivariant_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    return TrainingConfig(
        name="gru-equivariant-debug",
        model=GruConfig(n_features=3, n_rotations=4, **_DEBUG_MODEL),
        **_DEBUG_RECIPE,
    )


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {
        "gru": _gru,
        "gru-debug": _gru_debug,
        "gru-equivariant": _gru_equivariant,
        "gru-equivariant-debug": _gru_equivariant_debug,
    }
)
