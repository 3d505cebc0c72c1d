"""One member of a zip file: read at once, inflated, and checked against what the index says of it."""

from __future__ import annotations

import zlib

import deflate
from isal import isal_zlib

from sensorium_data import limits
from sensorium_data.archive.layout import trial_of
from sensorium_data.archive.sources import ByteSource, FileSource
from sensorium_data.archive.zip_index import DEFLATED, LOCAL_HEADER, LOCAL_SIGNATURE, STORED, ZipEntry
from sensorium_data.errors import ArchiveError

__all__ = [
    "DOWNLOAD_AGAIN",
    "N_ATTEMPTS",
    "check_readable",
    "describe_member_error",
    "read_zip_member",
    "read_zip_start",
]

#: What to do about an archive whose members cannot be trusted, for errors.
DOWNLOAD_AGAIN = "download the archive again"

#: How often a member is fetched, in all, where its bytes come damaged.
N_ATTEMPTS = 3

# The fixed part, name and extra field, in any archive that no one made odd.
_USUAL_LOCAL_HEADER_BYTES = 1 << 10


def read_zip_member(source: ByteSource, entry: ZipEntry, *, session: str | None = None) -> bytes | bytearray:
    """Return a member's content from one read.

    Parameters
    ----------
    source : ByteSource
        The archive.
    entry : ZipEntry
        What its index says of the member.
    session : str, optional
        Named in errors.

    Raises
    ------
    ArchiveError
        If the member is encrypted, compressed by another method than deflate or too large, or its header, size or
        CRC are wrong, also when it is fetched again.
    SourceChangedError
        If it is wrong because the archive was replaced since it was opened.
    SourceError
        If its bytes cannot be had.
    """
    return _MemberReader(source, entry, session).read()


def read_zip_start(source: ByteSource, entry: ZipEntry, size_bytes: int, *, session: str | None = None) -> bytes:
    """Return about the first bytes of a member's content; its checksum, which is over all of it, is not checked.

    Parameters
    ----------
    source, entry, session
        As :func:`read_zip_member` takes them.
    size_bytes : int
        So many bytes, or fewer if the member is shorter or its local header unusually long.

    Raises
    ------
    ArchiveError, SourceChangedError, SourceError
        As :func:`read_zip_member` does.
    """
    return _MemberReader(source, entry, session).read_start(size_bytes)


def check_readable(source: ByteSource, entry: ZipEntry, *, session: str | None = None) -> None:
    """Refuse a member that could not be read however sound it is; nothing is read for it.

    Raises
    ------
    ArchiveError
        If it is encrypted, compressed by another method than deflate, or too large.
    """
    _MemberReader(source, entry, session).check_readable()


def describe_member_error(
    url: str,
    name: str,
    session: str | None,
    problem: str,
    *,
    found: object = None,
    expected: object = None,
    remedy: str = DOWNLOAD_AGAIN,
) -> ArchiveError:
    """Return the error for what is wrong with a member; it names session, trial, archive and member."""
    return ArchiveError(
        problem,
        session=session or None,
        trial=trial_of(name),
        path=f"{url}: {name}",
        found=found,
        expected=expected,
        remedy=remedy,
    )


