"""Weights of a file and of a model: compared by name and shape, all of them or none."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from models.checkpoints.weight_name import WeightName
from sensorium_data.errors import RunError

__all__ = ["compare_constants", "convert_weights", "require_names"]

_MOST_NAMED = 3
# Names of a file that are compared with one that it lacks.
_MOST_COMPARED = 1000
# Constants are computed in float64 and rounded; the order of the sums differs between libraries.
_TOLERANCE = 1e-5


def require_names(
    state: Mapping[str, torch.Tensor],
    wanted: Iterable[WeightName],
    is_constant: Callable[[str], bool],
    *,
    title: str,
    path: Path,
) -> None:
    """Check that a file has all weights of a model, and no other.

    Parameters
    ----------
    state : mapping of str to Tensor
        The file's.
    wanted : iterable of WeightName
        The model's.
    is_constant : callable
        Tells of a name whether it may be there beside them.
    title : str
        What the model is called.
    path : Path
        The file.

    Raises
    ------
    RunError
        The message has the names of missing and extra weights, with near names among those of the file.
    """
    wanted = list(wanted)
    known = {weight.file_name for weight in wanted}
    missing = [weight.file_name for weight in wanted if not (weight.is_optional or weight.file_name in state)]
    extra = [name for name in state if name not in known and not is_constant(name)]
    if missing or extra:
        near = [_with_near(name, extra[:_MOST_COMPARED]) for name in missing[:_MOST_NAMED]]
        parts = [_summarize("missing", near + missing[_MOST_NAMED:])] if missing else []
        parts += [_summarize("extra", extra)] if extra else []
        raise RunError(
            f"not the weights of {title}",
            path=path,
            found="; ".join(parts),
            expected="all weights of the model and no other",
        )


def convert_weights(
    state: Mapping[str, torch.Tensor],
    wanted: Iterable[WeightName],
    model: Mapping[str, torch.Tensor],
    *,
    title: str,
    path: Path,
) -> dict[str, torch.Tensor]:
    """Return a file's weights under the names and in the shapes of a model.

    Parameters
    ----------
    state, wanted, title, path
        As in :func:`require_names`, whose check they have passed.
    model : mapping of str to Tensor
        The ``state_dict`` of a model with the settings that the file tells, for its shapes and dtypes.

    Raises
    ------
    RunError
        If a weight has another shape or dtype than the model's, or is not finite; the message names them.
    """
    weights, misshapen, mistyped, infinite = {}, [], [], []
    for weight in wanted:
        own = model[weight.name]
        if weight.file_name not in state:
            weights[weight.name] = torch.zeros(own.shape, dtype=own.dtype)
            continue
        value, expected = state[weight.file_name], weight.file_shape(own.shape)
        if tuple(value.shape) != expected:
            misshapen.append(f"{weight.file_name} {_show(value.shape)} instead of {_show(expected)}")
        elif value.dtype != own.dtype:
            mistyped.append(f"{weight.file_name} {_name_type(value.dtype)} instead of {_name_type(own.dtype)}")
        elif not bool(torch.isfinite(value).all()):
            infinite.append(weight.file_name)
        else:
            weights[weight.name] = weight.from_file(value)
    problems = {"misshapen": misshapen, "of another dtype": mistyped, "with NaN or infinity": infinite}
    if any(problems.values()):
        raise RunError(
            f"the weights are not those of one model ({title})",
            path=path,
            found="; ".join(_summarize(what, names) for what, names in problems.items() if names),
            expected="finite weights whose sizes fit each other, and the model's types of numbers",
            remedy="save model.float().state_dict()" if mistyped and not misshapen else None,
        )
    return weights


def compare_constants(
    state: Mapping[str, torch.Tensor],
    constants: Mapping[str, torch.Tensor],
    is_constant: Callable[[str], bool],
    *,
    title: str,
    path: Path,
) -> dict[str, torch.Tensor]:
    """Check that a file's constants are those that follow from the settings.

    Parameters
    ----------
    state, is_constant, title, path
        As in :func:`require_names`.
    constants : mapping of str to Tensor
        Those that follow from the settings.

    Returns
    -------
    dict of str to Tensor
        The file's, as far as they differ from these by rounding.

    Raises
    ------
    RunError
        If one has another shape or differs by more than rounding, or there is no such constant.
    """
    own: dict[str, torch.Tensor] = {}
    for name in filter(is_constant, state):
        value, expected = state[name], constants.get(name)
        fits = expected is not None and value.shape == expected.shape and value.dtype == expected.dtype
        if expected is None or not fits or not torch.allclose(value, expected, rtol=0, atol=_TOLERANCE):
            raise RunError(
                f"the constant {name} is not that of {title}",
                path=path,
                found=f"{_show(value.shape)} {_name_type(value.dtype)}" if not fits else "other values",
                expected="no such constant"
                if expected is None
                else f"{_show(expected.shape)} {_name_type(expected.dtype)}, known values",
                remedy="save the model with the version of the software that its authors used"
                if expected is None or value.dtype == expected.dtype
                else "save model.float().state_dict()",
            )
        if not torch.equal(value, expected):
            own[name] = value
    return own


def _with_near(name: str, extra: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, extra, n=1, cutoff=0.85)
    return f"{name}, near {near[0]}" if near else name


def _summarize(what: str, names: Sequence[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:_MOST_NAMED])}{', …' if len(names) > _MOST_NAMED else ''})"


def _show(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _name_type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
