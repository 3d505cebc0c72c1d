"""How much each of several sources counts in their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError

__all__ = ["choose_weights", "parse_weights"]


def choose_weights(weights: Sequence[float] | None, n_sources: int, *, of: str) -> tuple[float, ...]:
    """Return the weights of a mean: those that were given, or equal ones.

    Parameters
    ----------
    weights : sequence of float, optional
        One for each source, positive, of any sum.
    n_sources : int
        How many sources there are.
    of : str
        What they are, for messages: ``"predictions"``, ``"runs"``.

    Raises
    ------
    UsageError
        If their number is another, or one is not a positive number.

    Examples
    --------
    >>> choose_weights(None, 3, of="runs"), choose_weights([1, 2], 2, of="runs")
    ((1.0, 1.0, 1.0), (1.0, 2.0))
    """
    given = (1.0,) * n_sources if weights is None else tuple(float(weight) for weight in weights)
    are_positive = len(given) == n_sources and all(math.isfinite(weight) and weight > 0 for weight in given)
    # Where the sum is too large for a double, or a weight too small beside it, a share would be 0.
    if not are_positive or not all(weight / sum(given) for weight in given):
        raise UsageError(
            f"the weights do not fit the {of}",
            found=", ".join(f"{weight:g}" for weight in given) or "none",
            expected=f"{count_things(n_sources, 'positive number')}{' of comparable size' if are_positive else ''}",
            remedy=f"give one weight for each of the {of}, e.g. --weights {_example(n_sources)}",
        )
    return given


def parse_weights(text: str | None, n_sources: int) -> list[float] | None:
    """Return the weights that a command line gives as ``1,2``; None where it gives none.

    Parameters
    ----------
    text : str, optional
        What is given.
    n_sources : int
        How many sources there are, for the example in the error.

    Raises
    ------
    UsageError
        If they are no numbers.
    """
    if text is None:
        return None
    try:
        return [float(weight) for weight in text.split(",")]
    except ValueError:
        raise UsageError(
            "--weights",
            found=repr(text),
            expected="a number" if n_sources == 1 else "numbers with commas between them",
            remedy=f"e.g. --weights {_example(n_sources)}",
        ) from None


def _example(n_sources: int) -> str:
    return ",".join(str(weight) for weight in range(1, n_sources + 1))
