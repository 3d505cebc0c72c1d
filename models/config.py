"""What to train and how: a preset, and settings changed in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from models.factorized3d.config import Factorized3dConfig
from sensorium_data.errors import UnknownNameError, UsageError

__all__ = ["TrainingConfig", "list_settings", "override"]

# They name what a preset is; another one is got by its own name.
_FIXED = frozenset({"name", "kind"})


class TrainingConfig(BaseModel):
    """A model and the recipe it is trained with.

    The defaults are the recipe of the SENSORIUM 2023 starter kit's benchmarks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="The name of the preset; runs are named after it.")
    model: Factorized3dConfig = Field(description="The model's architecture.")

    n_frames_window: PositiveInt = Field(default=80, description="Frames of a training window.")
    n_windows_per_trial: PositiveInt = Field(
        default=1, description="Windows drawn from each trial in an epoch; validation follows an epoch."
    )
    batch_size: PositiveInt = Field(default=8, description="Windows of one session in a batch.")
    learning_rate: float = Field(default=0.005, gt=0, description="Learning rate of AdamW at first.")
    core_learning_rate_factor: float = Field(
        default=1.0, gt=0, description="What the core's learning rate is multiplied with; the readouts' is not."
    )
    schedule: Literal["plateau", "cosine"] = Field(
        default="plateau",
        description="How the learning rate falls: when the score stops growing, or along half a cosine.",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay of AdamW, on every parameter.")
    max_epochs: PositiveInt = Field(default=200, description="Epochs after which training stops in any case.")
    early_stopping_patience: PositiveInt = Field(
        default=5,
        description="Epochs without a better score after which the best weights are restored (schedule plateau).",
    )
    n_rounds: PositiveInt = Field(
        default=4, description="How often that may happen before training stops (schedule plateau)."
    )
    tolerance: float = Field(default=1e-6, ge=0, description="By how much a score must be better to count as better.")
    plateau_factor: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="What the learning rate is multiplied with on a plateau (schedule plateau).",
    )
    plateau_patience: int = Field(
        default=5,
        ge=0,
        description="Epochs without a better score that are no plateau yet; one more is (schedule plateau).",
    )
    min_learning_rate: float = Field(default=1e-4, ge=0, description="The learning rate never falls below this.")
    seed: int = Field(default=42, ge=0, lt=2**63, description="Seed of the weights, the windows and their order.")
    normalization: Literal["competition"] = Field(
        default="competition", description="Scale of inputs and responses; competition: the archive's own statistics."
    )
    skip_frames: int = Field(
        default=50, ge=0, description="Frames at the start of a trial that validation does not score."
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true", description="Numbers that the model computes with."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto takes a GPU if there is one."
    )
    cache_bytes: int = Field(
        default=2 * 2**30, ge=0, description="Memory for trials read from the store, to be cut into windows again."
    )

    @model_validator(mode="after")
    def _windows_outlast_the_model(self) -> TrainingConfig:
        if self.n_frames_window <= self.model.n_frames_lost:
            raise ValueError(
                f"windows of {self.n_frames_window} frames leave nothing to predict: "
                f"the model loses {self.model.n_frames_lost}"
            )
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
        may stand alone. Several numbers are separated by commas.

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
        fields[leaf] = _split(text) if isinstance(known[setting], tuple) else text.strip()
    try:
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


def _find_setting(name: str, known: Mapping[str, Any]) -> str:
    if name in known:
        return name
    ending = [setting for setting in known if setting.rpartition(".")[2] == name]
    if len(ending) > 1:
        raise UsageError("ambiguous setting", found=repr(name), expected=" or ".join(ending))
    if not ending:
        # Near names are looked for among the short ones too: people type those.
        short = [setting.rpartition(".")[2] for setting in known]
        raise UnknownNameError.of("setting", name, dict.fromkeys([*known, *short]) if "." in name else short)
    return ending[0]


def _split(text: str) -> list[Any]:
    return [part.strip() for part in text.strip().strip("[]()").split(",") if part.strip()]


def _explain(error: ValidationError, given: Mapping[str, str]) -> UsageError:
    """Turn the first thing that pydantic found into one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    setting = next((name for name in given if where == name or where.startswith(f"{name}.")), None)
    if setting is None:
        found = ", ".join(f"{name}={text}" for name, text in given.items())
        return UsageError(problem, found=found, remedy="change other settings with it, or choose another value")
    return UsageError(
        f"setting {setting}", found=repr(given[setting]), expected=problem.removeprefix("Input should be ")
    )
