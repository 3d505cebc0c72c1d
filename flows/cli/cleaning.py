"""The command that deletes what nobody needs any more."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Annotated

from cyclopts import Parameter

from flows.cli.options import EXIT_DONE, JsonOption, WholeNumber, print_json, terminal_progress
from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError, UsageError
from sensorium_data.files import (
    CACHED_OBJECT,
    DEFAULT_AGE_DAYS,
    Kept,
    Leftover,
    LocalObjects,
    Objects,
    cache_folder,
    find_discarded,
    old_files,
    open_objects,
    parse_json,
    temporary_file,
    temporary_of,
)

__all__ = ["clean"]

# Pages, pictures and tables that commands write where they are told.
_OUTPUTS = (".html", ".parquet", ".png")
# What looks left behind. Other files of a folder of results are nobody's business.
_LOOKS_LEFT = re.compile(r".+\.(partial|part|tmp|removed)")
_VERIFICATION = re.compile(r"[0-9a-f]{64}\.json")
_MOST_SHOWN = 20


def clean(
    path: Annotated[
        str | None,
        Parameter(help="A store, a folder of runs, predictions, submissions or downloads. Optional with --caches."),
    ] = None,
    *,
    keep: Annotated[int, WholeNumber, Parameter(help="Old versions of each session to keep, the newest ones.")] = 0,
    older_than: Annotated[
        float,
        Parameter(
            name="--older-than",
            help="Days ago that something was replaced or last written, at least. What no lock protects: at least 1.",
        ),
    ] = DEFAULT_AGE_DAYS,
    caches: Annotated[
        bool, Parameter(negative="", help="Clean the caches in the user's folder for caches as well.")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Delete nothing; show what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Delete old versions of sessions and what interrupted work left behind; never what somebody has open.

    Everything else stays, and what looks left behind but is not of this software is named.
    """
    from dataclasses import asdict

    from flows.cli.tables import error_console, print_table, table_console
    from flows.reporting import format_size
    from sensorium_data.files import clean_up

    if path is None and not caches:
        raise UsageError("nothing to clean is named", remedy="name a store or a folder, or give --caches")
    found = chain(
        () if path is None else _find_leftovers(path.rstrip("/") or path, keep),
        _find_cached(older_than) if caches else (),
    )
    with terminal_progress() as progress:
        items = clean_up(found, min_age_days=older_than, dry_run=dry_run, progress=progress)
    if as_json:
        print_json([asdict(item) for item in items])
        return EXIT_DONE
    console = table_console()
    removed, kept = ([item for item in items if item.removed is is_removed] for is_removed in (True, False))
    place = path if path is not None else str(cache_folder(""))
    if removed:
        rows = [
            {"what": item.kind, "place": item.place, "size": format_size(item.size_bytes), "why": item.why}
            for item in removed
        ]
        size = format_size(sum(item.size_bytes for item in removed))
        note = f"{size} {'would be' if dry_run else 'are'} free again."
        print_table(console, f"{'Would be deleted' if dry_run else 'Deleted'} in {place}", rows, n_keys=2, note=note)
    else:
        console.print(f"nothing to delete in {place}", soft_wrap=True)
    for item in kept[:_MOST_SHOWN]:
        error_console().print(f"{item.place}: {item.kind}, stays: {item.why}", soft_wrap=True)
    if len(kept) > _MOST_SHOWN:
        error_console().print(f"{count_things(len(kept) - _MOST_SHOWN, 'more thing')} stay; --json lists all")
    return EXIT_DONE


def _find_leftovers(path: str, keep: int) -> Iterator[Leftover | Kept]:
    """Yield what may be deleted of a store, or in a folder of results.

    Raises
    ------
    UsageError
        If there is no such folder, or it is not the one that the leftovers lie in.
    StoreError
        If a store is damaged, or the folder cannot be listed.
    """
    from sensorium_data.store import find_partial_leftovers, find_store_leftovers

    objects = open_objects(path)
    _require_container(objects)
    of_results = () if _is_remote_store(objects) else tuple(_find_results(objects))
    of_store = find_store_leftovers(path, keep=keep) if _is_store(objects) else find_partial_leftovers(objects)
    known = {one.place for one in of_results}
    yield from (one for one in of_store if one.place not in known)
    yield from of_results


