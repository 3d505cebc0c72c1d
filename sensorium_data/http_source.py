"""A file on an HTTP(S) server as a source of bytes."""

from __future__ import annotations

import datetime
import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import fsspec
import fsspec.asyn

from sensorium_data.byte_source import DOWNLOAD_BY_HAND, START_AGAIN, ByteSource, RetryPolicy, describe_error
from sensorium_data.errors import SourceError

__all__ = ["HttpSource"]


class HttpSource(ByteSource):
    """A file on an HTTP(S) server, read by range requests over one pool of connections.

    Every answer is checked: it must be the range asked for (206 with that ``Content-Range``), of the same version
    (ETag or Last-Modified, and size) as the first, uncompressed, and no web page. The server needs not
    answer HEAD. Connections that break, stall or are told to wait go on from the byte where they stopped.

    The risk of reading on after a break: a server that states neither ETag nor Last-Modified could change the file
    unnoticed if its size stays; the members' CRC would then catch it.
    """

    def __init__(self, url: str, *, tail_size_bytes: int = 1, policy: RetryPolicy | None = None) -> None:
        self.url = url
        self.size_bytes = -1
        self.modified = None
        self._stamps: tuple[str | None, str | None] | None = None
        self._policy = policy or RetryPolicy()
        # An instance of its own, not fsspec's cached one: its connections close with this source. The settings in
        # fsspec's configuration (headers, authorization) apply.
        self._filesystem = fsspec.filesystem("http", skip_instance_cache=True)
        try:
            self._address = self._filesystem.encode_url(url)
        except ValueError as error:
            raise SourceError("this is no URL", path=url, found=describe_error(error)) from error
        self._filesystem.client_kwargs = {
            # As curl does: proxies and .netrc from the environment, but never for this machine.
            "trust_env": self._address.host not in ("localhost", "127.0.0.1", "::1"),
            **self._filesystem.client_kwargs,
        }
        self._client: aiohttp.ClientSession | None = None
        self._loop = self._filesystem.loop
        self._closed = False
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
                raise self._refuse(
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
        for attempt in range(1, self._policy.n_attempts + 1):
            try:
                fsspec.asyn.sync(self._loop, self._request, received, wanted.after(len(received)))
                return
            except _TransientError as error:
                if attempt == self._policy.n_attempts:
                    raise SourceError(
                        f"the server did not deliver in {attempt} attempts",
                        path=self.url,
                        found=str(error),
                        expected=wanted.words,
                        remedy="check the network and try again later: what is done is kept; or " + DOWNLOAD_BY_HAND,
                    ) from error
                if wanted.start is None:
                    # The file's size is not known yet, and so neither is where the tail would go on.
                    received.clear()
                time.sleep(self._policy.wait_s(attempt, error.retry_after_s))

    async def _request(self, received: bytearray, wanted: _Range) -> None:
        client: aiohttp.ClientSession = await self._filesystem.set_session()
        self._client = client
        # Checked in the loop's thread, in which the client is closed: nothing comes between this and the request.
        if self._closed:
            raise SourceError("the source was closed before it was read", path=self.url)
        options = dict(self._filesystem.kwargs)
        options["headers"] = {**options.get("headers", {}), "Range": wanted.header, "Accept-Encoding": "identity"}
        options["timeout"] = aiohttp.ClientTimeout(
            total=None, sock_connect=self._policy.connect_timeout_s, sock_read=self._policy.stall_timeout_s
        )
        try:
            async with client.get(self._address, **options) as response:
                # Leaving early closes the connection: what was not read, perhaps the whole archive, stays unread.
                size_bytes = self._check(response, wanted)
                if size_bytes == 0:
                    return
                async for piece in response.content.iter_any():
                    received += piece
                    if len(received) > wanted.already + size_bytes:
                        raise self._refuse(
                            "the server sent more bytes than its own headers say", found=f"over {size_bytes} bytes"
                        )
                if len(received) - wanted.already < size_bytes:
                    raise _TransientError(f"{len(received) - wanted.already} of {size_bytes} bytes")
                if wanted.size_bytes is not None and size_bytes < wanted.size_bytes:
                    raise _TransientError(f"{size_bytes} of {wanted.size_bytes} bytes")
        except TimeoutError as error:
            raise _TransientError("no answer in time") from error
        except (aiohttp.InvalidURL, aiohttp.TooManyRedirects, aiohttp.ClientSSLError) as error:
            raise self._refuse("this URL cannot be opened", found=describe_error(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise _TransientError(f"the connection broke after {len(received)} bytes") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _TransientError(describe_error(error)) from error

    def _check(self, response: aiohttp.ClientResponse, wanted: _Range) -> int:
        """Check an answer's status and headers; return how many bytes its body has."""
        status = response.status
        if status in _TRANSIENT_STATUSES:
            raise _TransientError(f"status {status} {response.reason}", _retry_after_s(response.headers))
        if status == 416 and _size_of(response.headers) == 0:
            self.size_bytes = 0
            return 0
        if status in (400, 416, 501) and wanted.start is None:
            raise _SuffixRefusedError(None)
        if status not in (200, 206):
            raise self._refuse(
                _STATUSES.get(status, "the server refused the request"),
                found=f"status {status} {response.reason or ''}".rstrip(),
                expected="status 206",
                remedy=_REMEDIES.get(status, DOWNLOAD_BY_HAND),
            )
        if response.content_type in ("text/html", "application/xhtml+xml"):
            raise self._refuse(
                "the server answered with a web page, perhaps a captcha or a login",
                found=f"status {status}, {response.content_type}",
                expected="the archive's bytes",
            )
        if status == 200:
            if wanted.start is None and response.content_length is not None:
                raise _SuffixRefusedError(response.content_length)
            raise self._refuse(
                "the server ignores byte ranges", found="status 200 with the whole file", expected="status 206"
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise self._refuse("the server compresses byte ranges", found=encoding, expected="the bytes as they are")
        return self._check_range(response.headers, wanted)

    def _check_range(self, headers: Mapping[str, str], wanted: _Range) -> int:
        stated = headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(stated.strip())
        if match is None:
            raise self._refuse(
                "the server does not say which bytes it sent", found=stated or "no Content-Range", expected=wanted.words
            )
        start, stop = int(match["first"]), int(match["last"]) + 1
        # A suffix range ends where the file ends, so it tells the size even where the server does not.
        size_bytes = int(match["size"]) if match["size"] != "*" else (stop if wanted.start is None else self.size_bytes)
        if wanted.start is None:
            wanted = _Range(max(0, size_bytes - wanted.stop), size_bytes)
        if start != wanted.start or not start < stop <= wanted.stop or stop > size_bytes >= 0:
            raise self._refuse("the server sent other bytes than asked for", found=stated, expected=wanted.words)
        length = headers.get("Content-Length")
        if length is not None and length != str(stop - start):
            raise self._refuse(
                "the server's headers contradict each other",
                found=f"Content-Length {length}, Content-Range {stated}",
            )
        self._check_version(headers, size_bytes)
        return stop - start

    def _check_version(self, headers: Mapping[str, str], size_bytes: int) -> None:
        stamps = (headers.get("ETag"), headers.get("Last-Modified"))
        if self._stamps is None:
            self._stamps = stamps
            self.modified = stamps[0] or stamps[1]
        if self.size_bytes < 0:
            self.size_bytes = size_bytes
        before: object = self.size_bytes
        now: object = size_bytes
        if before == now:
            # The stronger stamp that both answers have decides.
            before, now = next(
                ((a, b) for a, b in zip(self._stamps, stamps, strict=True) if a is not None and b is not None),
                (None, None),
            )
        if before != now:
            raise self._refuse(
                "the archive changed while it was being read", found=now, expected=before, remedy=START_AGAIN
            )

    def _refuse(self, problem: str, *, found: object = None, expected: object = None, remedy: str = "") -> SourceError:
        return SourceError(problem, path=self.url, found=found, expected=expected, remedy=remedy or DOWNLOAD_BY_HAND)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._client is not None:
            fsspec.asyn.sync(self._loop, self._client.close)


class _TransientError(Exception):
    """An answer that may be better the next time."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


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


_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-(?P<last>\d+)/(?P<size>\d+|\*)")
_UNSATISFIED_RANGE = re.compile(r"bytes \*/(?P<size>\d+)")
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUSES = {
    401: "the server wants a login",
    403: "the server refuses access",
    404: "there is no such file on the server",
    410: "the file is gone from the server",
}
_REMEDIES = {404: "check the URL or the --source given", 410: "check the URL or the --source given"}


def _size_of(headers: Mapping[str, str]) -> int | None:
    match = _UNSATISFIED_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return None if match is None else int(match["size"])


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that the server asks for: seconds, or a date."""
    stated = headers.get("Retry-After", "").strip()
    if stated.isascii() and stated.isdigit():
        return float(stated)
    try:
        date = email.utils.parsedate_to_datetime(stated)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
