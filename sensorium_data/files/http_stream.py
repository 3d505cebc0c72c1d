"""A whole file from an HTTP(S) server in one answer, for servers that send no ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sensorium_data.files.http_client import HttpClient, stamp_of

__all__ = ["FileHead", "PieceWriter", "read_head", "stream_whole"]

#: Takes the pieces of a file in their order; called in the thread of the event loop.
PieceWriter = Callable[[bytes], None]


class FileHead(NamedTuple):
    """What an answer's headers say of the file.

    Attributes
    ----------
    size_bytes : int or None
        Its size; None if the server does not tell.
    modified : str or None
        Its ETag or Last-Modified.
    """

    size_bytes: int | None
    modified: str | None


def read_head(client: HttpClient) -> FileHead:
    """Ask for the file, and return what the headers say; the body is left unread.

    Raises
    ------
    SourceError
        If the server does not answer with the file.
    """

    async def request() -> FileHead:
        async with client.get({}) as response:
            client.check_answer(response, (200,), "status 200")
            return FileHead(response.content_length, stamp_of(response.headers))

    return client.insist(lambda: client.run(request), expected="the file")


def stream_whole(client: HttpClient, begin: Callable[[FileHead], PieceWriter]) -> None:
    """Read the file from its first to its last byte; from the first one again whenever the connection breaks.

    Parameters
    ----------
    client : HttpClient
        The file's server.
    begin : callable
        Called with each answer's headers; returns what takes that answer's bytes, the first one first.

    Raises
    ------
    SourceError
        If no attempt brings the whole file: as many bytes as the headers say or, where they do not say, up to the
        proper end of a body in chunks. The risk: a body with neither ends where the connection does.
    """
    n_received = 0

    async def request() -> None:
        nonlocal n_received
        n_received = 0
        # A body shorter than its Content-Length, or without its last chunk, is an error of the connection's.
        async with client.get({}) as response:
            client.check_answer(response, (200,), "status 200")
            write = begin(FileHead(response.content_length, stamp_of(response.headers)))
            watch = client.watch_rate()
            async for piece in response.content.iter_any():
                write(piece)
                n_received += len(piece)
                watch.note(len(piece))

    client.insist(lambda: client.run(request), expected="the whole file", n_received=lambda: n_received)
