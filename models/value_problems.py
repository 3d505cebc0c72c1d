"""What pydantic refused, in the words of this package: what was found, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sensorium_data.counting import count_things
from sensorium_data.visible_text import make_visible, shorten

__all__ = ["ValueProblem", "describe_problem", "find_problem"]

#: Characters of a value that are shown.
_SHOWN = 60

# What a value should have been, by pydantic's kind of problem.
_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "a whole number"),
        **dict.fromkeys(("float_parsing", "float_type"), "a number"),
        "finite_number": "a finite number",
        **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
        **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
        **dict.fromkeys(
            ("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"),
            "an object with names and values",
        ),
        **dict.fromkeys(("string_type", "string_unicode"), "text"),
        "none_required": "none",
    }
)
# The same where it depends on a bound that pydantic tells beside it.
_BOUNDED: Mapping[str, Callable[[Mapping[str, Any]], str]] = MappingProxyType(
    {
        "greater_than": lambda told: f"a number above {told['gt']}",
        "greater_than_equal": lambda told: f"a number of at least {told['ge']}",
        "less_than": lambda told: f"a number below {told['lt']}",
        "less_than_equal": lambda told: f"a number of at most {told['le']}",
        "multiple_of": lambda told: f"a multiple of {told['multiple_of']}",
        "literal_error": lambda told: str(told["expected"]),
        "enum": lambda told: str(told["expected"]),
        "too_short": lambda told: f"a list of at least {count_things(told['min_length'], 'value')}",
        "too_long": lambda told: f"a list of at most {count_things(told['max_length'], 'value')}",
        "string_too_short": lambda told: f"text of at least {count_things(told['min_length'], 'character')}",
        "string_too_long": lambda told: f"text of at most {count_things(told['max_length'], 'character')}",
        "string_pattern_mismatch": lambda told: f"text of the pattern {told['pattern']}",
    }
)
# A check of a class's own says in its own words what is wrong.
_OWN_WORDS = MappingProxyType({"value_error": "Value error, ", "assertion_error": "Assertion failed, "})


@dataclass(frozen=True)
class ValueProblem:
    """A value that was refused.

    Attributes
    ----------
    where : str
        Its dotted name; empty if it is the whole.
    problem : str
        What is wrong with it, in a clause.
    expected : str
        What it should have been, or the problem again where a check says no more.
    names : tuple of str
        Those that it could have been, if it is one of some names.
    """

    where: str
    problem: str
    expected: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem


def find_problem(error: ValidationError) -> ValueProblem:
    """Return the first thing that pydantic refused."""
    problems = error.errors()
    first = problems[0]
    kind, told, path = first["type"], first.get("ctx", {}), first["loc"]
    where = ".".join(str(part) for part in path)
    if kind in _OWN_WORDS:
        said = make_visible(first["msg"].removeprefix(_OWN_WORDS[kind]))
        return ValueProblem(where, said, said)
    if kind == "missing" and path and isinstance(path[-1], int):
        # A list of some length, each of whose missing values pydantic names alone.
        n_wanted = max(one["loc"][-1] for one in problems if one["type"] == kind and one["loc"][:-1] == path[:-1]) + 1
        problem = f"the value {path[-1] + 1} of {n_wanted} is missing"
        return ValueProblem(".".join(map(str, path[:-1])), problem, f"a list of {count_things(n_wanted, 'value')}")
    if kind == "missing":
        return ValueProblem(where, "missing", "a value")
    if kind == "extra_forbidden":
        return ValueProblem(where, "unknown to this version", "a name that this version knows")
    expected = _describe_expected(first)
    names = tuple(re.findall(r"'([^']+)'", str(told.get("expected", ""))))
    return ValueProblem(where, f"{_show(first['input'])} is not {expected}", expected, names)


def describe_problem(error: ValidationError) -> str:
    """Return the first thing that pydantic refused, in a clause that begins with where it is.

    Examples
    --------
    >>> from pydantic import BaseModel, PositiveInt
    >>> class Record(BaseModel):
    ...     sizes: tuple[PositiveInt, ...]
    >>> for found in ({"sizes": [3, 0]}, {"sizes": "three"}, {}):
    ...     try:
    ...         Record.model_validate(found)
    ...     except ValidationError as error:
    ...         print(describe_problem(error))
    sizes.1: 0 is not a number above 0
    sizes: 'three' is not a list
    sizes: missing
    """
    return str(find_problem(error))


def _describe_expected(problem: ErrorDetails) -> str:
    kind = problem["type"]
    if kind in _BOUNDED:
        return _BOUNDED[kind](problem["ctx"])
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    # Of types that only classes of users have: "Input should be a valid date or datetime, input is too short".
    said = make_visible(problem["msg"]).partition(" should be ")[2].partition(", ")[0]
    return said.replace("a valid ", "a ") or f"what its type takes ({kind.replace('_', ' ')})"


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object with names and values"
    if isinstance(value, list | tuple | set | frozenset):
        return f"a list of {count_things(len(value), 'value')}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return shorten(make_visible(repr(value)), _SHOWN)
