"""Reading files that are files: a named pipe would be waited for, and a device need not end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["IrregularFileError", "describe_kind", "open_regular", "read_regular", "read_regular_into"]


class IrregularFileError(OSError):
    """There is something else than a file.

    Attributes
    ----------
    kind : str
        What there is, in words.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        super().__init__(errno.EINVAL, f"{kind}, not a file", os.fspath(path))
        self.kind = kind


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a file for reading, and return its descriptor.

    Raises
    ------
    IrregularFileError
        If there is a folder, a named pipe, a device or the like.
    OSError
        If it cannot be opened.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise IrregularFileError(path, describe_kind(mode))
    return descriptor


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes; raises what :func:`open_regular` raises."""
    with open(open_regular(path), "rb", buffering=0) as file:
        return file.readall()


def read_regular_into(path: Path, target: memoryview) -> int:
    """Fill ``target`` with a file's first bytes, and return how many; raises what :func:`open_regular` raises."""
    with open(open_regular(path), "rb", buffering=0) as file:
        n_read = 0
        while n_new := file.readinto(target[n_read:]):
            n_read += n_new
        return n_read


def describe_kind(mode: int) -> str:
    """Return in words what has this mode, for an error's ``found``."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFLNK: "a link",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
