"""What a conversion has to make: nothing, a session's first group, or a later version of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sensorium_data.archive import SessionArchive
from sensorium_data.errors import StoreError
from sensorium_data.files import Objects
from sensorium_data.ingest.adaptation import Adaptation, parse_frame_size, parse_tier_map
from sensorium_data.ingest.previous_version import PreviousVersion
from sensorium_data.ingest.recollection import recall_statistics, recall_trials
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session
from sensorium_data.store import (
    LEDGER_KEY,
    SESSION_GROUP,
    Precision,
    Store,
    find_object_problems,
    next_group,
    read_attributes,
    read_ledger,
    read_sound_attributes,
    recall_attributes,
    require_schema,
)

__all__ = ["Target", "find_target"]


@dataclass(frozen=True)
class Target:
    """The group that has to hold a session, as its archive is now.

    Attributes
    ----------
    group : str
        Its name.
    precision : Precision
        What it keeps of the values.
    done : bool
        Whether it is published.
    is_to_be_pointed_to : bool
        Whether it is published, and the store does not point to it yet.
    previous : str or None
        The published group that it replaces.
    attributes : mapping
        Of the published group, if it is done.
    adaptation : Adaptation
        What is changed of the recording.
    """

    group: str
    precision: Precision
    done: bool = False
    is_to_be_pointed_to: bool = False
    previous: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    session: Session | None = None
    adaptation: Adaptation = field(default_factory=Adaptation)

    def open_previous(self, objects: Objects) -> PreviousVersion | None:
        """Return the replaced group to copy from; ``None`` if there is none, or none that can be read."""
        if self.previous is None or self.session is None:
            return None
        try:
            previous = PreviousVersion(objects.child(self.previous), read_ledger(objects, self.session, self.previous))
        except StoreError:
            return None  # It is to be repaired, and its ledger is what is damaged: everything is converted anew.
        return previous if previous.is_usable else None


def find_target(
    store: Store,
    session: Session,
    archive: SessionArchive,
    *,
    precision: Precision | None = None,
    resize: str | None = None,
    tier_map: Sequence[str] | None = None,
    repairs: bool = False,
    jobs: int = 1,
    progress: Progress = ignore_progress,
) -> Target:
    """Find out what is to be done for a store to hold a session.

    Parameters
    ----------
    store : Store
        The store; it need not exist yet.
    session : Session
        Which session.
    archive : SessionArchive
        Its archive.
    precision : Precision, optional
        The precision that is asked for; by default what the store holds, or ``exact``.
    resize, tier_map : optional
        The frame size and the names of tiers that are asked for, as
        :func:`~sensorium_data.ingest.adaptation.parse_frame_size` and
        :func:`~sensorium_data.ingest.adaptation.parse_tier_map` take them; by default what the store holds. Others than
        the store's make a new version.
    repairs : bool
        Whether to read every object of a published group, and to replace a damaged one.
    jobs : int
        Objects read at once.
    progress : Progress
        Told after each object that is read.

    Raises
    ------
    StoreError
        If the store holds the session in another precision, in another schema version, or damaged while it is not to
        be repaired.
    """
    objects, group = store.objects, store.group(session)
    try:
        attributes = (read_attributes if repairs else read_sound_attributes)(objects, session, group)
    except StoreError:
        if not repairs:
            raise
        known = recall_attributes(objects, group)
        try:
            adapted, kept = Adaptation.read(known), Precision(known.get("precision", Precision.EXACT))
        except (ValueError, TypeError, KeyError, AttributeError):
            # They are what is damaged.
            adapted, kept = Adaptation(), Precision.EXACT
        wanted, kept = _adapt(adapted, resize, tier_map), precision or kept
        return Target(next_group(group), kept, previous=group, session=session, adaptation=wanted)
    if attributes is None:
        return Target(group, precision or Precision.EXACT, adaptation=_adapt(Adaptation(), resize, tier_map))
    require_schema(objects, session, group, attributes)
    stored = Precision(attributes["precision"])
    if precision is not None and precision != stored:
        raise StoreError(
            "the store holds the session in another precision",
            session=session,
            path=objects.locate(group),
            found=str(stored),
            expected=str(precision),
            remedy="ingest into another store, or leave out --precision",
        )
    wanted = _adapt(Adaptation.read(attributes), resize, tier_map)
    sound = not repairs or _is_sound(objects, session, group, jobs, progress)
    _recall(objects, session, group, archive)
    if sound and Adaptation.read(attributes) == wanted and _is_made_from(attributes, archive):
        return Target(group, stored, done=True, attributes=attributes, adaptation=wanted)
    following = next_group(group)
    found = read_attributes(objects, session, following)
    if found is not None:
        _recall(objects, session, following, archive)
    is_as_wanted = found is not None and found.get("precision") == str(stored) and Adaptation.read(found) == wanted
    if found is not None and is_as_wanted and _is_made_from(found, archive):
        # Published by a run that was killed before it moved the store's pointer.
        return Target(following, stored, done=True, is_to_be_pointed_to=True, attributes=found, adaptation=wanted)
    if found is not None:
        # Nobody was ever pointed to it, and the archive has changed again since. Without its ledger it is no group.
        _require_own(objects, session, following)
        objects.delete(f"{following}/{LEDGER_KEY}")
        objects.child(following).delete_all()
    return Target(following, stored, previous=group, session=session, adaptation=wanted)


def _require_own(objects: Objects, session: Session, group: str) -> None:
    foreign = SESSION_GROUP.describe_foreign(objects.child(group))
    if foreign:
        raise StoreError(
            "a version that nobody uses is in the way, and cannot be deleted",
            session=session,
            path=objects.locate(group),
            found=foreign,
            remedy="move what is not of the session to another place",
        )


def _adapt(stored: Adaptation, resize: str | None, tier_map: Sequence[str] | None) -> Adaptation:
    """Return what is asked for, and as the store has it what is not."""
    return Adaptation(
        stored.frame_size if resize is None else parse_frame_size(resize),
        stored.tier_map if tier_map is None else parse_tier_map(tier_map),
    )


def _is_made_from(attributes: Mapping[str, Any], archive: SessionArchive) -> bool:
    # The size first: a folder's digest may take reading its files.
    is_as_large = attributes.get("source_size_bytes") == archive.size_bytes
    return is_as_large and attributes.get("source_digest") == archive.digest


def _recall(objects: Objects, session: Session, group: str, archive: SessionArchive) -> None:
    if archive.states_checksums:
        return
    with contextlib.suppress(StoreError):  # without the ledger the files are read
        ledger = read_ledger(objects, session, group)
        recall_trials(archive, ledger.trials.values())
        recall_statistics(archive, ledger.statistics)


def _is_sound(objects: Objects, session: Session, group: str, jobs: int, progress: Progress) -> bool:
    try:
        ledger = read_ledger(objects, session, group)
    except StoreError:
        return False
    label = f"verify {session.alias}"
    return not find_object_problems(objects.child(group), ledger, jobs=jobs, progress=progress, label=label)
