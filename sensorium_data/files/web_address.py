"""Web addresses, as users type them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from sensorium_data.errors import SourceError

__all__ = ["split_url"]


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL, and see that those of a server's name and port make sense.

    Raises
    ------
    SourceError
        If they do not.
    """
    try:
        parts = urlsplit(url)
        # Names in object stores may hold colons.
        if parts.scheme in ("http", "https"):
            _ = parts.port
    except ValueError as error:
        raise SourceError(
            "this is no URL",
            path=url,
            found=str(error),
            remedy="check its server's name and port; in a password, write [ as %5B, ] as %5D, : as %3A and @ as %40",
        ) from error
    return parts
