"""The recipes of the frame-by-frame model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.static2d.config import Static2dConfig

__all__ = ["PRESETS"]


def _static2d() -> TrainingConfig:
    """One frame at a time, without a past: the lower reference for models of time."""
    return TrainingConfig(name="static2d", model=Static2dConfig())


def _static2d_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    return TrainingConfig(
        name="static2d-debug",
        model=Static2dConfig(
            n_features=16,
            kernels=(9, 5),
            stride=2,
            n_frames_ignored=0,
            batch_norm_momentum=0.1,
            readout_init_sigma=0.6,
            readout_sparsity=0.0,
            starts_at_mean_response=True,
        ),
        n_frames_window=32,
        n_windows_per_trial=4,
        batch_size=4,
        learning_rate=0.01,
        core_learning_rate_factor=0.15,
        schedule="cosine",
        min_learning_rate=0.0005,
        max_epochs=12,
    )


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {"static2d": _static2d, "static2d-debug": _static2d_debug}
)
