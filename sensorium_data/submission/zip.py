"""Members of a zip as seekable files, never unpacked under a name that the zip chooses."""

from __future__ import annotations

import io
import lzma
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sensorium_data.errors import SubmissionError, describe_os_error
from sensorium_data.frames import ENCRYPTED_PARQUET_MAGIC, PARQUET_MAGIC
from sensorium_data.limits import (
    MAX_UNPACKED_FACTOR,
    MAX_UNPACKED_SIZE_BYTES,
    MAX_ZIP_INDEX_SIZE_BYTES,
    MAX_ZIP_MEMBERS,
    MIN_UNPACKED_LIMIT_BYTES,
)
from sensorium_data.submission.section import FileSection

__all__ = ["ZipMember", "list_members", "open_member", "open_zip"]

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_READ_BYTES = 1 << 20
_SMALL_READ_BYTES = 4096
_ZIP_AGAIN = "zip the predictions files again"
# A wrong CRC or header, damaged bytes, an unknown method, encryption, an early end.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)


@dataclass(frozen=True)
class ZipMember:
    """A member of a zip.

    Attributes
    ----------
    info : zipfile.ZipInfo
        As the zip's index has it.
    folder, name : str
        Where it would lie, and under what name. Windows tools have written backslashes.
    is_predictions : bool
        Whether it is a predictions file, by its content, or is meant as one, by its name.
    """

    info: zipfile.ZipInfo
    folder: str
    name: str
    is_predictions: bool

    @property
    def printable_name(self) -> str:
        """Its whole name without anything that a terminal would obey."""
        name = self.info.filename
        return name if name.isprintable() else repr(name)[1:-1]


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip.

    Raises
    ------
    SubmissionError
        If it is damaged, or has more members than a submission can have.
    """
    try:
        # zipfile reads the whole index at once, however large it says that it is.
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            n_members = len(archive.infolist())
        if n_members <= MAX_ZIP_MEMBERS:
            return zipfile.ZipFile(path)
    # What zipfile raises depends on which bytes are damaged.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise SubmissionError(
            "the zip is damaged", found=str(error) or type(error).__name__, remedy=_ZIP_AGAIN
        ) from error
    raise SubmissionError(
        "the zip has more members than a submission can have",
        found=f"{n_members:,}",
        expected=f"at most {MAX_ZIP_MEMBERS} (MAX_ZIP_MEMBERS)",
        remedy="zip the predictions files alone",
    )


def list_members(archive: zipfile.ZipFile) -> list[ZipMember]:
    """Return the members of a zip, in the order of its index."""
    members = []
    for info in archive.infolist():
        folder, slash, name = info.filename.replace("\\", "/").rpartition("/")
        # Finder adds a folder of files that are named like the others and hold nothing of theirs.
        is_junk = folder.startswith("__MACOSX") or name.startswith("._")
        is_meant = name.endswith((".parquet", ".brotli")) and not is_junk
        members.append(ZipMember(info, folder or slash, name, is_meant or _begins_as_parquet(archive, info)))
    return members


@contextmanager
def open_member(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> Iterator[FileSection]:
    """Compare a member's bytes with their CRC, and give where they can be read.

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
        If the member cannot be read, or unpacks to more than a submission can be.
    """
    with ExitStack() as stack:
        try:
            if info.compress_type == zipfile.ZIP_STORED:
                _compare_crc(archive, info)
                section = _find_section(path, info)
            else:
                _require_unpackable(info)
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sensorium-"))
                section = FileSection(Path(folder) / "member")
                with section.path.open("wb") as copy:
                    _compare_crc(archive, info, copy.write)
        except _DAMAGED as error:
            raise _unreadable(error) from error
        except OSError as error:
            if error.errno is None:  # Not the disk: bzip2 has found damage.
                raise _unreadable(error) from error
            raise SubmissionError(
                "a compressed member cannot be unpacked to check it",
                found=describe_os_error(error),
                remedy=f"make room in {tempfile.gettempdir()}, or zip without compression",
            ) from error
        yield section


def _unreadable(error: Exception) -> SubmissionError:
    return SubmissionError(
        "a member cannot be read",
        found=str(error) or type(error).__name__,
        remedy="zip the files again, neither encrypted nor split",
    )


def _begins_as_parquet(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as member:
            return member.read(len(PARQUET_MAGIC)) in (PARQUET_MAGIC, ENCRYPTED_PARQUET_MAGIC)
    except (*_DAMAGED, OSError):
        return False


def _require_unpackable(info: zipfile.ZipInfo) -> None:
    """Refuse a member that claims to unpack to more than predictions do; zipfile unpacks no more than is claimed."""
    bounds = {
        "MIN_UNPACKED_LIMIT_BYTES": MIN_UNPACKED_LIMIT_BYTES,
        "MAX_UNPACKED_FACTOR": MAX_UNPACKED_FACTOR * info.compress_size,
    }
    name = max(bounds, key=bounds.__getitem__)
    if bounds[name] > MAX_UNPACKED_SIZE_BYTES:
        name, bounds["MAX_UNPACKED_SIZE_BYTES"] = "MAX_UNPACKED_SIZE_BYTES", MAX_UNPACKED_SIZE_BYTES
    if info.file_size > bounds[name]:
        raise SubmissionError(
            "a member unpacks to more than a submission can be",
            found=f"{info.file_size:,} bytes from {info.compress_size:,}",
            expected=f"at most {bounds[name]:,} ({name})",
            remedy="zip without compression: Parquet is compressed already",
        )


def _compare_crc(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, write: Callable[[bytes], object] = lambda data: None
) -> None:
    with archive.open(info) as member:
        # Other methods unpack all of the bytes that zipfile takes from the zip for a read.
        n_bytes = _READ_BYTES if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else _SMALL_READ_BYTES
        while data := member.read(n_bytes):
            write(data)  # zipfile compares the CRC when it comes to the end.


def _find_section(path: Path, info: zipfile.ZipInfo) -> FileSection:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        # The local header repeats the name, and has extra fields of its own length.
        _, name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return FileSection(path, info.header_offset + _LOCAL_HEADER.size + name_size + extra_size, info.file_size)


class _BoundedFile(io.FileIO):
    """A file of which nobody reads more at once than the index of a zip may have."""

    def read(self, size: int | None = -1, /) -> bytes:
        n_bytes = -1 if size is None else size
        remaining = os.fstat(self.fileno()).st_size - self.tell()
        found = remaining if n_bytes < 0 else min(n_bytes, remaining)
        if found > MAX_ZIP_INDEX_SIZE_BYTES:
            raise SubmissionError(
                "the zip's index is larger than a submission's can be",
                found=f"{found:,} bytes",
                expected=f"at most {MAX_ZIP_INDEX_SIZE_BYTES:,} (MAX_ZIP_INDEX_SIZE_BYTES)",
                remedy="zip the predictions files alone",
            )
        return super().read(n_bytes) or b""
