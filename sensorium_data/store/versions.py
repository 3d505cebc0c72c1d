"""Which group of a store is a session's current one.

A published group is never changed or swapped under its name, for someone may have it open. A session whose archive
changed is converted into a group of another name (``<session>.v2``, ``<session>.v3``, …), and ``versions.json``, which
is written in one step when the group is whole, says which one counts. Without an entry there, the group named as the
session does. The root's metadata are written afterwards and name the groups too: they stand in for a lost
``versions.json``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping

from sensorium_data.errors import StoreError
from sensorium_data.files import Objects, parse_json, read_sealed, seal
from sensorium_data.sessions import Session, find_session, is_full_name
from sensorium_data.store.groups import repair_command
from sensorium_data.store.template import METADATA_KEY

__all__ = [
    "VERSIONS_KEY",
    "current_group",
    "find_newer_groups",
    "find_old_groups",
    "next_group",
    "point_to",
    "read_root_versions",
    "read_versions",
    "repair_root",
    "repair_versions",
    "session_name_of",
    "version_number",
    "write_versions",
]

#: Where a store's root says which groups count.
VERSIONS_KEY = "versions.json"

# The first version has the session's name alone.
_VERSION = re.compile(r"(?P<name>.+)\.v(?P<number>[2-9]|[1-9][0-9]{1,5})")


def current_group(objects: Objects, session: Session) -> str:
    """Return the name of the group that holds a session's current version, or would hold its first."""
    return read_versions(objects).get(session.name, session.name)


def read_versions(objects: Objects, read_root: Callable[[], bytes | None] | None = None) -> Mapping[str, str]:
    """Return the groups of the sessions whose current version is not the first, by the session's name.

    If the file that says so was lost, what the root's metadata say.

    Parameters
    ----------
    objects : Objects
        The store's root.
    read_root : callable, optional
        Returns the root's metadata, if somebody has read them.

    Raises
    ------
    StoreError
        If the file that says so is damaged.
    """
    try:
        versions, is_sealed = read_sealed(objects.read(VERSIONS_KEY))
        for name, group in versions.items():
            _require_version(name, group)
        # Earlier versions wrote no digest. The root's metadata are written afterwards, and never ahead.
        known = {} if is_sealed else read_root_versions(objects, read_root or (lambda: objects.read(METADATA_KEY)))
        for name, group in known.items():
            if version_number(versions.get(name, name)) < version_number(group):
                raise ValueError(f"the root's metadata name {group}")
    except FileNotFoundError:
        return read_root_versions(objects, read_root or (lambda: objects.read(METADATA_KEY)))
    except (ValueError, AttributeError) as error:
        raise StoreError(
            "the store is damaged",
            path=objects.locate(VERSIONS_KEY),
            found=f"unreadable versions ({error})",
            remedy=f"{'remove this file; then ' if _names_others(objects) else ''}{repair_root(objects)}",
        ) from error
    return dict(versions)


def repair_root(objects: Objects) -> str:
    """Return what writes a store's own files again, as a clause with the whole command: any session's repair does.

    Parameters
    ----------
    objects : Objects
        The store's root.
    """
    folders = objects.folders()
    if folders is None:
        return "`sensorium ingest SESSION --store STORE --repair` of any session, where the store lies, writes it again"
    groups = [folder for folder in folders if is_full_name(session_name_of(folder))]
    # Of a session's versions the newest: the first ones may have been deleted.
    for group in sorted(groups, key=lambda group: (find_session(session_name_of(group)), -version_number(group))):
        with contextlib.suppress(StoreError):
            if objects.exists(f"{group}/{METADATA_KEY}"):
                return f"`{repair_command(objects, find_session(session_name_of(group)), group)}` writes it again"
    return "remove it, or put the sessions' folders back: there is no session that it could be of"


def read_root_versions(objects: Objects, read_root: Callable[[], bytes | None]) -> dict[str, str]:
    """Return the versions that the root's metadata name and that are there; none where these are missing or damaged."""
    try:
        data = read_root() or b""
        # Most stores have first versions only, and their metadata are large.
        groups = parse_json(data)["consolidated_metadata"]["metadata"] if b".v" in data else {}
        named = {session_name_of(group): group for group in groups if "/" not in group}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        name: group
        for name, group in named.items()
        if group != name and is_full_name(name) and objects.exists(f"{group}/{METADATA_KEY}")
    }


