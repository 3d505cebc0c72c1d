"""The recipes of Dynamic-V1FM, and the 31 models of its ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from types import MappingProxyType

from models.config import TrainingConfig
from models.dynamic_v1fm.config import LEVELS, DynamicV1fmConfig

__all__ = ["PRESETS", "list_ensemble"]


def _dynamic_v1fm() -> TrainingConfig:
    """Second place of SENSORIUM 2023: attention in shifted windows; one of its 31 models, the plain one."""
    return TrainingConfig(
        name="dynamic-v1fm",
        model=DynamicV1fmConfig(),
        input_layout="vivit",
        normalization="competition",
        n_frames_window=30,
        batch_size=32,
        loss_scale="dynamic-v1fm",
        learning_rate=0.001,
        weight_decay=0.05,
        n_batches_per_step=1,
        schedule="cosine",
        warmup_steps=600,
        warmup_start_factor=1 / 3,
        constant_epochs=80,
        max_epochs=180,
        min_learning_rate=1e-6,
        keeps="last",
        prediction_windows="sliding",
        prediction_hop=15,
        # The published windows start at frame 35, 50, and so on.
        prediction_offset=5,
    )


def _dynamic_v1fm_debug() -> TrainingConfig:
    """The same in small: minutes on a CPU for simulated recordings."""
    return TrainingConfig(
        name="dynamic-v1fm-debug",
        model=DynamicV1fmConfig(
            n_frames=20,
            channels=32,
            patch_size=(2, 4, 4),
            # All steps see each other: two blocks alone could not carry anything from half a window later.
            window_size=(10, 4, 4),
            n_blocks=2,
            n_heads=2,
            perceptron_units=48,
            readout_init_sigma=0.6,
            starts_at_mean_response=True,
        ),
        input_layout="vivit",
        normalization="competition",
        n_frames_window=20,
        n_windows_per_trial=4,
        batch_size=4,
        loss_scale="dynamic-v1fm",
        learning_rate=0.01,
        core_learning_rate_factor=0.3,
        schedule="cosine",
        warmup_steps=10,
        warmup_start_factor=1 / 3,
        min_learning_rate=0.0005,
        max_epochs=12,
        prediction_windows="sliding",
        prediction_hop=10,
    )


#: By name.
PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {"dynamic-v1fm": _dynamic_v1fm, "dynamic-v1fm-debug": _dynamic_v1fm_debug}
)


def list_ensemble() -> list[dict[str, str]]:
    """Return what each of the 31 models of the ensemble changes in the preset ``dynamic-v1fm``.

    Returns
    -------
    list of dict of str to str
        As ``sensorium train dynamic-v1fm --set`` takes it: the plain model, then each choice of coarse levels, once
        averaged and once fused adaptively.

    Examples
    --------
    >>> len(list_ensemble()), list_ensemble()[0], list_ensemble()[-1]
    (31, {}, {'model.levels': '2,4,8,16', 'model.fusion': 'adaptive'})
    """
    choices = [levels for n in range(1, len(LEVELS) + 1) for levels in combinations(LEVELS, n)]
    return [
        {},
        *(
            {"model.levels": ",".join(map(str, levels)), "model.fusion": fusion}
            for fusion in ("mean", "adaptive")
            for levels in choices
        ),
    ]
