"""What is not there: a store, a session of it, or the session's current version."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium_data.commands import quote_command
from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects
from sensorium_data.sessions import Session
from sensorium_data.store.groups import ingest_command, recall_attributes
from sensorium_data.store.publishing import PARTIAL_FOLDER, list_published, parse_root, refuse_other_root
from sensorium_data.store.template import METADATA_KEY
from sensorium_data.store.versions import VERSIONS_KEY

__all__ = ["explain_absence", "no_store", "require_store"]


def explain_absence(objects: Objects, session: Session, group: str, present: Sequence[Session]) -> StoreError:
    """Return the error that says why a session cannot be opened.

    Parameters
    ----------
    objects : Objects
        What lies under the store's root.
    session : Session
        The session.
    group : str
        That of its current version.
    present : sequence of Session
        The sessions that the store has.
    """
    if isinstance(objects, LocalObjects) and (objects.root / PARTIAL_FOLDER / session.name).is_dir():
        return StoreError(
            "ingest has not finished", session=session, path=objects.url, remedy="run it again: it continues"
        )
    if session in present:
        return StoreError(
            "the session's current version is not there",
            session=session,
            path=objects.locate(group),
            found="other versions of it only",
            expected=f"{group}, which {VERSIONS_KEY} names",
            remedy=f"put its folder back, or run `{ingest_command(objects, session, group)}`",
        )
    return StoreError(
        "the session is not in the store",
        session=session,
        path=objects.url,
        found=", ".join(s.alias for s in present) or "no session",
        remedy=f"run `{ingest_command(objects, session, group)}`"
        if recall_attributes(objects, group)
        else f"run {quote_command('ingest', session.alias, '--store', objects.url)}",
    )


def require_store(objects: LocalObjects, metadata: bytes | None) -> None:
    """Raise a :class:`StoreError` if a local folder, with this metadata, is no store."""
    if not objects.root.is_dir():
        raise StoreError(
            "no such folder" if not objects.root.exists() else "not a folder",
            path=objects.url,
            remedy="give the root of a store that `sensorium ingest` made",
        )
    # Predictions hold groups of the sessions' names too.
    refuse_other_root(objects, metadata)
    if list_published(objects):
        return
    # Raises where the metadata are not those of a store.
    if parse_root(objects, metadata) is None and not (objects.root / PARTIAL_FOLDER).is_dir():
        raise no_store(objects)


def no_store(objects: Objects) -> StoreError:
    """Return the error that says that there is no store."""
    return StoreError(
        "no session store here",
        path=objects.url,
        expected=f"a {METADATA_KEY} that lists sessions",
        remedy="give the root of a store that `sensorium ingest` made",
    )
