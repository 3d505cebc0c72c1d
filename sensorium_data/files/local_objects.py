"""Objects as files of a local directory."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import stat
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium_data.errors import StoreError
from sensorium_data.files.object_failures import describe_failure, require_key
from sensorium_data.files.regular_file import (
    IrregularFileError,
    describe_kind,
    open_regular,
    read_regular,
    read_regular_into,
    refuse_broken_link,
)
from sensorium_data.files.stored_object import ObjectStatus, digest_stream
from sensorium_data.files.temporary_files import delete_temporaries, replace_whole
from sensorium_data.machine import share_threads

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["N_SYNCED_AT_ONCE", "LocalObjects", "sync_folder", "sync_path"]

#: Each has to be waited for, and a disk flushes its cache for several at once: a fifth of the time.
N_SYNCED_AT_ONCE = 4


class LocalObjects:
    """Objects as files of a local directory.

    Links are followed below the directory only: no object outside it is read, written or deleted. The directory itself
    may be a link.

    Parameters
    ----------
    root : path
        The directory; it need not exist before the first write.

    Raises
    ------
    StoreError
        If it is a path that no file system can have.
    """

    n_requests_at_once = 1

    def __init__(self, root: str | Path) -> None:
        try:
            os.fsencode(root)
        except UnicodeEncodeError as error:
            raise StoreError(
                "no file system has such a path", path=str(root), found=error.reason, remedy="check the path"
            ) from None
        # Unlike Path.expanduser(), it leaves the name of an unknown user alone.
        self.root = Path(os.path.expanduser(root))
        self._top = self.root
        self._given: Path | None = None

    @property
    def url(self) -> str:
        return str(self._given or self.root)

    def anchor(self) -> LocalObjects:
        """Return the same objects, which stay the same when the process changes its working folder."""
        if self.root.is_absolute():
            return self
        anchored = copy.copy(self)
        try:
            anchored.root = self.root.absolute()
            anchored._top = self._top.absolute()
        except OSError:
            # The working folder is deleted: whatever is read next says so.
            return self
        # Messages and commands name what the user gave.
        anchored._given = self._given or self.root
        return anchored

    def child(self, key: str) -> LocalObjects:
        child = copy.copy(self)
        child.root = self._path(key)
        if self._given is not None:
            child._given = self._given / key
        return child

    def locate(self, key: str) -> str:
        return str((self._given or self.root) / key)

    def read_into(self, key: str, target: memoryview) -> int:
        """Fill ``target`` with an object's first bytes, and return how many; raises what :meth:`read` raises.

        For blocks by the thousand: of the links on the way, only the last is looked at. Whoever opens a store has read
        its metadata, for which :meth:`read` looks at all.
        """
        path = self._path(key)
        if path.is_symlink():
            self._require_inside(path, path)
        try:
            return read_regular_into(path, target)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise describe_failure("read", str(path), error) from error

    def read(self, key: str) -> bytes:
        path = self._path_to_read(key)
        try:
            return read_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise describe_failure("read", str(path), error) from error

    def digest(self, key: str) -> str:
        path = self._path_to_read(key)
        try:
            with open(open_regular(path), "rb") as file:
                return digest_stream(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise describe_failure("read", str(path), error) from error

    def write(self, key: str, data: bytes | memoryview) -> str | None:
        self._write(key, data, lambda temporary: None)
        return None

    def write_durably(self, key: str, data: bytes) -> str | None:
        # Synced under its temporary name: a file that has the right name has the right bytes.
        self._write(key, data, sync_path)
        sync_folder(self._path(key).parent)
        return None

    def _write(self, key: str, data: bytes | memoryview, before_naming: Callable[[Path], None]) -> None:
        path = self.path_to_change(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_whole(path) as temporary:
                temporary.write_bytes(data)
                before_naming(temporary)
        except OSError as error:
            raise describe_failure("written", str(path), error) from error

    def update(self, key: str, make: Callable[[bytes | None], bytes]) -> None:
        try:
            before: bytes | None = self.read(key)
        except FileNotFoundError:
            before = None
        after = make(before)
        if after != before:
            self.write_durably(key, after)

    def sync(self, key: str) -> None:
        """Wait until an object has reached the disk; its name in its folder may still be on the way."""
        path = self._path_to_read(key)
        try:
            sync_path(path)
        except OSError as error:
            raise describe_failure("written", str(path), error) from error

    def sync_all(self) -> None:
        """Wait until all objects, their names, and the folders they are in have reached the disk."""
        with ThreadPoolExecutor(N_SYNCED_AT_ONCE, thread_name_prefix="sync") as pool:
            deque(pool.map(self.sync, self.keys() or ()), maxlen=0)
        self.sync_folders()

    def sync_folders(self) -> None:
        """Wait until the names of all objects, and of the folders they are in, have reached the disk."""
        folders = [Path(folder) for folder, _, _ in os.walk(self.root)]
        with ThreadPoolExecutor(N_SYNCED_AT_ONCE, thread_name_prefix="sync") as pool:
            deque(pool.map(sync_folder, folders), maxlen=0)

    def clear_unfinished(self, key: str) -> None:
        """Delete what killed writers of an object left. The caller must hold the lock of its writers."""
        path = self.path_to_change(key)
        try:
            delete_temporaries(path.parent, lambda name: name == path.name)
        except OSError as error:
            raise describe_failure("deleted", error.filename or str(path), error) from error

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                status = self._follow(self._path_to_read(key))
            if not stat.S_ISREG(status.st_mode):
                raise IrregularFileError(path, describe_kind(status.st_mode))
            return status.st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise describe_failure("read", str(path), error) from error

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def keys(self) -> list[str] | None:
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.root).replace(os.sep, "/")
            for folder, _, names in os.walk(self.root)
            for name in names
        )

    def statuses(self) -> dict[str, ObjectStatus] | None:
        found = {}
        for key in self.keys() or ():
            # Of a link, its own; what a writer has removed meanwhile is not there.
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(self.root / key)
                found[key] = ObjectStatus(status.st_size, status.st_mtime)
        return found

    def folders(self) -> list[str] | None:
        try:
            return sorted(entry.name for entry in os.scandir(self.root) if os.path.isdir(entry.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise describe_failure("listed", str(self.root), error) from error

    def delete(self, key: str) -> None:
        path = self.path_to_change(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise describe_failure("deleted", str(path), error) from error

    def delete_keys(self, keys: Collection[str]) -> None:
        for key in keys:
            self.delete(key)

    def delete_all(self) -> None:
        if self.root != self._top:
            self._require_inside(self.root.parent, self.root)
        try:
            shutil.rmtree(self.root)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise describe_failure("deleted", str(self.root), error) from error

    def zarr_store(self) -> ZarrStore:
        # Zarr takes long to import, and what only asks whether a store is finished does not need it.
        from zarr.storage import LocalStore

        share_threads()
        return LocalStore(self.root, read_only=True)

    def path_to_change(self, key: str) -> Path:
        """Return where an object is that is to be written or deleted.

        Raises
        ------
        StoreError
            If it does not lie below the root of the store.
        """
        path = self._path(key)
        # A link in the object's own place is replaced or deleted itself.
        self._require_inside(path.parent, path)
        return path

    def _path_to_read(self, key: str) -> Path:
        path = self._path(key)
        self._require_inside(path, path)
        return path

    def _path(self, key: str) -> Path:
        require_key(key, self.url)
        return self.root / key

    @staticmethod
    def _follow(link: Path) -> os.stat_result:
        """Return the status of what a link leads to."""
        try:
            return os.stat(link)
        except OSError as error:
            refuse_broken_link(link, error)
            raise

    def _require_inside(self, place: Path, path: Path) -> None:
        if not _may_lead_out(os.fspath(self._top), os.fspath(place)):
            return
        top, real = os.path.realpath(self._top), os.path.realpath(place)
        if real != top and not real.startswith(top.rstrip(os.sep) + os.sep):
            raise StoreError(
                "a link leads out of the folder",
                path=path,
                found=real,
                expected=f"a place below {top}",
                remedy="put there what the link leads to",
            ) from IrregularFileError(path, "a link that leads out")


def _may_lead_out(top: str, place: str) -> bool:
    """Whether a place below ``top``, whose path has no ``..``, may lie elsewhere: a link is on the way to it.

    Resolving a path takes a hundred times as long, and happens for every object.
    """
    if os.name == "nt" or not place.startswith(top + os.sep):
        return place != top
    end = len(top)
    while end < len(place):
        end = place.find(os.sep, end + 1)
        end = len(place) if end < 0 else end
        try:
            if stat.S_ISLNK(os.lstat(place[:end]).st_mode):
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
    return False


def sync_folder(path: Path) -> None:
    """Wait until a folder's list of files has reached the disk."""
    try:
        sync_path(path)
    except OSError as error:
        raise describe_failure("written", str(path), error) from error


def sync_path(path: Path) -> None:
    """Wait until a file's bytes, or a folder's list of files, have reached the disk.

    Raises
    ------
    OSError
        If the disk fails; :func:`sync_folder` makes a :class:`StoreError` of it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