def _require_version(name: str, group: object) -> None:
    """Raise a :class:`ValueError` if a group cannot be a version of the session of this full name."""
    if not is_full_name(name):
        raise ValueError(f"{name!r} is no session's full name")
    match = _VERSION.fullmatch(group) if isinstance(group, str) else None
    if group != name and (match is None or match["name"] != name):
        raise ValueError(f"{group!r} is no version of {name}")


def point_to(objects: Objects, session: Session, group: str) -> None:
    """Make a group the session's current one. The caller must hold the lock of the root."""
    objects.update(VERSIONS_KEY, lambda _: seal({**read_versions(objects), session.name: group}))


def repair_versions(objects: Objects) -> None:
    """Write what the root's metadata say in the place of versions that cannot be read.

    Raises
    ------
    StoreError
        If the file cannot be had, or names what cannot be a version of a session.
    """
    try:
        read_versions(objects)
    except StoreError as error:
        # A disk that fails is not repaired so, and who names other folders meant something by it.
        if not isinstance(error.__cause__, (ValueError, AttributeError)) or _names_others(objects):
            raise
        write_versions(objects, read_root_versions(objects, lambda: objects.read(METADATA_KEY)))


def _names_others(objects: Objects) -> bool:
    """Whether the file can be read, and names what cannot be a version of a session."""
    try:
        versions, _ = read_sealed(objects.read(VERSIONS_KEY))
    except ValueError:
        return False
    try:
        for name, group in versions.items():
            _require_version(name, group)
    except ValueError:
        return True
    return False


def find_newer_groups(
    objects: Objects, sessions: Iterable[Session], versions: Mapping[str, str]
) -> list[tuple[Session, str]]:
    """Return the versions of sessions that are newer than those that count, with their groups, the newest of each.

    A killed writer leaves one until it goes on. Otherwise what said that it counts was lost.
    """
    known = {session.name: session for session in sessions}
    newer: dict[str, str] = {}
    for group in objects.folders() or ():
        name = session_name_of(group)
        current = newer.get(name, versions.get(name, name))
        if (
            name in known
            and version_number(group) > version_number(current)
            and objects.exists(f"{group}/{METADATA_KEY}")
        ):
            newer[name] = group
    return [(known[name], group) for name, group in sorted(newer.items())]


def find_old_groups(
    objects: Objects, sessions: Iterable[Session], versions: Mapping[str, str]
) -> list[tuple[Session, str]]:
    """Return the versions of sessions that others have replaced, with their groups, in their order."""
    known = {session.name: session for session in sessions}
    old = [
        (known[name], group)
        for group in objects.folders() or ()
        if (name := session_name_of(group)) in known
        and version_number(group) < version_number(versions.get(name, name))
        and objects.exists(f"{group}/{METADATA_KEY}")
    ]
    return sorted(old, key=lambda one: (one[0], version_number(one[1])))


def write_versions(objects: Objects, versions: Mapping[str, str]) -> None:
    """Say which groups count. The caller must hold the lock of the root."""
    objects.write_durably(VERSIONS_KEY, seal(versions))


def next_group(group: str) -> str:
    """Return the name of the version after a group's.

    Examples
    --------
    >>> next_group("dynamic30001-2-5-Video-mylab"), next_group("dynamic30001-2-5-Video-mylab.v2")
    ('dynamic30001-2-5-Video-mylab.v2', 'dynamic30001-2-5-Video-mylab.v3')
    """
    match = _VERSION.fullmatch(group)
    return f"{group}.v2" if match is None else f"{match['name']}.v{int(match['number']) + 1}"


def version_number(group: str) -> int:
    """Return which version of its session a group is named as, from 1.

    Examples
    --------
    >>> version_number("dynamic30001-2-5-Video-mylab"), version_number("dynamic30001-2-5-Video-mylab.v3")
    (1, 3)
    """
    match = _VERSION.fullmatch(group)
    return 1 if match is None else int(match["number"])


def session_name_of(group: str) -> str:
    """Return the full name of the session whose version a group is named as."""
    match = _VERSION.fullmatch(group)
    return group if match is None else match["name"]
