"""The records of the trials that an unfinished conversion has finished."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from sensorium_data.files import LocalObjects, Objects, digest_bytes
from sensorium_data.store import TrialRecord

__all__ = ["TrialRecords"]

_ONE = re.compile(r"[0-9]+\.npz")
_SEVERAL = re.compile(r"[0-9a-f]{16}\.zip")

# What a run that is killed converts again of what it had finished: at most so many trials, or so many seconds.
_N_TOGETHER = 16
_LONGEST_WAIT_S = 5.0


class TrialRecords:
    """Records of finished trials, so that a run that was interrupted is continued.

    On a local disk each has a file of its own, written at once. On an object store, where every request has to be
    waited for, those of trials that are finished soon after one another are written together.

    Parameters
    ----------
    objects : Objects
        Where they are.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._is_local = isinstance(objects, LocalObjects)
        self._waiting: dict[int, TrialRecord] = {}
        self._written_s = -_LONGEST_WAIT_S

    def read(self) -> list[TrialRecord]:
        """Return all records that can be read; a trial that was converted twice may have two."""
        pattern = _ONE if self._is_local else _SEVERAL
        keys = [key for key in self._objects.keys() or () if pattern.fullmatch(key)]
        with ThreadPoolExecutor(self._objects.n_requests_at_once, thread_name_prefix="records") as pool:
            return [record for records in pool.map(self._read_key, keys) for record in records]

    def add(self, record: TrialRecord) -> None:
        """Mark a trial as finished, soon."""
        self._waiting[record.trial] = record
        is_due = time.monotonic() - self._written_s >= _LONGEST_WAIT_S
        if self._is_local or is_due or len(self._waiting) >= _N_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Write the records that wait for others."""
        self._write(self._waiting.values())
        self._waiting.clear()
        self._written_s = time.monotonic()

    def forget(self, trials: Collection[int]) -> None:
        """Have trials converted again."""
        if self._is_local:
            for trial in trials:
                self._objects.delete(_key_of(trial))
            return
        self.flush()
        for key in self._objects.keys() or ():
            records = self._read_key(key)
            kept = [record for record in records if record.trial not in trials]
            if len(kept) < len(records):
                self._write(kept)
                self._objects.delete(key)

    def _write(self, records: Iterable[TrialRecord]) -> None:
        named = {_key_of(record.trial): record.to_bytes() for record in records}
        if self._is_local:
            for key, data in named.items():
                self._objects.write(key, data)
        elif named:
            together = _pack(named)
            self._objects.write(f"{digest_bytes(together)[:16]}.zip", together)

    def _read_key(self, key: str) -> list[TrialRecord]:
        """Return the records in an object; none of one that is damaged or gone: its trials are converted again."""
        try:
            data = self._objects.read(key)
            named = {key: data} if self._is_local else _unpack(data)
            records = {name: TrialRecord.from_bytes(one) for name, one in named.items()}
        except (FileNotFoundError, ValueError):
            return []
        return [record for name, record in records.items() if name == _key_of(record.trial)]


def _key_of(trial: int) -> str:
    return f"{trial}.npz"


def _pack(named: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(named.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _unpack(data: bytes) -> dict[str, bytes]:
    """Return what :func:`_pack` packed; a :class:`ValueError` if it is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"damaged records: {error}") from error
