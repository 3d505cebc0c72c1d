"""Members of a zip as seekable files, never unpacked under a name that the zip chooses."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from sensorium_data.errors import SubmissionError

__all__ = ["is_predictions_file", "open_member", "open_zip", "printable_name", "split_member_name"]

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_COPY_BYTES = 1 << 20
# Ten times the largest upload. A member that claims more is no submission, and is not unpacked to find out.
_MAX_MEMBER_SIZE_BYTES = 50_000_000_000


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip.

    Raises
    ------
    SubmissionError
        If it is damaged.
    """
    try:
        return zipfile.ZipFile(path)
    # What zipfile raises depends on which bytes are damaged.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise SubmissionError(
            "the zip is damaged", found=str(error) or type(error).__name__, remedy="zip the predictions files again"
        ) from error


@contextmanager
def open_member(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> Iterator[Callable[[], IO[bytes]]]:
    """Compare a member's bytes with their CRC, and give a function that opens it, as often as it is called.

    Parquet keeps its index at the end, so the file has to be seekable: a stored member is read where it lies in
    the zip, a compressed one is unpacked into a temporary file.

    Parameters
    ----------
    archive : zipfile.ZipFile
        The open zip.
    path : Path
        Where the zip lies.
    info : zipfile.ZipInfo
        The member.

    Raises
    ------
    SubmissionError
        If the member cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="sensorium-") as folder:
        try:
            open_source = _check(archive, path, info, Path(folder) / "member")
        # A wrong CRC or header, damaged bytes, an unknown method, encryption, an early end.
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            raise SubmissionError(
                "a member cannot be read",
                found=str(error) or type(error).__name__,
                remedy="zip the files again, neither encrypted nor split",
            ) from error
        except OSError as error:
            raise SubmissionError(
                "a compressed member cannot be unpacked to check it",
                found=error.strerror or str(error),
                remedy=f"make room in {tempfile.gettempdir()}, or zip without compression",
            ) from error
        yield open_source


def split_member_name(member: str) -> tuple[str, str]:
    """Return a member's folder and name; Windows tools have written backslashes."""
    folder, slash, name = member.replace("\\", "/").rpartition("/")
    return folder or slash, name


def is_predictions_file(folder: str, name: str) -> bool:
    """Whether a member, by its folder and name, is meant as a predictions file."""
    # Finder adds a folder of files that are named like the others and hold nothing of theirs.
    return name.endswith((".parquet", ".brotli")) and not folder.startswith("__MACOSX") and not name.startswith("._")


def printable_name(name: str) -> str:
    """Return a member's name without anything that a terminal would obey."""
    return name if name.isprintable() else repr(name)[1:-1]


def _check(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo, copy_path: Path) -> Callable[[], IO[bytes]]:
    if info.file_size > _MAX_MEMBER_SIZE_BYTES:
        raise zipfile.BadZipFile(f"it claims {info.file_size:,} bytes")
    with archive.open(info) as member:
        if info.compress_type == zipfile.ZIP_STORED:
            while member.read(_COPY_BYTES):
                pass  # zipfile compares the CRC when it comes to the end.
            return partial(_open_section, path, info)
        with copy_path.open("wb") as copy:
            shutil.copyfileobj(member, copy, _COPY_BYTES)
        return lambda: copy_path.open("rb")


def _open_section(path: Path, info: zipfile.ZipInfo) -> IO[bytes]:
    file = path.open("rb")
    try:
        file.seek(info.header_offset)
        # The local header repeats the name, and has extra fields of its own length.
        _, name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
        return io.BufferedReader(_Section(file, start, info.file_size))
    except BaseException:
        file.close()
        raise


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
