"""How a file is sent over HTTP: ranges, stamps and conditions as they should be, or as a plan of the answer says.

Faults change the plan of a request's answer, so that several of them work together: a throttled answer without a
length that breaks off is three faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any

from aiohttp import hdrs, web

__all__ = ["AnswerPlan", "Sent", "answer_file", "find_file", "find_range", "plan_of"]

#: Told of each piece of a body before it is handed to the connection: the path asked for, and the number of bytes.
Sent = Callable[[str, int], None]

FOLDER: web.AppKey[Path] = web.AppKey("folder", Path)
SENT: web.AppKey[Sent] = web.AppKey("sent", Callable)  # type: ignore[arg-type]

_BLOCK_SIZE_BYTES = 1 << 18
_THROTTLED_INTERVAL_S = 0.05


@dataclass
class AnswerPlan:
    """What one answer shall be like; by default as it should.

    Attributes
    ----------
    whole : bool
        Send the whole file, whatever range was asked for.
    chunked : bool
        State no Content-Length; the body comes in chunks.
    etag, last_modified : str or None
        What stamps the file's version; None to send no such header.
    bytes_per_s : float or None
        How fast the body is sent.
    n_bytes_before_end : int or None
        After how many bytes of the body ``end`` is called instead of sending the rest.
    end : callable or None
        Ends the answer in another way than as announced.
    """

    etag: str | None
    last_modified: str | None
    whole: bool = False
    chunked: bool = False
    bytes_per_s: float | None = None
    n_bytes_before_end: int | None = None
    end: Callable[[web.Request], Awaitable[None]] | None = None


# Newer releases of aiohttp have typed keys, and warn of names.
_PLAN: Any = web.RequestKey("plan", AnswerPlan) if hasattr(web, "RequestKey") else "sensorium_data.testing.plan"


def plan_of(request: web.Request) -> AnswerPlan:
    """Return the plan for the answer to a request, to be changed before the file is sent.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If there is no such file.
    """
    plan: AnswerPlan | None = request.get(_PLAN)
    if plan is None:
        status = find_file(request).stat()
        plan = AnswerPlan(
            etag=f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
            last_modified=formatdate(int(status.st_mtime), usegmt=True),
        )
        request[_PLAN] = plan
    return plan


def find_file(request: web.Request) -> Path:
    """Return the file that a request asks for.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If there is none inside the folder served.
    """
    folder = request.app[FOLDER]
    file = (folder / request.match_info["path"]).resolve()
    if not (file.is_relative_to(folder) and file.is_file()):
        raise web.HTTPNotFound
    return file


def find_range(request: web.Request, size_bytes: int) -> tuple[int, int]:
    """Return the bytes, start and stop, that a request for a file of this size asks for; without a range, all."""
    start, stop, _ = request.http_range.indices(size_bytes)
    return start, stop


async def answer_file(request: web.Request) -> web.StreamResponse:
    """Send the file that a request asks for, or a range of it."""
    plan = plan_of(request)
    if _is_known(request, plan):
        return web.Response(status=304, headers=_stamps(plan))
    with find_file(request).open("rb") as file:
        size_bytes = file.seek(0, 2)
        headers = {hdrs.CONTENT_TYPE: "application/octet-stream", **_stamps(plan)}
        start, stop, status = 0, size_bytes, 200
        if not plan.whole:
            headers[hdrs.ACCEPT_RANGES] = "bytes"
            if hdrs.RANGE in request.headers and request.headers.get(hdrs.IF_RANGE) in (None, *_stamps(plan).values()):
                start, stop = find_range(request, size_bytes)
                status = 206
                if start >= stop:
                    return web.Response(status=416, headers={hdrs.CONTENT_RANGE: f"bytes */{size_bytes}"})
                headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{size_bytes}"
        response = web.StreamResponse(status=status, headers=headers)
        if plan.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = stop - start
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await _send(request, response, plan, file, start, stop)
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, plan: AnswerPlan, file: IO[bytes], start: int, stop: int
) -> None:
    if plan.n_bytes_before_end is not None:
        stop = min(stop, start + plan.n_bytes_before_end)
    block_size_bytes = _BLOCK_SIZE_BYTES
    if plan.bytes_per_s is not None:
        block_size_bytes = min(block_size_bytes, max(1, int(plan.bytes_per_s * _THROTTLED_INTERVAL_S)))
    clock = asyncio.get_running_loop().time
    started = clock()
    position = file.seek(start)
    while position < stop:
        block = file.read(min(block_size_bytes, stop - position))
        if not block:
            break
        position += len(block)
        if plan.bytes_per_s is not None:
            # Before it is sent: the whole takes as long as its size says.
            await asyncio.sleep(started + (position - start) / plan.bytes_per_s - clock())
        request.app[SENT](request.path, len(block))
        try:
            await response.write(block)
        except ConnectionResetError:
            # The client has seen enough.
            return
    if plan.end is not None:
        await plan.end(request)
    await response.write_eof()


def _stamps(plan: AnswerPlan) -> dict[str, str]:
    stamps = {hdrs.ETAG: plan.etag, hdrs.LAST_MODIFIED: plan.last_modified}
    return {str(name): value for name, value in stamps.items() if value is not None}


def _is_known(request: web.Request, plan: AnswerPlan) -> bool:
    """Whether the client has this version already, as the request's conditions say."""
    if hdrs.IF_NONE_MATCH in request.headers:
        known = request.headers[hdrs.IF_NONE_MATCH]
        return known == "*" or (plan.etag is not None and plan.etag in (tag.strip() for tag in known.split(",")))
    return plan.last_modified is not None and request.headers.get(hdrs.IF_MODIFIED_SINCE) == plan.last_modified
