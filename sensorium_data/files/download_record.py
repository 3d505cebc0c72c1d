"""What is recorded beside downloads, finished ones and others: of which file at its origin they are."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium_data.errors import DownloadError, describe_os_error
from sensorium_data.files.json_document import parse_json
from sensorium_data.files.local_objects import sync_path
from sensorium_data.files.regular_file import read_regular
from sensorium_data.files.temporary_files import replace_whole

__all__ = [
    "MOVE_AWAY",
    "PART_KEYS",
    "REPLACED",
    "FileVersion",
    "disk_errors",
    "is_part_record",
    "locate_record",
    "read_record",
    "read_version",
    "require_own",
    "require_record",
    "write_record",
]

#: In the record beside a finished file: the time of the file that it takes the place of.
REPLACED = "replaces_mtime_ns"
_VERSION_KEYS = frozenset({"url", "size_bytes", "modified"})
#: What the record of an unfinished download has at least.
PART_KEYS = _VERSION_KEYS | {"finished"}
# What the operating system says where something else than a file has its name.
_IN_THE_WAY = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENXIO, errno.EINVAL})
#: The remedy for what no download made.
MOVE_AWAY = "move it away, or choose another folder with --downloads"


@dataclass(frozen=True)
class FileVersion:
    """Which file, and which version of it.

    Attributes
    ----------
    url : str
        Where it is.
    size_bytes : int or None
        Its size; None if it is not known.
    modified : str or None
        Its ETag, Last-Modified or modification time there.
    digest : str or None
        SHA-256 of the archive's central directory, in hexadecimal; None if it was not read.
    """

    url: str
    size_bytes: int | None
    modified: str | None
    digest: str | None = None

    def continues(self, other: FileVersion) -> bool:
        """Whether bytes of both may stand in one file.

        On one server the stamps decide; on another one, which stamps its files as it likes, the digest.
        """
        if self.size_bytes is None or self.size_bytes != other.size_bytes:
            return False
        if self.url == other.url:
            return self.modified == other.modified and self.digest == other.digest
        return self.digest is not None and self.digest == other.digest


def read_version(path: Path) -> FileVersion | None:
    """Return what was recorded of a finished file; None if nothing was, or the file is not the recorded one."""
    record = _read_beside(path)
    record.pop(REPLACED, None)
    try:
        if record.pop("mtime_ns") != path.stat().st_mtime_ns:
            return None
        return FileVersion(**record)
    except (KeyError, TypeError, FileNotFoundError):
        return None


def require_own(path: Path) -> None:
    """Raise a :class:`DownloadError` if there is a file, or a record of one, that no download made or that was changed.

    A record that no download made stays, too.
    """
    require_record(locate_record(path), _VERSION_KEYS | {"mtime_ns"})
    with disk_errors(path):
        try:
            mtime_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            return
    record = _read_beside(path)
    if mtime_ns not in (record.get("mtime_ns"), record.get(REPLACED)):
        raise DownloadError(
            "a file that was not downloaded by this software lies there, and it is not what the server has",
            path=path,
            remedy="move it away or choose another folder with --downloads; to read it as it is, name it as --source",
        )


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says into a :class:`DownloadError`."""
    try:
        yield
    except OSError as error:
        is_in_the_way = error.errno in _IN_THE_WAY
        raise DownloadError(
            "the download cannot be written",
            path=error.filename if is_in_the_way and error.filename else path,
            found=describe_os_error(error),
            remedy=MOVE_AWAY
            if is_in_the_way
            else "check the space and the permissions there, and run it again: what is done is kept",
        ) from error


def locate_record(path: Path) -> Path:
    """Return where the record of a file is."""
    return path.with_name(f"{path.name}.json")


def _read_beside(path: Path) -> dict[str, Any]:
    with disk_errors(path):
        return read_record(locate_record(path))


def is_part_record(path: Path) -> bool:
    """Whether a file is the record of an unfinished download, as :class:`PartFile` writes it."""
    return _is_record(path, PART_KEYS)


def _is_record(path: Path, expected: Set[str]) -> bool:
    return not path.is_symlink() and expected <= read_record(path).keys()


def require_record(path: Path, expected: Set[str]) -> bool:
    """Return whether a record with these keys is there.

    Raises
    ------
    DownloadError
        If something has its name that no download wrote.
    """
    with disk_errors(path):
        is_there = os.path.lexists(path)
        is_record = _is_record(path, expected)
    if is_there and not is_record:
        raise DownloadError(
            "another file has the name of a download's record, or the record is damaged",
            path=path,
            expected=f"a JSON object with {', '.join(sorted(expected))}",
            remedy=MOVE_AWAY,
        )
    return is_there


def read_record(path: Path) -> dict[str, Any]:
    """Return what a record says; nothing if it is missing or damaged."""
    try:
        content = parse_json(read_regular(path))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(path: Path, content: Mapping[str, object]) -> None:
    """Write a record; it is on the disk when this returns."""
    with replace_whole(path) as temporary:
        temporary.write_bytes(json.dumps(content).encode())
        sync_path(temporary)
