"""Presets by name, and the models they describe.

Looking up a preset imports no torch, so that the command line answers at once; building a model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.config import TrainingConfig
from models.factorized3d import Factorized3dConfig
from models.layouts import find_layout
from models.neurons import NeuronInfo
from sensorium_data.errors import UnknownNameError

if TYPE_CHECKING:
    from models.response_model import ResponseModel

__all__ = ["NeuronInfo", "build_model", "get_preset", "preset_names"]


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets."""
    return tuple(_PRESETS)


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
    if name not in _PRESETS:
        raise UnknownNameError.of("preset", name, _PRESETS)
    return _PRESETS[name]()


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
    from models.factorized3d import Factorized3d

    return Factorized3d(config.model, neurons, n_input_channels=len(find_layout(config.input_layout).channels))


def _factorized3d() -> TrainingConfig:
    return TrainingConfig(name="factorized3d", model=Factorized3dConfig())


def _factorized3d_debug() -> TrainingConfig:
    return TrainingConfig(
        name="factorized3d-debug",
        model=Factorized3dConfig(
            channels=(16, 16),
            spatial_kernels=(9, 3),
            temporal_kernels=(7, 5),
            spatial_strides=(2, 1),
            batch_norm_momentum=0.1,
            readout_init_sigma=0.6,
            starts_at_mean_response=True,
        ),
        n_frames_window=48,
        n_windows_per_trial=4,
        batch_size=4,
        learning_rate=0.01,
        core_learning_rate_factor=0.15,
        schedule="cosine",
        min_learning_rate=0.0005,
        max_epochs=12,
    )


_PRESETS: Mapping[str, Callable[[], TrainingConfig]] = MappingProxyType(
    {"factorized3d": _factorized3d, "factorized3d-debug": _factorized3d_debug}
)
