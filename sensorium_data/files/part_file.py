"""An archive that is being downloaded: the bytes that have come, and a record of which they are.

``<name>.part`` holds the bytes, ``<name>.part.json`` says what they are of and which of them are on the disk. The
record is written after the bytes it speaks of are, so that it holds true whatever is interrupted. It is there before
the first byte is, and goes after the last one: bytes without it are somebody else's, and are not touched. A finished
file gets its name in one step; ``<name>.json`` then keeps what stamped its version at its origin.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from sensorium_data import limits
from sensorium_data.errors import DownloadError
from sensorium_data.files.download_record import (
    MOVE_AWAY,
    PART_KEYS,
    REPLACED,
    FileVersion,
    disk_errors,
    locate_record,
    read_record,
    require_own,
    require_record,
    write_record,
)
from sensorium_data.files.local_objects import sync_path
from sensorium_data.files.locks import close_locked, open_locked
from sensorium_data.files.regular_file import IrregularFileError, describe_kind
from sensorium_data.files.temporary_files import delete_temporaries

__all__ = ["PartFile", "open_part"]

# Between two records at least; a crash costs the segments that came since.
_RECORD_INTERVAL_S = 1.0
# Ranges that meet are merged, so that there are hardly more than connections.
_MOST_RANGES = 10_000


@contextlib.contextmanager
def open_part(target: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[PartFile]:
    """Open the part of a download, alone: another process that has it open is waited for.

    The lock dies with its process.

    Parameters
    ----------
    target : Path
        The finished file's path; its folder is made if it is not there.
    on_wait : callable, optional
        Called several times a second while somebody else has it open.

    Raises
    ------
    DownloadError
        If it cannot be made, or a file has its name, or that of its record, that no download made.
    """
    path = target.with_name(f"{target.name}.part")
    with disk_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(path, on_wait)
    try:
        part = PartFile(target, path, descriptor)
        part.require_own()
        with disk_errors(path):
            records = {locate_record(path).name, locate_record(target).name}
            delete_temporaries(path.parent, records.__contains__)
        yield part
    finally:
        close_locked(descriptor)


class PartFile:
    """The part of a download, locked; see :func:`open_part`. Safe to write from many threads.

    Attributes
    ----------
    path : Path
        Where the bytes are.
    version : FileVersion or None
        What they are of.
    """

    def __init__(self, target: Path, path: Path, descriptor: int) -> None:
        self.path = path
        self.version: FileVersion | None = None
        self._target = target
        self._record = locate_record(path)
        self._descriptor = descriptor
        self._finished: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._recording = threading.Lock()
        self._recorded_at = -_RECORD_INTERVAL_S

    @property
    def n_bytes_finished(self) -> int:
        """How many bytes are there."""
        with self._lock:
            return sum(stop - start for start, stop in self._finished)

    def require_own(self) -> None:
        """Raise a :class:`DownloadError` if no download made the file, or its record."""
        is_recorded = require_record(self._record, PART_KEYS)
        with disk_errors(self.path):
            size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes and not is_recorded:
            raise DownloadError(
                "a file has the name of an unfinished download, and no record says that a download made it",
                path=self.path,
                found=f"{size_bytes:,} bytes without {self._record.name}",
                remedy=MOVE_AWAY,
            )

    def resume(self, version: FileVersion) -> None:
        """Go on with a file of known size where an earlier run stopped, if its bytes are of this version.

        Raises
        ------
        DownloadError
            If the disk has not enough space for the rest, or cannot be written.
        """
        with disk_errors(self.path):
            record = read_record(self._record)
        try:
            finished = _parse_ranges(record.pop("finished"), version.size_bytes or 0)
            before = FileVersion(**record)
        except (KeyError, TypeError, ValueError):
            finished, before = [], None
        with disk_errors(self.path):
            is_whole = os.fstat(self._descriptor).st_size == version.size_bytes
        if before is None or not is_whole or not version.continues(before):
            self.start_over(version)
            return
        self.version = version
        self._finished = _merged(finished)
        self._check_space()

    def start_over(self, version: FileVersion) -> None:
        """Forget every byte, and begin a file of this version.

        Raises
        ------
        DownloadError
            If the disk has not enough space, or cannot be written.
        """
        with disk_errors(self.path), self._lock:
            os.ftruncate(self._descriptor, 0)
            self.version = version
            self._finished = []
        self._check_space()
        self.record()
        with disk_errors(self.path):
            os.ftruncate(self._descriptor, version.size_bytes or 0)

    def missing(self, segment_size_bytes: int) -> list[tuple[int, int]]:
        """Return the ranges that are not there yet, none longer than this, in their order."""
        if self.version is None or self.version.size_bytes is None:
            raise ValueError("only a file of known size has missing ranges")
        with self._lock:
            finished = list(self._finished)
        segments = []
        position = 0
        for start, stop in [*finished, (self.version.size_bytes, self.version.size_bytes)]:
            while position < start:
                end = min(start, (position // segment_size_bytes + 1) * segment_size_bytes)
                segments.append((position, end))
                position = end
            position = max(position, stop)
        return segments

    def write(self, start: int, data: bytes) -> None:
        """Write bytes from ``start`` on."""
        with disk_errors(self.path):
            position, rest = start, memoryview(data)
            while rest:
                n_written = os.pwrite(self._descriptor, rest, position)
                position, rest = position + n_written, rest[n_written:]

    def finish(self, start: int, stop: int) -> None:
        """Count bytes that were written as there, and record that before long."""
        with self._lock:
            self._finished = _merged([*self._finished, (start, stop)])
        # One thread records for all.
        if time.monotonic() - self._recorded_at >= _RECORD_INTERVAL_S and self._recording.acquire(blocking=False):
            try:
                self._write_record()
            finally:
                self._recording.release()

    def record(self) -> None:
        """Record every byte that is there."""
        with self._recording:
            self._write_record()

    def forget(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Count these bytes as missing again."""
        with self._lock:
            for gone_start, gone_stop in ranges:
                self._finished = [
                    piece
                    for start, stop in self._finished
                    for piece in ((start, min(stop, gone_start)), (max(start, gone_stop), stop))
                    if piece[0] < piece[1]
                ]
        self.record()

    def check_reserve(self) -> None:
        """Raise a :class:`DownloadError`, and delete the part, if a file of unknown size has filled the disk."""
        with disk_errors(self.path):
            n_free = shutil.disk_usage(self.path.parent).free
        if n_free >= limits.MIN_DISK_FREE_BYTES:
            return
        # It would be fetched from its first byte again.
        self.discard()
        raise DownloadError(
            "the disk has not enough space for a download whose size the server does not state",
            path=self.path,
            found=f"{n_free:,} bytes free",
            expected=f"at least {limits.MIN_DISK_FREE_BYTES:,} bytes (MIN_DISK_FREE_BYTES)",
            remedy="free some, or choose another folder for downloads",
        )

    def publish(self) -> None:
        """Give the file its name, in one step, and remember its version beside it."""
        version = self.version
        if version is None:
            raise ValueError("a part without a version has no bytes to publish")
        require_own(self._target)
        with disk_errors(self._target):
            os.fsync(self._descriptor)
            status = os.fstat(self._descriptor)
            version = replace(version, size_bytes=status.st_size)
            record = {**asdict(version), "mtime_ns": status.st_mtime_ns}
            # First of all: a crash in between leaves a file of unknown version, not of a wrong one, and it is known as
            # a downloaded one by its time.
            with contextlib.suppress(FileNotFoundError):
                record[REPLACED] = self._target.stat().st_mtime_ns
            write_record(locate_record(self._target), record)
            self.path.replace(self._target)
            sync_path(self._target.parent)
            self._record.unlink(missing_ok=True)
            sync_path(self._target.parent)

    def discard(self) -> None:
        """Delete the part and its record."""
        with disk_errors(self.path):
            self.path.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)

    def _write_record(self) -> None:
        with self._lock:
            version, finished = self.version, list(self._finished)
        if version is None:
            return
        with disk_errors(self.path):
            os.fsync(self._descriptor)
            write_record(self._record, {**asdict(version), "finished": finished})
        self._recorded_at = time.monotonic()

    def _check_space(self) -> None:
        if self.version is None or self.version.size_bytes is None:
            return
        with disk_errors(self.path):
            n_free = shutil.disk_usage(self.path.parent).free
        n_needed = self.version.size_bytes - self.n_bytes_finished
        if n_free < n_needed:
            raise DownloadError(
                "the disk has not enough space for the download",
                path=self.path,
                found=f"{n_free:,} bytes free",
                expected=f"{n_needed:,} bytes",
                remedy="free some, or choose another folder for downloads; what is done is kept",
            )


def _open_locked(path: Path, on_wait: Callable[[], None] | None) -> int:
    def open_file() -> int:
        # Without O_NONBLOCK, opening some devices would wait.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise IrregularFileError(path, describe_kind(status.st_mode))
        if status.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "a file that has other names, too: hard links", os.fspath(path))
        return descriptor

    # Whoever has the lock may give the file its name, or delete it.
    return open_locked(path, open_file, on_wait=on_wait)


def _parse_ranges(recorded: object, size_bytes: int) -> list[tuple[int, int]]:
    """Return the ranges that a record says are there; a ValueError if no download of this size wrote it."""
    if not isinstance(recorded, list) or len(recorded) > _MOST_RANGES:
        raise ValueError("no list of ranges, or too many")
    ranges = []
    for start, stop in recorded:
        if type(start) is not int or type(stop) is not int or not 0 <= start <= stop <= size_bytes:
            raise ValueError(f"no range: {start!r} to {stop!r}")
        ranges.append((start, stop))
    return ranges


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in their order, those that touch or overlap joined."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop)
        else:
            merged.append((start, stop))
    return merged
