"""Emptying a folder, and nothing outside it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

__all__ = ["empty_folder", "require_own_folder"]


def require_own_folder(folder: Path) -> None:
    """Raise an :class:`OSError` if a link is in the place of a folder whose content is to be replaced or deleted."""
    if folder.is_symlink():
        found = f"a link to {os.path.realpath(folder)}, not a folder"
        raise NotADirectoryError(errno.ENOTDIR, found, os.fspath(folder))


def empty_folder(folder: Path) -> None:
    """Delete everything in a folder; of a link in it, the link and not what it leads to.

    Raises
    ------
    OSError
        If the folder is a link itself, or something cannot be deleted.
    """
    require_own_folder(folder)
    for entry in [*folder.iterdir()]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
