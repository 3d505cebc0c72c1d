"""Files that an interrupted simulation left."""

from __future__ import annotations

from collections.abc import Iterator

from sensorium_data.files import Kept, Leftover, LocalObjects, temporary_file, temporary_of
from sensorium_data.simulation.archives import SIMULATION_LOCK, is_written_here
from sensorium_data.store import access_named

__all__ = ["find_simulation_leftovers"]


def find_simulation_leftovers(folder: LocalObjects, name: str) -> Iterator[Leftover | Kept]:
    """Yield the unfinished archive, or record of a simulation, that has a name, if it is one.

    Parameters
    ----------
    folder : LocalObjects
        The folder that it lies in.
    name : str
        Of the file.
    """
    if is_written_here(temporary_of(name) or ""):
        access = access_named(folder, (SIMULATION_LOCK,), "a simulation is under way")
        yield temporary_file(folder.root / name, access)
