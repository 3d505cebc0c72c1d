"""Files that an interrupted writer of a submission left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from sensorium_data.files import Kept, Leftover, LocalObjects, measure_file, temporary_file, temporary_of
from sensorium_data.frames import zip_members
from sensorium_data.sessions import Track
from sensorium_data.store import access_named
from sensorium_data.submission.record import FIXED
from sensorium_data.submission.repair import REPAIR_LOCK, SPOOL_FILE
from sensorium_data.submission.write import lock_name

__all__ = ["find_submission_leftovers"]

_UNFINISHED = ".partial"
# What lies beside the zips.
_FINISHED = re.compile(rf"submission_({'|'.join((*Track, FIXED))})\.(json|md|sha256)")


def find_submission_leftovers(folder: LocalObjects, name: str) -> Iterator[Leftover | Kept]:
    """Yield the unfinished file of a submission that has a name, if it is one.

    Parameters
    ----------
    folder : LocalObjects
        The folder that it lies in.
    name : str
        Of the file.
    """
    # A zip is written by whoever submits, or corrects a submission.
    locks: dict[str, tuple[str, ...]] = {
        f"{file}{_UNFINISHED}": (lock_name(track), REPAIR_LOCK) for track in Track for file in zip_members(track)
    }
    locks[SPOOL_FILE] = (REPAIR_LOCK,)
    path = folder.root / name
    if _FINISHED.fullmatch(temporary_of(name) or ""):
        yield temporary_file(path)
    if name not in locks:
        return
    if path.is_symlink() or not path.is_file():
        yield Kept("unfinished zip", str(path), "it is no file")
        return
    yield Leftover(
        kind="unfinished zip",
        place=str(path),
        why="its writer was interrupted",
        measure=partial(measure_file, path),
        access=access_named(folder, locks[name], "a writer is at work on the submission"),
        discard=partial(path.unlink, missing_ok=True),
    )
