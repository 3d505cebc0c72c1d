"""What can be set in a recipe: names, types, values and what they mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from models.config import TrainingConfig, abbreviates, list_settings
from sensorium_data.errors import UnknownNameError

__all__ = ["Setting", "describe_settings", "find_settings"]

_TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


@dataclass(frozen=True)
class Setting:
    """One setting of a preset.

    Attributes
    ----------
    name : str
        Dotted, as ``--set`` takes it.
    type : str
        What its value may be, in words.
    value : object
        What it is in the preset.
    description : str
    """

    name: str
    type: str
    value: object
    description: str


def describe_settings(config: TrainingConfig) -> list[Setting]:
    """Return every setting that can be changed in a preset, in the order in which :func:`list_settings` does."""
    return [_describe(config, name, value) for name, value in list_settings(config).items()]


def find_settings(config: TrainingConfig, text: str) -> list[Setting]:
    """Return the settings of a preset that a text may mean.

    Those of this name; else those whose name it abbreviates or is near to, or whose description has it.

    Raises
    ------
    UnknownNameError
        If there is none.

    Examples
    --------
    >>> from models.registry import get_preset
    >>> [setting.name for setting in find_settings(get_preset("factorized3d"), "lr")]
    ['learning_rate']
    """
    settings = describe_settings(config)
    for found in (
        [one for one in settings if text in (one.name, one.name.rpartition(".")[2])],
        [one for one in settings if abbreviates(text, one.name)],
        [one for one in settings if _is_near(text, one.name) or text.casefold() in one.description.casefold()],
    ):
        if found:
            return found
    raise UnknownNameError(
        "unknown setting", found=repr(text), remedy=f"`sensorium settings {config.name} --json` lists all"
    )


def _is_near(text: str, name: str) -> bool:
    return bool(difflib.get_close_matches(text.casefold(), [name, name.rpartition(".")[2]], cutoff=0.6))


def _describe(config: BaseModel, name: str, value: object) -> Setting:
    *parents, leaf = name.split(".")
    for parent in parents:
        config = getattr(config, parent)
    field = type(config).model_fields[leaf]
    return Setting(name, _describe_type(field.annotation, field.metadata), value, field.description or "")


def _describe_type(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe_type(arguments[0], [*metadata, *arguments[1:]])
    if origin in (Union, UnionType):
        named = [_describe_type(one, metadata) for one in arguments if one is not NoneType]
        return " or ".join([*named, *(["none"] if NoneType in arguments else [])])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (tuple, list):
        parts = [_describe_type(one, []) for one in dict.fromkeys(arguments) if one is not ...]
        return f"list of: {' or '.join(parts)}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(str(one.value) for one in annotation)
    said = _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return ", ".join([said, *_list_bounds(metadata)])


def _list_bounds(metadata: list[Any]) -> Iterator[str]:
    for one in metadata:
        for name, words in _BOUNDS.items():
            bound = getattr(one, name, None)
            if bound is not None:
                yield f"{words} {bound}"
