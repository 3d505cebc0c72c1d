"""What holds a session's files: a zip archive, or the folder that was unpacked from one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from sensorium_data.archive.layout import is_junk
from sensorium_data.archive.sources import ByteSource
from sensorium_data.archive.zip_index import ZipEntry, ZipIndex
from sensorium_data.archive.zip_member import DOWNLOAD_AGAIN, describe_member_error, read_zip_member, read_zip_start

__all__ = ["Container", "Entry", "Fingerprint", "ZipContainer"]

#: CRC-32 and size of a file.
Fingerprint = tuple[int, int]


class Entry(Protocol):
    """One file, as its container lists it."""

    @property
    def name(self) -> str:
        """Its name in the container."""

    @property
    def size_bytes(self) -> int:
        """Its size."""

    @property
    def compressed_size_bytes(self) -> int:
        """What is read for it."""


class Container(Protocol):
    """Files of a session, listed and read one by one, from many threads.

    Attributes
    ----------
    url : str
        Where it is.
    label : str
        What it is called: the archive's file name without ``.zip``, or the folder's name.
    remedy : str
        What to do about a file that is missing or damaged, for errors.
    size_bytes : int
        The archive's size, or that of the files that have a place in a session.
    modified : str or None
        What marks its version: an ETag, or the time of modification.
    states_checksums : bool
        Whether fingerprints and the digest are known without reading the files.
    """

    url: str
    label: str
    remedy: str
    size_bytes: int
    modified: str | None
    states_checksums: bool

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The files by their names, parts separated by ``/``, without folders and junk."""

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over all files' names, sizes and checksums: equal for equal files."""

    @property
    def stamp(self) -> str:
        """SHA-256, in hexadecimal, of what is known without reading the files: equal while nothing was changed."""

    def locate(self, name: str) -> str:
        """Return where a file is, for errors."""

    def fetched_as(self, name: str) -> str:
        """Return what to fetch if the file is a pointer to its content, for errors."""

    def read(self, name: str, *, session: str) -> bytes | bytearray:
        """Return a file's content, checked against what is listed."""

    def read_start(self, name: str, size_bytes: int, *, session: str) -> bytes:
        """Return the first bytes of a file's content, all of it if it is shorter; its checksum is not checked."""

    def fingerprint(self, name: str) -> Fingerprint:
        """Return a file's CRC-32 and size."""

    def stamp_of(self, name: str) -> str | None:
        """Return what marks a file's version: ``None`` where its fingerprint does."""

    def recall(self, name: str, stamp: str, fingerprint: Fingerprint) -> None:
        """Take the fingerprint that a file had when it had this stamp for its own, if it still has it."""

    def close(self) -> None:
        """Close what is open."""


class ZipContainer:
    """A zip archive, read in place by byte range. Its index states everything but the content.

    Parameters
    ----------
    source : ByteSource
        The archive's bytes.
    index : ZipIndex
        Its index.
    session : str, optional
        Named in errors.

    Raises
    ------
    ArchiveError
        If it holds a member twice.
    """

    remedy = DOWNLOAD_AGAIN
    states_checksums = True

    def __init__(self, source: ByteSource, index: ZipIndex, session: str | None = None) -> None:
        self._source = source
        self.url = source.url
        file_name = source.url.partition("?")[0].rpartition("/")[2]
        self.label = file_name[:-4] if file_name.lower().endswith(".zip") else file_name
        self.size_bytes = source.size_bytes
        self.modified = source.modified
        self._digest = index.digest
        kept: dict[str, ZipEntry] = {}
        for entry in index.entries:
            # Some programs on Windows write backslashes.
            name = entry.name.replace("\\", "/").removeprefix("./")
            if name.endswith("/") or is_junk(name):
                continue
            if name in kept:
                raise describe_member_error(source.url, name, session, "the archive holds a member twice")
            kept[name] = entry
        self.entries: Mapping[str, ZipEntry] = MappingProxyType(kept)

    @property
    def digest(self) -> str:
        """SHA-256 of the central directory, which states names, sizes and checksums."""
        return self._digest

    @property
    def stamp(self) -> str:
        """The digest: it takes no member to tell."""
        return self._digest

    def locate(self, name: str) -> str:
        """Return the archive and the member in it."""
        return f"{self.url}: {name}"

    def fetched_as(self, name: str) -> str:
        """Return the member's name: it is in the archive's origin that it has to be fetched."""
        return name

    def read(self, name: str, *, session: str) -> bytes | bytearray:
        """Return a member's content from one read: see :func:`read_zip_member`."""
        return read_zip_member(self._source, self.entries[name], session=session)

    def read_start(self, name: str, size_bytes: int, *, session: str) -> bytes:
        """Return the first bytes of a member's content: see :func:`read_zip_start`."""
        return read_zip_start(self._source, self.entries[name], size_bytes, session=session)

    def fingerprint(self, name: str) -> Fingerprint:
        """Return a member's CRC-32 and size as the index states them."""
        entry = self.entries[name]
        return entry.crc32, entry.size_bytes

    def stamp_of(self, name: str) -> str | None:
        """Return ``None``: the index states the fingerprint."""
        return None

    def recall(self, name: str, stamp: str, fingerprint: Fingerprint) -> None:
        """Do nothing: the index states the fingerprint."""

    def close(self) -> None:
        """Close the file or the connections."""
        self._source.close()
