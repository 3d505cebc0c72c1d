"""A stretch of a file as a file of its own: a member of a zip where it lies, or a whole file."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sensorium_data.errors import SubmissionError, describe_os_error

__all__ = ["FileSection", "describe_magic", "read_magic"]

# What people give by mistake, by its first bytes.
_KINDS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUM": "a NumPy array",
    b"\x1f\x8b": "a gzip file",
    b"\x80\x04": "a Python pickle",
}

_MAGIC_SIZE_BYTES = 4


@dataclass(frozen=True)
class FileSection:
    """Where the bytes of a file lie.

    Attributes
    ----------
    path : Path
        The file that they lie in.
    start : int
        Where they begin.
    size_bytes : int, optional
        How many they are; by default all up to the end.
    """

    path: Path
    start: int = 0
    size_bytes: int | None = None

    def open(self) -> IO[bytes]:
        """Open the section as a seekable file."""
        file = self.path.open("rb")
        if self.size_bytes is None:
            return file
        return io.BufferedReader(_Section(file, self.start, self.size_bytes))


def describe_magic(magic: bytes) -> str:
    """Return what a file is that begins with these bytes, where it is neither a zip nor Parquet."""
    if not magic:
        return "an empty file"
    return next((kind for start, kind in _KINDS.items() if magic.startswith(start)), "other bytes at its start")


def read_magic(path: Path) -> bytes:
    """Return a file's first bytes, which tell what it is.

    Raises
    ------
    SubmissionError
        If it cannot be opened, or is a pipe or a device, which may have no end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise SubmissionError(
                "cannot be opened",
                path=path,
                found="a pipe or a device",
                expected="a file",
                remedy="write it into a file first",
            )
        with path.open("rb") as file:
            return file.read(_MAGIC_SIZE_BYTES)
    except OSError as error:
        raise SubmissionError(
            "cannot be opened",
            path=path,
            found=describe_os_error(error),
            remedy="name zips or Parquet files that exist and may be read",
        ) from error


class _Section(io.RawIOBase):
    """A stretch of an open file as a file of its own, which closes it."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        n_bytes = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(n_bytes)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
