"""Which objects an interrupted verification has found sound, so that the next one goes on from there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Self

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects, cache_folder, digest_bytes, parse_json

__all__ = ["VerifiedObjects"]

# What was found sound longer ago than this is read again.
_LONGEST_AGE_S = 24 * 3600.0
_SAVING_INTERVAL_S = 5.0


class VerifiedObjects:
    """The objects of a group that were found sound; kept in the user's folder for caches until all of them are.

    An object on a local disk that was written since counts as not read.

    Parameters
    ----------
    group : Objects
        The group.
    ledger : bytes
        Its ledger: another one makes another verification.
    """

    def __init__(self, group: Objects, ledger: bytes) -> None:
        place = str(group.root.absolute()) if isinstance(group, LocalObjects) else group.url
        self._group = group
        self._path: Path = cache_folder("verification") / f"{digest_bytes(place.encode() + ledger)}.json"
        self._stamps: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        self._saved = time.monotonic()

    @classmethod
    def of(cls, group: Objects, ledger_key: str) -> Self:
        """Return what the last verification of a group with this ledger left, if it was interrupted."""
        verified = cls(group, group.read(ledger_key))
        try:
            known = parse_json(verified._path.read_bytes())
            if 0 <= time.time() - float(known["time_s"]) < _LONGEST_AGE_S:
                verified._stamps = {str(key): str(stamp) for key, stamp in known["stamps"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # Nothing was left, or nothing that can be read: everything is read.
        return verified

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._stamps and self._stamps[key] == self._stamp(key)

    def begin(self, key: str) -> None:
        """Note what an object is like before it is read; may be called from several threads."""
        self._begun[key] = self._stamp(key)

    def add(self, key: str) -> None:
        """Note that an object is sound, as it was when :meth:`begin` was called."""
        self._stamps[key] = self._begun.pop(key)
        if time.monotonic() - self._saved > _SAVING_INTERVAL_S:
            self.save()

    def save(self) -> None:
        """Keep what is known; without a folder for caches the next verification begins anew."""
        self._saved = time.monotonic()
        try:
            LocalObjects(self._path.parent).write(
                self._path.name, json.dumps({"time_s": time.time(), "stamps": self._stamps}).encode()
            )
        except StoreError:
            return

    def forget(self) -> None:
        """Forget everything: the verification is complete."""
        self._stamps.clear()
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return

    def _stamp(self, key: str) -> str:
        if not isinstance(self._group, LocalObjects):
            return ""
        try:
            status = (self._group.root / key).stat()
        except OSError:
            return "missing"
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
