"""Files that are files: a named pipe would be waited for, a device need not end, and a link leads elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

from sensorium_data.errors import describe_broken_link

__all__ = [
    "IrregularFileError",
    "OversizeError",
    "describe_kind",
    "open_appending",
    "open_regular",
    "read_bounded",
    "read_regular",
    "read_regular_into",
    "refuse_broken_link",
]


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


class OversizeError(OSError):
    """A file has more bytes than are read of it.

    Attributes
    ----------
    n_read : int
        How many it has at least.
    """

    def __init__(self, path: str | os.PathLike[str], n_read: int) -> None:
        super().__init__(errno.EFBIG, f"more than {n_read - 1:,} bytes", os.fspath(path))
        self.n_read = n_read


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a file for reading, and return its descriptor.

    Raises
    ------
    IrregularFileError
        If there is a folder, a named pipe, a device or the like, or a link that leads to nothing.
    OSError
        If it cannot be opened.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        refuse_broken_link(path, error)
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise IrregularFileError(path, describe_kind(mode))
    return descriptor


def refuse_broken_link(path: str | os.PathLike[str], error: OSError) -> None:
    """Raise an :class:`IrregularFileError` if a file could not be had because a link leads to itself or to nothing.

    The link may be the file's own name or a folder on the way to it.

    Parameters
    ----------
    path : path
        The file.
    error : OSError
        Why it could not be had. Where a link leads to nothing, it says that there is no such file.
    """
    if error.errno not in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
        return
    link = describe_broken_link(path)
    if link is not None:
        raise IrregularFileError(path, link) from error


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes; raises what :func:`open_regular` raises."""
    with open(open_regular(path), "rb", buffering=0) as file:
        return file.readall()


def read_bounded(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Return the bytes of a file that somebody else wrote, of which there must not be too many.

    Raises
    ------
    OversizeError
        If it has more bytes than these. No more than one of them is read, also where it grows meanwhile.
    OSError
        As :func:`open_regular` raises it.
    """
    with open(open_regular(path), "rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OversizeError(path, len(data))
    return data


def read_regular_into(path: Path, target: memoryview) -> int:
    """Fill ``target`` with a file's first bytes, and return how many; raises what :func:`open_regular` raises."""
    with open(open_regular(path), "rb", buffering=0) as file:
        n_read = 0
        while n_new := file.readinto(target[n_read:]):
            n_read += n_new
        return n_read


def open_appending(path: str | os.PathLike[str]) -> IO[str]:
    """Open a file of text for appending, and make it if it is not there; an OSError if it is a link."""
    flags = os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0
    return open(path, "a", encoding="utf-8", opener=lambda name, mode: os.open(name, mode | flags, 0o666))


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
