"""What of runs nobody needs any more: unfinished ones that were given up, and checkpoints of finished ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from models.runs.files import CHECKPOINTS_FOLDER, MODEL_FILE, UNFINISHED, UNFINISHED_RUN
from sensorium_data.files import (
    Kept,
    Leftover,
    LocalObjects,
    Objects,
    cache_folder,
    discard_folder,
    measure_objects,
    unless,
    unlocked,
    with_locked_folder,
)
from sensorium_data.store import access_named

__all__ = ["find_copies_leftovers", "find_run_leftovers"]

# What a copy is called until all of it is received.
_RECEIVING = re.compile(r"\.[0-9a-f]{32}\.tmp")
_AT_WORK = "a training is at work on it"


def find_run_leftovers(objects: Objects, name: str) -> Iterator[Leftover | Kept]:
    """Yield what of a run may be deleted; nothing if the folder of this name holds no run.

    Parameters
    ----------
    objects : Objects
        The folder of runs.
    name : str
        Of a folder in it.
    """
    place = objects.child(name)
    if isinstance(place, LocalObjects) and (place.root.is_symlink() or not place.root.is_dir()):
        return
    if name.endswith(UNFINISHED):
        if UNFINISHED_RUN.bears_marker(place):
            yield _unfinished(objects, name)
        return
    checkpoints = place.child(CHECKPOINTS_FOLDER)
    if place.size(MODEL_FILE) is not None and measure_objects(checkpoints) is not None:
        is_local = isinstance(checkpoints, LocalObjects)
        if is_local and checkpoints.root.is_symlink():
            yield Kept("checkpoints", checkpoints.url, "it is a link")
            return
        yield Leftover(
            kind="checkpoints",
            place=checkpoints.url,
            why="the run is finished",
            measure=partial(measure_objects, checkpoints),
            # Who has just finished the run is deleting them, too.
            access=unless(unlocked, partial(UNFINISHED_RUN.describe_foreign, place, within=f"{CHECKPOINTS_FOLDER}/")),
            discard=partial(_discard, checkpoints),
        )


def find_copies_leftovers() -> Iterator[Leftover]:
    """Yield what interrupted transfers of runs behind URLs left in the user's folder for caches.

    The copies themselves stay: one may be all that there is of a run whose sending failed.
    """
    for folder in sorted(cache_folder("runs").glob("*/.*.tmp")):
        if _RECEIVING.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            place = LocalObjects(folder)
            yield Leftover(
                kind="incomplete copy of a run",
                place=place.url,
                why="its transfer was interrupted",
                measure=partial(measure_objects, place),
                access=unlocked,
                discard=partial(_discard, place),
            )


def _unfinished(objects: Objects, name: str) -> Leftover:
    place = objects.child(name)
    finished = name.removesuffix(UNFINISHED)
    is_finished = objects.size(f"{finished}/{MODEL_FILE}") is not None
    is_local = isinstance(place, LocalObjects)
    return Leftover(
        kind="unfinished run",
        place=place.url,
        why=f"the run {finished} is finished" if is_finished else "its training was interrupted",
        measure=partial(measure_objects, place),
        access=unless(
            with_locked_folder(place.root, _AT_WORK) if is_local else access_named(objects, (finished,), _AT_WORK),
            partial(UNFINISHED_RUN.describe_foreign, place),
        ),
        discard=partial(_discard, place),
    )


def _discard(place: Objects) -> None:
    if isinstance(place, LocalObjects):
        discard_folder(place.root, into=place.root.parent)
    else:
        place.delete_all()
