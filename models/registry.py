"""Presets by name, and the models they describe.

Looking up a preset imports no torch, so that the command line answers at once; building a model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from models.config import TrainingConfig
from models.kinds import MODEL_KINDS
from models.layouts import find_layout
from models.neurons import NeuronInfo
from sensorium_data.errors import UnknownNameError

if TYPE_CHECKING:
    from models.response_model import ResponseModel

__all__ = ["NeuronInfo", "build_model", "get_preset", "preset_names"]


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets."""
    return tuple(_presets())


def get_preset(name: str) -> TrainingConfig:
    """Return the preset of this name.

    Raises
    ------
    UnknownNameError
        If there is none; the message names the near ones.

    Examples
    --------
    >>> get_preset("factorized3d").learning_rate
    0.005
    """
    presets = _presets()
    if name not in presets:
        raise UnknownNameError.of("preset", name, presets)
    return presets[name]()


def build_model(config: TrainingConfig, neurons: Mapping[str, NeuronInfo]) -> ResponseModel:
    """Return an untrained model for the neurons of some sessions.

    Its weights are drawn from torch's global random state.

    Parameters
    ----------
    config : TrainingConfig
        Whose ``model`` says which one.
    neurons : mapping of str to NeuronInfo
        By full session name; their order is that of the model's readouts.
    """
    kind = MODEL_KINDS[config.model.kind]
    model: ResponseModel = kind.find(kind.model)(
        config.model, neurons, n_input_channels=len(find_layout(config.input_layout).channels)
    )
    return model


def _presets() -> Mapping[str, Callable[[], TrainingConfig]]:
    return {name: preset for kind in MODEL_KINDS.values() for name, preset in kind.find("PRESETS").items()}
