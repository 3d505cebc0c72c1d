"""Downloads of archives that were given up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sensorium_data.files import (
    IrregularFileError,
    Kept,
    Leftover,
    LocalObjects,
    is_part_record,
    measure_file,
    temporary_file,
    temporary_of,
    with_locked_file,
)
from sensorium_data.sessions import is_full_name

__all__ = ["find_download_leftovers"]

_ARCHIVE, _PART, _RECORD = ".zip", ".part", ".json"


def find_download_leftovers(folder: LocalObjects, name: str) -> Iterator[Leftover | Kept]:
    """Yield the unfinished download of a session's archive that has a name, if it is one.

    Parameters
    ----------
    folder : LocalObjects
        The folder that it lies in.
    name : str
        Of the file.
    """
    path = folder.root / name
    written, is_record, nothing = (temporary_of(name) or "").rpartition(_RECORD)
    written = written.removesuffix(_PART)
    if is_record and not nothing and written.endswith(_ARCHIVE) and is_full_name(written.removesuffix(_ARCHIVE)):
        part = folder.root / f"{written}{_PART}"
        yield temporary_file(path, with_locked_file(part, "a download is under way"))
        return
    archive, ending, rest = name.partition(f"{_ARCHIVE}{_PART}")
    if not ending or not is_full_name(archive) or rest not in ("", _RECORD):
        return
    part = folder.root / f"{archive}{ending}"
    record = part.with_name(f"{part.name}{_RECORD}")
    if path.is_symlink() or not path.is_file():
        yield Kept("unfinished download", str(path), "it is no file")
    elif rest:
        if not part.exists() and _is_recorded(record):
            yield temporary_file(path)
    elif path.stat().st_size and not _is_recorded(record):
        yield Kept("unfinished download", str(path), f"{record.name} does not say that a download made it")
    else:
        yield Leftover(
            kind="unfinished download",
            place=str(path),
            why="it was interrupted",
            measure=partial(measure_file, path),
            access=with_locked_file(path, "a download is under way"),
            discard=partial(_discard, part, record),
        )


def _is_recorded(record: Path) -> bool:
    try:
        return is_part_record(record)
    except IrregularFileError:
        return False


def _discard(part: Path, record: Path) -> None:
    # In this order: bytes without a record would be taken for somebody else's.
    part.unlink(missing_ok=True)
    if _is_recorded(record):
        record.unlink(missing_ok=True)
