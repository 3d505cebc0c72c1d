"""A checkpoint of other software as a model: its settings are read off the weights, as far as they tell them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from models.checkpoints import (
    ArgumentsFile,
    CheckpointFile,
    CheckpointFormat,
    CheckpointLayout,
    Structure,
    compare_constants,
    convert_weights,
    find_arguments,
    find_format,
    read_arguments,
    read_checkpoint,
    require_names,
)
from models.config import TrainingConfig, list_settings, override
from models.kinds import MODEL_KINDS
from models.neurons import NeuronInfo
from models.readout_settings import ReadoutSettings
from models.registry import build_model, get_preset
from models.response_model import ResponseModel
from models.value_problems import describe_problem
from sensorium_data.errors import RunError, UsageError

__all__ = ["LoadedCheckpoint", "ReadCheckpoint", "load_checkpoint", "read_settings"]

#: Settings that say which data a training took. A model that was trained elsewhere predicts all neurons.
_OF_TRAINING = frozenset(
    {"exclude", "fold", "min_reliability", "n_folds", "n_trials", "nan_policy", "neurons", "teacher", "tiers"}
)


@dataclass(frozen=True, eq=False)
class ReadCheckpoint:
    """A checkpoint whose names were checked, and whose settings are known.

    Attributes
    ----------
    file : CheckpointFile
    layout : CheckpointLayout
    structure : Structure
        Its sessions are called as in the file.
    config : TrainingConfig
        The preset, with the settings that the weights tell and those that were given.
    neurons : mapping of str to (int, Tensor or None)
        Of each session, by what the file calls it: how many, and their normalized places, if the file has them.
    arguments : ArgumentsFile or None
        What else told settings.
    """

    file: CheckpointFile
    layout: CheckpointLayout
    structure: Structure
    config: TrainingConfig
    neurons: Mapping[str, tuple[int, torch.Tensor | None]]
    arguments: ArgumentsFile | None = None

    def make_model(self, neurons: Mapping[str, NeuronInfo], names: Mapping[str, str]) -> LoadedCheckpoint:
        """Return the model with the weights.

        Parameters
        ----------
        neurons : mapping of str to NeuronInfo
            By full session name.
        names : mapping of str to str
            Full name of each session, by what the file calls it.

        Raises
        ------
        RunError
            If weights have other shapes than the model's.
        """
        state, path, title = self.file.weights, self.file.path, self.layout.title
        wanted = list(self.layout.list_weights(dataclasses.replace(self.structure, sessions=names)))
        with _located(path):
            constants = self.layout.make_constants(self.config.model)
            by_session = {
                session: self.layout.make_session_constants(self.config.model, session)
                for session in self.structure.sessions
            }
            all_constants = constants | {name: one for made in by_session.values() for name, one in made.items()}
            differing = compare_constants(state, all_constants, self.layout.is_constant, title=title, path=path)
            # Shapes alone at first: a file may tell sizes for which there is no memory.
            with torch.device("meta"):
                shapes = build_model(self.config, neurons).state_dict()
            weights = convert_weights(state, wanted, shapes, title=title, path=path)
        with torch.random.fork_rng(devices=[]):
            model = build_model(self.config, neurons)
        model.load_state_dict(weights)
        for session in names:
            constants |= by_session[session]
        optional = [weight.file_name for weight in wanted if weight.is_optional]
        return LoadedCheckpoint(
            model=model.eval(),
            constants={name: value for name, value in differing.items() if name in constants},
            absent=tuple(name for name in (*constants, *optional) if name not in state),
        )


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A model with the weights of a checkpoint.

    Attributes
    ----------
    model : ResponseModel
        In evaluation mode.
    constants : mapping of str to Tensor
        What the file has that is no part of the model, as far as it differs from ours by rounding.
    absent : tuple of str
        Names of what the file may have and lacks.
    """

    model: ResponseModel
    constants: Mapping[str, torch.Tensor]
    absent: tuple[str, ...]


def load_checkpoint(
    path: str | Path,
    *,
    format: str = "starter-kit",
    preset: str | None = None,
    settings: Mapping[str, str] | None = None,
    arguments: str | Path | None = None,
) -> ResponseModel:
    """Return the model in a checkpoint of other software, ready to predict. No store is needed.

    Its architecture, its sessions and its neurons are read off the weights. Sessions are called as in the file.

    Parameters
    ----------
    path : str or Path
        E.g. ``final.pth``.
    format : str
        A name in :data:`models.checkpoints.CHECKPOINT_FORMATS`.
    preset : str, optional
        Has what no weight tells, as padding and strides. By default the first one of the model whose sizes are those of
        the weights, else its first one.
    settings : mapping of str to str, optional
        Settings to change in the preset, as :func:`models.config.override` takes them.
    arguments : str or Path, optional
        The ``args.yaml`` of the training, for formats that have one; by default the one beside the checkpoint, or
        beside the folder ``ckpt`` that it is in, if it is there.

    Returns
    -------
    ResponseModel
        In evaluation mode, on the CPU.

    Raises
    ------
    RunError
        If the file is missing, damaged or holds code, or does not hold the weights of one model of the format.
    UsageError
        If there is no such format, preset or setting, or the weights tell otherwise.
    """
    read = read_settings(format, path, preset=preset, settings=settings, arguments=arguments)
    neurons = {
        session: NeuronInfo(n_neurons, np.zeros((n_neurons, 2)) if places is None else places.double().numpy())
        for session, (n_neurons, places) in read.neurons.items()
    }
    return read.make_model(neurons, {session: session for session in neurons}).model


