"""What files are called until they are whole: by names of their own, so that nobody else's file is in their place."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["delete_temporaries", "replace_whole", "temporary_of", "temporary_path"]

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.tmp")


def temporary_path(path: Path) -> Path:
    """Return a new path beside a file, to write it under: ``.<name>.<32 random hexadecimal digits>.tmp``."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def temporary_of(name: str) -> str | None:
    """Return the name of the file that a temporary file was to become; None if it is none.

    Examples
    --------
    >>> temporary_of(f".zarr.json.{'0' * 32}.tmp"), temporary_of("zarr.json"), temporary_of(".zarr.json.tmp")
    ('zarr.json', None, None)
    """
    match = _TEMPORARY.fullmatch(name)
    return match and match["name"]


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Give a new path to write a file under; the file gets its own name at the end, in one step.

    If something is raised, what was written is deleted.

    Raises
    ------
    OSError
        If the file cannot get its name.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def delete_temporaries(folder: Path, is_known: Callable[[str], bool]) -> None:
    """Delete what killed writers of some files left in a folder.

    Parameters
    ----------
    folder : Path
        It need not exist, and nothing is deleted where it is no folder.
    is_known : callable
        Takes a file's name, and returns whether it is one of those files. The caller holds the lock of whoever writes
        them.

    Raises
    ------
    OSError
        If one cannot be deleted.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in [*os.scandir(folder)]:
            name = temporary_of(entry.name)
            if name is not None and is_known(name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)
