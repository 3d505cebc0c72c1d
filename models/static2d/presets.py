"""The recipes of the frame-by-frame model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.debug_recipe import make_debug_preset
from models.static2d.config import Static2dConfig

__all__ = ["PRESETS"]


def _static2d() -> TrainingConfig:
    """One frame at a time, without a past: the lower reference for models of time."""
    return TrainingConfig(name="static2d", model=Static2dConfig())


def _static2d_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    sizes = {"n_features": 16, "kernels": (9, 5), "stride": 2, "n_frames_ignored": 0, "readout_sparsity": 0.0}
    return make_debug_preset("static2d-debug", Static2dConfig, sizes)


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {"static2d": _static2d, "static2d-debug": _static2d_debug}
)
