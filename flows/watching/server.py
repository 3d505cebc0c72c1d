"""A Prefect server that may be away: restarted, updated, or cut off for an hour."""

from __future__ import annotations

import functools
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES
from prefect.settings import Settings as PrefectSettings

from flows.settings import Settings

__all__ = ["Connect", "is_absence", "quick_client", "wait_for_server", "warn"]

#: Opens a client for some requests.
Connect = Callable[[], AbstractContextManager[SyncPrefectClient]]

# Prefect's own client asks six times with growing pauses, for a minute in all, and waits a minute for each answer.
_ANSWER_TIMEOUT_S = 15.0
_POLL_S = 5.0
_SERVER_ERROR = 500
# What a server or a proxy says that is too busy.
_BUSY = (408, 429)


@contextmanager
def quick_client() -> Iterator[SyncPrefectClient]:
    """Yield a client of its own that asks once: a server that is away keeps its caller for seconds, not for minutes."""
    with _impatient.settings() as url:
        httpx_settings: dict[str, Any] = {"timeout": _ANSWER_TIMEOUT_S}
        if url.startswith("http://"):
            httpx_settings["verify"] = _without_authorities()
        with get_client(sync_client=True, httpx_settings=httpx_settings) as client:
            yield client


class _ImpatientSettings:
    """Prefect's settings with no retries, made once for all clients: making them takes a tenth of a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[PrefectSettings, PrefectSettings] | None = None

    @contextmanager
    def settings(self) -> Iterator[str]:
        """Have the settings apply, and yield the server's URL, empty if there is none."""
        context = get_settings_context()
        with self._lock:
            if self._made is None or self._made[0] is not context.settings:
                updated = context.settings.copy_with_update({PREFECT_CLIENT_MAX_RETRIES: 0})
                self._made = context.settings, updated
            settings = self._made[1]
        with SettingsContext(profile=context.profile, settings=settings):
            yield settings.api.url or ""


_impatient = _ImpatientSettings()


@functools.cache
def _without_authorities() -> ssl.SSLContext:
    """Return the TLS settings for a server without TLS; loading the authorities' certificates takes long."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def is_absence(error: BaseException) -> bool:
    """Whether an error of Prefect's client says that the server is away or not ready, and not that it refuses."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= _SERVER_ERROR or status in _BUSY
    return isinstance(error, httpx.TransportError)


def wait_for_server(
    *,
    connect: Connect = quick_client,
    longest_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until the server answers, and return whether it does.

    Parameters
    ----------
    connect : callable
        Opens a client.
    longest_s : float, optional
        After so many seconds it is given up; by default :attr:`flows.settings.Settings.server_wait_s`.
    clock, sleep : callable
        Seconds that never go back, and what waits for some.
    """
    begin_s = clock()
    if longest_s is None:
        longest_s = Settings().server_wait_s
    told = False
    while True:
        with connect() as client:
            error = client.api_healthcheck()
        if error is None:
            if told:
                warn(f"the Prefect server is back after {clock() - begin_s:.0f} s")
            return True
        if clock() - begin_s + _POLL_S > longest_s:
            warn(f"the Prefect server stays away, it is not waited for any longer: {error!r}")
            return False
        if not told:
            warn(f"the work is done; waiting up to {longest_s:.0f} s for the Prefect server, to report it: {error!r}")
            told = True
        sleep(_POLL_S)


def warn(line: str) -> None:
    """Write a warning into the log of the run around the caller, or else of Prefect."""
    try:
        logger = get_run_logger()
    except MissingContextError:
        logger = get_logger("sensorium")
    logger.warning(line)
