"""The index of a zip file: which members there are and where, read from the file's end alone.

Follows PKWARE's APPNOTE.TXT 6.3.10: the end of central directory record (4.3.16), its Zip64 record
and locator (4.3.14, 4.3.15), and the central directory's headers (4.3.12).
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sensorium_data import limits
from sensorium_data.archive.pointers import POINTER_SIZE_BYTES, find_pointer
from sensorium_data.archive.sources import ByteSource
from sensorium_data.counting import count_things
from sensorium_data.errors import ArchiveError
from sensorium_data.names import find_name_problem

__all__ = [
    "DEFLATED",
    "LOCAL_HEADER",
    "LOCAL_SIGNATURE",
    "STORED",
    "TAIL_SIZE_BYTES",
    "ZipEntry",
    "ZipIndex",
    "read_index",
]

# Compression methods (4.4.5).
STORED = 0
DEFLATED = 8

#: Signature, version, flags, method, time, date, CRC, compressed size, size, name length, extra length.
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LOCAL_SIGNATURE = b"PK\x03\x04"

# Signature, made by, version, flags, method, time, date, CRC, compressed size, size, name, extra and comment
# length, disk, internal attributes, external attributes, header offset.
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
_CENTRAL_SIGNATURE = b"PK\x01\x02"

# Signature, this disk, directory's disk, entries on this disk, entries, directory size and offset, comment length.
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"

# Signature, record size, made by, version, this disk, directory's disk, entries on this disk, entries,
# directory size, directory offset.
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_SIGNATURE = b"PK\x06\x06"

# Signature, record's disk, record offset, number of disks.
_LOCATOR_64 = struct.Struct("<4sLQL")
_LOCATOR_64_SIGNATURE = b"PK\x06\x07"

_EXTRA_FIELD = struct.Struct("<2H")
_EXTRA_64 = 0x0001
_OVERFLOW_16 = 0xFFFF
_OVERFLOW_32 = 0xFFFFFFFF

_FLAG_ENCRYPTED = 1 << 0
_FLAG_UTF8 = 1 << 11

_MAX_COMMENT_SIZE_BYTES = 0xFFFF

#: What the records at a zip file's end take at most, with the longest comment.
TAIL_SIZE_BYTES = _MAX_COMMENT_SIZE_BYTES + _END.size + _LOCATOR_64.size + _END_64.size

# Deflate spends at least 2 bits on a match of at most 258 bytes.
_MAX_DEFLATE_RATIO = 1032

_DOWNLOAD_AGAIN = "download the archive again"

# Enough of what is no zip file to tell what it is.
_HEAD_SIZE_BYTES = 4096


@dataclass(frozen=True)
class ZipEntry:
    """One member of a zip file, as the central directory describes it.

    Only the central directory is read for it. The risk: a local header that says something else goes
    unnoticed until the member is read, where name, method and signature are compared and the CRC is checked. The
    local header's own sizes are never used.

    Attributes
    ----------
    name : str
        Path inside the archive, parts separated by ``/``.
    method : int
        0 stored, 8 deflated.
    encrypted : bool
        Whether the member is encrypted; such a member is listed and cannot be read.
    crc32 : int
        CRC-32 of the inflated member.
    compressed_size_bytes, size_bytes : int
        Size in the archive and inflated.
    header_offset : int
        Where the local header starts, counted from the file's first byte.
    stop_offset : int
        Where the next member or the central directory starts. A local header's length is known only from the
        header itself, so one read up to here takes header and data together. The risk: unused space between
        members is read with the member before it. Never further than a header with the longest
        name and extra field could push the data.
    """

    name: str
    method: int
    encrypted: bool
    crc32: int
    compressed_size_bytes: int
    size_bytes: int
    header_offset: int
    stop_offset: int

    @property
    def is_directory(self) -> bool:
        """Whether this is a folder's own entry."""
        return self.name.endswith("/")


