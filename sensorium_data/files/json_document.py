"""JSON that somebody else may have written."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["describe_damage", "parse_json"]


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return the value that a JSON text stands for.

    Raises
    ------
    ValueError
        If it is no JSON, or so deeply nested that Python cannot parse it. The message says in a clause what was found.

    Examples
    --------
    >>> parse_json('{"a": 1}')
    {'a': 1}
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("bytes that are not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON in line {error.lineno}" if text.strip() else "no content") from None


def describe_damage(error: Exception) -> str:
    """Return a clause on why a JSON document could not be read, from what reading its parts raised.

    Parameters
    ----------
    error : Exception
        A ValueError, as of :func:`parse_json`, a KeyError, a TypeError or an AttributeError.

    Examples
    --------
    >>> describe_damage(KeyError("sessions"))
    'no sessions'
    """
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    if isinstance(error, TypeError | AttributeError):
        return "other values than expected"
    return str(error)
