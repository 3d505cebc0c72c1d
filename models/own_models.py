"""Models that are no part of this package: classes that a user names, and those of installed packages.

Importing this module runs nobody's code; reading a target does.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from models.config import TrainingConfig
from models.kinds import MODEL_KINDS
from models.model_config import ModelConfig
from models.sources import (
    LoadedSources,
    ModelSources,
    Target,
    collect_sources,
    explain_failures,
    find_loaded,
    load_sources,
    loaded_by_module,
    parse_target,
)
from models.value_problems import describe_problem
from sensorium_data.errors import RunError, SensoriumError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from models.response_model import ResponseModel

__all__ = [
    "ENTRY_POINTS",
    "find_entry_points",
    "find_model_class",
    "find_own_preset",
    "load_kept",
    "make_preset",
    "read_entry_point",
    "read_target",
]

#: The group of entry points by which installed packages offer models.
ENTRY_POINTS = "sensorium_pipeline.models"

_RESTORE = "restore the run's config.json, or remove the run and train again"


def read_target(text: str) -> TrainingConfig:
    """Return the preset of what a user names: ``my_model.py:MyModel``, or ``lab.models:MyModel``.

    It is a class derived from :class:`models.response_model.ResponseModel`, whose preset has the recipe that the class
    has, or the default one; any other torch module, which is adapted (:func:`models.adaptation.adapt`); or a function
    that returns a preset.

    Raises
    ------
    UsageError
        If there is no such file or class, its code cannot be imported, or it is no model.
    """
    target = parse_target(text)
    return _read(target, name=target.name)


def read_entry_point(point: EntryPoint) -> TrainingConfig:
    """Return the preset that an installed package offers.

    Raises
    ------
    UsageError
        As :func:`read_target` does.
    """
    name = point.attr
    if not name:
        raise UsageError("the entry point names no class", found=f"{point.name} = {point.value}")
    return _read(Target(f"the entry point {point.name}", point.module, name, ()), name=point.name)


def find_entry_points() -> dict[str, EntryPoint]:
    """Return the entry points by which installed packages offer models, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def make_preset(model: type[nn.Module], /, *, name: str | None = None, **settings: Any) -> TrainingConfig:
    """Return a preset for a model's class.

    What is trained is the class in its file, with what that imports of the user's: they are read anew, and kept in the
    run's folder.

    Parameters
    ----------
    model : type
        Derived from :class:`models.response_model.ResponseModel`, or any torch module's class, which is adapted.
    name : str, optional
        Runs are named after it; by default the class's name.
    **settings
        Of :class:`models.config.TrainingConfig`, to be trained with instead of the class's ``recipe`` and the defaults;
        those of the model as a mapping ``model``.

    Raises
    ------
    UsageError
        If the class is in no file but a script's own or a notebook, or settings do not fit.
    """
    name = name or model.__name__
    for kind, one in MODEL_KINDS.items():
        if model.__module__.startswith(f"{one.folder}.") and model.__name__ == one.model:
            return _make_config(name, {"kind": kind}, settings)
    loaded = loaded_by_module(model.__module__)
    if loaded is not None:
        kind = _kind_within(loaded, model)
    else:
        target = _target_of(model)
        loaded, kind = load_sources(collect_sources(target)), target.kind
    return _make_preset(loaded, kind, name, settings)


def find_own_preset(config: TrainingConfig) -> TrainingConfig | None:
    """Return the preset of the class that a config is of; None for models of this package, or without their code."""
    loaded = find_loaded(config.model.code)
    return None if loaded is None else _make_preset(loaded, config.model.kind, config.name, {})


def find_model_class(config: ModelConfig) -> type[ResponseModel]:
    """Return the class that a model's settings are of.

    Raises
    ------
    RunError
        If its code is not loaded.
    """
    if config.kind in MODEL_KINDS:
        kind = MODEL_KINDS[config.kind]
        built_in: type[ResponseModel] = kind.find(kind.model)
        return built_in
    loaded = find_loaded(config.code)
    if loaded is None:
        raise RunError(
            "the code of the model is not loaded", found=config.kind, remedy="open the run and load its code"
        )
    return _settle(loaded, config.kind)


