"""What an interrupted writer of predictions has finished: a line for each trial, so that damage is not taken over."""

from __future__ import annotations

import contextlib
import json

from sensorium_data.errors import StoreError, describe_os_error
from sensorium_data.files import LocalObjects, StoredObject, open_appending, parse_json

__all__ = ["JOURNAL_KEY", "WrittenTrials"]

#: In the folder of a session that is being predicted.
JOURNAL_KEY = "written.jsonl"


class WrittenTrials:
    """The objects of a session's finished trials, with their sizes and digests.

    Parameters
    ----------
    group : LocalObjects
        The folder of the session.
    """

    def __init__(self, group: LocalObjects) -> None:
        self._group = group

    def add(self, key: str, stored: StoredObject) -> None:
        """Note that a trial's object is written; callers take turns.

        Raises
        ------
        StoreError
            If it cannot be noted.
        """
        line = json.dumps([key, stored.size_bytes, stored.digest, stored.crc32])
        try:
            with open_appending(self._group.root / JOURNAL_KEY) as journal:
                journal.write(f"{line}\n")
        except OSError as error:
            raise StoreError(
                "cannot be written",
                path=self._group.locate(JOURNAL_KEY),
                found=describe_os_error(error),
                remedy="check the space and the permissions there",
            ) from error

    def read(self) -> dict[str, StoredObject]:
        """Return the finished trials' objects by key; a line that is damaged, or was cut by a kill, says nothing."""
        noted: dict[str, StoredObject] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._group.read(JOURNAL_KEY).splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    key, size_bytes, digest, crc32 = parse_json(line)
                    noted[str(key)] = StoredObject(int(size_bytes), str(digest), int(crc32))
        return noted
