"""The columns of a predictions file: what each has to be of, and the check of a file's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from sensorium_data.frames import COLUMNS

__all__ = ["COLUMN_TYPES", "check_columns"]


@dataclass(frozen=True)
class ColumnType:
    """What a column may be of: a test, and the same in words."""

    accepts: Callable[[pa.DataType], bool]
    description: str


def check_columns(schema: pa.Schema, violate: Callable[..., Any]) -> dict[str, bool]:
    """Check a file's columns.

    Parameters
    ----------
    schema : pyarrow.Schema
        The file's.
    violate : callable
        Takes what is wrong, and its parts, as :meth:`Findings.violate` does.

    Returns
    -------
    dict of str to bool
        Whether each of the submission's columns that is there is of the right type.
    """
    for name in dict.fromkeys(schema.names):
        if name not in COLUMN_TYPES:
            remedy = "write it with index=False" if name.startswith("__index_level") else "leave it out"
            violate("a column too many", found=repr(name), expected=", ".join(COLUMNS), remedy=remedy)
    present = {}
    for name, column_type in COLUMN_TYPES.items():
        types = [field.type for field in schema if field.name == name]
        if not types:
            violate("a column is missing", expected=repr(name), remedy="add it")
            continue
        if len(types) > 1:
            violate("a column is there twice", found=repr(name), remedy="keep one")
        present[name] = column_type.accepts(types[0])
        if not present[name]:
            violate(
                f"column {name!r} is of the wrong type",
                found=_describe_type(types[0]),
                expected=column_type.description,
                remedy="convert it",
            )
    return present


def _describe_type(type_: pa.DataType) -> str:
    """Return a type's name without those of nested fields, which depend on who wrote them."""
    return re.sub(r"(element|item): ", "", str(type_))


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _is_integer(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_))


def _is_list_of(is_element: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def accepts(type_: pa.DataType) -> bool:
        is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
        return bool(is_list) and is_element(type_.value_type)

    return accepts


#: What each column has to be of.
COLUMN_TYPES: Mapping[str, ColumnType] = MappingProxyType(
    {
        "mouse": ColumnType(_is_text, "string, the session's full name"),
        "trial_indices": ColumnType(lambda t: _is_integer(t) or _is_text(t), "integer, or string like '1.npy'"),
        "prediction": ColumnType(
            # Half precision came to Parquet after the server's software.
            _is_list_of(_is_list_of(lambda t: t in (pa.float32(), pa.float64()))),
            "list of lists of floats",
        ),
        "neuron_ids": ColumnType(_is_list_of(_is_integer), "list of integers"),
    }
)