def read_settings(
    format: str,
    path: str | Path,
    *,
    preset: str | None = None,
    settings: Mapping[str, str] | None = None,
    arguments: str | Path | None = None,
) -> ReadCheckpoint:
    """Read a checkpoint, check the names of its weights, and find out its settings.

    Parameters and errors are those of :func:`load_checkpoint`.
    """
    known = find_format(format)
    found = _read_arguments(known, Path(path), arguments)
    file = read_checkpoint(path, has_numpy_scalars=known.has_numpy_scalars)
    layout = known.recognize(file.weights, path=file.path)
    with _located(file.path if found is None else found.path):
        layout = layout.with_parameters(file.beside if found is None else {**file.beside, "args": found.values})
    with _located(file.path):
        structure = layout.read_structure(file.weights)
        wanted = layout.list_weights(structure)
        require_names(file.weights, wanted, layout.is_constant, title=layout.title, path=file.path)
        told = layout.read_settings(file.weights, structure)
        neurons = {session: layout.read_neurons(file.weights, session) for session in structure.sessions}
        empty = [session for session, (n_neurons, _) in neurons.items() if n_neurons < 1]
        if empty:
            raise RunError("the checkpoint has no neurons of a session", session=empty[0])
    config = _settle(_choose_preset(layout, preset, told), told, settings or {}, layout, file.path)
    return ReadCheckpoint(file, layout, structure, config, neurons, found)


def _read_arguments(known: CheckpointFormat, checkpoint: Path, given: str | Path | None) -> ArgumentsFile | None:
    if known.arguments is None:
        if given is not None:
            raise UsageError(
                f"checkpoints of the format {known.name} have no file of arguments", found=given, remedy="leave it out"
            )
        return None
    path = find_arguments(checkpoint, known.arguments) if given is None else Path(given)
    return None if path is None else read_arguments(path)


def _choose_preset(layout: CheckpointLayout, name: str | None, told: Mapping[str, Any]) -> TrainingConfig:
    if name is not None:
        config = get_preset(name)
        if config.model.kind != layout.kind or not layout.takes(config.model):
            raise UsageError(
                "the preset is of another model than the checkpoint",
                found=f"{name}, of the model {config.model.kind}",
                expected=f"a preset of {layout.title}",
                remedy="leave out the preset, or choose another",
            )
        return config
    presets: Mapping[str, Callable[[], TrainingConfig]] = MODEL_KINDS[layout.kind].find("PRESETS")
    made = [make() for make in presets.values()]
    # Where no preset has this layout, what the weights tell makes one of it.
    fitting = [config for config in made if layout.takes(config.model)] or made
    of_core = {
        setting: value
        for setting, value in told.items()
        if setting.startswith("model.") and setting.removeprefix("model.") not in ReadoutSettings.model_fields
    }
    for config in fitting:
        own = list_settings(config)
        if all(own[setting] == value for setting, value in of_core.items()):
            return config
    return fitting[0]


def _settle(
    config: TrainingConfig, told: Mapping[str, Any], given: Mapping[str, str], layout: CheckpointLayout, path: Path
) -> TrainingConfig:
    """Return a preset with what the weights tell and what was given."""
    changed = config.model_dump()
    for setting, value in told.items():
        if setting.startswith("model."):
            changed["model"][setting.removeprefix("model.")] = value
        else:
            changed[setting] = value
    for setting in layout.untold:
        value = changed["model"][setting]
        n_layers = max((len(one) for one in told.values() if isinstance(one, tuple)), default=0)
        text = given.get(setting, given.get(f"model.{setting}"))
        if isinstance(value, tuple) and text is not None:
            # The preset's may not fit the layers that the weights tell.
            changed["model"][setting] = [part.strip() for part in text.strip("[]()").split(",")]
        elif isinstance(value, tuple) and len(value) != n_layers and len(set(value)) == 1:
            changed["model"][setting] = value[:1] * n_layers
    try:
        settled = TrainingConfig.model_validate(changed)
    except ValidationError as error:
        raise RunError(
            f"the weights are not those of {layout.title}", path=path, found=describe_problem(error)
        ) from error
    before = list_settings(settled)
    settled = override(settled, given)
    own = list_settings(settled)
    for setting in sorted(_OF_TRAINING):
        if own[setting] != before[setting]:
            raise UsageError(
                f"setting {setting}",
                found=own[setting],
                expected="a setting of the model",
                remedy="leave it out: it says what a training takes, and no checkpoint tells that",
            )
    for setting, value in told.items():
        if own[setting] != value:
            raise UsageError(f"setting {setting}", found=own[setting], expected=f"{value}, as the weights tell")
    return settled


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Say of an error on weights in which file they are."""
    try:
        yield
    except RunError as error:
        if error.path is not None:
            raise
        raise RunError(
            error.problem,
            session=error.session,
            path=path,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from error
