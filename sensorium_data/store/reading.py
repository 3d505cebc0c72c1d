"""Which versions of sessions are being read, so that nobody deletes them meanwhile.

A reader holds a lock on the version's ledger, together with all other readers, for as long as it has the version open.
Where the file system has no such locks, and in object stores, only the time protects readers: a version that was
replaced not long ago is not deleted.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path

from sensorium_data.files import Access, LocalObjects, Objects, lock_for_reading, with_locked_file
from sensorium_data.store.ledger import LEDGER_KEY

__all__ = ["ReadingLease", "hold_version", "keep_readers_away"]


class ReadingLease:
    """Says that this process reads a version, as long as the lease exists. Made by :func:`hold_version`.

    Parameters
    ----------
    folder : str
        Of the version.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        descriptor = lock_for_reading(Path(folder, LEDGER_KEY))
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)

    def __reduce__(self) -> tuple[Callable[[str], ReadingLease], tuple[str]]:
        # Another process holds its own.
        return _hold, (self._folder,)


# One for each version and process: descriptors are few.
_leases: weakref.WeakValueDictionary[str, ReadingLease] = weakref.WeakValueDictionary()


def hold_version(objects: Objects, group: str) -> ReadingLease | None:
    """Return what keeps a version from being deleted as long as it exists; None elsewhere than on a local disk.

    Parameters
    ----------
    objects : Objects
        The store's root.
    group : str
        The version's group.
    """
    return _hold(str(objects.root.absolute() / group)) if isinstance(objects, LocalObjects) else None


def _hold(folder: str) -> ReadingLease:
    lease = _leases.get(folder)
    if lease is None:
        lease = _leases[folder] = ReadingLease(folder)
    return lease


def keep_readers_away(folder: Path) -> Access:
    """Return the access, for a cleaning, to a version that others may be reading."""
    return with_locked_file(folder / LEDGER_KEY, "somebody has it open")
