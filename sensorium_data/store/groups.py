"""A published session's group: its attributes, its ledger, and whether it is sound."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from sensorium_data.commands import quote_command
from sensorium_data.counting import count_things
from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects, describe_damage, parse_json
from sensorium_data.schema import READABLE_SCHEMA_VERSIONS, SOURCE_NOT_KEPT
from sensorium_data.sessions import Session
from sensorium_data.store.ledger import LEDGER_KEY, Ledger
from sensorium_data.store.template import METADATA_KEY

__all__ = [
    "damaged",
    "damaged_object",
    "ingest_command",
    "is_group_key",
    "read_attributes",
    "read_ledger",
    "read_sound_attributes",
    "recall_attributes",
    "repair_command",
    "require_schema",
    "require_sound",
]

_SOURCE = "SOURCE"
# Metadata and chunks of arrays, in the group itself or in one below it.
_GROUP_KEY = re.compile(r"(\w+/){0,2}(zarr\.json|c(/\d+)*)|" + re.escape(LEDGER_KEY))


def is_group_key(key: str) -> bool:
    """Whether a session's group may have an object of this name, whatever it holds.

    Examples
    --------
    >>> is_group_key("videos/c/12/0/0/0"), is_group_key("data/videos/12.npy")
    (True, False)
    """
    return _GROUP_KEY.fullmatch(key) is not None


def read_attributes(objects: Objects, session: Session, group: str) -> dict[str, Any] | None:
    """Return the attributes of a published session's group as they are, ``None`` if it is not there.

    Raises
    ------
    StoreError
        If they cannot be read, or are another session's or another version's.
    """
    try:
        metadata = parse_json(objects.read(f"{group}/{METADATA_KEY}"))
        attributes = metadata["attributes"]
        if metadata["node_type"] != "group" or not isinstance(attributes, dict):
            raise ValueError("not a group's")
    except FileNotFoundError:
        # On a local disk a group gets its name when it is whole. Elsewhere its metadata come last.
        if isinstance(objects, LocalObjects) and _was_published(objects, group):
            raise damaged_object(objects, session, group, METADATA_KEY, "no such file") from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(objects, session, group, f"unreadable metadata ({describe_damage(error)})") from error
    # Earlier versions did not say the group.
    for name, expected in (("session", session.name), ("group", group)):
        found = attributes.get(name, expected)
        if found != expected:
            raise StoreError(
                "the group is not what its name says",
                session=session,
                path=objects.locate(group),
                found=f"{name} {found}",
                expected=expected,
                remedy="give each group its own name again, or move it out of the store and ingest again",
            )
    return attributes


def _was_published(objects: LocalObjects, group: str) -> bool:
    """Whether a folder without metadata was a published group: it has a ledger, or the root keeps its metadata."""
    if not (objects.root / group).is_dir():
        return False
    return objects.exists(f"{group}/{LEDGER_KEY}") or bool(recall_attributes(objects, group))


def read_sound_attributes(objects: Objects, session: Session, group: str) -> dict[str, Any] | None:
    """Return the attributes of a published session's group, ``None`` if it is not there.

    Raises
    ------
    StoreError
        If the session is damaged, as far as :func:`require_sound` looks, or was written with another schema version.
    """
    attributes = read_attributes(objects, session, group)
    if attributes is None:
        return None
    require_schema(objects, session, group, attributes)
    require_sound(objects, session, group, read_ledger(objects, session, group))
    return attributes


def require_sound(objects: Objects, session: Session, group: str, ledger: Ledger) -> None:
    """Raise a :class:`StoreError` if a group's metadata, or on a local disk any object's size, is not as in the ledger.

    Zarr reads a missing chunk as NaN and says nothing. Elsewhere a size takes a request each; objects are compared
    there when they are read.
    """
    stored = ledger.objects.get(METADATA_KEY)
    damage = "not in the ledger" if stored is None else stored.find_damage(objects.read(f"{group}/{METADATA_KEY}"))
    if damage is not None:
        raise damaged_object(objects, session, group, METADATA_KEY, damage)
    if isinstance(objects, LocalObjects):
        for key, stored in ledger.objects.items():
            size = objects.size(f"{group}/{key}")
            if size != stored.size_bytes:
                found = f"no {key}" if size is None else f"{key} of {count_things(size, 'byte')}"
                raise damaged(objects, session, group, found, f"an object of {count_things(stored.size_bytes, 'byte')}")


def require_schema(objects: Objects, session: Session, group: str, attributes: Mapping[str, Any]) -> None:
    """Raise a :class:`StoreError` if a group was written with a version of the schema that cannot be read."""
    if attributes.get("schema_version") not in READABLE_SCHEMA_VERSIONS:
        raise StoreError(
            "the session was written with another schema version",
            session=session,
            path=objects.locate(group),
            found=attributes.get("schema_version"),
            expected=" or ".join(map(str, READABLE_SCHEMA_VERSIONS)),
            remedy="ingest it again, into another store",
        )


def read_ledger(objects: Objects, session: Session, group: str) -> Ledger:
    """Return the ledger of a published session's group; a :class:`StoreError` if it is missing or damaged."""
    key = f"{group}/{LEDGER_KEY}"
    try:
        data = objects.read(key)
    except FileNotFoundError:
        raise damaged(objects, session, group, "no ledger") from None
    try:
        return Ledger.from_bytes(data)
    except ValueError as error:
        raise StoreError(
            "the ledger is damaged",
            session=session,
            path=objects.locate(key),
            found=str(error),
            remedy=f"`{repair_command(objects, session, group)}` converts the session again",
        ) from error