@dataclass(frozen=True)
class ZipIndex:
    """All members of a zip file, in the order of its central directory.

    Attributes
    ----------
    entries : tuple of ZipEntry
        Every entry, junk and folders included.
    digest : str
        SHA-256 of the central directory, in hexadecimal. It covers every member's name, size and CRC: two
        archives with one digest hold the same members. The risk: CRC-32 is no defense against somebody who
        means to deceive.
    """

    entries: tuple[ZipEntry, ...]
    digest: str


def read_index(source: ByteSource, *, session: str | None = None) -> ZipIndex:
    """Read the index of a zip file.

    Takes the source's tail and at most two reads more: the Zip64 record, where it does not lie in the
    tail, and the central directory, where it does not.

    Parameters
    ----------
    source : ByteSource
        The file; best opened with ``tail_size_bytes=TAIL_SIZE_BYTES``.
    session : str, optional
        Named in errors.

    Raises
    ------
    ArchiveError
        If the file is no zip file, is truncated, or describes members that cannot be.
    SourceError
        If its bytes cannot be had.
    """
    return _IndexReader(source, session).read()


@dataclass(frozen=True)
class _Directory:
    start: int
    stop: int
    n_entries: int
    #: How far every stored offset is off: the size of what was put before the zip file.
    shift: int


