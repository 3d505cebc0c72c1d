"""The recipes of DwiseNeuro: a basic stage, and one that learns from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from models.config import TrainingConfig
from models.dwiseneuro.config import DwiseNeuroConfig
from sensorium_data.sessions import Tier

__all__ = ["PRESETS"]

#: Of all presets.
_COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "input_layout": "dwiseneuro",
        "normalization": "dwiseneuro",
        "n_frames_window": 16,
        "window_stride": 2,
        "session_balance": "mixed",
        "loss_scale": "dwiseneuro",
        "cutmix_probability": 0.5,
        "cutmix_alpha": 1.0,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "keeps": "last",
        "score": "reference",
        "prediction_windows": "sliding",
        # The windows that the reference validates on.
        "validation_hop": 31,
    }
)
_RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        **_COMMON,
        # Responses to the test tiers are published for the old sessions alone.
        "tiers": tuple(Tier),
        "n_folds": 7,
        "fold": 0,
        "batch_size": 32,
        "n_windows_per_session": 7200,
        "learning_rate": 2.4e-3,
        "min_learning_rate": 2.4e-5,
        "warmup_epochs": 3,
        "max_epochs": 21,
        "ema_decay": 0.999,
        "precision": "16-mixed",
    }
)
_DEBUG_RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        **_COMMON,
        # Few steps leave nothing to be regularized.
        "cutmix_probability": 0.25,
        "batch_size": 4,
        "n_windows_per_session": 320,
        "learning_rate": 0.01,
        "min_learning_rate": 0.0005,
        "warmup_epochs": 1,
        "max_epochs": 12,
        "ema_decay": 0.98,
        # Windows overlap by three quarters.
        "prediction_hop": 8,
    }
)
#: Of both small models; they differ in their expansion.
_DEBUG_SIZES: Mapping[str, Any] = MappingProxyType(
    {
        "channels": (8, 16, 32, 64),
        "strides": (4, 2, 1),
        # Few blocks have to see as far as many.
        "spatial_kernel": 7,
        "squeeze_reduction": 8,
        "drop_path": 0.0,
        "cortex_channels": (128, 512),
        "readout_dropout": 0.1,
        "starts_at_mean_response": True,
    }
)
_RATIO = 0.36


def _basic() -> TrainingConfig:
    """The winner of SENSORIUM 2023, basic stage: depth-wise filters over space and time, and a cortex."""
    return TrainingConfig(name="dwiseneuro", model=DwiseNeuroConfig(), **_RECIPE)


def _distilled() -> TrainingConfig:
    """Its second stage: a smaller model, trained anew, that also learns from the basic stage's run."""
    return TrainingConfig(
        name="dwiseneuro-distilled", model=DwiseNeuroConfig(expansion=6), distillation_ratio=_RATIO, **_RECIPE
    )


def _basic_debug() -> TrainingConfig:
    """The basic stage in small: minutes on a CPU for simulated recordings."""
    model = DwiseNeuroConfig(expansion=3, **_DEBUG_SIZES)
    return TrainingConfig(name="dwiseneuro-debug", model=model, **_DEBUG_RECIPE)


def _distilled_debug() -> TrainingConfig:
    """The second stage in small: minutes on a CPU for simulated recordings."""
    model = DwiseNeuroConfig(expansion=2, **_DEBUG_SIZES)
    return TrainingConfig(name="dwiseneuro-distilled-debug", model=model, distillation_ratio=_RATIO, **_DEBUG_RECIPE)


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {
        "dwiseneuro": _basic,
        "dwiseneuro-debug": _basic_debug,
        "dwiseneuro-distilled": _distilled,
        "dwiseneuro-distilled-debug": _distilled_debug,
    }
)