def damaged_object(
    objects: Objects, session: Session, group: str, key: str, problem: str, *, trial: int | None = None
) -> StoreError:
    """Return the error that says what is wrong with an object of a session's group."""
    array, _, chunk = key.partition("/c/")
    return StoreError(
        "the store is damaged",
        session=session,
        trial=trial,
        path=objects.locate(f"{group}/{key}"),
        found=f"{problem} in the array {array}" if chunk else problem,
        remedy=_describe_remedy(objects, session, group),
    )


def damaged(objects: Objects, session: Session, group: str, found: str, expected: str | None = None) -> StoreError:
    """Return the error that says what is wrong with a session's group."""
    return StoreError(
        "the store is damaged",
        session=session,
        path=objects.locate(group),
        found=found,
        expected=expected,
        remedy=_describe_remedy(objects, session, group),
    )


def recall_attributes(objects: Objects, group: str) -> dict[str, Any]:
    """Return a group's attributes from its metadata, or from what the root's metadata keep of them; else nothing."""
    for key, path in ((f"{group}/{METADATA_KEY}", ()), (METADATA_KEY, ("consolidated_metadata", "metadata", group))):
        try:
            node = parse_json(objects.read(key))
            for name in path:
                node = node[name]
            return dict(node["attributes"])
        except (StoreError, FileNotFoundError, ValueError, KeyError, TypeError):
            continue
    return {}


def ingest_command(objects: Objects, session: Session, group: str) -> str:
    """Return the command that looks at a session again, at the place that it was made from.

    ``SOURCE`` stands for the place if nothing says it any more, or the archive was not kept.
    """
    source = str(recall_attributes(objects, group).get("source", _SOURCE))
    if source.startswith(SOURCE_NOT_KEPT):
        source = _SOURCE
    given = [] if source == session.url else ["--source", source]
    return shlex.join(["sensorium", "ingest", session.alias, "--store", objects.url, *given])


def repair_command(objects: Objects, session: Session, group: str) -> str:
    """Return the :func:`ingest_command` that converts again what is damaged of a session."""
    return f"{ingest_command(objects, session, group)} --repair"


def _describe_remedy(objects: Objects, session: Session, group: str) -> str:
    verify = quote_command("verify", objects.url)
    return f"{verify} lists what is wrong; `{repair_command(objects, session, group)}` converts that again"