class _IndexReader:
    def __init__(self, source: ByteSource, session: str | None) -> None:
        self._source = source
        self._session = session
        self._tail = source.tail
        self._tail_start = source.size_bytes - len(source.tail)

    def read(self) -> ZipIndex:
        directory = self._find_directory()
        self._check_limits(directory)
        content = self._bytes(directory.start, directory.stop)
        # One more than stated is enough to tell that there are more.
        entries = list(itertools.islice(self._parse(content, directory), directory.n_entries + 1))
        if len(entries) != directory.n_entries:
            raise self._damaged(
                "the central directory is damaged",
                found="more" if len(entries) > directory.n_entries else count_things(len(entries), "entry", "entries"),
                expected=count_things(directory.n_entries, "entry", "entries"),
            )
        return ZipIndex(tuple(self._bounded(entries, directory)), hashlib.sha256(content).hexdigest())

    def _find_directory(self) -> _Directory:
        position, end = self._find_end()
        _, disk, directory_disk, n_here, n_entries, size_bytes, offset, _ = end
        stop = position
        locator_start = position - _LOCATOR_64.size
        locator = self._bytes(locator_start, position) if locator_start >= 0 else b""
        if locator.startswith(_LOCATOR_64_SIGNATURE):
            _, _, record_offset, n_disks = _LOCATOR_64.unpack(locator)
            stop, record = self._find_record_64(locator_start, record_offset)
            _, _, _, _, disk, directory_disk, n_here, n_entries, size_bytes, offset = _END_64.unpack(record)
            disk = max(disk, n_disks - 1)
        elif _OVERFLOW_32 in (size_bytes, offset) or n_entries == _OVERFLOW_16:
            raise self._damaged("the Zip64 locator is missing", expected="a Zip64 record before the end record")
        if disk or directory_disk or n_here != n_entries:
            raise self._damaged(
                "this is one part of a split archive", found=f"disk {disk}", remedy="join the parts into one zip file"
            )
        start = stop - size_bytes
        shift = start - offset
        if shift < 0:
            raise self._damaged(
                "the central directory cannot be where the end record says",
                found=f"{size_bytes} bytes at {offset} in a file of {self._source.size_bytes} bytes",
            )
        return _Directory(start, stop, n_entries, shift)

    def _check_limits(self, directory: _Directory) -> None:
        """Refuse an index that no session's archive has before it is read into memory."""
        size_bytes = directory.stop - directory.start
        if size_bytes > limits.MAX_INDEX_SIZE_BYTES:
            raise self._damaged(
                "the central directory is too large to be a session's",
                found=f"{size_bytes} bytes",
                expected=f"at most {limits.MAX_INDEX_SIZE_BYTES} bytes (MAX_INDEX_SIZE_BYTES)",
                remedy="pack the session's folder alone, or " + _DOWNLOAD_AGAIN,
            )
        if directory.n_entries > limits.MAX_INDEX_ENTRIES:
            raise self._damaged(
                "the archive has too many members to be a session's",
                found=count_things(directory.n_entries, "entry", "entries"),
                expected=f"at most {limits.MAX_INDEX_ENTRIES} entries (MAX_INDEX_ENTRIES)",
                remedy="pack the session's folder alone, or " + _DOWNLOAD_AGAIN,
            )

    def _find_end(self) -> tuple[int, tuple[bytes, int, int, int, int, int, int, int]]:
        """Return the end record and its position: the last one whose comment ends with the file."""
        within = len(self._tail) - _END.size
        while within >= 0:
            within = self._tail.rfind(_END_SIGNATURE, 0, within + len(_END_SIGNATURE))
            if within < 0:
                break
            end = _END.unpack_from(self._tail, within)
            if within + _END.size + end[-1] == len(self._tail):
                return self._tail_start + within, end
            within -= 1
        raise self._no_zip()

    def _find_record_64(self, locator_start: int, stated_offset: int) -> tuple[int, bytes]:
        """Return the Zip64 record: where the locator says, or right before it, if bytes were put before the zip."""
        candidates = [locator_start - _END_64.size]
        if stated_offset != candidates[0]:
            candidates.append(stated_offset)
        for start in candidates:
            if 0 <= start <= locator_start - _END_64.size:
                record = self._bytes(start, start + _END_64.size)
                if record.startswith(_END_64_SIGNATURE):
                    return start, record
        raise self._damaged("the Zip64 record is not where its locator says", found=f"offset {stated_offset}")

    def _parse(self, content: bytes, directory: _Directory) -> Iterator[ZipEntry]:
        position = 0
        while position < len(content):
            if not content.startswith(_CENTRAL_SIGNATURE, position):
                # A digital signature may follow the headers (4.3.13); anything else is damage, which the count shows.
                return
            if position + _CENTRAL_HEADER.size > len(content):
                raise self._damaged("the central directory is damaged", found="a header cut short")
            header = _CENTRAL_HEADER.unpack_from(content, position)
            _, _, _, flags, method, _, _, crc32, compressed, size = header[:10]
            n_name, n_extra, n_comment, disk, _, _, offset = header[10:]
            name_start = position + _CENTRAL_HEADER.size
            extra_start = name_start + n_name
            position = extra_start + n_extra + n_comment
            if position > len(content):
                raise self._damaged("the central directory is damaged", found="a header cut short")
            name = self._decode_name(content[name_start:extra_start], flags)
            size, compressed, offset = self._widen(
                name, content[extra_start : extra_start + n_extra], (size, compressed, offset)
            )
            if disk not in (0, _OVERFLOW_16):
                raise self._damaged(f"member {name} is on another disk", remedy="join the parts into one zip file")
            yield ZipEntry(
                name=name,
                method=method,
                encrypted=bool(flags & _FLAG_ENCRYPTED),
                crc32=crc32,
                compressed_size_bytes=compressed,
                size_bytes=size,
                header_offset=offset + directory.shift,
                stop_offset=directory.start,
            )

    def _decode_name(self, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("utf-8" if flags & _FLAG_UTF8 else "cp437")
        except UnicodeDecodeError as error:
            raise self._damaged("a member's name is no UTF-8", found=repr(raw)) from error
        # Some programs write an entry for the folder that was packed.
        problem = None if name == "./" else find_name_problem(name)
        if problem is not None:
            raise self._damaged(
                "a member's name leads out of the archive",
                found=f"{name!r}: {problem}",
                expected="a relative path",
                remedy="do not trust this archive; " + _DOWNLOAD_AGAIN,
            )
        return name

    def _widen(self, name: str, extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
        """Replace the 32-bit values that overflowed by those of the Zip64 extra field (4.5.3), in its order."""
        if _OVERFLOW_32 not in narrow:
            return narrow
        position = 0
        while position + _EXTRA_FIELD.size <= len(extra):
            kind, length = _EXTRA_FIELD.unpack_from(extra, position)
            position += _EXTRA_FIELD.size
            if kind == _EXTRA_64:
                wide = memoryview(extra)[position : position + length]
                n_needed = narrow.count(_OVERFLOW_32)
                if len(wide) < 8 * n_needed:
                    break
                values = iter(struct.unpack_from(f"<{n_needed}Q", wide))
                size, compressed, offset = (next(values) if n == _OVERFLOW_32 else n for n in narrow)
                return size, compressed, offset
            position += length
        raise self._damaged(f"member {name} lacks its Zip64 sizes", expected="a Zip64 extra field")

    def _bounded(self, entries: list[ZipEntry], directory: _Directory) -> Iterator[ZipEntry]:
        """Give every entry its stop offset, and refuse members that overlap: they are how zip bombs are made."""
        ordered = sorted(entries, key=lambda entry: entry.header_offset)
        stops = [*(entry.header_offset for entry in ordered[1:]), directory.start]
        bounded = {}
        for entry, stop in zip(ordered, stops, strict=False):  # without entries there is one stop too many
            least = entry.header_offset + LOCAL_HEADER.size + entry.compressed_size_bytes
            if not directory.shift <= entry.header_offset < least <= stop:
                raise self._damaged(
                    f"member {entry.name} does not fit into the archive",
                    found=f"{entry.compressed_size_bytes} bytes at {entry.header_offset}",
                    expected=f"an end before {stop}",
                )
            if entry.method == DEFLATED and entry.size_bytes > _MAX_DEFLATE_RATIO * entry.compressed_size_bytes:
                raise self._damaged(
                    f"member {entry.name} claims a size that deflate cannot reach",
                    found=f"{entry.size_bytes} bytes from {entry.compressed_size_bytes}",
                    expected=f"at most {_MAX_DEFLATE_RATIO} times as many",
                )
            bounded[entry] = replace(entry, stop_offset=min(stop, least + 2 * 0xFFFF))
        return (bounded[entry] for entry in entries)

    def _bytes(self, start: int, stop: int) -> bytes:
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : stop - self._tail_start]
        return self._source.read(start, stop)

    def _no_zip(self) -> ArchiveError:
        size_bytes = self._source.size_bytes
        head = self._source.read(0, min(_HEAD_SIZE_BYTES, size_bytes)).lstrip()
        if not head:
            return self._damaged("the archive is empty", found=f"{size_bytes} bytes")
        pointer = find_pointer(head) if size_bytes <= POINTER_SIZE_BYTES else None
        if pointer is not None:
            return self._damaged(pointer.problem, found=pointer.found, remedy=pointer.remedy(self._source.url))
        if head[:1] == b"<" and (b"<html" in head.lower() or b"<!doctype" in head.lower()):
            return self._damaged(
                "this is a web page, not an archive",
                found=repr(head[:40].decode("utf-8", "replace")),
                remedy="download it again and look at what the server sent: perhaps a captcha or a login",
            )
        ending = self._tail.rfind(_END_SIGNATURE)
        if ending >= 0 and len(self._tail) - ending >= _END.size:
            return self._damaged(
                "the archive does not end with its end record",
                found=f"{len(self._tail) - ending - _END.size} bytes after it",
                expected="its comment, if it has one, and nothing else",
            )
        if head.startswith(LOCAL_SIGNATURE):
            return self._damaged(
                "the archive is truncated: its end is missing",
                found=f"{size_bytes} bytes without an end record",
                remedy="finish the download, or " + _DOWNLOAD_AGAIN,
            )
        return self._damaged(
            "this is no zip file",
            found=f"{size_bytes} bytes that start with {head[:16]!r}",
            expected=f"a file that starts with {LOCAL_SIGNATURE!r}",
        )

    def _damaged(
        self, problem: str, *, found: object = None, expected: object = None, remedy: str = _DOWNLOAD_AGAIN
    ) -> ArchiveError:
        return ArchiveError(
            problem, session=self._session, path=self._source.url, found=found, expected=expected, remedy=remedy
        )
