"""Objects of remote stores, kept in a folder on the local disk that never grows beyond a bound."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from sensorium_data.errors import StoreError, UsageError, describe_os_error
from sensorium_data.files.caches import cache_folder
from sensorium_data.files.regular_file import IrregularFileError, read_regular
from sensorium_data.files.stored_object import StoredObject

__all__ = ["CACHED_OBJECT", "ObjectCache", "default_object_cache"]

_UNFINISHED = ".partial"

#: What the paths of its objects match: a digest below its first two digits, or what is yet to get that name.
CACHED_OBJECT = re.compile(rf"([0-9a-f]{{2}})/\1[0-9a-f]{{62}}(\.[0-9a-f]{{32}}{re.escape(_UNFINISHED)})?")

# Room made at a time, as a share of the bound, so that not every object has the whole folder looked through.
_ROOM_SHARE = 0.05


class ObjectCache:
    """A folder of objects, known by the digest of their content; those not used for longest make room for others.

    Several processes and threads may share a folder: an object gets its name when it is whole, and one that
    another process has removed is fetched again. Each process counts what it adds and looks through the folder
    when that could exceed the bound, so with several the folder may for a moment exceed it by what others add.

    Parameters
    ----------
    folder : str or path
        Made when the first object is kept.
    limit_bytes : int
        Bound on the size of all objects in the folder.

    Raises
    ------
    UsageError
        If the bound is negative.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise UsageError("the local cache cannot be negative", found=f"{limit_bytes} bytes", expected="at least 0")
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        # Unknown until the folder is looked through for the first time.
        self._free_bytes = 0

    def read(self, stored: StoredObject, fetch: Callable[[], bytes]) -> bytes:
        """Return an object's bytes: the kept ones if they are sound, else what ``fetch`` returns, which is then kept.

        Parameters
        ----------
        stored : StoredObject
            What the ledger says of it.
        fetch : callable
            Gets the object from where the store is.

        Raises
        ------
        StoreError
            If the folder cannot be written.
        """
        path = self.folder / stored.digest[:2] / stored.digest
        try:
            data = read_regular(path)
        except (FileNotFoundError, NotADirectoryError, IrregularFileError):
            pass
        else:
            if stored.find_damage(data) is None:
                with contextlib.suppress(OSError):
                    # When it was last used: file systems record reading seldom or never.
                    os.utime(path)
                return data
        data = fetch()
        # What is damaged is not kept; whoever asked looks at the bytes, and complains.
        if len(data) <= self.limit_bytes and stored.find_damage(data) is None:
            self._keep(path, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            # One at a time: room is made by what lies in the folder, and what others write does not yet.
            with self._lock:
                if self._free_bytes < len(data):
                    self._make_room(len(data))
                self._free_bytes -= len(data)
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished.write_bytes(data)
                # Another process that made room may have removed it just now.
                with contextlib.suppress(FileNotFoundError):
                    unfinished.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise StoreError(
                "the local cache of remote stores cannot be written",
                path=self.folder,
                found=describe_os_error(error),
                remedy="check the space and the permissions there, or choose another folder or a smaller size for it",
            ) from error

    def _make_room(self, size_bytes: int) -> None:
        """Delete the objects not used for longest until one of this size fits."""
        found = []
        for path in self.folder.glob("*/*"):
            # Whatever else lies in the folder that a user chose is not ours to delete.
            if not CACHED_OBJECT.fullmatch(f"{path.parent.name}/{path.name}"):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        wanted = min(self.limit_bytes - size_bytes, int(self.limit_bytes * (1 - _ROOM_SHARE)))
        if total + size_bytes > self.limit_bytes:
            for _, size, path in sorted(found):
                if total <= wanted:
                    break
                # What another process is writing just now is not old; what one left that died is.
                path.unlink(missing_ok=True)
                total -= size
        self._free_bytes = self.limit_bytes - total


def default_object_cache(limit_bytes: int) -> ObjectCache:
    """Return the cache in ``sensorium/objects`` in the user's folder for caches."""
    return ObjectCache(cache_folder("objects"), limit_bytes)
