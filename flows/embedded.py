"""Prefect's embedded server, and its settings, for commands that run flows on it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.error import HTTPError
from urllib.request import urlopen

from sensorium_data.errors import UsageError

__all__ = ["prefer_embedded_server", "require_server", "server_is_configured", "start_embedded_server"]


_ANSWER_TIMEOUT_S = 10.0
_EXIT_TERMINATED = 143


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
    url = os.environ["PREFECT_API_URL"]
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("no http:// or https:// URL")
        # A server that wants a login answers too.
        with contextlib.suppress(HTTPError):
            urlopen(f"{url.rstrip('/')}/health", timeout=_ANSWER_TIMEOUT_S).close()  # noqa: S310 (checked above)
    except (OSError, ValueError) as error:
        raise UsageError(
            "no Prefect server answers at PREFECT_API_URL",
            path=url,
            found=error,
            remedy="start it with `prefect server start`, or unset PREFECT_API_URL to run without one",
        ) from error


def prefer_embedded_server(home: Path | None = None, *, log_level: str | None = None) -> None:
    """Prepare the environment so that flows of this process run on the embedded server.

    Prefect reads its settings once, when it is imported, so this has to come first.

    Parameters
    ----------
    home : Path, optional
        Where Prefect keeps its database; its own default if not given.
    log_level : str, optional
        Least level of Prefect's lines on the terminal.

    Raises
    ------
    RuntimeError
        If Prefect has been imported already.
    """
    if "prefect" in sys.modules:
        raise RuntimeError("Prefect has been imported already: its settings are fixed")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
    # On a busy machine the embedded server takes close to Prefect's own limit of 20 s.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
        os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
    if log_level is not None:
        os.environ["PREFECT_LOGGING_LEVEL"] = log_level


def start_embedded_server() -> None:
    """Start the embedded server, which ends with this process, and later than the flows that run on it.

    Ctrl-C reaches every process of a terminal's group. A server that ended at once would leave its flows trying for
    minutes to tell it how they ended. Called in the main thread, after :func:`prefer_embedded_server`.
    """
    from prefect.server.api.server import SubprocessASGIServer

    failures: list[BaseException] = []

    def start() -> None:
        # The server inherits what its starting thread does not listen to; this process still hears it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()
        except BaseException as failure:  # noqa: BLE001 (raised again below)
            failures.append(failure)

    # Without this, a process that is asked to end leaves its server behind.
    signal.signal(signal.SIGTERM, _exit_orderly)
    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


def _exit_orderly(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(_EXIT_TERMINATED)
