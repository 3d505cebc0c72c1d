"""Where a session's conversion keeps what it has finished, until the session is published."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sensorium_data.counting import name_some
from sensorium_data.errors import StoreError, describe_os_error
from sensorium_data.files import (
    MOVE_FOREIGN,
    LocalObjects,
    Objects,
    ObjectStatus,
    RemoteObjects,
    StoredObject,
    sync_folder,
    write_object,
)
from sensorium_data.ingest.trial_records import TrialRecords
from sensorium_data.sessions import Session
from sensorium_data.store import (
    IDENTITY_KEY,
    LEDGER_KEY,
    METADATA_KEY,
    PARTIAL_FOLDER,
    SESSION_GROUP,
    STATISTICS_KEY,
    UNFINISHED_GROUP,
    UNFINISHED_SESSION,
    Ledger,
    StatisticsRecord,
    TrialRecord,
    is_group_key,
)

__all__ = ["Workspace"]


class Workspace:
    """One session's unfinished work under ``STORE/.partial``.

    Parameters
    ----------
    store : Objects
        The store's root.
    session : Session
        Which session.
    name : str
        The name of the group to publish: the session's, or that of a later version.

    Attributes
    ----------
    session : Session
        As given.
    group : Objects
        Where the session's own objects go.
    records : TrialRecords
        Of the trials that are finished.
    """

    def __init__(self, store: Objects, session: Session, name: str) -> None:
        self.session = session
        self._records = store.child(f"{PARTIAL_FOLDER}/{name}")
        self._published = store.child(name)
        # A local folder is renamed when it is whole. Object stores cannot rename: there the objects are written
        # where they stay, and the group's metadata, without which nobody finds them, come last.
        self.group: Objects = (
            self._records.child(UNFINISHED_GROUP) if isinstance(store, LocalObjects) else self._published
        )
        self.records = TrialRecords(self._records.child("trials"))
        self._is_new = False
        # What a listing says of the group's objects, where a look at each would take a request.
        self._listed: Mapping[str, ObjectStatus] | None = None
        self._kept: dict[str, bytes] = {}

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Keep what an interrupted run finished if it had this identity; start over otherwise.

        Parameters
        ----------
        identity : mapping
            What every trial depends on beside its members: schema, converter, precision.

        Raises
        ------
        StoreError
            If something else lies in an object store where the session's objects go, or in the place of the records.
        """
        wanted = json.dumps(dict(identity), sort_keys=True, indent=1).encode()
        records = group = None
        if isinstance(self._records, RemoteObjects) and isinstance(self.group, RemoteObjects):
            records, group = self._records.statuses(), self.group.statuses()
            self._refuse_foreign(group or ())
        self._listed = group
        try:
            if (records is None or IDENTITY_KEY in records) and self._records.read(IDENTITY_KEY) == wanted:
                if isinstance(self._records, LocalObjects):
                    self._require_own()
                return
        except FileNotFoundError:
            pass
        self._is_new = True
        # The records last: a kill in between leaves what is known to be unfinished work.
        if records is None or records:
            self._require_own()
        if group:
            self.group.delete_keys([*group])
        if records is None or records:
            UNFINISHED_SESSION.delete_own(self._records, records)
        self._records.write(IDENTITY_KEY, wanted)

    def has_leftovers(self) -> bool:
        """Whether there is unfinished work, or finished work that was not tidied up."""
        return self._records.root.exists() if isinstance(self._records, LocalObjects) else bool(self._records.keys())

    def tidy_up(self) -> None:
        """Delete what is left of work that is published; what somebody else put there stays."""
        UNFINISHED_SESSION.discard(self._records)

    def read_trial_records(self) -> list[TrialRecord]:
        """Return the records of the finished trials whose objects are there."""
        return [] if self._is_new else [one for one in self.records.read() if self._are_there(one.objects)]

    def read_statistics_record(self) -> StatisticsRecord | None:
        """Return the record of the finished statistics, ``None`` if they have to be converted (again)."""
        if self._is_new:
            return None
        try:
            record = StatisticsRecord.from_bytes(self._records.read(STATISTICS_KEY))
        except (FileNotFoundError, ValueError):
            return None
        return record if self._are_there(record.objects) else None

    def write_statistics_record(self, record: StatisticsRecord) -> None:
        """Mark the statistics as finished."""
        self._records.write(STATISTICS_KEY, record.to_bytes())

    def forget_statistics(self) -> None:
        """Have the statistics converted again."""
        self._records.delete(STATISTICS_KEY)

    def write_all(self, objects: Mapping[str, bytes | memoryview]) -> dict[str, StoredObject]:
        """Write objects of the session, several at once where each has to be waited for."""
        pool = ThreadPoolExecutor(self.group.n_requests_at_once, thread_name_prefix="write")
        try:
            return dict(zip(objects, pool.map(self._write, *zip(*objects.items(), strict=True)), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)

    def write_and_keep(self, key: str, data: bytes | memoryview) -> StoredObject:
        """Write an object that :meth:`read_kept` is to return, in memory if the store confirms what it has."""
        stored = write_object(self.group, key, data)
        if stored.tag is not None:
            self._kept[key] = bytes(data)
        return stored

    def read_kept(self, key: str) -> bytes:
        """Return an object for the last time; raises what :meth:`~sensorium_data.files.Objects.read` raises."""
        return self._kept.pop(key, None) or self.group.read(key)

    def _write(self, key: str, data: bytes | memoryview) -> StoredObject:
        return write_object(self.group, key, data)

    def keep_only(self, wanted: Collection[str]) -> Mapping[str, ObjectStatus]:
        """Delete what else conversions wrote into the session's group; what somebody else put there stays.

        A process killed while writing leaves a temporary file, an archive that changed leaves trials it lacks.

        Returns
        -------
        mapping of str to ObjectStatus
            What a listing says of the others; nothing on a local disk, which has no tags.

        Raises
        ------
        StoreError
            If something else was put there in an object store.
        """
        listed = (self.group.statuses() or {}) if isinstance(self.group, RemoteObjects) else {}
        self._refuse_foreign(listed)
        keys = (self.group.keys() or ()) if isinstance(self.group, LocalObjects) else listed
        self.group.delete_keys([key for key in keys if key not in wanted and SESSION_GROUP.is_own_key(key)])
        return listed

    def publish(self, ledger: Ledger, metadata: bytes) -> None:
        """Make the session visible under its name, whole. What is left of the work is to be tidied up.

        Parameters
        ----------
        ledger : Ledger
            Of all objects, the group's metadata among them.
        metadata : bytes
            The group's metadata, written last.
        """
        last = {LEDGER_KEY: ledger.to_bytes(), METADATA_KEY: metadata}
        for key, data in last.items():
            if self.group.write_durably(key, data) is None and self.group.read(key) != data:
                raise StoreError(
                    "what was written reads back differently",
                    session=self.session,
                    path=self.group.locate(key),
                    remedy="check the disk, and run it again",
                )
        if isinstance(self.group, LocalObjects) and isinstance(self._published, LocalObjects):
            # A power cut must not leave a published session whose objects never reached the disk: they were synced
            # before they were read back, and now their names are.
            self.group.sync_folders()
            try:
                os.rename(self.group.root, self._published.root)
                sync_folder(self._published.root.parent)
            except OSError as error:
                raise StoreError(
                    "the session cannot be published under its name",
                    session=self.session,
                    path=self._published.url,
                    found=describe_os_error(error),
                    remedy="move what is there out of the way, and run it again: nothing is converted twice",
                ) from error

    def _refuse_foreign(self, keys: Iterable[str]) -> None:
        """Raise a :class:`StoreError` if keys under the session's name are none of a session."""
        foreign = sorted(key for key in keys if not is_group_key(key))
        if foreign:
            raise StoreError(
                "something else lies where the session's objects go",
                session=self.session,
                path=self.group.url,
                found=name_some(foreign),
                expected="nothing, or what an interrupted ingest left",
                remedy="move it, or choose another store; nothing was deleted, and what is converted is kept",
            )

    def _require_own(self) -> None:
        obstacle = UNFINISHED_SESSION.find_obstacle(self._records)
        if obstacle:
            raise StoreError(
                "something else lies where the conversion keeps what it has finished",
                session=self.session,
                path=self._records.url,
                found=obstacle,
                remedy=MOVE_FOREIGN,
            )

    def _are_there(self, objects: Mapping[str, StoredObject]) -> bool:
        if self._listed is None:
            return all(self.group.size(key) == stored.size_bytes for key, stored in objects.items())
        return all(stored.find_listed_difference(self._listed.get(key)) is None for key, stored in objects.items())
