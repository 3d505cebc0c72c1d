"""The recipe of the small sizes, ``<preset>-debug``: simulated recordings in minutes on a CPU."""

from __future__ import annotations

from typing import Any

from models.config import TrainingConfig
from models.readout_settings import ReadoutSettings

__all__ = ["make_debug_preset"]


def make_debug_preset(name: str, model: type[ReadoutSettings], sizes: dict[str, Any], **recipe: Any) -> TrainingConfig:
    """Return a preset of a small model that learns in few steps.

    Readouts start from narrower places and from the mean responses, and running statistics follow slowly. The core's
    filters start small, and full steps keep them noisy: it learns more slowly than the readouts.

    Parameters
    ----------
    name : str
        Of the preset.
    model : type
        The model's settings.
    sizes : dict
        What the model has otherwise than by default, beside what is said above.
    **recipe
        What the recipe has otherwise.
    """
    usual: dict[str, Any] = {"readout_init_sigma": 0.6, "starts_at_mean_response": True}
    if "batch_norm_momentum" in model.model_fields:
        usual["batch_norm_momentum"] = 0.1
    return TrainingConfig.model_validate(
        {
            "name": name,
            "model": model.model_validate(usual | sizes),
            "n_frames_window": 32,
            "n_windows_per_trial": 4,
            "batch_size": 4,
            "learning_rate": 0.01,
            "core_learning_rate_factor": 0.15,
            "schedule": "cosine",
            "min_learning_rate": 0.0005,
            "max_epochs": 12,
        }
        | recipe
    )
