"""Making sessions visible: the lock, and the root's list of sessions."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError, UnknownNameError, describe_os_error
from sensorium_data.files import (
    HAS_LOCKS,
    Access,
    Hold,
    LocalObjects,
    LockWatch,
    Objects,
    RemoteObjects,
    close_locked,
    describe_damage,
    describe_kind,
    is_stand_in,
    open_locked,
    open_regular,
    parse_json,
    with_lease,
    with_locked_file,
)
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSIONS, Session, find_session, is_full_name
from sensorium_data.store.groups import damaged_object, read_attributes
from sensorium_data.store.ledger import LEDGER_KEY
from sensorium_data.store.movie_screens import delete_damaged_screens
from sensorium_data.store.template import METADATA_KEY, consolidate
from sensorium_data.store.versions import (
    VERSIONS_KEY,
    point_to,
    read_versions,
    repair_root,
    session_name_of,
    write_versions,
)

__all__ = [
    "PARTIAL_FOLDER",
    "ROOT_LOCK",
    "ROOT_TITLE",
    "access_named",
    "compose_root",
    "exclusive_access",
    "is_locked",
    "list_ledgered",
    "list_published",
    "lock_key",
    "parse_root",
    "publish_root",
    "read_root_metadata",
    "recall_nodes",
    "refuse_other_root",
]

#: Where unfinished work lies, under the store's root.
PARTIAL_FOLDER = ".partial"
#: The lock that whoever rewrites the root's metadata holds.
ROOT_LOCK = "root"
#: How often a lock's folder is made again when its holder removes it; the next holder needs the processor for one try.
N_LOCK_FOLDER_TRIES = 1000
#: The title of a store's root group.
ROOT_TITLE = "SENSORIUM session stores"

# Runs and predictions say in the beginning of their ledgers what they are.
_LEDGER_HEAD_SIZE_BYTES = 256


@contextlib.contextmanager
def exclusive_access(
    objects: Objects, name: str, *, waiting: str = "", progress: Progress = ignore_progress
) -> Iterator[None]:
    """Hold the lock ``name`` of a local store, waiting for whoever holds it.

    The lock dies with its process. Other file systems have none: there, one writer at a time is the user's part.

    Parameters
    ----------
    objects : Objects
        The store's root.
    name : str
        What is locked.
    waiting : str
        What to call the wait, if someone else holds the lock.
    progress : Progress
        Told during the wait, and when it is over.

    Raises
    ------
    StoreError
        If the lock cannot be made.
    """
    if not isinstance(objects, LocalObjects) or not HAS_LOCKS:
        yield
        return
    path = _lock_path(objects, name)
    waiting = waiting or f"wait for the lock {name}"
    has_waited = False

    def tell() -> None:
        nonlocal has_waited
        has_waited = True
        progress(waiting, 0, 1)

    try:
        descriptor = open_locked(path, lambda: _open_lock_file(path), on_wait=tell)
    except OSError as error:
        raise StoreError(
            "the folder cannot be locked for writing",
            path=path,
            found=describe_os_error(error),
            remedy="check its permissions, and move what is no folder, or no lock file, out of the way",
        ) from error
    try:
        if has_waited:
            progress(waiting, 1, 1)
        yield
    finally:
        # Deleted while it is held: whoever waits for it notices and takes the new file.
        path.unlink(missing_ok=True)
        close_locked(descriptor)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def access_named(objects: Objects, names: Iterable[str], holder: str, watches: Mapping[str, LockWatch] = {}) -> Access:
    """Return the access, for a cleaning, to what locks of a store protect.

    Parameters
    ----------
    objects : Objects
        The store's root.
    names : iterable of str
        The locks.
    holder : str
        Who holds one of them, as a clause.
    watches : mapping of str to LockWatch
        The locks in an object store that are watched already, by name.
    """

    @contextlib.contextmanager
    def access(dry_run: bool) -> Iterator[Hold]:
        if not isinstance(objects, LocalObjects):
            obstacle = ""
            with contextlib.ExitStack() as stack:
                if isinstance(objects, RemoteObjects) and objects.has_conditions:
                    for name in names:
                        watch = watches.get(name) or LockWatch(objects, lock_key(name))
                        obstacle = obstacle or stack.enter_context(with_lease(watch, holder)(dry_run)).obstacle
                # Whoever works there with --no-lock has none.
                yield Hold(obstacle, is_exclusive=False)
            return
        hold = Hold(is_exclusive=HAS_LOCKS)
        with contextlib.ExitStack() as stack:
            for name in names:
                if hold.obstacle:
                    break
                path = _lock_path(objects, name)
                if dry_run:
                    # Nothing is made, not even for a moment: the disk may be a read-only one.
                    one = stack.enter_context(with_locked_file(path, holder)(dry_run))
                    hold = Hold(one.obstacle, hold.is_exclusive and one.is_exclusive)
                    continue
                try:
                    stack.enter_context(exclusive_access(objects, name, progress=_refuse_to_wait))
                    hold = Hold(is_exclusive=hold.is_exclusive and not is_stand_in(path))
                except _HeldError:
                    hold = Hold(holder)
            yield hold

    return access


def lock_key(name: str) -> str:
    """Return where a store has the lock of this name."""
    return f"{PARTIAL_FOLDER}/{name}.lock"


class _HeldError(Exception):
    """Somebody else holds a lock."""


def _refuse_to_wait(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None) -> None:  # noqa: ARG001
    if not n_done:
        raise _HeldError


def is_locked(objects: Objects, name: str) -> bool:
    """Whether someone holds the lock ``name``, or was killed while holding it."""
    return isinstance(objects, LocalObjects) and _lock_path(objects, name).exists()


def publish_root(objects: Objects, published: Mapping[Session, str] = {}, *, rereads: bool = False) -> None:
    """Write the root group's metadata, which list the published sessions and carry all their arrays'.

    Readers that cannot list a folder (HTTP) find the sessions by them.

    Parameters
    ----------
    objects : Objects
        The store's root.
    published : mapping of Session to str
        Sessions that have just been published, and the groups to point to as their current versions.
    rereads : bool
        Read the metadata of all groups again, and delete damaged screens of movies. Elsewhere than on a local disk the
        metadata that the root has are kept otherwise: a published group never changes, and reading each takes a
        request.
    """
    with exclusive_access(objects, ROOT_LOCK):
        if isinstance(objects, LocalObjects):
            objects.clear_unfinished(METADATA_KEY)
            objects.clear_unfinished(VERSIONS_KEY)

        def compose(before: bytes | None) -> bytes:
            # All of it again whenever somebody else published meanwhile.
            versions = read_versions(objects, lambda: before)
            moved = {one: group for one, group in published.items() if versions.get(one.name, one.name) != group}
            for session, group in moved.items():
                point_to(objects, session, group)
            if versions and not moved and not objects.exists(VERSIONS_KEY):
                # Lost. The root's metadata, which say the same, are about to be written anew.
                write_versions(objects, versions)
            current = {**versions, **{session.name: group for session, group in moved.items()}}
            known = {*_list_again(objects, before), *published}
            fresh = None if rereads or isinstance(objects, LocalObjects) else published.keys()
            return compose_root(objects, known, current, before=before, fresh=fresh)

        objects.update(METADATA_KEY, compose)
        if rereads:
            delete_damaged_screens(objects)


def read_root_metadata(objects: Objects) -> bytes | None:
    """Return the root group's metadata as they are; ``None`` if there are none."""
    try:
        return objects.read(METADATA_KEY)
    except FileNotFoundError:
        return None


