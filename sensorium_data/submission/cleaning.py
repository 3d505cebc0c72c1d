"""Files that an interrupted writer of a submission left."""

from __future__ import annotations

from collections.abc import Iterator

from sensorium_data.files import Kept, Leftover, LocalObjects, temporary_file, temporary_of
from sensorium_data.sessions import Track
from sensorium_data.store import access_named
from sensorium_data.submission.manifest import is_submission_file
from sensorium_data.submission.record import FIXED
from sensorium_data.submission.repair import REPAIR_LOCK
from sensorium_data.submission.write import lock_name

__all__ = ["find_submission_leftovers"]

# A corrected copy's zips are those of tracks, whose locks its writer holds, too.
_LOCKS = {**{str(track): lock_name(track) for track in Track}, FIXED: REPAIR_LOCK}


def find_submission_leftovers(folder: LocalObjects, name: str) -> Iterator[Leftover | Kept]:
    """Yield the unfinished file of a submission that has a name, if it is one.

    Parameters
    ----------
    folder : LocalObjects
        The folder that it lies in.
    name : str
        Of the file.
    """
    written = temporary_of(name) or ""
    lock = next((lock for stem, lock in _LOCKS.items() if is_submission_file(stem, written)), None)
    if lock is not None:
        access = access_named(folder, (lock,), "a writer is at work on the submission")
        kind = "unfinished zip" if written.endswith(".zip") else "temporary file"
        yield temporary_file(folder.root / name, access, kind=kind)
