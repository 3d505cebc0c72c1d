"""What every source of bytes does, and how long it insists."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sensorium_data.errors import SourceChangedError, SourceError, UsageError

__all__ = ["DOWNLOAD_BY_HAND", "ByteSource", "RetryPolicy", "describe_change", "describe_error"]

#: What to do about a source that cannot be read in place, for errors.
DOWNLOAD_BY_HAND = (
    "download the archive first, with a browser if need be, and pass the folder it is in with --source DIR"
)


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist before giving up on a server.

    Attributes
    ----------
    n_attempts : int
        Requests made for one range, one after the other and without progress, before the error is raised.
    backoff_s, backoff_max_s : float
        The wait before the second attempt, doubled for each later one, and its upper bound. Each wait is
        drawn between half of it and all of it, so that parallel readers do not return in step.
    retry_after_max_s : float
        Longest wait a server may ask for by ``Retry-After``; a longer one is cut to this.
    connect_timeout_s, stall_timeout_s : float
        Longest wait for a connection, and for the next bytes of an answer; the headers of an answer have to come within
        both together. There is no limit on the whole of an answer: a slow server is not a dead one. It has to send
        :data:`sensorium_data.limits.MIN_RATE_BYTES_PER_S`.
    clock : callable
        Returns seconds and never goes back; what that rate is measured by.
    """

    n_attempts: int = 6
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    retry_after_max_s: float = 120.0
    connect_timeout_s: float = 30.0
    stall_timeout_s: float = 60.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.n_attempts < 1:
            raise UsageError("too few attempts", found=self.n_attempts, expected="at least 1")

    def wait_s(self, attempt: int, retry_after_s: float | None = None) -> float:
        """Return the wait in seconds after the failed ``attempt`` (counted from 1)."""
        if retry_after_s is not None:
            return min(retry_after_s, self.retry_after_max_s)
        longest = min(self.backoff_max_s, self.backoff_s * 2.0 ** (attempt - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, no secret


class ByteSource(ABC):
    """Bytes at a URL, read by range; a context manager.

    Attributes
    ----------
    url : str
        Where the bytes are, as given.
    size_bytes : int
        How many there are.
    modified : str or None
        What marks this version of the bytes: an ETag, or the time of modification. None if
        nothing is known.
    tail : bytes
        The last bytes, as many as were asked for on opening or as there are. They come with the request that
        tells the size.
    """

    url: str
    size_bytes: int
    modified: str | None
    tail: bytes

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` up to, not including, ``stop``.

        Raises
        ------
        SourceChangedError
            If the source shows that its bytes are no longer those of the version that was opened.
        SourceError
            If they cannot be had, all of them.
        """
        if not 0 <= start <= stop <= self.size_bytes:
            raise SourceError(
                "these bytes lie outside the file",
                path=self.url,
                found=f"bytes {start} to {stop}",
                expected=f"bytes within 0 to {self.size_bytes}",
            )
        return self._read(start, stop) if stop > start else b""

    def check_unchanged(self) -> None:
        """Read the tail again and compare it with the one that was read on opening.

        Tells a file that was replaced from one that is damaged, where nothing stamps its versions. The risk: a
        version with the same size and the same tail is taken for the same.

        Raises
        ------
        SourceChangedError
            If the bytes are of another version.
        SourceError
            If they cannot be had.
        """
        if self.tail and self.read(self.size_bytes - len(self.tail), self.size_bytes) != self.tail:
            raise describe_change(self.url, "another tail", f"the {len(self.tail)} bytes read at first")

    @abstractmethod
    def _read(self, start: int, stop: int) -> bytes:
        """Return a range that is known to be inside and not empty."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held open; reading afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def describe_error(error: BaseException) -> str:
    """Return an error's kind and message, for the ``found`` of another."""
    return f"{type(error).__name__} {error}".strip()


def describe_change(url: str, found: object, expected: object) -> SourceChangedError:
    """Return the error for bytes of another version than the one that was opened."""
    return SourceChangedError(
        "the archive changed while it was being read", path=url, found=found, expected=expected, remedy="start again"
    )