def load_kept(config: TrainingConfig, sources: ModelSources) -> TrainingConfig:
    """Run the code that a run keeps, and return the run's config with the model's settings as the code has them.

    Raises
    ------
    RunError
        If the code cannot be imported here, or does not take the settings.
    """
    kind = config.model.kind
    module, _, name = kind.partition(":")
    if not name or sources.find_module(module) is None:
        raise RunError(
            "the run names no class of its code",
            found=repr(kind),
            expected=f"MODULE:CLASS, of a module of {', '.join(sources.files)}",
            remedy=_RESTORE,
        )
    try:
        _settle(load_sources(sources), kind)
        with explain_failures(name, config.model.code):
            return TrainingConfig.model_validate(config.model_dump())
    except ValidationError as error:
        raise RunError(
            "the run's settings are not those of its code", found=describe_problem(error), remedy=_RESTORE
        ) from error
    except UnknownNameError as error:
        raise RunError("the run names no class of its code", found=repr(kind), remedy=_RESTORE) from error
    except UsageError as error:
        raise RunError(
            "the code of the run cannot be loaded here",
            path=error.path,
            found=error.found if error.found is not None else error.problem,
            remedy="install the packages that the run's environment.json names"
            if isinstance(error.__cause__, ImportError)
            else "use the versions that the run's environment.json names, or train again",
        ) from error


