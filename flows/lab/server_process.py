"""The process of a Prefect server: ``-m flows.lab.server_process SOCKET [LOCK IDLE_S SETTINGS]``.

SOCKET is a descriptor of a socket that listens already. Whoever connects before the server is ready waits, and no other
program can take the port meanwhile. With LOCK, a descriptor that holds the lock of the record, the server stays when
whoever started it ends: until it was not used for IDLE_S seconds. SETTINGS is the digest of what it was started with.

Prefect's own command takes longer to start, fills a new database by all migrations that there ever were, and stays for
ever.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.lab.server_record import STATUS_PATH, ServerFiles, ServerRecord, identify
from sensorium_data.files import close_locked, try_lock

__all__ = ["main"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_logger = logging.getLogger(__name__)

_MAX_POLL_S = 2.0
_POLLS_PER_IDLE_TIME = 10
# A page that is open in a browser must not keep a server from ending.
_LAST_ANSWERS_S = 5


def main(arguments: list[str]) -> None:
    """Run the server until it is asked to end, or is not used any more."""
    listener = socket.socket(fileno=int(arguments[0]))
    listener.set_inheritable(False)
    lasting = None
    if len(arguments) > 1:
        lock, idle_s, settings = arguments[1:]
        # Whoever started it waits only for the process that ends here, and the system takes the other one over.
        if os.fork():
            os._exit(0)
        lasting = _Lasting(int(lock), float(idle_s), settings, listener.getsockname()[1])
    # Nothing that is imported is garbage, and looking for some takes a fifth of the time.
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, get_current_settings

    from flows.lab.database_template import find_template

    settings_now = get_current_settings().server
    database = _find_database(str(PREFECT_API_DATABASE_CONNECTION_URL.value()))
    template = None if database is None or database.exists() else find_template()
    if template is not None and database is not None and template.install(database):
        template = None
    app: App = create_app(final=True)
    gc.freeze()
    gc.enable()

    async def prepare() -> None:
        # Nobody can have used the database yet.
        if template is not None and database is not None:
            await asyncio.to_thread(template.save, database)
        if lasting is not None:
            lasting.watch(server, database)

    config = uvicorn.Config(
        lasting.count(_prepared(app, prepare)) if lasting else _prepared(app, prepare),
        log_level=settings_now.logging_level.lower(),
        timeout_keep_alive=settings_now.api.keepalive_timeout,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])


class _Lasting:
    """What a server does that stays by itself: it says what it is, and ends when it is not used any more."""

    def __init__(self, lock: int, idle_s: float, settings: str, port: int) -> None:
        os.set_inheritable(lock, False)
        self._files = ServerFiles(Path(os.environ["PREFECT_HOME"]))
        self._record = ServerRecord(
            pid=os.getpid(),
            identity=identify(os.getpid()),
            started_s=time.time(),
            port=port,
            home=str(self._files.home),
            prefect=version("prefect"),
            settings=settings,
            token=secrets.token_hex(16),
            idle_s=idle_s,
        )
        descriptor = self._files.open_record()
        os.pwrite(descriptor, self._record.to_json(), 0)
        # Closing it would end the lock where the lock is its own.
        self._descriptors = [lock, descriptor]
        self._used_s = time.monotonic()
        self._n_open = 0
        self._is_sound: Callable[[], bool] = lambda: True

    def count(self, app: App) -> App:
        """Return an app that notes when it is used, and says what it is."""

        async def counting(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            if scope["type"] == "http" and scope["path"] == STATUS_PATH:
                await self._tell(send)
                return
            self._n_open += 1
            try:
                await app(scope, receive, send)
            finally:
                self._n_open -= 1
                self._used_s = time.monotonic()

        return counting

    def watch(self, server: Any, database: Path | None) -> None:
        """End the server when it has not been used for long enough, or what it works on is gone."""
        if database is not None:
            identity = os.stat(database)
            self._is_sound = lambda: _is_same_file(database, identity)
        self._watching = asyncio.get_running_loop().create_task(self._end_when_unused(server))

    async def _tell(self, send: Send) -> None:
        status = 200 if self._is_sound() else 503
        body = self._record.to_json()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _end_when_unused(self, server: Any) -> None:
        poll_s = min(_MAX_POLL_S, self._record.idle_s / _POLLS_PER_IDLE_TIME)
        try:
            while not (reason := self._find_reason_to_end()):
                await asyncio.sleep(poll_s)
        except OSError as error:
            reason = f"its home cannot be read: {error}"
        _logger.warning("the server ends: %s", reason)
        server.should_exit = True

    def _find_reason_to_end(self) -> str:
        """Return why the server should end now, or nothing."""
        if self._files.read() != self._record:
            return "its record is gone"
        users = self._files.open_users()
        if not try_lock(users, self._files.users):
            self._used_s = time.monotonic()
        elif not self._is_sound():
            return "its database is gone"
        elif not self._n_open and time.monotonic() - self._used_s >= self._record.idle_s:
            # The lock is kept until the process is gone: whoever wants a server waits for that, and starts another.
            return f"it was not used for {self._record.idle_s / 60:g} min"
        close_locked(users)
        return ""


def _prepared(app: App, prepare: Callable[[], Awaitable[None]]) -> App:
    """Return an app that does something else once it has started, before anybody is answered."""

    async def prepared(scope: Message, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await prepare()
            await send(message)

        await app(scope, receive, tell if scope["type"] == "lifespan" else send)

    return prepared


def _find_database(url: str) -> Path | None:
    """Return the file of a database, or None if it is in no file of this machine."""
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    in_file = parts.get_backend_name() == "sqlite" and parts.database and ":memory:" not in url and not parts.query
    return Path(str(parts.database)) if in_file else None


def _is_same_file(path: Path, identity: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), identity)
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
