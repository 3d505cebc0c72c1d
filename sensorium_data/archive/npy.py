"""The array in the bytes of a ``.npy`` file: checked, and never unpickled."""

from __future__ import annotations

import io
import threading
import tokenize
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

__all__ = ["HEAD_SIZE_BYTES", "NpyError", "NpyObjectsError", "parse_npy", "parse_npy_header"]

#: As much of a file holds the header of any array of a session, unless somebody padded it.
HEAD_SIZE_BYTES = 1 << 12

# Python 3.11 counts the depth of all threads' syntax trees in one place, and numpy parses headers as Python
# literals: two threads at once can end in a SystemError.
_HEADER_LOCK = threading.Lock()


class NpyError(Exception):
    """Why bytes are no array: problem, found, expected."""


class NpyObjectsError(NpyError):
    """The array holds Python objects, which only unpickling could read."""


def parse_npy(content: bytes | bytearray) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the array, a read-only view of ``content``; a :class:`NpyError` if there is none."""
    shape, is_fortran, dtype, start = _read_header(content)
    size_bytes = dtype.itemsize
    for n in shape:
        size_bytes *= n
    payload = memoryview(content).toreadonly()[start:]
    if len(payload) != size_bytes:
        raise NpyError(
            "the array has another size than its header says",
            f"{len(payload)} bytes",
            f"{size_bytes} bytes for shape {shape} of {dtype}",
        )
    return np.ndarray(shape, dtype, payload, order="F" if is_fortran else "C")


def parse_npy_header(content: bytes | bytearray) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the dtype of an array from the start of its file; a :class:`NpyError` if there is none.

    Parameters
    ----------
    content : bytes
        The first :data:`HEAD_SIZE_BYTES` of the file, or more.
    """
    shape, _, dtype, _ = _read_header(content)
    return shape, dtype


def _describe_start(content: bytes | bytearray) -> str:
    """Return what the first bytes of a file are that numpy cannot read."""
    if not content:
        return "an empty file"
    if content.startswith(npy_format.MAGIC_PREFIX):
        return "a header that is cut short or damaged"
    return "other bytes at its start"


def _read_header(content: bytes | bytearray) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether the order is Fortran's, dtype, and where the values start."""
    # The header is at most 64 KiB in the versions numpy writes for plain dtypes; only that much is copied.
    head = io.BytesIO(content[: 1 << 17])
    try:
        with _HEADER_LOCK:
            version = npy_format.read_magic(head)
            if version == (1, 0):
                shape, is_fortran, dtype = npy_format.read_array_header_1_0(head)
            elif version == (2, 0):
                shape, is_fortran, dtype = npy_format.read_array_header_2_0(head)
            else:
                raise NpyError("the member is of another .npy version", version, "(1, 0) or (2, 0)")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise NpyError("the member is not a .npy array", _describe_start(content), "a .npy file") from error
    if dtype.hasobject:
        raise NpyObjectsError(
            "the array holds Python objects, which are never unpickled", f"dtype {dtype}", "numbers or text"
        )
    # Python takes True for 1, and numpy makes no array of it.
    if any(type(n) is not int or n < 0 for n in shape):
        raise NpyError("the array's shape is impossible", shape, "lengths of 0 or more")
    return shape, is_fortran, dtype, head.tell()
