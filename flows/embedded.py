"""Settings of Prefect for commands that run flows on its embedded server."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from sensorium_data.errors import UsageError

__all__ = ["prefer_embedded_server", "require_server", "server_is_configured"]


_ANSWER_TIMEOUT_S = 10.0


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
