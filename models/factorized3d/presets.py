"""The recipes of the factorized 3D model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.debug_recipe import make_debug_preset
from models.factorized3d.config import Factorized3dConfig

__all__ = ["PRESETS"]


def _factorized3d() -> TrainingConfig:
    """The benchmark of the starter kit: filters over space, then over time."""
    return TrainingConfig(name="factorized3d", model=Factorized3dConfig())


def _factorized3d_debug() -> TrainingConfig:
    """The same in small: learns simulated recordings in minutes on a CPU."""
    sizes = {"channels": (16, 16), "spatial_kernels": (9, 3), "temporal_kernels": (7, 5), "spatial_strides": (2, 1)}
    return make_debug_preset("factorized3d-debug", Factorized3dConfig, sizes, n_frames_window=48)


def _factorized3d_demo() -> TrainingConfig:
    """The factorized model of the starter kit's demo: 64 channels in all layers, padded, without regularizers."""
    return TrainingConfig(
        name="factorized3d-demo",
        model=Factorized3dConfig(
            channels=(64, 64, 64),
            spatial_kernels=(11, 7, 7),
            temporal_kernels=(11, 7, 7),
            pads_frames=True,
            spatial_smoothness=0.0,
            temporal_smoothness=0.0,
        ),
        n_frames_window=60,
        batch_size=16,
    )


def _factorized3d_demo_debug() -> TrainingConfig:
    """The same in small, with factorized readouts: minutes on a CPU for simulated recordings."""
    debug = _factorized3d_debug()
    model = debug.model.model_copy(update={"spatial_strides": (3, 1), "pads_frames": True, "readout": "factorized"})
    return debug.model_copy(update={"name": "factorized3d-demo-debug", "model": model})


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {
        "factorized3d": _factorized3d,
        "factorized3d-debug": _factorized3d_debug,
        "factorized3d-demo": _factorized3d_demo,
        "factorized3d-demo-debug": _factorized3d_demo_debug,
    }
)
