"""JSON that somebody else may have written."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse_json"]


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return the value that a JSON text stands for.

    Raises
    ------
    ValueError
        If it is no JSON, or so deeply nested that Python cannot parse it.

    Examples
    --------
    >>> parse_json('{"a": 1}')
    {'a': 1}
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
