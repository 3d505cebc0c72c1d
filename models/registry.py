"""Presets by name, and the models they describe.

Looking up a preset of this package imports no torch, so that the command line answers at once; building a model does,
and so does code of a user's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import numpy as np

from models.config import TrainingConfig
from models.kinds import MODEL_KINDS
from models.layouts import find_layout
from models.neurons import NeuronInfo
from models.own_models import (
    ENTRY_POINTS,
    find_entry_points,
    find_model_class,
    make_preset,
    read_entry_point,
    read_target,
)
from models.sources import explain_failures, is_target
from sensorium_data.errors import SensoriumError, UnknownNameError, UsageError
from sensorium_data.sessions import find_sessions

if TYPE_CHECKING:
    from models.response_model import ResponseModel

__all__ = [
    "ModelSize",
    "NeuronInfo",
    "PresetInfo",
    "build_model",
    "describe_preset",
    "get_preset",
    "list_presets",
    "make_preset",
    "measure_model",
    "preset_names",
]


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets of this package."""
    return tuple(_presets())


def get_preset(name: str) -> TrainingConfig:
    """Return the preset of this name, or of a class that it names.

    Parameters
    ----------
    name : str
        A preset of this package; one of an installed package; or a class in a file or a module, whose code is run:
        ``my_model.py:MyModel`` or ``lab.models:MyModel``, see :func:`models.own_models.read_target`.

    Raises
    ------
    UnknownNameError
        If there is none; the message names the near ones.
    UsageError
        If a class is named that is not there, or is no model.

    Examples
    --------
    >>> get_preset("factorized3d").learning_rate
    0.005
    """
    presets = _presets()
    if name in presets:
        return presets[name]()
    if is_target(name):
        return read_target(name)
    points = find_entry_points()
    if name in points:
        return read_entry_point(points[name])
    raise UnknownNameError.of("preset", name, [*presets, *points])


def build_model(config: TrainingConfig, neurons: Mapping[str, NeuronInfo]) -> ResponseModel:
    """Return an untrained model for the neurons of some sessions.

    Its weights are drawn from torch's global random state.

    Parameters
    ----------
    config : TrainingConfig
        Whose ``model`` says which one.
    neurons : mapping of str to NeuronInfo
        By full session name; their order is that of the model's readouts.

    Raises
    ------
    RunError
        If the model is of a run whose code is not loaded.
    UsageError
        If the code of a model that is no part of this package fails; it names the file and the line. If there is no
        memory for a model of these sizes.
    """
    model_class = find_model_class(config.model)
    layout = find_layout(config.input_layout)
    video: dict[str, Any] = {"n_input_channels": len(layout.channels)}
    if any(layout.padding) and "frame_size" in inspect.signature(model_class).parameters:
        video["frame_size"] = layout.frame_size
    try:
        with explain_failures(model_class.__name__, config.model.code):
            model = model_class(config.model, neurons, **video)
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        if config.model.code:
            raise
        raise UsageError(
            f"a model of the sizes of {config.name} cannot be made",
            found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy="make it smaller",
        ) from error
    if next(model.parameters(), None) is None:
        raise UsageError(
            f"{model_class.__name__} has no weights",
            expected="layers as attributes of the module",
            remedy="put layers that are in a list or a dict into nn.ModuleList or nn.ModuleDict",
        )
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if 0 in buffer.stride():
                # One number that stands for many cannot be loaded.
                setattr(module, name, buffer.contiguous())
    return model


@dataclass(frozen=True)
class PresetInfo:
    """What is known of a preset without training it.

    Attributes
    ----------
    name : str
        What :func:`get_preset` takes.
    origin : str
        Where it comes from: this package, an installed one, or a file.
    description : str
        A line.
    config : TrainingConfig or None
        The preset; None if it cannot be had.
    error : str or None
        Why it cannot.
    """

    name: str
    origin: str
    description: str = ""
    config: TrainingConfig | None = None
    error: str | None = None


def list_presets() -> list[PresetInfo]:
    """Return all presets: those of this package, then those that installed packages offer, which are imported."""
    known = _presets()
    found = [
        PresetInfo(name, "sensorium-pipeline", _first_line(preset.__doc__), preset()) for name, preset in known.items()
    ]
    for name, point in sorted(find_entry_points().items()):
        origin = _origin_of(point)
        try:
            if name in known:
                raise UnknownNameError(
                    "a preset of this package has the name of the entry point",
                    found=name,
                    remedy=f"give it another name in the group {ENTRY_POINTS}",
                )
            config = read_entry_point(point)
        except SensoriumError as error:
            found.append(PresetInfo(name, origin, error=str(error)))
        else:
            found.append(PresetInfo(name, origin, _describe_class(config), config))
    return found


def describe_preset(name: str) -> PresetInfo:
    """Return what is known of one preset, which is looked up as :func:`get_preset` does."""
    if name in _presets():
        return PresetInfo(name, "sensorium-pipeline", _first_line(_presets()[name].__doc__), get_preset(name))
    config = get_preset(name)
    origin = name.rpartition(":")[0] if is_target(name) else _origin_of(find_entry_points()[name])
    return PresetInfo(name, origin, _describe_class(config), config)


@dataclass(frozen=True)
class ModelSize:
    """How large a model is.

    Attributes
    ----------
    parameters : int
        Weights for the five new mice.
    frames_lost : int
        Frames at the start of a trial without a prediction.
    """

    parameters: int
    frames_lost: int


def measure_model(config: TrainingConfig) -> ModelSize:
    """Return how large a preset's model is for the five new mice, which have 40,034 neurons."""
    import torch

    generator = np.random.default_rng(0)
    neurons = {
        session.name: NeuronInfo(session.n_neurons, generator.normal(size=(session.n_neurons, 2)))
        for session in find_sessions(["new"])
    }
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, neurons)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        frames_lost=model.n_frames_lost * config.window_stride,
    )


def _origin_of(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _describe_class(config: TrainingConfig) -> str:
    return _first_line(find_model_class(config.model).__doc__)


def _first_line(docstring: object) -> str:
    # A class of a user's own may have anything under this name.
    return (docstring if isinstance(docstring, str) else "").strip().partition("\n")[0].strip()


def _presets() -> Mapping[str, Callable[[], TrainingConfig]]:
    return {name: preset for kind in MODEL_KINDS.values() for name, preset in kind.find("PRESETS").items()}
