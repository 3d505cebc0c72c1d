"""Where a session's conversion keeps what it has finished, until the session is published."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from sensorium_data.errors import StoreError, describe_os_error
from sensorium_data.files import LocalObjects, Objects, StoredObject, sync_folder
from sensorium_data.sessions import Session
from sensorium_data.store import LEDGER_KEY, METADATA_KEY, PARTIAL_FOLDER, Ledger, StatisticsRecord, TrialRecord

__all__ = ["Workspace"]

_IDENTITY_KEY = "identity.json"
_STATISTICS_KEY = "statistics.json"


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
    group : Objects
        Where the session's own objects go.
    """

    def __init__(self, store: Objects, session: Session, name: str) -> None:
        self._session = session
        self._records = store.child(f"{PARTIAL_FOLDER}/{name}")
        self._published = store.child(name)
        # A local folder is renamed when it is whole. Object stores cannot rename: there the objects are written
        # where they stay, and the group's metadata, without which nobody finds them, come last.
        self.group: Objects = self._records.child("group") if isinstance(store, LocalObjects) else self._published

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Keep what an interrupted run finished if it had this identity; start over otherwise.

        Parameters
        ----------
        identity : mapping
            What every trial depends on beside its members: schema, converter, precision.
        """
        wanted = json.dumps(dict(identity), sort_keys=True, indent=1).encode()
        try:
            if self._records.read(_IDENTITY_KEY) == wanted:
                return
        except FileNotFoundError:
            pass
        self._records.delete_all()
        self.group.delete_all()
        self._records.write(_IDENTITY_KEY, wanted)

    def has_leftovers(self) -> bool:
        """Whether there is unfinished work, or finished work that was not tidied up."""
        return self._records.root.exists() if isinstance(self._records, LocalObjects) else bool(self._records.keys())

    def tidy_up(self) -> None:
        """Delete what is left of work that is published."""
        self._records.delete_all()

    def read_trial_record(self, trial: int) -> TrialRecord | None:
        """Return the record of a finished trial, ``None`` if it has to be converted (again)."""
        try:
            record = TrialRecord.from_bytes(self._records.read(_trial_key(trial)))
        except (FileNotFoundError, ValueError):
            return None
        return record if record.trial == trial and self._are_there(record.objects) else None

    def write_trial_record(self, record: TrialRecord) -> None:
        """Mark a trial as finished."""
        self._records.write(_trial_key(record.trial), record.to_bytes())

    def forget_trial(self, trial: int) -> None:
        """Have a trial converted again."""
        self._records.delete(_trial_key(trial))

    def read_statistics_record(self) -> StatisticsRecord | None:
        """Return the record of the finished statistics, ``None`` if they have to be converted (again)."""
        try:
            record = StatisticsRecord.from_bytes(self._records.read(_STATISTICS_KEY))
        except (FileNotFoundError, ValueError):
            return None
        return record if self._are_there(record.objects) else None

    def write_statistics_record(self, record: StatisticsRecord) -> None:
        """Mark the statistics as finished."""
        self._records.write(_STATISTICS_KEY, record.to_bytes())

    def forget_statistics(self) -> None:
        """Have the statistics converted again."""
        self._records.delete(_STATISTICS_KEY)

    def publish(self, ledger: Ledger, metadata: bytes) -> None:
        """Make the session visible under its name, whole, and delete the records.

        Parameters
        ----------
        ledger : Ledger
            Of all objects, the group's metadata among them.
        metadata : bytes
            The group's metadata, written last.
        """
        last = {LEDGER_KEY: ledger.to_bytes(), METADATA_KEY: metadata}
        for key, data in last.items():
            self.group.write_durably(key, data)
            if self.group.read(key) != data:
                raise StoreError(
                    "what was written reads back differently",
                    session=self._session,
                    path=self.group.locate(key),
                    remedy="check the disk, and run it again",
                )
        if isinstance(self.group, LocalObjects) and isinstance(self._published, LocalObjects):
            # A power cut must not leave a published session whose objects never reached the disk: they were synced when
            # they were read back, and now their names are.
            self.group.sync_folders()
            try:
                os.rename(self.group.root, self._published.root)
                sync_folder(self._published.root.parent)
            except OSError as error:
                raise StoreError(
                    "the session cannot be published under its name",
                    session=self._session,
                    path=self._published.url,
                    found=describe_os_error(error),
                    remedy="move what is there out of the way, and run it again: nothing is converted twice",
                ) from error
        self.tidy_up()

    def _are_there(self, objects: Mapping[str, StoredObject]) -> bool:
        return all(self.group.size(key) == stored.size_bytes for key, stored in objects.items())


def _trial_key(trial: int) -> str:
    return f"trials/{trial}.npz"
