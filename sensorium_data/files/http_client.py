"""Requests for one file on an HTTP(S) server: their settings, their attempts, and what their answers' headers say."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp
import fsspec
import fsspec.asyn

from sensorium_data import limits
from sensorium_data.errors import SourceError
from sensorium_data.files.byte_source import DOWNLOAD_BY_HAND, RetryPolicy, describe_error
from sensorium_data.files.web_address import split_url
from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_visible

__all__ = ["PROGRESS_SIZE_BYTES", "HttpClient", "TransientError", "check_transient", "is_html", "stamp_of"]

_T = TypeVar("_T")

#: What an attempt has to bring so that it counts as progress. Less would let a server keep its client for ever.
PROGRESS_SIZE_BYTES = 1 << 14


class HttpClient:
    """One URL on an HTTP(S) server, and a pool of connections to it; a context manager.

    Safe to use from many threads; as many connections are open as threads ask at once. The settings in fsspec's
    configuration (headers, authorization) apply.

    Parameters
    ----------
    url : str
        The file's URL.
    policy : RetryPolicy
        How long to insist.

    Raises
    ------
    SourceError
        If ``url`` is none, or a proxy that the environment names cannot be one.
    """

    def __init__(self, url: str, policy: RetryPolicy) -> None:
        self.url = url
        self.policy = policy
        # An instance of its own, not fsspec's cached one: its connections close with this client.
        self.filesystem = fsspec.filesystem("http", skip_instance_cache=True)
        split_url(url)
        self._address = self.filesystem.encode_url(url)
        if not self._is_on_this_machine:
            _require_usable_proxies()
        self.filesystem.client_kwargs = {
            # As curl does: proxies and .netrc from the environment, but never for this machine.
            "trust_env": not self._is_on_this_machine,
            **self.filesystem.client_kwargs,
        }
        self._loop = self.filesystem.loop
        self._session: aiohttp.ClientSession | None = None
        self._closed = threading.Event()
        self._tasks: set[asyncio.Task[Any] | None] = set()

    @property
    def _is_on_this_machine(self) -> bool:
        return self._address.host in ("localhost", "127.0.0.1", "::1")

    def run(self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: object) -> _T:
        """Call a coroutine function in the event loop's thread, and return what it returns.

        Raises
        ------
        SourceError
            If the client was closed before or meanwhile.
        """
        result: _T = fsspec.asyn.sync(self._loop, self._call, function, *arguments)
        return result

    async def _call(self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: object) -> _T:
        # Checked in the loop's thread, in which the client is closed: nothing comes between this and the request.
        if self._closed.is_set():
            raise self._describe_closed()
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await function(*arguments)
        except asyncio.CancelledError as error:
            raise self._describe_closed() from error
        finally:
            self._tasks.discard(task)

    def _describe_closed(self) -> SourceError:
        return SourceError("the source was closed before it was read", path=self.url)

    def insist(
        self,
        attempt: Callable[[], _T],
        *,
        expected: str,
        n_received: Callable[[], int] = lambda: 0,
    ) -> _T:
        """Call ``attempt``, again after a :class:`TransientError`, as often as the policy allows.

        A failed attempt that brings as much as :data:`PROGRESS_SIZE_BYTES` more than all before it is the first one
        again: a server that cuts long answers delivers all the same.

        Parameters
        ----------
        attempt : callable
            Makes one request.
        expected : str
            What is asked for, in words for the error.
        n_received : callable
            Returns how many of the bytes have come.

        Raises
        ------
        SourceError
            If no attempt succeeds.
        """
        number, furthest = 0, 0
        while True:
            try:
                return attempt()
            except TransientError as error:
                number += 1
                if n_received() >= furthest + PROGRESS_SIZE_BYTES:
                    number, furthest = 1, n_received()
                if number == self.policy.n_attempts:
                    raise SourceError(
                        f"the server did not deliver in {number} attempts",
                        path=self.url,
                        found=f"{error} after {n_received()} bytes" if n_received() else str(error),
                        expected=expected,
                        remedy="check the network and try again later: what is done is kept; or " + DOWNLOAD_BY_HAND,
                    ) from error
                # Whoever closes the client need not wait for the next attempt.
                self._closed.wait(self.policy.wait_s(number, error.retry_after_s))

    @asynccontextmanager
    async def get(self, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a GET request; what fails while the answer is read becomes an error of this module.

        Leaving early closes the connection: what was not read, perhaps a whole archive, stays unread.
        """
        session = await self._open_session()
        options = dict(self.filesystem.kwargs)
        options["headers"] = {**options.get("headers", {}), **headers, "Accept-Encoding": "identity"}
        options["timeout"] = aiohttp.ClientTimeout(
            total=None, sock_connect=self.policy.connect_timeout_s, sock_read=self.policy.stall_timeout_s
        )
        try:
            # Each of the server's lines may come in time, and their end never: of headers, of answers 100 Continue.
            async with asyncio.timeout(self.policy.connect_timeout_s + self.policy.stall_timeout_s):
                response = await session.get(self._address, **options)
            async with response:
                yield response
        except TimeoutError as error:
            raise TransientError("no answer in time") from error
        except (aiohttp.InvalidURL, aiohttp.TooManyRedirects, aiohttp.ClientSSLError) as error:
            raise self.refuse("this URL cannot be opened", found=describe_error(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise TransientError("the connection broke") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TransientError(describe_error(error)) from error

    def watch_rate(self) -> RateWatch:
        """Return what refuses a body that comes too slowly; it is to be told of each piece."""
        return RateWatch(self.policy.clock)

    def check_answer(self, response: aiohttp.ClientResponse, statuses: Collection[int], expected: str) -> None:
        """Refuse an answer of another status, a web page, and a compressed body.

        Parameters
        ----------
        response : aiohttp.ClientResponse
            The answer's headers.
        statuses : collection of int
            The statuses of an answer that has the bytes.
        expected : str
            The status that was hoped for, in words.

        Raises
        ------
        TransientError
            If another attempt may have a better answer.
        SourceError
            If it may not.
        """
        check_transient(response)
        status = response.status
        if status not in statuses:
            raise self.refuse(
                _STATUSES.get(status, "the server refused the request"),
                found=f"status {status} {response.reason or ''}".rstrip(),
                expected=expected,
                remedy=_REMEDIES.get(status, DOWNLOAD_BY_HAND),
            )
        if is_html(response):
            raise self.refuse(
                "the server answered with a web page, perhaps a captcha or a login",
                found=f"status {status}, {response.content_type}",
                expected="the archive's bytes",
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            what = "byte ranges" if status == 206 else "the archive on its way"
            raise self.refuse(f"the server compresses {what}", found=encoding, expected="the bytes as they are")

    def refuse(self, problem: str, *, found: object = None, expected: object = None, remedy: str = "") -> SourceError:
        """Return the error for an answer that no other attempt would better."""
        return SourceError(problem, path=self.url, found=found, expected=expected, remedy=remedy or DOWNLOAD_BY_HAND)

    async def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Without a connector of its own, a session opens at most a hundred connections.
            self.filesystem.client_kwargs.setdefault("connector", aiohttp.TCPConnector(limit=0))
            self._session = await self.filesystem.set_session()
        return self._session

    def close(self) -> None:
        """Close the connections; requests under way end with an error."""
        if not self._closed.is_set():
            self._closed.set()
            fsspec.asyn.sync(self._loop, self._close)

    async def _close(self) -> None:
        # Who waits for bytes of a connection that its own session closes would wait for ever.
        for task in self._tasks:
            if task is not None:
                task.cancel()
        if self._session is not None:
            await self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class TransientError(Exception):
    """An answer that may be better the next time.

    Attributes
    ----------
    retry_after_s : float or None
        The wait that the server asks for.
    """

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class RateWatch:
    """Refuses a body that comes slower than :data:`sensorium_data.limits.MIN_RATE_BYTES_PER_S`, window by window.

    Parameters
    ----------
    clock : callable
        Returns seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = clock()
        self._n_bytes = 0

    def note(self, n_bytes: int) -> None:
        """Note that bytes have come; raise a :class:`TransientError` if too few did since the window began."""
        self._n_bytes += n_bytes
        duration_s = self._clock() - self._began_s
        if duration_s < limits.RATE_WINDOW_S:
            return
        if self._n_bytes < limits.MIN_RATE_BYTES_PER_S * duration_s:
            raise TransientError(
                f"{self._n_bytes} bytes in {duration_s:.0f} s, less than {limits.MIN_RATE_BYTES_PER_S} bytes a second "
                "(MIN_RATE_BYTES_PER_S)"
            )
        self._began_s += duration_s
        self._n_bytes = 0


def is_html(response: aiohttp.ClientResponse) -> bool:
    """Whether an answer is a web page."""
    return response.content_type in ("text/html", "application/xhtml+xml")


def check_transient(response: aiohttp.ClientResponse) -> None:
    """Raise a :class:`TransientError` for a status that may be better the next time."""
    if response.status in _TRANSIENT_STATUSES:
        raise TransientError(f"status {response.status} {response.reason}", _retry_after_s(response.headers))


def stamp_of(headers: Mapping[str, str]) -> str | None:
    """Return what marks the version of an answer's file: its ETag, else when it was modified, else None."""
    return headers.get("ETag") or headers.get("Last-Modified")


def _require_usable_proxies() -> None:
    """Raise a :class:`SourceError` if a proxy of the environment cannot be one: aiohttp fails an assertion then."""
    for scheme, proxy in getproxies().items():
        if scheme not in ("http", "https"):
            continue
        try:
            address = urlsplit(proxy)
            is_usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
            is_usable &= make_visible(proxy) == proxy
        except ValueError:
            is_usable = False
        if not is_usable:
            raise SourceError(
                "a proxy that the environment names cannot be used",
                found=f"{scheme}_proxy={hide_secrets(proxy)}",
                expected="http://HOST:PORT",
                remedy="correct the variable, or unset it",
            )


_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUSES = {
    401: "the server wants a login",
    403: "the server refuses access",
    404: "there is no such file on the server",
    410: "the file is gone from the server",
}
_REMEDIES = {404: "check the URL or the --source given", 410: "check the URL or the --source given"}


_SECONDS = re.compile(r"[0-9]{1,9}")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that the server asks for: seconds, or a date."""
    stated = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(stated):
        return float(stated)
    try:
        date = email.utils.parsedate_to_datetime(stated)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