class _MemberReader:
    def __init__(self, source: ByteSource, entry: ZipEntry, session: str | None) -> None:
        self._source = source
        self._entry = entry
        self._session = session

    def check_readable(self) -> None:
        entry = self._entry
        if entry.encrypted:
            raise self._error("the member is encrypted", remedy="pack the archive again without a password")
        if entry.method not in (STORED, DEFLATED):
            raise self._error(
                "the member is compressed in an unsupported way",
                found=f"method {entry.method}",
                expected=f"{STORED} (stored) or {DEFLATED} (deflated)",
                remedy="pack the archive again with deflate",
            )
        # A member may be longer packed than unpacked, in an archive that is made so.
        size_bytes = max(entry.size_bytes, entry.compressed_size_bytes)
        if size_bytes > limits.MAX_MEMBER_SIZE_BYTES:
            raise self._error(
                "the member is too large to be a session's",
                found=f"{size_bytes} bytes",
                expected=f"at most {limits.MAX_MEMBER_SIZE_BYTES} bytes (MAX_MEMBER_SIZE_BYTES)",
            )

    def read(self) -> bytes | bytearray:
        self.check_readable()
        entry = self._entry
        # What was damaged on its way is sound when it is read again; a file on a disk stays as it is.
        n_attempts = 1 if isinstance(self._source, FileSource) else N_ATTEMPTS
        for attempt in range(1, n_attempts + 1):
            raw = self._source.read(entry.header_offset, entry.stop_offset)
            try:
                return self._unpack(raw)
            except ArchiveError:
                # A server or file system that stamps no versions does not tell of a replaced file; its tail does.
                self._source.check_unchanged()
                if attempt == n_attempts:
                    raise
        raise AssertionError("unreachable")

    def read_start(self, size_bytes: int) -> bytes:
        self.check_readable()
        entry = self._entry
        # Deflate makes nothing longer but by a few bytes a block.
        stop = min(entry.stop_offset, entry.header_offset + _USUAL_LOCAL_HEADER_BYTES + size_bytes + size_bytes // 64)
        raw = self._source.read(entry.header_offset, stop)
        try:
            packed = self._packed(raw, is_whole=stop == entry.stop_offset)
            if entry.method == STORED:
                return bytes(packed[:size_bytes])
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, min(size_bytes, entry.size_bytes))
        except zlib.error as error:
            self._source.check_unchanged()
            raise self._error("the member cannot be inflated", found=error) from error
        except ArchiveError:
            self._source.check_unchanged()
            raise

    def _unpack(self, raw: bytes) -> bytes | bytearray:
        entry = self._entry
        packed = self._packed(raw)
        content = bytes(packed) if entry.method == STORED else self._inflate(packed)
        if len(content) != entry.size_bytes:
            raise self._error(
                "the member has another size than the index says",
                found=f"{len(content)} bytes",
                expected=f"{entry.size_bytes} bytes",
            )
        crc32 = isal_zlib.crc32(content)
        if crc32 != entry.crc32:
            raise self._error("the member is damaged", found=f"CRC {crc32:08x}", expected=f"CRC {entry.crc32:08x}")
        return content

    def _packed(self, raw: bytes, *, is_whole: bool = True) -> memoryview:
        """Return the member's compressed bytes, or the first of them, out of its local header and what follows it."""
        entry = self._entry
        if not raw.startswith(LOCAL_SIGNATURE):
            raise self._error(
                "no member starts where the index says",
                found=f"{raw[:4]!r} at {entry.header_offset}",
                expected=f"{LOCAL_SIGNATURE!r}",
            )
        header = LOCAL_HEADER.unpack_from(raw)
        method, n_name, n_extra = header[3], header[9], header[10]
        start = LOCAL_HEADER.size + n_name + n_extra
        local_name = raw[LOCAL_HEADER.size : LOCAL_HEADER.size + n_name]
        if method != entry.method or entry.name not in (
            local_name.decode("utf-8", "replace"),
            local_name.decode("cp437"),
        ):
            raise self._error(
                "another member is where the index says",
                found=f"{local_name!r}, method {method}",
                expected=f"{entry.name!r}, method {entry.method}",
            )
        if is_whole and len(raw) < start + entry.compressed_size_bytes:
            raise self._error(
                "the member runs into the next one",
                found=f"{len(raw) - start} bytes",
                expected=f"{entry.compressed_size_bytes} bytes",
            )
        return memoryview(raw)[start : start + entry.compressed_size_bytes]

    def _inflate(self, packed: memoryview) -> bytearray:
        size_bytes = self._entry.size_bytes
        try:
            # Into a buffer of the declared size: a stream that is longer, as a zip bomb's, fails there.
            return deflate.deflate_decompress(packed, size_bytes)
        except deflate.DeflateError as error:
            raise self._error(
                "the member cannot be inflated, or has another size than the index says",
                found="a damaged or longer stream",
                expected=f"a stream of {size_bytes} bytes",
            ) from error

    def _error(
        self, problem: str, *, found: object = None, expected: object = None, remedy: str = DOWNLOAD_AGAIN
    ) -> ArchiveError:
        return describe_member_error(
            self._source.url, self._entry.name, self._session, problem, found=found, expected=expected, remedy=remedy
        )
