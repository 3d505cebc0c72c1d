"""What file systems behind URLs raise: each client library has errors of its own, and few of them are OSErrors."""

from __future__ import annotations

import errno
from typing import Any

__all__ = ["is_damage", "is_remote_failure", "is_transient", "remedy_for", "status_of"]

# The packages whose errors say that a server, a network or a login failed.
_CLIENTS = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "httpx", "paramiko", "requests"}
    | {"s3fs", "ssl", "urllib3", "webdav4"}
)
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset({errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE})
# Bases of botocore's and aiohttp's errors of connections that were refused, cut or too slow.
_TRANSIENT_NAMES = frozenset({"ConnectionError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError"})
_DAMAGES = frozenset({"ChecksumError", "FlexibleChecksumError"})
_NO_LOGIN = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "TokenRetrievalError"}
)


def is_remote_failure(error: BaseException) -> bool:
    """Whether an exception says that a request failed, and not that the program is wrong."""
    return isinstance(error, OSError) or any(
        kind.__module__.partition(".")[0] in _CLIENTS for kind in type(error).__mro__
    )


def is_transient(error: BaseException) -> bool:
    """Whether a request may succeed if it is made again."""
    if isinstance(error, (ConnectionError, TimeoutError)) or _is_named(error, _TRANSIENT_NAMES):
        return True
    # s3fs puts an OSError in the place of the client's.
    for one in (error, error.__cause__):
        status = None if one is None else status_of(one)
        if status is not None:
            return status in _TRANSIENT_STATUSES
    return isinstance(error, OSError) and error.errno in _TRANSIENT_CODES


def is_damage(error: BaseException | None) -> bool:
    """Whether a client found that an object's bytes are not those of the checksum that the store has of them."""
    return error is not None and _is_named(error, _DAMAGES)


def remedy_for(error: BaseException) -> str | None:
    """Return what to do about a failed request; None if nothing better is known than to check path and rights."""
    if _is_named(error, _NO_LOGIN):
        return "set the store's credentials in the environment, or in its client's own configuration"
    if is_transient(error):
        return "check the network and the server's address, and run it again: what is finished is kept"
    if isinstance(error, FileNotFoundError):
        return "check the name of the bucket or folder; it is not made here"
    return None


def _is_named(error: BaseException, names: frozenset[str]) -> bool:
    return any(kind.__name__ in names and kind.__module__.partition(".")[0] in _CLIENTS for kind in type(error).__mro__)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the answer behind an exception."""
    # botocore keeps the answer, aiohttp the status, Google's and Azure's clients a code.
    response: Any = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    for name in ("status", "status_code", "code"):
        if isinstance(status, int) and 100 <= status < 600:
            return status
        status = getattr(error, name, None)
    return status if isinstance(status, int) and 100 <= status < 600 else None