def _find_results(objects: Objects) -> Iterator[Leftover | Kept]:
    """Yield what interrupted trainings, predictions, submissions, downloads and simulations left in a folder."""
    from models.runs import find_run_leftovers
    from sensorium_data.archive import find_download_leftovers
    from sensorium_data.predictions import find_predictions_leftovers
    from sensorium_data.simulation import find_simulation_leftovers
    from sensorium_data.submission import find_submission_leftovers

    discarded = tuple(find_discarded(objects.root)) if isinstance(objects, LocalObjects) else ()
    yield from discarded
    known = {one.place for one in discarded}
    of_folders: list[Callable[[Objects, str], Iterator[Leftover | Kept]]]
    of_files: list[Callable[[LocalObjects, str], Iterator[Leftover | Kept]]]
    of_folders = [find_run_leftovers, find_predictions_leftovers]
    of_files = [find_submission_leftovers, find_download_leftovers, find_simulation_leftovers]
    for name in _list_names(objects):
        # The first who knows it: a submission's zip could be named as a session's archive.
        found = next(filter(None, (list(find(objects, name)) for find in of_folders)), [])
        if isinstance(objects, LocalObjects) and not found:
            found = next(filter(None, (list(find(objects, name)) for find in of_files)), [])
            if not found and (temporary_of(name) or "").endswith(_OUTPUTS):
                found.append(temporary_file(objects.root / name))
        yield from found
        place = objects.locate(name)
        is_record = name.endswith(".part.json")
        if not found and place not in known and _LOOKS_LEFT.fullmatch(name) and not is_record:
            yield Kept("not known", place, "this software did not make it")


def _find_cached(min_age_days: float) -> Iterator[Leftover | Kept]:
    """Yield what of the caches has not been used for some days, and what interrupted work left there."""
    from models.runs import find_copies_leftovers
    from sensorium_data.archive import find_download_leftovers
    from sensorium_data.sample import find_sample_leftovers

    yield old_files(
        "objects of remote stores",
        cache_folder("objects"),
        CACHED_OBJECT,
        why="not used for a while; they are fetched again",
        min_age_days=min_age_days,
    )
    yield old_files(
        "notes of verifications",
        cache_folder("verification"),
        _VERIFICATION,
        why="interrupted verifications are continued for a day",
        # They count no longer.
        min_age_days=1,
    )
    yield from find_copies_leftovers()
    yield from find_sample_leftovers()
    archives = LocalObjects(cache_folder("archives"))
    for name in _list_names(archives):
        yield from find_download_leftovers(archives, name)


def _require_container(objects: Objects) -> None:
    """Refuse a path at which nothing lies, and a run, predictions or a session of its own."""
    if isinstance(objects, LocalObjects) and not objects.root.is_dir():
        raise UsageError("no such folder", path=objects.url, remedy="name a store, or a folder of runs or predictions")
    kind = _attributes(objects).get("kind")
    is_session = "session" in _attributes(objects)
    if kind == "predictions" or is_session or objects.size("model.json") is not None:
        found = "predictions" if kind == "predictions" else "a session" if is_session else "a run"
        parent = objects.url.rpartition("/")[0] or "."
        raise UsageError(
            "this is one of the things that a folder holds", path=objects.url, found=found, remedy=f"give {parent}"
        )


def _is_store(objects: Objects) -> bool:
    from sensorium_data.sessions import is_full_name
    from sensorium_data.store import PARTIAL_FOLDER, list_published

    if "sessions" in _attributes(objects):
        return True
    if not isinstance(objects, LocalObjects):
        return False
    # A store whose list of sessions is damaged is one too, and so is one whose first ingest was interrupted.
    return bool(list_published(objects)) or any(map(is_full_name, _list_names(objects.child(PARTIAL_FOLDER))))


def _is_remote_store(objects: Objects) -> bool:
    return not isinstance(objects, LocalObjects) and _is_store(objects)


def _attributes(objects: Objects) -> dict[str, object]:
    from sensorium_data.store import METADATA_KEY

    try:
        attributes = parse_json(objects.read(METADATA_KEY))["attributes"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return attributes if isinstance(attributes, dict) else {}


def _list_names(objects: Objects) -> list[str]:
    if isinstance(objects, LocalObjects):
        return sorted(os.listdir(objects.root)) if objects.root.is_dir() else []
    names = objects.folders()
    if names is None:
        raise StoreError(
            "it cannot be listed, and so not be cleaned", path=objects.url, remedy="name it as the server's disk has it"
        )
    return names
