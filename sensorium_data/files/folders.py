"""Making folders, and saying so where something else has the name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sensorium_data.files.regular_file import describe_kind

__all__ = ["make_folder"]


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, where it does not exist.

    Raises
    ------
    NotADirectoryError
        If it, or one that it would lie in, is no folder.
    OSError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        kind = describe_kind(os.lstat(folder).st_mode)
        raise NotADirectoryError(errno.ENOTDIR, f"{kind}, not a folder", os.fspath(folder)) from error
