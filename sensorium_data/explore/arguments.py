"""Arguments as users give them: labels, names and numbers, of plain Python, NumPy, xarray or pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sensorium_data.errors import UsageError
from sensorium_data.visible_text import shorten

__all__ = ["parse_flag", "parse_integer", "parse_label", "parse_labels", "parse_names", "parse_number", "show_value"]

_LONGEST_SHOWN = 200


def show_value(value: object) -> str:
    """Return a value as messages show it: text in quotes, and NumPy's scalars as plain numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    return shorten(" ".join(repr(value).split()), _LONGEST_SHOWN)


def parse_label(label: Any, coordinate: str) -> int:
    """Return a trial id or unit id as an integer.

    Parameters
    ----------
    label : int, NumPy scalar or 0-d DataArray
        A whole number; no truth value and no text.
    coordinate : str
        What it labels, ``trial`` or ``neuron``.

    Raises
    ------
    UsageError
        If it is anything else.

    Examples
    --------
    >>> parse_label(np.float64(3.0), "trial")
    3
    """
    number = _as_integer(label)
    if number is None:
        raise UsageError(
            f"no {coordinate} id",
            found=show_value(label),
            expected=f"one whole number from `dataset.{coordinate}`, as 7",
        )
    return number


def parse_labels(labels: Any, coordinate: str) -> list[int]:
    """Return one or several trial ids or unit ids as a list of integers.

    Parameters
    ----------
    labels : iterable of int, DataArray, Index, or int
        Ids, not a mask.
    coordinate : str
        What they label, ``trial`` or ``neuron``.

    Raises
    ------
    UsageError
        If they are a mask, text, a slice or no whole numbers.
    """
    if _as_integer(labels) is not None:
        return [parse_label(labels, coordinate)]
    values = _take_values(labels)
    if isinstance(values, np.ndarray):
        given = values.tolist() if values.ndim == 1 else None
    elif isinstance(values, str | bytes) or not isinstance(values, Iterable):
        given = None
    else:
        given = list(values)
    numbers = None if given is None else [_as_integer(one) for one in given]
    if given is None or numbers is None or any(number is None for number in numbers):
        is_mask = given is not None and any(isinstance(one, bool | np.bool_) for one in given)
        raise UsageError(
            f"no {coordinate} ids",
            found="a mask" if is_mask else show_value(given if given is not None else labels),
            expected=f"whole numbers from `dataset.{coordinate}`, as [3, 7]",
            remedy=f"give `dataset.{coordinate}[mask]`" if is_mask else None,
        )
    return [number for number in numbers if number is not None]


def parse_names(names: Any, what: str) -> list[str]:
    """Return one name or several as a list of text.

    Parameters
    ----------
    names : str, iterable of str, or DataArray of text
        What to parse.
    what : str
        What they name, such as ``tier``.

    Raises
    ------
    UsageError
        If they are no text.
    """
    values = _take_values(names)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str):
        return [str(values)]
    given: list[Any] | None = None
    if isinstance(values, Iterable) and not isinstance(values, bytes | dict):
        given = [one.item() if getattr(one, "ndim", None) == 0 and hasattr(one, "item") else one for one in values]
    if given is None or not all(isinstance(one, str) for one in given):
        raise UsageError(
            f"no name of a {what}",
            found=show_value(values),
            expected="text, or a list of texts",
            remedy=None if what == "session" else f"see `dataset.{what}` for those there are",
        )
    return [str(one) for one in given]


def parse_integer(value: Any, name: str, *, least: int, most: int | None = None) -> int:
    """Return a whole number of at least ``least``; a :class:`UsageError` that names the argument if it is none."""
    number = _as_integer(value)
    if number is None or number < least or (most is not None and number > most):
        expected = f"a whole number of {least} or more" if most is None else f"a whole number from {least} to {most}"
        raise UsageError(f"{name} cannot be this", found=show_value(value), expected=expected)
    return number


def parse_number(value: Any, name: str, *, above: float | None = None) -> float:
    """Return a finite number; a :class:`UsageError` that names the argument if it is none."""
    plain = _unwrap(value)
    is_number = isinstance(plain, int | float) and not isinstance(plain, bool) and bool(np.isfinite(plain))
    if not is_number or (above is not None and not plain > above):
        expected = "a finite number" if above is None else f"a finite number above {above:g}"
        raise UsageError(f"{name} cannot be this", found=show_value(value), expected=expected)
    return float(plain)


def parse_flag(value: Any, name: str) -> bool:
    """Return a truth value; a :class:`UsageError` that names the argument if it is none."""
    plain = _unwrap(value)
    if not isinstance(plain, bool):
        raise UsageError(f"{name} cannot be this", found=show_value(value), expected="True or False")
    return plain


def _unwrap(value: Any) -> Any:
    """Return what a NumPy scalar, a 0-d array or a 0-d DataArray holds."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def _take_values(given: Any) -> Any:
    """Return the array of a DataArray, Series or Index, and anything else as it is: also a dict, which has a method."""
    values = getattr(given, "values", given)
    return given if callable(values) else values


def _as_integer(value: Any) -> int | None:
    plain = _unwrap(value)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        return None
    return int(plain) if isinstance(plain, int) or plain.is_integer() else None