def _read(target: Target, *, name: str) -> TrainingConfig:
    loaded = load_sources(collect_sources(target))
    found = loaded.find(target.kind)
    if isinstance(found, TrainingConfig):
        return found
    if inspect.isfunction(found):
        try:
            preset = found()
        except (SensoriumError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise UsageError(
                f"{target.name} is a function, and returns no preset",
                path=_path_of(loaded, target.module),
                found=f"{type(error).__name__}: {error}",
                expected="a function without arguments that returns models.make_preset(…)",
            ) from error
        if isinstance(preset, TrainingConfig):
            return preset
        found = preset
    return _make_preset(loaded, target.kind, name, {}, found)


def _make_preset(
    loaded: LoadedSources, kind: str, name: str, settings: Mapping[str, Any], found: object = None
) -> TrainingConfig:
    model_class = _settle(loaded, kind, found)
    recipe = _require_recipe(model_class, kind, _path_of(loaded, kind.partition(":")[0]))
    own = {**recipe, **settings}
    own["model"] = {**recipe.get("model", {}), **settings.get("model", {})}
    identity = {"kind": kind, "code": loaded.sources.digests}
    try:
        return _make_config(name, identity, own)
    except UsageError as error:
        raise UsageError(
            error.problem, path=_path_of(loaded, kind.partition(":")[0]), found=error.found, expected=error.expected
        ) from error


def _require_recipe(model_class: type[ResponseModel], kind: str, path: str) -> Mapping[str, Any]:
    """Return a class's recipe, once it is known to be settings by name, those of the model by name too."""
    recipe: object = model_class.recipe
    of_model = recipe.get("model", {}) if isinstance(recipe, Mapping) else {}
    if isinstance(recipe, Mapping) and isinstance(of_model, Mapping) and all(isinstance(name, str) for name in recipe):
        return recipe
    raise UsageError(
        f"the recipe of {kind.partition(':')[2]} cannot be used",
        path=path,
        found=f"{recipe!r}" if isinstance(recipe, Mapping) else f"a {type(recipe).__name__}",
        expected='settings by name, e.g. {"batch_size": 8, "model": {"channels": 4}}, as an attribute of the class',
    )


def _make_config(name: str, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> TrainingConfig:
    try:
        with explain_failures(name, identity.get("code", {})):
            config = TrainingConfig.model_validate(
                {**settings, "name": name, "model": {**settings.get("model", {}), **identity}}
            )
            # Defaults are looked at when they are given.
            TrainingConfig.model_validate(config.model_dump())
    except ValidationError as error:
        raise UsageError(f"the recipe of {name} cannot be used", found=describe_problem(error)) from error
    try:
        config.model_dump_json()
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise UsageError(
            f"a setting of {name} cannot be written down",
            found=str(error).splitlines()[0],
            expected="numbers, texts, true or false, or tuples of these",
        ) from error
    return config


def _settle(loaded: LoadedSources, kind: str, found: object = None) -> type[ResponseModel]:
    """Return the model's class that a name leads to, once it is known to be one."""
    if kind not in loaded.classes:
        found = loaded.find(kind) if found is None else found
        loaded.classes[kind] = _require_model(found, kind, _path_of(loaded, kind.partition(":")[0]))
    settled: type[ResponseModel] = loaded.classes[kind]
    return settled


def _require_model(found: object, kind: str, path: str) -> type[ResponseModel]:
    from torch import nn

    from models.adaptation import adapt
    from models.response_model import ResponseModel

    name = kind.partition(":")[2]
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = (
            "a class derived from " + ", ".join(base.__name__ for base in found.__bases__)
            if isinstance(found, type)
            else f"a {type(found).__name__}"
        )
        raise UsageError(
            f"{name} is no model",
            path=path,
            found=what,
            expected="a class derived from models.ResponseModel or torch.nn.Module, or a function that returns "
            "models.make_preset(…)",
            remedy=f"name the class {type(found).__name__}" if isinstance(found, nn.Module) else None,
        )
    if not issubclass(found, ResponseModel):
        if found.forward is nn.Module.forward:
            raise UsageError(f"{name} is no complete model", path=path, found="no forward", expected="a method forward")
        return adapt(found)
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise UsageError(
            f"{name} is no complete model",
            path=path,
            found=f"no {', '.join(missing)}",
            expected=f"a method {', '.join(missing)} as {'CoreModel' if 'make_core' in missing else 'ResponseModel'} "
            "describes it",
        )
    config_class = found.config_class
    if not (isinstance(config_class, type) and issubclass(config_class, ModelConfig)):
        raise UsageError(
            f"the config_class of {name} is no form of settings",
            path=path,
            found=repr(config_class),
            expected="a class derived from models.ModelConfig",
        )
    without = [one for one, field in config_class.model_fields.items() if field.is_required()]
    if without:
        raise UsageError(
            f"a setting of {name} has no default", path=path, found=", ".join(without), expected="a default for each"
        )
    try:
        defaults = config_class()
    except Exception as error:
        # A validator of its own may raise anything.
        problem = describe_problem(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"the settings of {name} do not take their own defaults", path=path, found=problem) from error
    try:
        inspect.signature(found).bind(defaults, {}, n_input_channels=3)
    except TypeError as error:
        raise UsageError(
            f"{name} cannot be made as models are",
            path=path,
            found=f"{name}{inspect.signature(found)}: {error}",
            expected=f"{name}(config, neurons, *, n_input_channels)",
        ) from error
    return found


def _kind_within(loaded: LoadedSources, model: type) -> str:
    """Return ``module:name`` of a class that was defined while sources were imported."""
    kind = loaded.kind_of(model)
    module = sys.modules[model.__module__]
    # An adapted class is called like what it was made of.
    names = [model.__qualname__, *(name for name, value in vars(module).items() if value is model)]
    for name in names:
        if getattr(module, name, None) is model:
            return f"{kind.partition(':')[0]}:{name}"
    raise UsageError(
        "a model's class has to be found by its name",
        found=kind,
        expected="a class that its module defines, outside of functions",
    )


def _target_of(model: type) -> Target:
    """Return how a class that was imported in the usual way would be named."""
    module = sys.modules.get(model.__module__)
    file = getattr(module, "__file__", None)
    if model.__module__ == "__main__" or file is None or "." in model.__qualname__:
        is_script = file is None or model.__module__ == "__main__"
        raise UsageError(
            "the code of this model cannot be kept with a run",
            found=f"{model.__qualname__} of {'the script or notebook itself' if is_script else file}",
            expected="a class at the top of a file that can be imported",
            remedy="put it into a file of its own, and import it from there",
        )
    names = [name for name, value in vars(module).items() if value is model]
    path = Path(file)
    depth = model.__module__.count(".") + (path.name == "__init__.py")
    return Target(model.__module__, model.__module__, (names or [model.__name__])[0], (path.parents[depth],))


def _path_of(loaded: LoadedSources, module: str) -> str:
    found = loaded.sources.find_module(module)
    path = (found[0] if found is not None else None) or module
    return loaded.sources.origins.get(path, path)
