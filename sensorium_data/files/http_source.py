"""A file on an HTTP(S) server as a source of bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from sensorium_data.errors import RangesRefusedError
from sensorium_data.files.byte_source import DOWNLOAD_BY_HAND, ByteSource, RetryPolicy, describe_change
from sensorium_data.files.http_client import HttpClient, TransientError, stamp_of

__all__ = ["HttpSource"]


class HttpSource(ByteSource):
    """A file on an HTTP(S) server, read by range requests over one pool of connections.

    Every answer is checked: it must be the range asked for (206 with that ``Content-Range``), of the same version
    (ETag or Last-Modified, and size) as the first, uncompressed, and no web page. The server needs not
    answer HEAD. Connections that break, stall or are told to wait go on from the byte where they stopped.

    The risk of reading on after a break: a server that states neither ETag nor Last-Modified could change the file
    unnoticed if its size stays; the members' CRC would then catch it.

    Raises
    ------
    RangesRefusedError
        If the server sends whole files only.
    SourceError
        If there is no such file, or its bytes cannot be had.
    """

    def __init__(self, url: str, *, tail_size_bytes: int = 1, policy: RetryPolicy | None = None) -> None:
        self.url = url
        self.size_bytes = -1
        self.modified = None
        self._stamps: tuple[str | None, str | None] | None = None
        self._client = HttpClient(url, policy or RetryPolicy())
        try:
            self._open_tail(max(1, tail_size_bytes))
        except BaseException:
            self.close()
            raise

    def _open_tail(self, tail_size_bytes: int) -> None:
        """Learn the size and the tail: from one request, or two where the server knows no suffix ranges."""
        tail = bytearray()
        try:
            self._fetch(tail, _Range(None, tail_size_bytes))
        except _SuffixRefusedError as refusal:
            if refusal.size_bytes is None:
                self._fetch(bytearray(), _Range(0, 1))
            else:
                self.size_bytes = refusal.size_bytes
            if self.size_bytes < 0:
                raise self._client.refuse(
                    "the server does not tell the archive's size", expected="a Content-Range with a size"
                ) from refusal
            if self.size_bytes > 0:
                tail.clear()
                self._fetch(tail, _Range(max(0, self.size_bytes - tail_size_bytes), self.size_bytes))
        self.tail = bytes(tail)

    def _read(self, start: int, stop: int) -> bytes:
        received = bytearray()
        self._fetch(received, _Range(start, stop))
        return bytes(received)

    def _fetch(self, received: bytearray, wanted: _Range) -> None:
        """Append the range to ``received``, trying again where that can help."""

        def attempt() -> None:
            known = wanted
            if wanted.start is None and self.size_bytes > 0:
                # An earlier answer has told the size, and with it where the tail goes on.
                known = _Range(max(0, self.size_bytes - wanted.stop), self.size_bytes)
            rest = known.after(len(received))
            # Every byte may have come before the connection broke; a server could only refuse an empty range.
            if rest.size_bytes != 0:
                self._client.run(self._request, received, rest)

        self._client.insist(attempt, expected=wanted.words, n_received=lambda: len(received))

    async def _request(self, received: bytearray, wanted: _Range) -> None:
        async with self._client.get({"Range": wanted.header}) as response:
            size_bytes = self._check(response, wanted)
            if size_bytes == 0:
                return
            watch = self._client.watch_rate()
            async for piece in response.content.iter_any():
                received += piece
                watch.note(len(piece))
                if len(received) > wanted.already + size_bytes:
                    raise self._client.refuse(
                        "the server sent more bytes than its own headers say", found=f"over {size_bytes} bytes"
                    )
            if len(received) - wanted.already < size_bytes or (wanted.size_bytes or 0) > size_bytes:
                raise TransientError("the answer ended")

    def _check(self, response: aiohttp.ClientResponse, wanted: _Range) -> int:
        """Check an answer's status and headers; return how many bytes its body has."""
        status = response.status
        if status == 416:
            size_bytes = _size_of(response.headers)
            if size_bytes == 0 and self.size_bytes < 0:
                self.size_bytes = 0
                return 0
            if size_bytes is not None and 0 <= self.size_bytes != size_bytes:
                raise describe_change(self.url, f"{size_bytes} bytes", f"{self.size_bytes} bytes")
        if status in (400, 416, 501) and wanted.start is None:
            raise _SuffixRefusedError(None)
        self._client.check_answer(response, (200, 206), "status 206")
        if status == 200:
            if wanted.start is None:
                raise _SuffixRefusedError(response.content_length)
            raise RangesRefusedError(
                "the server ignores byte ranges",
                path=self.url,
                found="status 200 with the whole file",
                expected="status 206",
                remedy="let it be downloaded with --mode download, or " + DOWNLOAD_BY_HAND,
            )
        return self._check_range(response.headers, wanted)

    def _check_range(self, headers: Mapping[str, str], wanted: _Range) -> int:
        stated = headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(stated.strip())
        if match is None:
            raise self._client.refuse(
                "the server does not say which bytes it sent", found=stated or "no Content-Range", expected=wanted.words
            )
        start, stop = int(match["first"]), int(match["last"]) + 1
        # A suffix range ends where the file ends, so it tells the size even where the server does not.
        size_bytes = int(match["size"]) if match["size"] != "*" else (stop if wanted.start is None else self.size_bytes)
        if wanted.start is None:
            wanted = _Range(max(0, size_bytes - wanted.stop), size_bytes)
        # First of all: what became shorter can only send other bytes than asked for.
        self._check_version(headers, size_bytes)
        if start != wanted.start or not start < stop <= wanted.stop or stop > size_bytes >= 0:
            raise self._client.refuse("the server sent other bytes than asked for", found=stated, expected=wanted.words)
        length = headers.get("Content-Length")
        if length is not None and length != str(stop - start):
            raise self._client.refuse(
                "the server's headers contradict each other",
                found=f"Content-Length {length}, Content-Range {stated}",
            )
        return stop - start

    def _check_version(self, headers: Mapping[str, str], size_bytes: int) -> None:
        stamps = (headers.get("ETag"), headers.get("Last-Modified"))
        if self._stamps is None:
            self._stamps = stamps
            self.modified = stamp_of(headers)
        if self.size_bytes < 0:
            self.size_bytes = size_bytes
        if self.size_bytes != size_bytes:
            raise describe_change(self.url, f"{size_bytes} bytes", f"{self.size_bytes} bytes")
        # The stronger stamp that both answers have decides.
        before, now = next(
            ((a, b) for a, b in zip(self._stamps, stamps, strict=True) if a is not None and b is not None),
            (None, None),
        )
        if before != now:
            raise describe_change(self.url, now, before)

    def close(self) -> None:
        self._client.close()


class _SuffixRefusedError(Exception):
    """The server answers no request for the last bytes; it may answer one for numbered bytes."""

    def __init__(self, size_bytes: int | None) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


@dataclass(frozen=True)
class _Range:
    """Bytes ``start`` to ``stop``, or the last ``stop`` bytes where ``start`` is None.

    ``already`` of them, counted in another request's range, have been received before this one.
    """

    start: int | None
    stop: int
    already: int = 0

    def after(self, n_received: int) -> _Range:
        return self if self.start is None else _Range(self.start + n_received, self.stop, n_received)

    @property
    def size_bytes(self) -> int | None:
        return None if self.start is None else self.stop - self.start

    @property
    def header(self) -> str:
        return f"bytes=-{self.stop}" if self.start is None else f"bytes={self.start}-{self.stop - 1}"

    @property
    def words(self) -> str:
        return f"the last {self.stop} bytes" if self.start is None else f"bytes {self.start}-{self.stop - 1}"


_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-(?P<last>\d{1,19})/(?P<size>\d{1,19}|\*)")
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(?P<size>\d{1,19})")


def _size_of(headers: Mapping[str, str]) -> int | None:
    match = _UNSATISFIED_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return None if match is None else int(match["size"])
