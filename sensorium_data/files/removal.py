"""Deleting a folder, and nothing outside it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from pathlib import Path

from sensorium_data.files.local_objects import sync_path

__all__ = ["DISCARDED", "discard_folder", "remove_tree", "require_own_folder"]

#: What the names of folders that are being deleted match.
DISCARDED = re.compile(r"\..+\.[0-9a-f]{32}\.removed")


def require_own_folder(folder: Path) -> None:
    """Raise an :class:`OSError` if a link is in the place of a folder whose content is to be replaced or deleted."""
    if folder.is_symlink():
        found = f"a link to {os.path.realpath(folder)}, not a folder"
        raise NotADirectoryError(errno.ENOTDIR, found, os.fspath(folder))


def discard_folder(folder: Path, into: Path) -> None:
    """Delete a folder so that nobody finds a part of it under its name, whatever interrupts this.

    It gets another name first, one that :data:`DISCARDED` matches.

    Parameters
    ----------
    folder : Path
        What to delete.
    into : Path
        The folder in which it lies meanwhile, on the same disk.

    Raises
    ------
    OSError
        If the folder is a link itself, or something cannot be renamed or deleted.
    """
    require_own_folder(folder)
    gone = into / f".{folder.name}.{uuid.uuid4().hex}.removed"
    os.rename(folder, gone)
    # After a power cut it has its own name and is whole, or has the other one.
    for place in {folder.parent, into}:
        sync_path(place)
    remove_tree(gone)


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it; another process may be doing the same.

    Raises
    ------
    OSError
        If something cannot be deleted.
    """

    def handle(_function: object, _path: str, failure: tuple[object, BaseException, object]) -> None:
        if not isinstance(failure[1], FileNotFoundError):
            raise failure[1]

    shutil.rmtree(folder, onerror=handle)
