"""Zip archives written member by member, with Zip64 fields where they are needed or asked for.

Members are deflated by ISA-L, several times faster than the standard library's zlib, and apart from writing, so
that threads can share the work.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16
(ends of the central directory) and 4.5.3 (Zip64 extra field).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from isal import isal_zlib

from sensorium_data.files import temporary_path

__all__ = ["ZipMember", "ZipWriter", "pack_member"]

_STORED, _DEFLATED = 0, 8
_FIXED_LEVEL = 1
_RAW_DEFLATE = -15
_UTF8_NAME = 0x0800
_VERSION, _VERSION_ZIP64 = 20, 45
_MADE_BY_UNIX = 3 << 8
_FILE_MODE, _FOLDER_MODE = 0o100644 << 16, (0o040755 << 16) | 0x10
_LIMIT_16, _LIMIT_32 = 0xFFFF, 0xFFFFFFFF

# A fixed time: the same content makes the same bytes. 2023-06-01 00:00:00, as MS-DOS writes it.
_DOS_TIME = 0
_DOS_DATE = (2023 - 1980) << 9 | 6 << 5 | 1


@dataclass(frozen=True)
class ZipMember:
    """One member, ready to be written.

    Attributes
    ----------
    name : str
        Its name in the archive; one that ends in ``/`` is a folder.
    data : bytes
        As they stand in the archive, deflated or not.
    size_bytes : int
        Their size before they were deflated.
    crc : int
        CRC-32 of the bytes before they were deflated.
    is_deflated : bool
        Whether ``data`` are a raw deflate stream.
    """

    name: str
    data: bytes
    size_bytes: int
    crc: int
    is_deflated: bool


def pack_member(name: str, data: bytes, *, deflate: bool = True) -> ZipMember:
    """Return a member holding ``data``, deflated unless told otherwise. Safe in any thread."""
    crc = isal_zlib.crc32(data)
    packed = isal_zlib.compress(data, _FIXED_LEVEL, _RAW_DEFLATE) if deflate else data
    return ZipMember(name, packed, len(data), crc, deflate)


class ZipWriter:
    """A zip file being written; a context manager.

    The file appears under its name when the block ends without an error; until then it has a temporary one.

    Parameters
    ----------
    path : Path
        Where the archive shall be.
    zip64 : bool
        Write Zip64 fields even where 32 bits would do. They are written in any case where those do not.
    """

    def __init__(self, path: Path, *, zip64: bool = False) -> None:
        self.path = path
        self._temporary = temporary_path(path)
        self._always_zip64 = zip64
        self._central: list[bytes] = []
        self._offset = 0
        self._file: IO[bytes] = self._temporary.open("xb")

    def write(self, member: ZipMember) -> None:
        """Append a member."""
        name = member.name.encode()
        size, packed = member.size_bytes, len(member.data)
        method = _DEFLATED if member.is_deflated else _STORED
        wide = self._always_zip64 or max(size, packed) >= _LIMIT_32
        extra = struct.pack("<HHQQ", 1, 16, size, packed) if wide else b""
        version = _VERSION_ZIP64 if wide else _VERSION
        header = struct.pack(
            "<4s5H3I2H",
            b"PK\x03\x04",
            version,
            _UTF8_NAME,
            method,
            _DOS_TIME,
            _DOS_DATE,
            member.crc,
            _LIMIT_32 if wide else packed,
            _LIMIT_32 if wide else size,
            len(name),
            len(extra),
        )
        self._central.append(self._describe(member, name, method, self._offset))
        for part in (header, name, extra, member.data):
            self._file.write(part)
            self._offset += len(part)

    def _describe(self, member: ZipMember, name: bytes, method: int, offset: int) -> bytes:
        """Return a member's entry in the central directory."""
        size, packed = member.size_bytes, len(member.data)
        wide_sizes = self._always_zip64 or max(size, packed) >= _LIMIT_32
        wide_offset = self._always_zip64 or offset >= _LIMIT_32
        fields = ([size, packed] if wide_sizes else []) + ([offset] if wide_offset else [])
        extra = struct.pack(f"<HH{len(fields)}Q", 1, 8 * len(fields), *fields) if fields else b""
        version = _VERSION_ZIP64 if fields else _VERSION
        return (
            struct.pack(
                "<4s6H3I5H2I",
                b"PK\x01\x02",
                _MADE_BY_UNIX | version,
                version,
                _UTF8_NAME,
                method,
                _DOS_TIME,
                _DOS_DATE,
                member.crc,
                _LIMIT_32 if wide_sizes else packed,
                _LIMIT_32 if wide_sizes else size,
                len(name),
                len(extra),
                0,  # comment
                0,  # disk
                0,  # internal attributes
                _FOLDER_MODE if member.name.endswith("/") else _FILE_MODE,
                _LIMIT_32 if wide_offset else offset,
            )
            + name
            + extra
        )

    def _finish(self) -> None:
        directory = b"".join(self._central)
        start, n_members = self._offset, len(self._central)
        self._file.write(directory)
        if self._always_zip64 or n_members >= _LIMIT_16 or max(start, len(directory)) >= _LIMIT_32:
            where = start + len(directory)
            self._file.write(
                struct.pack(
                    "<4sQ2H2I4Q",
                    b"PK\x06\x06",
                    44,
                    _MADE_BY_UNIX | _VERSION_ZIP64,
                    _VERSION_ZIP64,
                    0,
                    0,
                    n_members,
                    n_members,
                    len(directory),
                    start,
                )
            )
            self._file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, where, 1))
            count, length, position = _LIMIT_16, _LIMIT_32, _LIMIT_32
        else:
            count, length, position = n_members, len(directory), start
        self._file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, length, position, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with self._file:
                if kind is None:
                    self._finish()
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            # It is gone if the archive has its name.
            self._temporary.unlink(missing_ok=True)
