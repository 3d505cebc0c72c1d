"""What of a store nobody needs any more: old versions of sessions, and what interrupted conversions left.

An old version is deleted only where nothing is lost by it: the current version is sound, both ``versions.json`` and the
root's metadata name it, and the old one holds nothing that is not in its ledger.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sensorium_data.counting import count_things
from sensorium_data.errors import SensoriumError, StoreError, UnknownNameError, UsageError
from sensorium_data.files import (
    Extent,
    Hold,
    IrregularFileError,
    Kept,
    Leftover,
    LocalObjects,
    LockWatch,
    Objects,
    RemoteObjects,
    discard_folder,
    find_discarded,
    measure_file,
    measure_objects,
    temporary_file,
    temporary_of,
    unless,
    with_lease,
)
from sensorium_data.sessions import Session, find_session, is_full_name
from sensorium_data.store.groups import (
    is_group_key,
    read_attributes,
    read_ledger,
    read_sound_attributes,
    recall_attributes,
)
from sensorium_data.store.ledger import LEDGER_KEY
from sensorium_data.store.movie_ids import LINKS_KEY
from sensorium_data.store.movie_screens import SCREENS_FOLDER
from sensorium_data.store.open import open_store
from sensorium_data.store.publishing import PARTIAL_FOLDER, access_named, recall_nodes
from sensorium_data.store.reading import keep_readers_away
from sensorium_data.store.store import Store, StoreLike
from sensorium_data.store.template import METADATA_KEY
from sensorium_data.store.unfinished import UNFINISHED_SESSION
from sensorium_data.store.versions import VERSIONS_KEY, current_group, session_name_of, version_number

__all__ = ["find_partial_leftovers", "find_store_leftovers"]

_OWN_FILES = frozenset({METADATA_KEY, VERSIONS_KEY, LINKS_KEY})
_LOCK_ENDING = ".lock"
_AT_WORK = "an ingest is at work on the session"
_HELD = "somebody holds the lock"
_FOREIGN = "this software did not make it"
_MOST_NAMED = 3


def find_store_leftovers(store: StoreLike, *, keep: int = 0) -> Iterator[Leftover | Kept]:
    """Yield what of a store may be deleted, and what stays though it looks so or is not the store's.

    Parameters
    ----------
    store : Store or path
        The store.
    keep : int
        So many old versions of each session stay, the newest ones.

    Raises
    ------
    UsageError
        If fewer than none are to be kept.
    StoreError
        If there is no store, or it cannot be listed.
    """
    if keep < 0:
        raise UsageError("--keep", found=keep, expected="a number of versions from 0 up")
    opened = open_store(store)
    objects = opened.objects
    watches = _watch_locks(objects)
    # First: whoever takes one, to look at what it protects, deletes it.
    yield from map(_abandoned_lock, watches.values())
    names = _list_names(objects)
    groups: dict[Session, list[str]] = {}
    for name in names:
        session = _session_of(name)
        # Linking deletes the screens of old versions, and what killed writers of screens left.
        if name in _OWN_FILES or name in (PARTIAL_FOLDER, SCREENS_FOLDER):
            continue
        if session is not None and _size_of(objects, f"{name}/{LEDGER_KEY}") is not None:
            groups.setdefault(session, []).append(name)
        elif session is not None and recall_attributes(objects, name):
            yield Kept("damaged version", objects.locate(name), f"it has no {LEDGER_KEY}")
        elif session is not None and _lacks_metadata(objects, name):
            yield from _find_begun(objects, session, name, watches)
        elif temporary_of(name) in _OWN_FILES and isinstance(objects, LocalObjects):
            yield temporary_file(objects.root / name)
        else:
            yield Kept("not of the store", objects.locate(name), _FOREIGN)
    for session, found in groups.items():
        yield from _find_old_versions(opened, session, sorted(found, key=version_number), keep, watches)
    yield from _find_partial(objects, watches)


def find_partial_leftovers(objects: Objects) -> Iterator[Leftover | Kept]:
    """Yield what lies in the folder for unfinished work under a root: conversions, locks, half-deleted folders."""
    watches = _watch_locks(objects)
    yield from map(_abandoned_lock, watches.values())
    yield from _find_partial(objects, watches)


def _find_partial(objects: Objects, watches: Mapping[str, LockWatch]) -> Iterator[Leftover | Kept]:
    place = objects.child(PARTIAL_FOLDER)
    if isinstance(place, LocalObjects) and place.root.is_symlink():
        yield Kept("not of the store", place.url, "it is a link")
        return
    discarded = {one.place: one for one in find_discarded(place.root)} if isinstance(place, LocalObjects) else {}
    for one in discarded.values():
        yield replace(one, discard=partial(_discard_and_tidy, one, Path(place.url)))
    for name in _list_names(place):
        url = place.locate(name)
        session = _session_of(name)
        if url in discarded:
            continue
        if name.endswith(_LOCK_ENDING) and isinstance(objects, LocalObjects):
            yield _stale_lock(objects, name.removesuffix(_LOCK_ENDING))
        elif name.endswith(_LOCK_ENDING) and name.removesuffix(_LOCK_ENDING) in watches:
            continue
        elif session is not None and _is_of_conversion(place.child(name)):
            yield _unfinished(objects, session, name, watches)
        else:
            yield Kept("not of the store", url, _FOREIGN)


def _discard_and_tidy(leftover: Leftover, folder: Path) -> None:
    leftover.discard()
    with contextlib.suppress(OSError):
        # Something else may lie there.
        folder.rmdir()


@dataclass(frozen=True)
class _OldVersion:
    """A version of a session that another has replaced."""

    store: Store
    session: Session
    group: str
    following: str
    current: str
    watches: Mapping[str, LockWatch]

    @property
    def objects(self) -> Objects:
        return self.store.objects

    @property
    def place(self) -> str:
        return self.objects.locate(self.group)

    def measure(self) -> Extent | None:
        """Return its size, and when it was replaced: then the following version was published."""
        extent = measure_objects(self.objects.child(self.group))
        if extent is None:
            return None
        if isinstance(self.objects, LocalObjects):
            published = measure_file(self.objects.root / self.following / METADATA_KEY)
        else:
            published = measure_objects(self.objects.child(self.following))
        return Extent(extent.size_bytes, published.modified_s if published is not None else None)

    def find_objection(self) -> str:
        """Return why it must not be deleted, whatever its age; empty if it may."""
        objects, session = self.objects, self.session
        try:
            if not objects.exists(VERSIONS_KEY):
                return f"{VERSIONS_KEY} is missing; ingest writes it again"
            if current_group(objects, session) != self.current:
                return "another version has become the current one"
            if self.current not in recall_nodes(objects.read(METADATA_KEY)):
                return f"the root's metadata do not list {self.current}; ingest writes them again"
            if read_sound_attributes(objects, session, self.current) is None:
                return f"the current version, {self.current}, is not there"
        except (SensoriumError, FileNotFoundError) as error:
            return f"the current version, {self.current}, cannot be read ({error})"
        try:
            read_attributes(objects, session, self.group)
            own = read_ledger(objects, session, self.group).objects
        except StoreError as error:
            return f"what is its own cannot be told ({error})"
        others = [key for key in objects.child(self.group).keys() or () if key not in own and key != LEDGER_KEY]
        if others:
            named = ", ".join(others[:_MOST_NAMED])
            return f"it holds {count_things(len(others), 'file')} that its ledger does not list: {named}"
        return ""

    @contextlib.contextmanager
    def access(self, dry_run: bool) -> Iterator[Hold]:
        """Keep writers of the session and readers of the version away."""
        with contextlib.ExitStack() as stack:
            hold = stack.enter_context(
                access_named(self.objects, (self.session.name,), _AT_WORK, self.watches)(dry_run)
            )
            if not hold.obstacle and isinstance(self.objects, LocalObjects):
                readers = stack.enter_context(keep_readers_away(self.objects.root / self.group)(dry_run))
                hold = Hold(readers.obstacle, hold.is_exclusive and readers.is_exclusive)
            yield replace(hold, obstacle=hold.obstacle or self.find_objection())

    def discard(self) -> None:
        """Delete it; nobody ever finds a part of it that looks whole."""
        group = self.objects.child(self.group)
        if isinstance(self.objects, LocalObjects) and isinstance(group, LocalObjects):
            discard_folder(group.root, into=self.objects.root / PARTIAL_FOLDER)
            return
        # Without its metadata nobody opens it; without its ledger it is unfinished work.
        group.delete(METADATA_KEY)
        group.delete(LEDGER_KEY)
        group.delete_all()


def _find_old_versions(
    store: Store, session: Session, groups: list[str], keep: int, watches: Mapping[str, LockWatch]
) -> Iterator[Leftover | Kept]:
    current = store.group(session)
    objects = store.objects
    old = [group for group in groups if version_number(group) < version_number(current)]
    for number, group in enumerate(old):
        if isinstance(objects, LocalObjects) and (objects.root / group).is_symlink():
            yield Kept("old version", objects.locate(group), "it is a link")
        elif len(old) - number <= keep:
            yield Kept("old version", objects.locate(group), f"it is among the newest {keep}")
        else:
            following = groups[groups.index(group) + 1] if group != groups[-1] else current
            version = _OldVersion(store, session, group, following, current, watches)
            yield Leftover(
                kind="old version",
                place=version.place,
                why=f"replaced by {following}",
                measure=version.measure,
                access=version.access,
                discard=version.discard,
                event="replaced",
            )
    for group in groups:
        if version_number(group) > version_number(current):
            yield Kept("newer version", objects.locate(group), "it is not current yet; ingest decides about it")


def _unfinished(objects: Objects, session: Session, group: str, watches: Mapping[str, LockWatch]) -> Leftover:
    """Return what an interrupted conversion into a group left."""
    records = objects.child(f"{PARTIAL_FOLDER}/{group}")
    is_published = _was_published(objects, group)
    # In object stores the objects lie where they would stay.
    places = [records] if isinstance(objects, LocalObjects) or is_published else [objects.child(group), records]

    def measure() -> Extent | None:
        extents = [extent for extent in map(measure_objects, places) if extent is not None]
        times = [extent.modified_s for extent in extents]
        if not extents:
            return None
        known = [time_s for time_s in times if time_s is not None]
        newest = max(known) if len(known) == len(times) else None
        return Extent(sum(extent.size_bytes for extent in extents), newest)

    def discard() -> None:
        if isinstance(records, LocalObjects):
            discard_folder(records.root, into=records.root.parent)
            return
        if not is_published:
            # Somebody may have put something else among them.
            own = objects.child(group)
            own.delete_keys([*filter(is_group_key, own.keys() or ())])
        UNFINISHED_SESSION.discard(records)

    return Leftover(
        kind="rest of a conversion" if is_published else "unfinished conversion",
        place=records.url if isinstance(objects, LocalObjects) or is_published else objects.locate(group),
        why=f"{group} is published" if is_published else f"the ingest of {session.alias} was interrupted",
        measure=measure,
        access=unless(
            access_named(objects, (session.name,), _AT_WORK, watches),
            partial(UNFINISHED_SESSION.describe_foreign, records),
        ),
        discard=discard,
    )


def _stale_lock(objects: LocalObjects, name: str) -> Leftover | Kept:
    path = objects.root / PARTIAL_FOLDER / f"{name}{_LOCK_ENDING}"
    # They are empty.
    if path.is_symlink() or not path.is_file() or path.stat().st_size:
        return Kept("not of the store", str(path), _FOREIGN)
    return Leftover(
        kind="lock file",
        place=str(path),
        why="its holder was killed",
        measure=partial(measure_file, path),
        access=access_named(objects, (name,), _HELD),
        # Whoever has held a lock deletes its file.
        discard=lambda: None,
        is_certain=True,
    )


def _watch_locks(objects: Objects) -> dict[str, LockWatch]:
    """Return the locks that lie in an object store by name, watched from now on: all at the same time."""
    if not isinstance(objects, RemoteObjects) or not objects.has_conditions:
        return {}
    watches = {}
    for key in objects.child(PARTIAL_FOLDER).keys() or ():
        if "/" not in key and key.endswith(_LOCK_ENDING):
            watch = LockWatch(objects, f"{PARTIAL_FOLDER}/{key}")
            if watch.begin():
                watches[key.removesuffix(_LOCK_ENDING)] = watch
    return watches


def _abandoned_lock(watch: LockWatch) -> Leftover:
    def measure() -> Extent | None:
        size_bytes = watch.objects.size(watch.key)
        return None if size_bytes is None else Extent(size_bytes, None)

    return Leftover(
        kind="lock",
        place=watch.objects.locate(watch.key),
        why="its holder was killed",
        measure=measure,
        access=with_lease(watch, _HELD),
        # As above. Who holds one renews it: nothing else tells of its age.
        discard=lambda: None,
        is_certain=True,
    )


def _list_names(objects: Objects) -> list[str]:
    """Return the names of what lies directly under a root."""
    if isinstance(objects, LocalObjects):
        return sorted(os.listdir(objects.root)) if objects.root.is_dir() else []
    keys = objects.keys()
    if keys is None:
        raise StoreError(
            "it cannot be listed, and so not be cleaned", path=objects.url, remedy="name it as the server's disk has it"
        )
    return sorted({key.partition("/")[0] for key in keys})


def _session_of(name: str) -> Session | None:
    session_name = session_name_of(name)
    try:
        return find_session(session_name) if is_full_name(session_name) else None
    except UnknownNameError:
        return None


def _was_published(objects: Objects, group: str) -> bool:
    """Whether a group is a published one, though some of it may be lost."""
    return _size_of(objects, f"{group}/{LEDGER_KEY}") is not None or bool(recall_attributes(objects, group))


def _size_of(objects: Objects, key: str) -> int | None:
    """Return an object's size; None if there is none, or something else than a file."""
    try:
        return objects.size(key)
    except StoreError as error:
        if isinstance(error.__cause__, IrregularFileError | NotADirectoryError):
            return None
        raise


def _lacks_metadata(objects: Objects, name: str) -> bool:
    """Whether a folder in an object store may be of an interrupted conversion, or of an interrupted deletion."""
    return not isinstance(objects, LocalObjects) and objects.size(f"{name}/{METADATA_KEY}") is None


def _find_begun(
    objects: Objects, session: Session, name: str, watches: Mapping[str, LockWatch]
) -> Iterator[Leftover | Kept]:
    """Yield such a folder in an object store, unless it is found with the records of its conversion."""
    records = objects.child(f"{PARTIAL_FOLDER}/{name}")
    if records.keys():
        if not _is_of_conversion(records):
            others = f"{PARTIAL_FOLDER}/{name} holds what this software did not make"
            yield Kept("unfinished conversion", objects.locate(name), others)
    elif all(map(is_group_key, objects.child(name).keys() or ())):
        yield _unfinished(objects, session, name, watches)
    else:
        yield Kept("not of the store", objects.locate(name), _FOREIGN)


def _is_of_conversion(folder: Objects) -> bool:
    if isinstance(folder, LocalObjects) and (folder.root.is_symlink() or not folder.root.is_dir()):
        return False
    return not UNFINISHED_SESSION.find_obstacle(folder)
