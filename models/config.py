"""What to train and how: a preset, and settings changed in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from models.kinds import MODEL_KINDS
from models.model_config import ForeignModelConfig, ModelConfig
from models.settings import (
    DataSettings,
    EvaluationSettings,
    LossSettings,
    MachineSettings,
    OptimizerSettings,
    PredictionSettings,
    RankSettings,
    ScheduleSettings,
)
from models.sources import explain_failures, find_loaded
from models.value_problems import ValueProblem, find_problem
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.names import find_name_problem

__all__ = ["TrainingConfig", "abbreviates", "list_settings", "override"]

# They name what a preset is; another one is got by its own name.
_FIXED = frozenset({"name", "kind", "code"})


def _read_model(value: Any, read_any: ValidatorFunctionWrapHandler) -> Any:
    """Read a model's settings as those of its kind; without checks, if its code is not loaded."""
    if not isinstance(value, Mapping):
        return read_any(value)
    kind, code = value.get("kind"), value.get("code")
    config_class: type[ModelConfig]
    if kind in MODEL_KINDS:
        config_class = MODEL_KINDS[kind].find(MODEL_KINDS[kind].config)
    elif code:
        foreign = ForeignModelConfig.model_validate(value)
        loaded = find_loaded(foreign.code)
        if loaded is None or kind not in loaded.classes:
            return foreign
        config_class = loaded.classes[kind].config_class
    else:
        raise ValueError(f"{kind!r} is no model of this version, whose models are {', '.join(MODEL_KINDS)}")
    return config_class.model_validate(value)


class TrainingConfig(
    DataSettings,
    LossSettings,
    OptimizerSettings,
    ScheduleSettings,
    EvaluationSettings,
    PredictionSettings,
    RankSettings,
    MachineSettings,
):
    """A model and the recipe it is trained with.

    The settings are described in :mod:`models.settings`. The defaults are the recipe of the SENSORIUM 2023 starter
    kit's benchmarks.
    """

    name: str = Field(description="The name of the preset; runs are named after it.")
    model: Annotated[SerializeAsAny[ModelConfig], WrapValidator(_read_model)] = Field(
        description="The model's architecture."
    )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        problem = find_name_problem(name) or ("it contains '/'" if "/" in name else None)
        if problem is not None:
            raise ValueError(f"runs cannot be named after {name!r}: {problem}")
        return name

    @model_validator(mode="after")
    def _windows_outlast_the_model(self) -> TrainingConfig:
        if self.n_frames_window <= self.model.n_frames_lost:
            raise ValueError(
                f"windows of {self.n_frames_window} frames leave nothing to predict: "
                f"the model loses {self.model.n_frames_lost}"
            )
        return self

    @model_validator(mode="after")
    def _windows_are_the_models(self) -> TrainingConfig:
        required = self.model.required_window
        if required is None:
            return self
        if self.n_frames_window != required:
            raise ValueError(
                f"windows of {self.n_frames_window} frames do not fit the model, which takes {required}: "
                "n_frames_window and model.n_frames must be equal"
            )
        if self.prediction_windows != "sliding":
            raise ValueError(f"the model takes windows of {required} frames alone: prediction_windows must be sliding")
        return self

    @model_validator(mode="after")
    def _sliding_windows_touch(self) -> TrainingConfig:
        if self.prediction_windows != "sliding":
            return self
        n_spanned = (self.n_frames_window - 1) * self.window_stride + 1
        if self.prediction_hop > n_spanned:
            raise ValueError(
                f"prediction_hop {self.prediction_hop} leaves frames between windows, which span {n_spanned} frames"
            )
        if self.prediction_offset >= n_spanned:
            raise ValueError(
                f"prediction_offset {self.prediction_offset} must be less than a window's span, {n_spanned} frames"
            )
        return self

    @model_validator(mode="after")
    def _score_is_defined(self) -> TrainingConfig:
        if self.score == "reference" and self.normalization == "none":
            raise ValueError("normalization none has no reference: choose score pooled or session_mean")
        return self


def list_settings(config: TrainingConfig) -> dict[str, Any]:
    """Return every setting that :func:`override` can change, by its dotted name, with its value."""
    return dict(_walk(config, ""))


