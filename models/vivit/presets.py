"""The recipes of ViV1T."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from models.config import TrainingConfig
from models.debug_recipe import make_debug_preset
from models.vivit.config import VivitConfig
from sensorium_data.sessions import Tier

__all__ = ["PRESETS"]

# Of both small models.
_DEBUG_SIZES = {
    "patch_frames": 11,
    "patch_stride": 6,
    "embedding_size": 48,
    "n_spatial_blocks": 1,
    "n_temporal_blocks": 1,
    "n_heads": 2,
    "head_size": 12,
    "hidden_units": 48,
    "patch_dropout": 0.0,
    "token_dropout": 0.0,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "drop_path": 0.05,
}
# Transformers start slowly: a step for each batch, and the core's steps as long as the others'.
_DEBUG_STEPS = {
    "n_windows_per_trial": 2,
    "n_batches_per_step": 1,
    "learning_rate": 0.01,
    "core_learning_rate_factor": 1.0,
}
#: Settings of the causal model that are not those of 2023.
_CAUSAL = {
    "patch_frames": 13,
    "pads_time": True,
    "n_spatial_blocks": 14,
    "n_temporal_blocks": 14,
    "n_heads": 2,
    "head_size": 80,
    "hidden_units": 224,
    "activation": "relu",
    "is_causal": True,
    "positions": "rotary",
    "n_registers": 24,
    "patch_dropout": 0.0,
    "token_dropout": 0.17,
    "attention_dropout": 0.04,
    "hidden_dropout": 0.21,
    "drop_path": 0.43,
    "encodes_state": False,
    "output": "elu1",
}


def _vivit() -> TrainingConfig:
    """ViV1T of 2023, the third place: attention over space, then over time in both directions."""
    return TrainingConfig(
        name="vivit",
        model=VivitConfig(),
        n_frames_window=140,
        batch_size=6,
        # Where their responses are withheld, as in the new sessions, these tiers are left out.
        tiers=(
            Tier.TRAIN,
            Tier.LIVE_TEST_MAIN,
            Tier.LIVE_TEST_BONUS,
            Tier.FINAL_TEST_MAIN,
            Tier.FINAL_TEST_BONUS,
        ),
        input_layout="vivit",
        normalization="vivit",
        loss="poisson-correlation",
        loss_scale="vivit",
        learning_rate=0.0036,
        core_learning_rate_factor=0.0048 / 0.0036,
        weight_decay=0.3939,
        core_weight_decay=0.1789,
        schedule="restarts",
        early_stopping_patience=5,
        n_rounds=3,
        plateau_factor=0.3,
        tolerance=0.0,
        collapse_score=0.05,
        min_learning_rate=1.1920929e-07,
        max_epochs=400,
        score="reference",
    )


def _vivit_debug() -> TrainingConfig:
    """The same in small: learns simulated recordings in minutes on a CPU."""
    # Positions of the window's frames alone are learned: longer trials are seen in windows of so many frames.
    return make_debug_preset(
        "vivit-debug",
        VivitConfig,
        _DEBUG_SIZES | {"max_frames": 32},
        input_layout="vivit",
        normalization="vivit",
        loss="poisson-correlation",
        loss_scale="vivit",
        **_DEBUG_STEPS,
    )


def _vivit_causal() -> TrainingConfig:
    """ViV1T of 2025: deeper, no frame sees a later one, trained without a schedule."""
    return TrainingConfig(
        name="vivit-causal",
        model=VivitConfig.model_validate(_CAUSAL),
        n_frames_window=300,
        batch_size=1,
        input_layout="vivit-closed-loop",
        normalization="vivit-closed-loop",
        loss_scale="vivit-closed-loop",
        optimizer="schedule-free-adamw",
        schedule_free_warmup_steps=400,
        learning_rate=0.0073,
        core_learning_rate_factor=0.0126 / 0.0073,
        weight_decay=0.6893,
        core_weight_decay=0.0783,
        gradient_norm_percentile=10.0,
        schedule="restarts",
        early_stopping_patience=10,
        n_rounds=1,
        tolerance=0.0,
        min_learning_rate=0.0,
        max_epochs=400,
        score="reference",
    )


def _vivit_causal_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    sizes = _CAUSAL | _DEBUG_SIZES | {"n_registers": 2}
    return make_debug_preset(
        "vivit-causal-debug",
        VivitConfig,
        sizes,
        input_layout="vivit-closed-loop",
        normalization="vivit-closed-loop",
        loss_scale="vivit-closed-loop",
        optimizer="schedule-free-adamw",
        schedule_free_warmup_steps=5,
        gradient_norm_percentile=90.0,
        schedule="restarts",
        early_stopping_patience=10,
        n_rounds=1,
        min_learning_rate=0.0,
        **_DEBUG_STEPS,
    )


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {
        "vivit": _vivit,
        "vivit-debug": _vivit_debug,
        "vivit-causal": _vivit_causal,
        "vivit-causal-debug": _vivit_causal_debug,
    }
)
