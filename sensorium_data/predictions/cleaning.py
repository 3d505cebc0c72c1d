"""Predictions that an interrupted writer left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sensorium_data import schema
from sensorium_data.files import (
    Kept,
    Leftover,
    LocalObjects,
    Objects,
    discard_folder,
    measure_objects,
    unless,
    with_locked_folder,
)
from sensorium_data.predictions.unfinished import UNFINISHED_PREDICTIONS, is_whole
from sensorium_data.predictions.writer import lock_name
from sensorium_data.sessions import is_full_name
from sensorium_data.store import LEDGER_KEY, METADATA_KEY, access_named

__all__ = ["find_predictions_leftovers"]

_UNFINISHED = ".partial"


def find_predictions_leftovers(objects: Objects, name: str) -> Iterator[Leftover | Kept]:
    """Yield the unfinished predictions that a folder holds, if it does.

    Parameters
    ----------
    objects : Objects
        The folder that it lies in.
    name : str
        Of the folder.
    """
    place = objects.child(name)
    if isinstance(place, LocalObjects):
        is_folder = place.root.is_dir() and not place.root.is_symlink()
        if not name.endswith(_UNFINISHED) or not is_folder or not UNFINISHED_PREDICTIONS.bears_marker(place):
            return
        if is_whole(place.read(METADATA_KEY)):
            yield Kept("predictions", place.url, "they are finished")
        else:
            yield Leftover(
                kind="unfinished predictions",
                place=place.url,
                why="their writer was interrupted",
                measure=partial(measure_objects, place),
                access=unless(
                    with_locked_folder(place.root, "a writer is at work on them"),
                    partial(UNFINISHED_PREDICTIONS.describe_foreign, place),
                ),
                discard=partial(discard_folder, place.root, into=place.root.parent),
            )
    elif _holds_parts(place):
        yield Leftover(
            kind="unfinished predictions",
            place=place.url,
            why="their writer was interrupted",
            measure=partial(measure_objects, place),
            access=access_named(objects, (lock_name(name),), "a writer is at work on them"),
            discard=place.delete_all,
        )


def _holds_parts(place: Objects) -> bool:
    """Whether there are sessions' predictions without the root's metadata, which come last behind a URL."""
    keys = [key for key in place.keys() or () if key != LEDGER_KEY]
    if METADATA_KEY in keys:
        return False
    predicted = {session for session, _, rest in (key.partition("/") for key in keys) if rest}
    marks = tuple(f"{session}/{schema.PREDICTIONS.name}/" for session in predicted)
    return (
        bool(predicted)
        and all(map(is_full_name, predicted))
        and all("/" in key for key in keys)
        and all(any(key.startswith(mark) for key in keys) for mark in marks)
    )
