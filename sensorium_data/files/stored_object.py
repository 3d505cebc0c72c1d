"""What is known of one object: its size and its digests."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path

from isal import isal_zlib

__all__ = ["ObjectStatus", "StoredObject", "digest_bytes", "digest_file", "digest_stream"]

_DIGEST = re.compile("[0-9a-f]{64}")


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the digest of an object's bytes: SHA-256, the fastest of hashlib where the CPU has instructions for it."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the digest of a file, whatever its size, as :func:`digest_bytes` does."""
    with path.open("rb") as file:
        return digest_stream(file)


def digest_stream(file: BufferedIOBase) -> str:
    """Return the digest of the bytes of an open file up to its end, as :func:`digest_bytes` does."""
    return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ObjectStatus:
    """What a disk or a server says of an object without reading it.

    Attributes
    ----------
    size_bytes : int
        Its size.
    modified_s : float or None
        When it was written, in seconds since the epoch; None where the server does not say.
    tag : str or None
        Its tag, which changes with its bytes; None where there are none.
    """

    size_bytes: int
    modified_s: float | None
    tag: str | None = None


@dataclass(frozen=True)
class StoredObject:
    """What is known of one object: enough to tell whether its bytes are still those that were written.

    Attributes
    ----------
    size_bytes : int
        Its size.
    digest : str
        SHA-256 of its bytes, in hexadecimal: what :command:`sensorium verify` recomputes.
    crc32 : int
        CRC-32 of its bytes. It costs next to nothing, and finds what a disk or a memory does to bytes just written.
    tag : str or None
        What the object store lists as the tag of these bytes, which it has confirmed; None where nothing confirms what
        was written. It says nothing of the content: the same bytes elsewhere have another tag or none.
    """

    size_bytes: int
    digest: str
    crc32: int
    tag: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        # Local caches name files by digests, and ledgers are read from files and servers.
        if self.size_bytes < 0 or not 0 <= self.crc32 < 1 << 32 or not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"impossible size, digest or CRC of an object: {self.size_bytes}, {self.digest!r}")

    @classmethod
    def of(cls, data: bytes | memoryview, tag: str | None = None) -> StoredObject:
        """Describe the bytes of an object."""
        return cls(memoryview(data).nbytes, digest_bytes(data), isal_zlib.crc32(data), tag)

    def find_difference(self, data: bytes) -> str | None:
        """Return what is wrong with ``data`` as a clause, ``None`` if nothing is."""
        if len(data) != self.size_bytes:
            return f"{len(data)} bytes in place of {self.size_bytes}"
        if digest_bytes(data) != self.digest:
            return "the digest of its bytes differs"
        return None

    def find_damage(self, data: bytes | memoryview) -> str | None:
        """Return what is wrong with ``data`` by its size and CRC, as a clause; ``None`` if nothing is.

        Enough for what a disk, a memory or a network does to bytes; :meth:`find_difference` takes thirty times as long,
        and finds what people do to them.
        """
        if len(data) != self.size_bytes:
            return f"{len(data)} bytes in place of {self.size_bytes}"
        if isal_zlib.crc32(data) != self.crc32:
            return "the CRC of its bytes differs"
        return None

    def find_listed_difference(self, listed: ObjectStatus | None) -> str | None:
        """Return what a listing says is wrong with the object, as a clause; ``None`` if nothing is.

        A listed tag that is the confirmed one means that the store has the bytes that were written.
        """
        if listed is None:
            return "missing"
        if listed.size_bytes != self.size_bytes:
            return f"{listed.size_bytes} bytes in place of {self.size_bytes}"
        if self.tag is not None and listed.tag is not None and listed.tag != self.tag:
            return "others have written it since"
        return None
