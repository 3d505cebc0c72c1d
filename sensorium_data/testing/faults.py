"""What can go wrong between a client and a server, each as a small thing given to ``serve_directory``.

A fault is called with every request and the handler behind it. :class:`OnRequests` and :class:`OnPath` confine a fault
to some requests, so that ``OnRequests(DropBody(1000), {2})`` breaks the third answer alone. Write your own as an async
function of a request and a handler. Those that change how the file is sent work together: see
:mod:`sensorium_data.testing.answers`.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import NoReturn

from aiohttp import hdrs, web

from sensorium_data.testing.answers import find_file, find_range, plan_of
from sensorium_data.testing.server import Fault, Handler

__all__ = [
    "AnswerHtml",
    "AnswerStatus",
    "ChangeETag",
    "ChangeLastModified",
    "CloseConnection",
    "CompressBody",
    "DropBody",
    "FlipBit",
    "IgnoreRange",
    "IgnoreSuffixRange",
    "NoContentLength",
    "NoStamps",
    "OnPath",
    "OnRequests",
    "Redirect",
    "RefuseHead",
    "Replay",
    "ShiftContentRange",
    "Stall",
    "Throttle",
]


@dataclass
class OnRequests:
    """Applies a fault to the requests with these numbers (counted from 0), or to the first ``n``."""

    fault: Fault
    numbers: Collection[int] | int
    _n_seen: int = field(default=0, init=False)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        number, self._n_seen = self._n_seen, self._n_seen + 1
        chosen = number < self.numbers if isinstance(self.numbers, int) else number in self.numbers
        return await (self.fault(request, handler) if chosen else handler(request))


@dataclass(frozen=True)
class OnPath:
    """Applies a fault to the requests whose path matches a regular expression somewhere."""

    fault: Fault
    pattern: str

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await (self.fault(request, handler) if re.search(self.pattern, request.path) else handler(request))


@dataclass
class Replay:
    """Applies a script: its first fault to the first request, and so on; None, and what follows, is no fault."""

    script: Sequence[Fault | None]
    _n_seen: int = field(default=0, init=False)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        number, self._n_seen = self._n_seen, self._n_seen + 1
        fault = self.script[number] if number < len(self.script) else None
        return await (handler(request) if fault is None else fault(request, handler))


@dataclass(frozen=True)
class AnswerStatus:
    """Answers with a status, and headers such as ``Retry-After``."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=self.status, headers=dict(self.headers))


@dataclass(frozen=True)
class AnswerHtml:
    """Answers with a web page, as a captcha or a login does."""

    status: int = 200
    page: str = "<!DOCTYPE html><html><body>Are you a robot?</body></html>"

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=self.status, text=self.page, content_type="text/html")


@dataclass(frozen=True)
class RefuseHead:
    """Answers HEAD with 405 and leaves the rest alone."""

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == hdrs.METH_HEAD:
            return web.Response(status=405, headers={hdrs.ALLOW: hdrs.METH_GET})
        return await handler(request)


@dataclass(frozen=True)
class IgnoreRange:
    """Answers with the whole file and status 200, whatever range was asked for."""

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        plan_of(request).whole = True
        return await handler(request)


@dataclass(frozen=True)
class IgnoreSuffixRange:
    """Answers ranges of numbered bytes, but not those of the last bytes.

    Attributes
    ----------
    status : int
        200 to send the whole file instead, or the status to refuse with.
    """

    status: int = 200

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get(hdrs.RANGE, "").startswith("bytes=-"):
            if self.status != 200:
                return web.Response(status=self.status)
            plan_of(request).whole = True
        return await handler(request)


@dataclass(frozen=True)
class ShiftContentRange:
    """Sends other bytes than asked for and says so: the whole range moved by a number of bytes."""

    n_bytes: int = 1

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        content = find_file(request).read_bytes()
        start, stop = (n + self.n_bytes for n in find_range(request, len(content)))
        return _partial(content, start, stop)


@dataclass(frozen=True)
class FlipBit:
    """Flips the lowest bit of one byte of a file, wherever it is sent."""

    offset: int

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        content = bytearray(find_file(request).read_bytes())
        content[self.offset] ^= 1
        return _partial(bytes(content), *find_range(request, len(content)))


@dataclass(frozen=True)
class CompressBody:
    """Sends the file, or a range of it, with gzip, although the client did not ask for that."""

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        content = find_file(request).read_bytes()
        start, stop = find_range(request, len(content))
        response = _partial(content, start, stop) if hdrs.RANGE in request.headers else web.Response()
        response.body = gzip.compress(content[start:stop])
        response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        return response


@dataclass
class ChangeETag:
    """Gives each answer an ETag of its own, as if the file were replaced all the time."""

    _n_seen: int = field(default=0, init=False)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._n_seen += 1
        plan_of(request).etag = f'"version-{self._n_seen}"'
        return await handler(request)


@dataclass
class ChangeLastModified:
    """Gives each answer a time of modification of its own, and no ETag."""

    _n_seen: int = field(default=0, init=False)

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._n_seen += 1
        plan = plan_of(request)
        plan.etag, plan.last_modified = None, formatdate(self._n_seen, usegmt=True)
        return await handler(request)


@dataclass(frozen=True)
class NoStamps:
    """Answers without ETag and Last-Modified."""

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        plan = plan_of(request)
        plan.etag = plan.last_modified = None
        return await handler(request)


@dataclass(frozen=True)
class NoContentLength:
    """Answers without Content-Length: the body comes in chunks, and their end is its end."""

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        plan_of(request).chunked = True
        return await handler(request)


@dataclass(frozen=True)
class Throttle:
    """Sends each answer, and so over each connection, no faster than this."""

    bytes_per_s: float

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        plan_of(request).bytes_per_s = self.bytes_per_s
        return await handler(request)


@dataclass(frozen=True)
class Redirect:
    """Sends every request elsewhere once: to the same path with a query."""

    status: int = 302
    query: str = "moved=1"

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.query_string == self.query:
            return await handler(request)
        return web.Response(status=self.status, headers={hdrs.LOCATION: f"{request.rel_url.raw_path}?{self.query}"})


@dataclass(frozen=True)
class DropBody:
    """Closes the connection after some bytes of the body, whose full length was announced."""

    after_n_bytes: int

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        plan = plan_of(request)
        plan.n_bytes_before_end, plan.end = self.after_n_bytes, _hang_up
        return await handler(request)


@dataclass(frozen=True)
class Stall:
    """Sends some bytes of the body and then nothing, for a while; then closes the connection."""

    after_n_bytes: int
    duration_s: float

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        async def wait(request: web.Request) -> None:
            await asyncio.sleep(self.duration_s)
            await _hang_up(request)

        plan = plan_of(request)
        plan.n_bytes_before_end, plan.end = self.after_n_bytes, wait
        return await handler(request)


@dataclass(frozen=True)
class CloseConnection:
    """Closes the connection without any answer."""

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await _hang_up(request)


def _partial(content: bytes, start: int, stop: int) -> web.Response:
    return web.Response(
        status=206,
        body=content[start:stop],
        headers={
            hdrs.CONTENT_RANGE: f"bytes {start}-{stop - 1}/{len(content)}",
            hdrs.CONTENT_TYPE: "application/octet-stream",
        },
    )


async def _hang_up(request: web.Request) -> NoReturn:
    if request.transport is not None:
        request.transport.close()
    # The handler is canceled when the loss of the connection is noticed; until then, nothing may be answered.
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody completes this future")
