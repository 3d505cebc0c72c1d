"""Files that an interrupted simulation left beside its archives."""

from __future__ import annotations

from collections.abc import Iterator

from sensorium_data.archive import MODALITIES
from sensorium_data.files import Leftover, LocalObjects, temporary_file
from sensorium_data.sessions import is_full_name

__all__ = ["find_simulation_leftovers"]

_ARCHIVE, _UNFINISHED = ".zip", ".partial"
_ENDINGS = frozenset({_UNFINISHED, *(f".{modality}{_UNFINISHED}" for modality in MODALITIES)})


def find_simulation_leftovers(folder: LocalObjects, name: str) -> Iterator[Leftover]:
    """Yield the unfinished archive, or the scratch file of its statistics, that has a name, if it is one.

    Parameters
    ----------
    folder : LocalObjects
        The folder that it lies in.
    name : str
        Of the file.
    """
    session, is_archive, ending = name.partition(_ARCHIVE)
    path = folder.root / name
    if is_archive and is_full_name(session) and ending in _ENDINGS and path.is_file() and not path.is_symlink():
        yield temporary_file(path)