def parse_root(objects: Objects, metadata: bytes | None) -> tuple[Session, ...] | None:
    """Return the sessions that metadata list; a :class:`StoreError` if they are not those of a store's root."""
    if metadata is None:
        return None
    refuse_other_root(objects, metadata)
    try:
        listed = parse_json(metadata)["attributes"]["sessions"]
        for name in listed:
            if not is_full_name(name):
                raise ValueError(f"{name!r} is no session's full name")
        return tuple(sorted(map(find_session, listed)))
    except (ValueError, KeyError, TypeError, UnknownNameError) as error:
        if list_published(objects):
            raise StoreError(
                "the store's list of its sessions is damaged",
                path=objects.locate(METADATA_KEY),
                found=describe_damage(error),
                remedy=repair_root(objects),
            ) from error
        raise StoreError(
            "no session store here",
            path=objects.locate(METADATA_KEY),
            found=f"unreadable metadata ({describe_damage(error)})",
            remedy="give the root of a store that `sensorium ingest` made",
        ) from error


def refuse_other_root(objects: Objects, metadata: bytes | None) -> None:
    """Raise a :class:`StoreError` if metadata are those of a session's own folder, or of anything else but a store.

    Metadata that cannot be read say nothing of what they were: that is left to :func:`parse_root`.
    """
    if isinstance(objects, LocalObjects) and _is_other_kind(objects, "."):
        raise _no_sessions(objects, "a run or predictions, whose ledger lies there")
    if metadata is None:
        return
    try:
        attributes = parse_json(metadata)["attributes"]
        if "sessions" in attributes:
            return
        session, title, kind = (attributes.get(name) for name in ("session", "title", "kind"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    sessions = list_ledgered(objects)
    if sessions:
        raise StoreError(
            "the list of the store's sessions is something else's",
            path=objects.locate(METADATA_KEY),
            found=f"a Zarr group titled {title!r}, and {count_things(len(sessions), 'session')} beside it",
            remedy=f"remove this file; then {repair_root(objects)}",
        )
    if session is not None:
        raise StoreError(
            "this is a session's own folder, no store",
            path=objects.url,
            found=session,
            expected="the folder that holds the sessions",
            remedy=f"give {objects.url.rstrip('/').rpartition('/')[0] or '.'}",
        )
    if kind == "predictions":
        raise _no_sessions(objects, "predictions")
    raise StoreError(
        "no session store here",
        path=objects.url,
        found=f"a Zarr group titled {title!r}",
        expected=f"a {METADATA_KEY} that lists sessions",
        remedy="give the root of a store that `sensorium ingest` made, or a new folder to ingest into",
    )


def list_published(objects: Objects) -> tuple[Session, ...] | None:
    """Return the sessions whose groups lie in a store, whether or not its root's metadata list them.

    None where the root cannot be listed. Elsewhere than on a local disk unfinished groups are among them.
    """
    folders = objects.folders()
    if folders is None:
        return None
    found = set()
    for folder in folders:
        # Of a session's versions, the first ones may have been deleted.
        name = session_name_of(folder)
        with contextlib.suppress(UnknownNameError):
            session = find_session(name)
            if name == session.name and (not isinstance(objects, LocalObjects) or _is_group(objects, session, folder)):
                found.add(session)
    return tuple(sorted(found))


def _is_group(objects: LocalObjects, session: Session, folder: str) -> bool:
    # A group whose metadata were lost, or whose ledger is no file, is damaged, and not gone. The user's own Zarr groups
    # have no ledger.
    is_ledgered = os.path.lexists(objects.root / folder / LEDGER_KEY) and not _is_other_kind(objects, folder)
    return is_ledgered or (session.is_described and os.path.lexists(objects.root / folder / METADATA_KEY))


def _no_sessions(objects: Objects, found: str) -> StoreError:
    return StoreError(
        "this is no store of sessions", path=objects.url, found=found, remedy="give the folder that holds the sessions"
    )


def list_ledgered(objects: Objects) -> list[Session]:
    """Return the sessions whose folders in a store on this machine have a session's ledger."""
    if not isinstance(objects, LocalObjects):
        return []
    return [
        find_session(session_name_of(folder))
        for folder in objects.folders() or ()
        if is_full_name(session_name_of(folder))
        and os.path.lexists(objects.root / folder / LEDGER_KEY)
        and not _is_other_kind(objects, folder)
    ]


def _is_other_kind(objects: LocalObjects, folder: str) -> bool:
    """Whether a folder with a ledger is a run or predictions, whose ledgers say so where they begin."""
    try:
        with open(open_regular(objects.root / folder / LEDGER_KEY), "rb") as file:
            return b'"kind": ' in file.read(_LEDGER_HEAD_SIZE_BYTES)
    except OSError:
        return False


def compose_root(
    objects: Objects,
    known: Set[Session],
    versions: Mapping[str, str],
    *,
    before: bytes | None = None,
    fresh: Set[Session] | None = None,
) -> bytes:
    """Return the root group's metadata as the sessions' groups have them.

    Parameters
    ----------
    objects : Objects
        The store's root.
    known : set of Session
        Sessions that may be there, beside those that a local folder holds.
    versions : mapping of str to str
        The groups of the sessions whose current version is not the first, by the session's name.
    before : bytes, optional
        The root's metadata as they were: a session that is damaged or gone stays in them as it was, and keeps no other
        from being listed.
    fresh : set of Session, optional
        The sessions to read though ``before`` has their groups; all by default.

    Raises
    ------
    StoreError
        If a session is damaged, and nothing is known from before.
    """
    nodes: dict[str, Mapping[str, Any]] = {}
    listed = []
    there = list_published(objects)
    known_nodes = {} if before is None else recall_nodes(before)
    candidates = {*known, *(SESSIONS.values() if there is None else there)}
    for session in sorted(candidates):
        group = versions.get(session.name, session.name)
        recalled = known_nodes.get(group, {})
        found: Mapping[str, Any] | None = recalled
        if not recalled or fresh is None or session in fresh:
            try:
                found = _read_nodes(objects, session, group)
            except StoreError:
                if before is None:
                    raise
        # What was listed and is gone stays listed: that it is missed has to be told until it is there again.
        found = found or recalled
        if not found:
            continue
        nodes.update(found)
        listed.append(session.name)
    return consolidate({"title": ROOT_TITLE, "sessions": listed}, nodes)


def _read_nodes(objects: Objects, session: Session, group: str) -> dict[str, Any] | None:
    """Return the metadata of a group and of all below it, by path; None if there is no such group."""
    key = f"{group}/{METADATA_KEY}"
    try:
        metadata = parse_json(objects.read(key))
        below = metadata.pop("consolidated_metadata")["metadata"]
        return {group: metadata, **{f"{group}/{path}": node for path, node in below.items()}}
    except FileNotFoundError:
        # Raises where they were lost.
        read_attributes(objects, session, group)
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_object(
            objects, session, group, METADATA_KEY, f"unreadable metadata ({describe_damage(error)})"
        ) from error


def recall_nodes(before: bytes) -> dict[str, dict[str, Any]]:
    """Return what the root's metadata said, by group: the metadata of it and of all below it, by path."""
    groups: dict[str, dict[str, Any]] = {}
    try:
        for path, node in parse_json(before)["consolidated_metadata"]["metadata"].items():
            groups.setdefault(path.partition("/")[0], {})[path] = node
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return groups


def _list_again(objects: Objects, metadata: bytes | None) -> tuple[Session, ...]:
    """Return what the root's metadata list, nothing where they are damaged: they are about to be written anew."""
    try:
        return parse_root(objects, metadata) or ()
    except StoreError:
        return ()


def _lock_path(objects: LocalObjects, name: str) -> Path:
    return objects.path_to_change(lock_key(name))


def _open_lock_file(path: Path) -> int:
    for remaining in reversed(range(N_LOCK_FOLDER_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _require_empty(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644))
        except (FileNotFoundError, FileExistsError):
            # Whoever held the lock has just removed its folder: before the file was opened, or before mkdir, which had
            # found the folder, looked whether it is one.
            is_file = path.parent.exists() and not path.parent.is_dir()
            if is_file or not remaining:
                raise
    raise AssertionError("unreachable")


def _require_empty(path: Path, descriptor: int) -> int:
    """Return a lock file's descriptor; an OSError if something else has its name, which the holder would delete."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size:
        os.close(descriptor)
        found = f"{status.st_size:,} bytes" if status.st_size else describe_kind(status.st_mode)
        raise OSError(errno.EINVAL, f"{found} in the place of a lock file, which is empty", os.fspath(path))
    return descriptor
