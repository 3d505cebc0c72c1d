"""Keeping what opens doors out of logs, errors, artifacts and published attributes."""

from __future__ import annotations

import re

__all__ = ["hide_secrets"]

# A name, and perhaps a password, before a URL's host.
_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
# What signs a URL or stands in for a login.
_QUERY = re.compile(
    r"([?&][^=&\s'\"]*(?:token|signature|sig|secret|passw|pwd|key|credential|auth)[^=&\s'\"]*=)[^&\s'\"]+",
    re.IGNORECASE,
)


def hide_secrets(text: str) -> str:
    """Return a text without the logins and signatures in its URLs.

    Examples
    --------
    >>> hide_secrets("cannot read https://lab:pass@host/F.zip?X-Amz-Signature=12ab&part=3 now")
    'cannot read https://…@host/F.zip?X-Amz-Signature=…&part=3 now'
    """
    return _QUERY.sub(r"\1…", _USER.sub("…@", text))
