"""Downloads of archives that were given up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sensorium_data.files import Kept, Leftover, LocalObjects, measure_file, temporary_file, with_locked_file
from sensorium_data.sessions import is_full_name

__all__ = ["find_download_leftovers"]

_ARCHIVE, _PART, _RECORD, _TEMPORARY = ".zip", ".part", ".json", ".tmp"


def find_download_leftovers(folder: LocalObjects, name: str) -> Iterator[Leftover | Kept]:
    """Yield the unfinished download of a session's archive that has a name, if it is one.

    Parameters
    ----------
    folder : LocalObjects
        The folder that it lies in.
    name : str
        Of the file.
    """
    archive, ending, rest = name.partition(f"{_ARCHIVE}{_PART}")
    if not ending or not is_full_name(archive):
        return
    path = folder.root / name
    part = folder.root / f"{archive}{ending}"
    if path.is_symlink() or not path.is_file():
        yield Kept("unfinished download", str(path), "it is no file")
    elif not rest:
        yield Leftover(
            kind="unfinished download",
            place=str(path),
            why="it was interrupted",
            measure=partial(measure_file, path),
            access=with_locked_file(path, "a download is under way"),
            discard=partial(_discard, part),
        )
    elif rest in (_RECORD, f"{_RECORD}{_TEMPORARY}") and not part.exists():
        yield temporary_file(path)


def _discard(part: Path) -> None:
    # The record first: bytes without one are not continued.
    for ending in (f"{_RECORD}{_TEMPORARY}", _RECORD, ""):
        with contextlib.suppress(FileNotFoundError):
            part.with_name(f"{part.name}{ending}").unlink()
