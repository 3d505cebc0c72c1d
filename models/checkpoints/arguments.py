"""The arguments of a training, in a YAML file beside its checkpoint: those that are one value.

Lists and mappings, such as the indices of all neurons, are passed over and never built, and nothing is made of tags or
anchors: what is read of a hostile file takes no more memory than the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from sensorium_data.errors import RunError, describe_os_error
from sensorium_data.files import OversizeError, digest_bytes, read_bounded
from sensorium_data.limits import MAX_CHECKPOINT_ARGUMENTS_SIZE_BYTES

__all__ = ["Argument", "ArgumentsFile", "find_arguments", "read_arguments"]

Argument: TypeAlias = str | int | float | bool | None

_CONSTANTS: dict[str, Argument] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
#: No argument that is looked for is longer.
_LONGEST = 1_000
_EXPECTED = "names and values, as the training's code wrote them"


@dataclass(frozen=True)
class ArgumentsFile:
    """A file of arguments.

    Attributes
    ----------
    path : Path
    sha256 : str
        Digest of the file.
    size_bytes : int
    values : dict of str to str, int, float, bool or None
        Those that are one value, by name.
    """

    path: Path
    sha256: str
    size_bytes: int
    values: dict[str, Argument]


def find_arguments(checkpoint: Path, name: str) -> Path | None:
    """Return the file of this name beside a checkpoint or, if that is in a folder ``ckpt``, beside this folder."""
    folders = [checkpoint.parent]
    if checkpoint.absolute().parent.name == "ckpt":
        folders.append(checkpoint.absolute().parent.parent)
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def read_arguments(path: Path) -> ArgumentsFile:
    """Read a file of arguments.

    Raises
    ------
    RunError
        If the file is missing, too large, no YAML, or no mapping, or if it has a name twice, aliases or objects.
    """
    limit = MAX_CHECKPOINT_ARGUMENTS_SIZE_BYTES
    try:
        data = read_bounded(path, limit)
    except OversizeError as error:
        raise RunError(
            "the arguments are too large",
            path=path,
            found=f"more than {limit / 1e6:.0f} MB",
            remedy="give the args.yaml of the training",
        ) from error
    except OSError as error:
        raise RunError(
            "the arguments cannot be read",
            path=path,
            found=describe_os_error(error),
            remedy="give the args.yaml of the training",
        ) from error
    try:
        values = _parse(data.decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RunError(
            "the arguments are damaged, or none",
            path=path,
            found=_describe(error),
            expected=_EXPECTED,
            remedy="give the args.yaml of the training",
        ) from error
    return ArgumentsFile(path, digest_bytes(data), len(data), values)


def _parse(text: str) -> dict[str, Argument]:
    """Return the scalars of a document's mapping."""
    values: dict[str, Argument] = {}
    depth, name, loader = 0, None, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError("an alias, or an anchor for one")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!" and not tag.startswith("tag:yaml.org,2002:"):
            raise ValueError(f"an object, {tag[:60]}")
        if tag is not None and tag.startswith("tag:yaml.org,2002:python"):
            raise ValueError(f"an object, {tag[:60]}")
        if isinstance(event, yaml.DocumentStartEvent) and values:
            raise ValueError("several documents")
        if isinstance(event, yaml.CollectionStartEvent):
            if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("a list")
            if depth == 1:
                if name is None:
                    raise ValueError("a name that is a list")
                name = None
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and depth == 0:
            raise ValueError("a single value")
        elif isinstance(event, yaml.ScalarEvent) and depth == 1:
            if name is None:
                name = event.value
            else:
                if name in values:
                    raise ValueError(f"{name[:60]} twice")
                if len(event.value) <= _LONGEST:
                    values[name] = _convert(event.value) if event.implicit[0] else event.value
                name = None
    return values


def _describe(error: Exception) -> str:
    """Return a clause on why a text is no mapping."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"no YAML from line {error.problem_mark.line + 1} on"
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are not text in UTF-8"
    if isinstance(error, yaml.YAMLError | RecursionError):
        # The characters that YAML does not take have no line.
        return "no YAML: it is nested too deeply, or has characters that are none"
    return str(error)


def _convert(text: str) -> Argument:
    """Return the value of a plain scalar: YAML 1.2's numbers, which ``1e-08`` is one of."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text
