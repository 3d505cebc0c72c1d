"""Where this package keeps what it can get again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """Return ``sensorium/<name>`` in the user's folder for caches; it need not exist.

    A relative ``XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification asks for.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (folder if folder.is_absolute() else Path.home() / ".cache") / "sensorium" / name