def override(config: TrainingConfig, settings: Mapping[str, str]) -> TrainingConfig:
    """Return a config with some settings changed.

    Parameters
    ----------
    config : TrainingConfig
        Left as it is.
    settings : mapping of str to str
        Values as they are typed on a command line, by dotted name, e.g. ``model.channels``; a name that occurs once
        may stand alone. Several values are separated by commas; ``none`` unsets what may be unset.

    Raises
    ------
    UnknownNameError
        If there is no such setting; the message names the near ones.
    UsageError
        If a value does not fit its setting, the settings do not fit each other, or one is given twice.

    Examples
    --------
    >>> from models.registry import get_preset
    >>> override(get_preset("factorized3d"), {"learning_rate": "0.001", "model.channels": "8,16,16"}).model.channels
    (8, 16, 16)
    """
    known = list_settings(config)
    changed = config.model_dump()
    given: dict[str, str] = {}
    for name, text in settings.items():
        setting = _find_setting(name, known)
        if setting in given:
            raise UsageError(f"setting {setting} is given twice", found=f"{given[setting]!r} and {text!r}")
        given[setting] = text
        *parents, leaf = setting.split(".")
        fields = changed
        for parent in parents:
            fields = fields[parent]
        fields[leaf] = _parse(text, known[setting], is_optional=_is_optional(config, setting))
    try:
        # A model of a user's own may check its settings by code that fails.
        with explain_failures(config.model.kind.rpartition(":")[2], config.model.code):
            return TrainingConfig.model_validate(changed)
    except ValidationError as error:
        raise _explain(error, given) from error


def _walk(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        elif name not in _FIXED:
            yield f"{prefix}{name}", value
    yield from ((f"{prefix}{name}", value) for name, value in (model.model_extra or {}).items())


def _find_setting(name: str, known: Mapping[str, Any]) -> str:
    if name in known:
        return name
    ending = [setting for setting in known if setting.rpartition(".")[2] == name]
    if len(ending) > 1:
        raise UsageError("ambiguous setting", found=repr(name), expected=" or ".join(ending))
    if not ending:
        # Near names are looked for among the short ones too: people type those.
        short = [setting.rpartition(".")[2] for setting in known]
        near = sorted((setting for setting in dict.fromkeys(short) if abbreviates(name, setting)), key=len)
        if near:
            raise UnknownNameError("unknown setting", found=repr(name), remedy=f"did you mean {' or '.join(near[:3])}?")
        raise UnknownNameError.of("setting", name, dict.fromkeys([*known, *short]) if "." in name else short)
    return ending[0]


def abbreviates(text: str, setting: str) -> bool:
    """Whether a text stands for a setting's name: by its initials, or as a part of it.

    Examples
    --------
    >>> abbreviates("lr", "learning_rate"), abbreviates("rate", "learning_rate"), abbreviates("lr", "n_folds")
    (True, True, False)
    """
    text, words = text.casefold(), setting.rpartition(".")[2].split("_")
    return text == "".join(word[:1] for word in words) or (len(text) > 2 and text in "_".join(words))


def _is_optional(config: BaseModel, setting: str) -> bool:
    """Whether a setting may be None."""
    *parents, leaf = setting.split(".")
    for parent in parents:
        config = getattr(config, parent)
    return NoneType in get_args(type(config).model_fields[leaf].annotation)


def _parse(text: str, current: Any, *, is_optional: bool) -> Any:
    text = text.strip()
    if is_optional and text.casefold() == "none":
        return None
    if isinstance(current, tuple | list):
        return [part.strip() for part in text.strip("[]()").split(",") if part.strip()]
    return text


def _explain(error: ValidationError, given: Mapping[str, str]) -> UsageError:
    """Turn the first thing that pydantic found into one line."""
    first = find_problem(error)
    where = first.where
    setting = next((name for name in given if where == name or where.startswith(f"{name}.")), None)
    if setting is None:
        found = ", ".join(f"{name}={text}" for name, text in given.items())
        return UsageError(
            str(first), found=found or None, remedy="change other settings with it, or choose another value"
        )
    return UsageError(
        f"setting {setting}",
        found=repr(given[setting]),
        expected=first.expected,
        remedy=_propose_near(first, given[setting]),
    )


def _propose_near(problem: ValueProblem, text: str) -> str | None:
    """Return the names that ``text`` may have meant, where a setting takes one of some names."""
    near = difflib.get_close_matches(text.strip().casefold(), problem.names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else None
