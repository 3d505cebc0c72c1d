"""Which names that come from a file, a server or an archive may be joined to a path."""

from __future__ import annotations

import os
import re

__all__ = ["find_name_problem"]

_SEPARATORS = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")


def find_name_problem(name: object) -> str | None:
    r"""Return why a name may not be joined to a path, as a clause; ``None`` if it may.

    A name that passes stays below the folder or URL that it is joined to, on POSIX and on Windows. Links on the disk
    are not looked at: :class:`sensorium_data.files.LocalObjects` follows none that leads out of its root.

    Parameters
    ----------
    name : object
        Parts separated by ``/`` or ``\``.

    Examples
    --------
    >>> find_name_problem("videos/c/0/0/0/0")
    >>> find_name_problem("../../thesis")
    "it contains '..'"
    """
    if not isinstance(name, str):
        return "it is not text"
    parts = _SEPARATORS.split(name)
    if all(part in ("", ".") for part in parts):
        return "it is empty"
    if not parts[0] or _DRIVE.match(name):
        return "it is an absolute path"
    if ".." in parts:
        return "it contains '..'"
    if "\0" in name:
        return "it contains a null character"
    # fsspec reads them as another file system.
    if "::" in name or "://" in name:
        return "it is a URL"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "it contains characters that no file system has"
    return None
