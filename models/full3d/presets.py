"""The recipes of the full 3D model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.debug_recipe import make_debug_preset
from models.full3d.config import Full3dConfig

__all__ = ["PRESETS"]


def _full3d() -> TrainingConfig:
    """The full 3D model of the starter kit's demo: filters over space and time at once."""
    return TrainingConfig(name="full3d", model=Full3dConfig(), n_frames_window=60, batch_size=16)


def _full3d_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    return make_debug_preset(
        "full3d-debug",
        Full3dConfig,
        {
            "channels": (10, 10),
            "spatial_kernels": (9, 3),
            "temporal_kernels": (5, 3),
            "spatial_strides": (3, 1),
            "spatial_smoothness": 1.0,
        },
        n_frames_window=48,
        learning_rate=0.005,
        core_learning_rate_factor=0.1,
        min_learning_rate=0.0003,
    )


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {"full3d": _full3d, "full3d-debug": _full3d_debug}
)
