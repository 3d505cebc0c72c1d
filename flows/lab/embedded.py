"""The server for a command that runs a flow: the one that the environment names, one that stays, or one of its own."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.error import HTTPError
from urllib.request import urlopen

from flows.lab.lasting_server import LastingServer, join_lasting_server
from flows.lab.local_server import EMBEDDED, LocalServer, default_home, start_server
from flows.lab.loopback import bypass_proxies_for_loopback, describe_route
from sensorium_data.errors import UsageError

__all__ = ["require_server", "server_is_configured", "start_embedded_server", "use_lasting_server"]


_ANSWER_TIMEOUT_S = 10.0
_EXIT_TERMINATED = 143
_SERVER_ERROR = 500


def server_is_configured() -> bool:
    """Whether the environment names a Prefect server."""
    return bool(os.environ.get("PREFECT_API_URL"))


def require_server() -> None:
    """Check that the server which the environment names answers.

    Raises
    ------
    UsageError
        If it does not.
    """
    bypass_proxies_for_loopback()
    url = os.environ["PREFECT_API_URL"]
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("no http:// or https:// URL")
        try:
            urlopen(f"{url.rstrip('/')}/health", timeout=_ANSWER_TIMEOUT_S).close()  # noqa: S310 (checked above)
        except HTTPError as error:
            # A server that wants a login answers too; 502 is what a proxy says of one that it cannot reach.
            if error.code >= _SERVER_ERROR:
                raise
    except (OSError, ValueError, HTTPException) as error:
        raise UsageError(
            "no Prefect server answers at PREFECT_API_URL",
            path=url,
            found=f"{str(error).strip()}, {describe_route(url)}",
            remedy="start it with `prefect server start`, or unset PREFECT_API_URL to run without one",
        ) from error


def start_embedded_server(home: Path | None = None, *, log_level: str | None = None) -> LocalServer:
    """Start the embedded server, on which flows of this process run, and which ends with this process.

    It takes as long to start as Prefect and torch to import: the caller imports them before it waits by
    :meth:`~flows.lab.LocalServer.wait_until_healthy`. Called in the main thread. Prefect reads its settings
    once, when it is imported, so this has to come first.

    Parameters
    ----------
    home : Path, optional
        Where Prefect keeps its database, and the server its log; Prefect's own default if not given.
    log_level : str, optional
        Least level of Prefect's lines on the terminal.

    Raises
    ------
    RuntimeError
        If Prefect has been imported already.
    """
    _require_unread_settings()
    if log_level is not None:
        os.environ["PREFECT_LOGGING_LEVEL"] = log_level
    stack = ExitStack()
    # Prefect's own farewells come before it: they are registered later, and so called earlier.
    atexit.register(stack.close)
    server = stack.enter_context(start_server(home or default_home(), 0, settings=EMBEDDED))
    _prepare_process(server.environment)
    return server


def use_lasting_server(home: Path | None = None, *, idle_s: float) -> LastingServer:
    """Use the server that stays between commands for flows of this process; one is started if there is none.

    Called as :func:`start_embedded_server` is.

    Parameters
    ----------
    home : Path, optional
        Where Prefect keeps its database, and the server its log; Prefect's own default if not given.
    idle_s : float
        After so long without use a server that is started here ends.

    Raises
    ------
    ServerError
        If there is a server that does not fit and is in use, or a new one does not start.
    RuntimeError
        If Prefect has been imported already.
    """
    _require_unread_settings()
    server = join_lasting_server(home, idle_s=idle_s)
    _prepare_process(server.environment)
    return server


def _require_unread_settings() -> None:
    if "prefect" in sys.modules:
        raise RuntimeError("Prefect has been imported already: its settings are fixed")


def _prepare_process(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    # If it ends, nobody starts it again.
    os.environ.setdefault("SENSORIUM_SERVER_WAIT_S", "1")
    # Flows tell the server that they were interrupted.
    signal.signal(signal.SIGTERM, _exit_orderly)


def _exit_orderly(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(_EXIT_TERMINATED)
