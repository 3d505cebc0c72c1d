"""NumPy's numbers in a pickle, read as Python's.

Training loops save scores that NumPy computed beside the weights. What stands for such a number in a pickle are two
names of NumPy: ``dtype`` and ``scalar``. They are read by the functions here, which know numbers alone; NumPy itself is
not called.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

__all__ = ["list_scalar_readers"]

#: By NumPy's code of a type, that of :mod:`struct`.
_FORMATS = {"f2": "e", "f4": "f", "f8": "d", "i4": "i", "i8": "q", "u1": "B", "b1": "?"}


class _ScalarType:
    """The type of a number, as ``numpy.dtype`` is pickled."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _FORMATS:
            raise ValueError("a NumPy type that is none of a number")
        self.code = code
        self.byte_order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.byte_order = ">"


def _read_scalar(kind: object, data: object = b"") -> Any:
    if not isinstance(kind, _ScalarType) or not isinstance(data, bytes):
        raise ValueError("a NumPy value that is no number")
    form = kind.byte_order + _FORMATS[kind.code]
    if len(data) != struct.calcsize(form):
        raise ValueError("a NumPy number of another length than its type has")
    return struct.unpack(form, data)[0]


def _named(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that torch knows by another one's name."""

    def reader(*arguments: object) -> Any:
        return function(*arguments)

    reader.__module__, reader.__qualname__ = module, name
    return reader


def list_scalar_readers() -> list[Any]:
    """Return what :func:`torch.serialization.safe_globals` takes, so that NumPy's numbers are read."""
    kind = type("dtype", (_ScalarType,), {"__module__": "numpy", "__qualname__": "dtype"})
    # Its old and its new place in NumPy.
    return [kind, *(_named(f"numpy.{core}.multiarray", "scalar", _read_scalar) for core in ("core", "_core"))]
