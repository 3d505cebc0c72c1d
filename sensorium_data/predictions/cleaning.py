"""Predictions that an interrupted writer left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sensorium_data import schema
from sensorium_data.files import (
    Leftover,
    LocalObjects,
    Objects,
    discard_folder,
    measure_objects,
    parse_json,
    unlocked,
    with_locked_folder,
)
from sensorium_data.predictions.writer import PREDICTIONS_KIND
from sensorium_data.sessions import is_full_name
from sensorium_data.store import LEDGER_KEY, METADATA_KEY

__all__ = ["find_predictions_leftovers"]

_UNFINISHED = ".partial"


def find_predictions_leftovers(objects: Objects, name: str) -> Iterator[Leftover]:
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
        if name.endswith(_UNFINISHED) and is_folder and _is_of_predictions(place):
            yield Leftover(
                kind="unfinished predictions",
                place=place.url,
                why="their writer was interrupted",
                measure=partial(measure_objects, place),
                access=with_locked_folder(place.root, "a writer is at work on them"),
                discard=partial(discard_folder, place.root, into=place.root.parent),
            )
    elif _holds_parts(place):
        yield Leftover(
            kind="unfinished predictions",
            place=place.url,
            why="their writer was interrupted",
            measure=partial(measure_objects, place),
            access=unlocked,
            discard=place.delete_all,
        )


def _is_of_predictions(place: LocalObjects) -> bool:
    try:
        return bool(parse_json(place.read(METADATA_KEY))["attributes"]["kind"] == PREDICTIONS_KIND)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


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
