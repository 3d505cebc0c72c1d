"""A web server for a folder, on this machine only: stands for GIN in the demo and in tests."""

from __future__ import annotations

import asyncio
import socket
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Middleware

from sensorium_data.errors import SourceError
from sensorium_data.testing.answers import FOLDER, SENT, answer_file, find_file, find_range

__all__ = ["DirectoryServer", "Fault", "Handler", "Request", "find_file", "find_range", "serve_directory"]

#: What answers a request.
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Stands between a request and its handler: may answer itself, or change what the handler answers.
Fault = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

_START_TIMEOUT_S = 30.0
# Requests still running when the server closes: their clients are gone or about to be.
_SHUTDOWN_TIMEOUT_S = 0.5
_N_WAITING_CONNECTIONS = 128


class Request(NamedTuple):
    """One request as the server saw it.

    Attributes
    ----------
    method : str
        ``GET`` or ``HEAD``.
    path : str
        The path asked for, decoded, starting with ``/``.
    range : str or None
        The Range header.
    status : int
        The answer's status; 0 if the connection was closed without one.
    """

    method: str
    path: str
    range: str | None
    status: int


class DirectoryServer:
    """A running server.

    Attributes
    ----------
    url : str
        Where the folder is, e.g. ``http://127.0.0.1:43210``, without a slash at its end.
    requests : list of Request
        Every request answered so far, in the order of the answers' beginnings.
    n_bytes_by_path : dict of str to int
        How many bytes of each path's bodies were handed to connections; of an answer that broke off, those until then.
    peak_n_requests : int
        The most requests that were being answered at the same time, each on a connection of its own.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.n_bytes_by_path: Counter[str] = Counter()
        self.peak_n_requests = 0

    @property
    def n_bytes_sent(self) -> int:
        """Sum of ``n_bytes_by_path``."""
        return self.n_bytes_by_path.total()

    def url_of(self, path: str) -> str:
        """Return the URL of a file, given its path in the folder."""
        return f"{self.url}/{quote(path)}"


@contextmanager
def serve_directory(path: str | Path, *, faults: Sequence[Fault] = ()) -> Iterator[DirectoryServer]:
    """Serve the files of a folder over HTTP while the context lasts.

    GET and HEAD, byte ranges (suffix ranges too), ETag, Last-Modified and conditional requests, as many connections as
    come. Listens on 127.0.0.1 alone, on a port that is free. Runs in a thread, which has ended when
    the context has.

    Parameters
    ----------
    path : path
        The folder. Only files inside it are served, also if links lead out of it.
    faults : sequence of Fault
        What goes wrong; see :mod:`sensorium_data.testing.faults`. The first is outermost: it sees the request first.

    Raises
    ------
    SourceError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile, urllib.request
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "hello.txt").write_text("Hello")
    ...     with serve_directory(folder) as server, urllib.request.urlopen(f"{server.url}/hello.txt") as answer:
    ...         answer.read()
    b'Hello'
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise SourceError("there is no such folder to serve", path=path, remedy="create it first")
    thread = _ServerThread(folder, faults)
    thread.start()
    try:
        yield thread.wait_until_ready()
    finally:
        thread.stop()


class _ServerThread(threading.Thread):
    """Runs the server's event loop: serving must not wait for whoever runs the test or the demo."""

    def __init__(self, folder: Path, faults: Sequence[Fault]) -> None:
        super().__init__(name=f"serve {folder}", daemon=True)
        self._folder = folder
        self._faults = tuple(faults)
        self._ready = threading.Event()
        self._unanswered: set[int] = set()
        self._connecting: set[asyncio.Task[object]] = set()
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._n_requests = 0
        self._server: DirectoryServer | None = None
        self._failure: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def wait_until_ready(self) -> DirectoryServer:
        self._ready.wait(_START_TIMEOUT_S)
        if self._server is None:
            raise SourceError("the server did not start", path=self._folder, found=self._failure) from self._failure
        return self._server

    def stop(self) -> None:
        if self._loop is not None and self._stopping is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.join()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application(middlewares=[self._note_unanswered, *map(_as_middleware, self._faults)])
        app[FOLDER] = self._folder
        app[SENT] = self._note_bytes
        app.router.add_get("/{path:.*}", answer_file)
        app.on_response_prepare.append(self._note)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S, handler_cancellation=True)
        await runner.setup()
        try:
            # Not aiohttp's site: asyncio's server, if closed while a connection is accepted, leaves that one open.
            with socket.create_server(("127.0.0.1", 0), backlog=_N_WAITING_CONNECTIONS) as listener:
                listener.setblocking(False)
                self._loop.add_reader(listener, self._accept, listener, cast(web.Server, runner.server))
                host, port = listener.getsockname()
                self._server = DirectoryServer(f"http://{host}:{port}")
                self._ready.set()
                await self._stopping.wait()
                self._loop.remove_reader(listener)
        except OSError as error:
            self._failure = error
        finally:
            self._ready.set()
            await asyncio.gather(*self._connecting, return_exceptions=True)
            await runner.cleanup()
            # Closing waits until all that was written is sent; a client that reads no more would hold it up for ever.
            for transport in list(self._transports):
                transport.abort()
            await asyncio.sleep(0)

    def _accept(self, listener: socket.socket, server: web.Server) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        task = asyncio.ensure_future(self._connect(connection, server))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket, server: web.Server) -> None:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(server, connection)
        self._transports.add(transport)

    async def _note(self, request: web.Request, response: web.StreamResponse) -> None:
        if self._server is not None:
            self._server.requests.append(_described(request, response.status))
        # A file's bytes are noted one by one as they are sent; what a fault answers itself comes at once.
        if isinstance(response, web.Response) and isinstance(response.body, bytes) and request.method != "HEAD":
            self._note_bytes(request.path, len(response.body))
        self._unanswered.discard(id(request))

    def _note_bytes(self, path: str, n_bytes: int) -> None:
        if self._server is not None:
            self._server.n_bytes_by_path[path] += n_bytes

    @web.middleware
    async def _note_unanswered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._unanswered.add(id(request))
        self._n_requests += 1
        if self._server is not None:
            self._server.peak_n_requests = max(self._server.peak_n_requests, self._n_requests)
        try:
            return await handler(request)
        except (asyncio.CancelledError, ConnectionResetError) as error:
            # The connection was closed, by the client or by a fault.
            if self._server is not None and id(request) in self._unanswered:
                self._server.requests.append(_described(request, 0))
            # aiohttp would log the other one with its traceback.
            raise asyncio.CancelledError from error
        finally:
            self._n_requests -= 1


def _as_middleware(fault: Fault) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await fault(request, handler)

    return middleware


def _described(request: web.Request, status: int) -> Request:
    return Request(request.method, request.path, request.headers.get("Range"), status)
