"""Whatever pydantic refuses is told in this package's words: what was found, and what was expected."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, create_model, field_validator

from models.value_problems import describe_problem, find_problem


class Pace(enum.Enum):
    SLOW = "slow"
    FAST = "fast"


def refuse(annotation: Any, value: Any) -> ValidationError:
    """What pydantic says of a value of this type."""
    with pytest.raises(ValidationError) as refused:
        create_model("Record", size=(annotation, ...)).model_validate({"size": value})
    return refused.value


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "many", "size: 'many' is not a whole number"),
        (int, 1.5, "size: 1.5 is not a whole number"),
        (float, None, "size: none is not a number"),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "size: nan is not a finite number"),
        (bool, "maybe", "size: 'maybe' is not true or false"),
        (str, True, "size: true is not text"),
        (PositiveInt, 0, "size: 0 is not a number above 0"),
        (Annotated[int, Field(ge=2)], 1, "size: 1 is not a number of at least 2"),
        (Annotated[float, Field(lt=1)], 1.0, "size: 1.0 is not a number below 1.0"),
        (Annotated[int, Field(le=9)], 10, "size: 10 is not a number of at most 9"),
        (Annotated[int, Field(multiple_of=8)], 12, "size: 12 is not a multiple of 8"),
        (Literal["a", "b"], "c", "size: 'c' is not 'a' or 'b'"),
        (Pace, "idle", "size: 'idle' is not 'slow' or 'fast'"),
        (tuple[int, ...], 3, "size: 3 is not a list"),
        (tuple[int, ...], [1, "x"], "size.1: 'x' is not a whole number"),
        (tuple[float, float], [0.9], "size: the value 2 of 2 is missing"),
        (tuple[float, float], [1, 2, 3], "size: a list of 3 values is not a list of at most 2 values"),
        (Annotated[tuple[int, ...], Field(min_length=1)], [], "size: an empty list is not a list of at least 1 value"),
        (Annotated[str, Field(min_length=2)], "a", "size: 'a' is not text of at least 2 characters"),
        (Annotated[str, Field(max_length=2)], "abc", "size: 'abc' is not text of at most 2 characters"),
        (Annotated[str, Field(pattern="^a+$")], "b", "size: 'b' is not text of the pattern ^a+$"),
        (dict[str, int], [1], "size: a list of 1 value is not an object with names and values"),
        (int, {"a": 1}, "size: an object with names and values is not a whole number"),
        (datetime.date, "soon", "size: 'soon' is not a date or datetime"),
        (int, "x" * 99, f"size: '{'x' * 59}… (101 characters) is not a whole number"),
        (int, "\x1b[2J", "size: '\\x1b[2J' is not a whole number"),
    ],
)
def test_a_refused_value_is_told_with_what_was_expected(annotation, value, message):
    assert describe_problem(refuse(annotation, value)).startswith(message)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "size: missing"),
        ({"size": 1, "hue": 2}, "hue: unknown to this version"),
        ({"size": 13}, "size: 13 brings bad luck"),
        ([1], "a list of 1 value is not an object with names and values"),
    ],
)
def test_names_and_own_checks_are_told(record, message):
    class Record(BaseModel):
        model_config = ConfigDict(extra="forbid")

        size: int

        @field_validator("size")
        @classmethod
        def _check(cls, size: int) -> int:
            if size == 13:
                raise ValueError("13 brings bad luck")
            return size

    with pytest.raises(ValidationError) as refused:
        Record.model_validate(record)
    assert describe_problem(refused.value) == message


def test_the_names_that_a_value_may_have_are_known():
    assert find_problem(refuse(Literal["auto", "cpu"], "gpu")).names == ("auto", "cpu")


def test_a_list_that_is_too_short_says_how_many_it_takes():
    assert find_problem(refuse(tuple[float, float], [])).expected == "a list of 2 values"
