"""Where a store's bytes live: whole objects under a root, on a local disk or behind any fsspec URL."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fsspec.core
from isal import isal_zlib

from sensorium_data.errors import StoreError
from sensorium_data.files.regular_file import (
    IrregularFileError,
    describe_kind,
    read_regular,
    read_regular_into,
)
from sensorium_data.machine import share_threads
from sensorium_data.names import find_name_problem

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = [
    "LocalObjects",
    "Objects",
    "RemoteObjects",
    "StoredObject",
    "digest_bytes",
    "digest_file",
    "open_objects",
    "sync_folder",
    "sync_path",
]


_DIGEST = re.compile("[0-9a-f]{64}")


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the digest of an object's bytes: SHA-256, the fastest of hashlib where the CPU has instructions for it."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the digest of a file, whatever its size, as :func:`digest_bytes` does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class StoredObject:
    """What is known of one object: enough to tell whether its bytes are still those that were written.

    Attributes
    ----------
    size_bytes : int
        Its size.
    digest : str
        SHA-256 of its bytes, in hexadecimal: what :command:`sensorium verify` recomputes.
    crc32 : int
        CRC-32 of its bytes. It costs next to nothing, and finds what a disk or a memory does to bytes just written.
    """

    size_bytes: int
    digest: str
    crc32: int

    def __post_init__(self) -> None:
        # Local caches name files by digests, and ledgers are read from files and servers.
        if self.size_bytes < 0 or not 0 <= self.crc32 < 1 << 32 or not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"impossible size, digest or CRC of an object: {self.size_bytes}, {self.digest!r}")

    @classmethod
    def of(cls, data: bytes | memoryview) -> StoredObject:
        """Describe the bytes of an object."""
        return cls(memoryview(data).nbytes, digest_bytes(data), isal_zlib.crc32(data))

    def find_difference(self, data: bytes) -> str | None:
        """Return what is wrong with ``data`` as a clause, ``None`` if nothing is."""
        if len(data) != self.size_bytes:
            return f"{len(data)} bytes in place of {self.size_bytes}"
        if digest_bytes(data) != self.digest:
            return "the digest of its bytes differs"
        return None

    def find_damage(self, data: bytes | memoryview) -> str | None:
        """Return what is wrong with ``data`` by its size and CRC, as a clause; ``None`` if nothing is.

        Enough for what a disk, a memory or a network does to bytes; :meth:`find_difference` takes thirty times as long,
        and finds what people do to them.
        """
        if len(data) != self.size_bytes:
            return f"{len(data)} bytes in place of {self.size_bytes}"
        if isal_zlib.crc32(data) != self.crc32:
            return "the CRC of its bytes differs"
        return None


class Objects(Protocol):
    """Objects (files) named by slash-separated keys under one root.

    A key that leads out of the root is refused with a :class:`StoreError`: keys come from files that others wrote.

    ``read``, ``size`` and ``exists`` say that an object is missing with :class:`FileNotFoundError`,
    ``None`` and ``False``; every other failure is a :class:`StoreError` that names the object.
    """

    @property
    def url(self) -> str:
        """The root, as the user gave it."""

    def child(self, key: str) -> Objects:
        """Return the objects under ``key``."""

    def locate(self, key: str) -> str:
        """Return the path or URL of an object."""

    def read(self, key: str) -> bytes:
        """Return the bytes of an object."""

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Write an object; a reader sees it whole or not at all."""

    def write_durably(self, key: str, data: bytes) -> None:
        """Write an object, and return when not even a power cut would undo it."""

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, ``None`` if there is none."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def keys(self) -> list[str] | None:
        """Return every key under the root, sorted; ``None`` where the root cannot be listed (HTTP)."""

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

    def delete_all(self) -> None:
        """Delete every object under the root, and the root."""

    def zarr_store(self) -> ZarrStore:
        """Return a read-only Zarr store of the root."""


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

    def __init__(self, root: str | Path) -> None:
        try:
            os.fsencode(root)
        except UnicodeEncodeError as error:
            raise StoreError(
                "no file system has such a path", path=str(root), found=error.reason, remedy="check the path"
            ) from None
        self.root = Path(root).expanduser()
        self._top = self.root

    @property
    def url(self) -> str:
        return str(self.root)

    def child(self, key: str) -> LocalObjects:
        child = copy.copy(self)
        child.root = self._path(key)
        return child

    def locate(self, key: str) -> str:
        return str(self.root / key)

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
            raise _cannot("read", str(path), error) from error

    def read(self, key: str) -> bytes:
        path = self._path_to_read(key)
        try:
            return read_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise _cannot("read", str(path), error) from error

    def write(self, key: str, data: bytes | memoryview) -> None:
        self._write(key, data, lambda temporary: None)

    def write_durably(self, key: str, data: bytes) -> None:
        # Synced under its temporary name: a file that has the right name has the right bytes.
        self._write(key, data, sync_path)
        sync_folder(self._path(key).parent)

    def _write(self, key: str, data: bytes | memoryview, before_naming: Callable[[Path], None]) -> None:
        path = self.path_to_change(key)
        # A name of its own for each writer, so that no two ever write into one file.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                before_naming(temporary)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _cannot("written", str(path), error) from error

    def sync(self, key: str) -> None:
        """Wait until an object has reached the disk; its name in its folder may still be on the way."""
        path = self._path_to_read(key)
        try:
            sync_path(path)
        except OSError as error:
            raise _cannot("written", str(path), error) from error

    def sync_all(self) -> None:
        """Wait until all objects, their names, and the folders they are in have reached the disk."""
        for key in self.keys() or ():
            self.sync(key)
        self.sync_folders()

    def sync_folders(self) -> None:
        """Wait until the names of all objects, and of the folders they are in, have reached the disk."""
        for folder, _, _ in os.walk(self.root):
            sync_folder(Path(folder))

    def clear_unfinished(self, key: str) -> None:
        """Delete what killed writers of an object left. The caller must hold the lock of its writers."""
        path = self.path_to_change(key)
        for temporary in path.parent.glob(f".{path.name}.*.tmp"):
            temporary.unlink(missing_ok=True)

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                status = os.stat(self._path_to_read(key))
            if not stat.S_ISREG(status.st_mode):
                raise IrregularFileError(path, describe_kind(status.st_mode))
            return status.st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _cannot("read", str(path), error) from error

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def keys(self) -> list[str] | None:
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.root).replace(os.sep, "/")
            for folder, _, names in os.walk(self.root)
            for name in names
        )

    def delete(self, key: str) -> None:
        path = self.path_to_change(key)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot("deleted", str(path), error) from error

    def delete_all(self) -> None:
        if self.root != self._top:
            self._require_inside(self.root.parent, self.root)
        try:
            shutil.rmtree(self.root)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _cannot("deleted", str(self.root), error) from error

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
        _require_key(key, self.url)
        return self.root / key

    def _require_inside(self, place: Path, path: Path) -> None:
        top, real = os.path.realpath(self._top), os.path.realpath(place)
        if real != top and not real.startswith(top.rstrip(os.sep) + os.sep):
            raise StoreError(
                "a link leads out of the folder",
                path=path,
                found=real,
                expected=f"a place below {top}",
                remedy="put there what the link leads to",
            )


class RemoteObjects:
    """Objects behind an fsspec URL: an object store, HTTP, memory.

    Parameters
    ----------
    url : str
        The root's URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            file_system, path = fsspec.core.url_to_fs(self._url)
        except (ValueError, ImportError) as error:
            raise StoreError(
                "no file system for this URL",
                path=url,
                found=str(error),
                remedy="give a local path, or install the package that fsspec names",
            ) from error
        self._fs: Any = file_system
        self._path: str = path.rstrip("/")

    @property
    def url(self) -> str:
        return self._url

    def child(self, key: str) -> RemoteObjects:
        _require_key(key, self._url)
        return RemoteObjects(f"{self._url}/{key}")

    def locate(self, key: str) -> str:
        return f"{self._url}/{key}"

    def _full(self, key: str) -> str:
        _require_key(key, self._url)
        return f"{self._path}/{key}"

    def read(self, key: str) -> bytes:
        with self._reporting("read", key):
            return bytes(self._fs.cat_file(self._full(key)))

    def write(self, key: str, data: bytes | memoryview) -> None:
        # An object store shows an object only when its upload is complete.
        self._put(key, lambda path: self._fs.pipe_file(path, bytes(data)))

    def write_durably(self, key: str, data: bytes) -> None:
        self.write(key, data)

    def upload(self, path: Path, key: str) -> None:
        """Make an object of a local file, whatever its size."""
        self._put(key, lambda target: self._fs.put_file(str(path), target))

    def _put(self, key: str, put: Callable[[str], object]) -> None:
        path = self._full(key)
        try:
            with self._reporting("written", key):
                try:
                    put(path)
                except FileNotFoundError:
                    # Object stores have no folders, but servers of files do.
                    self._fs.makedirs(self._fs._parent(path), exist_ok=True)
                    put(path)
        except (FileNotFoundError, NotImplementedError) as error:
            raise _cannot("written", self.locate(key), error) from error

    def download(self, key: str, path: Path) -> None:
        """Make a local file of an object, whatever its size; raises what :meth:`read` raises."""
        with self._reporting("read", key):
            self._fs.get_file(self._full(key), str(path))

    def size(self, key: str) -> int | None:
        self._fs.invalidate_cache()
        try:
            with self._reporting("read", key):
                info = self._fs.info(self._full(key))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" and info.get("size") is not None else None

    def exists(self, key: str) -> bool:
        try:
            self.read(key)
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> list[str] | None:
        # HTTP servers show folders as web pages, if at all.
        if "http" in self._url.partition("://")[0]:
            return None
        self._fs.invalidate_cache()
        try:
            with self._reporting("listed", ""):
                found = self._fs.find(self._path)
        except FileNotFoundError:
            return []
        root = self._fs._strip_protocol(self._path)
        return sorted(str(path)[len(root) :].lstrip("/") for path in found)

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._reporting("deleted", key):
            self._fs.rm_file(self._full(key))

    def delete_all(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._reporting("deleted", ""):
            self._fs.rm(self._path, recursive=True)

    def zarr_store(self) -> ZarrStore:
        from zarr.storage import FsspecStore

        share_threads()
        return FsspecStore.from_url(self._url, read_only=True)

    @contextlib.contextmanager
    def _reporting(self, action: str, key: str) -> Iterator[None]:
        # Imported here: it takes a sixth of the whole package's import time, and local stores need none of it.
        import aiohttp

        try:
            yield
        except FileNotFoundError:
            raise
        # HTTP answers other than 404 come as aiohttp's errors, which are no OSErrors.
        except (OSError, aiohttp.ClientError) as error:
            raise _cannot(action, self.locate(key) if key else self._url, error) from error


def open_objects(url: str | os.PathLike[str]) -> LocalObjects | RemoteObjects:
    """Return the objects under a local path, a ``file://`` or ``local://`` URL, or any fsspec URL.

    Raises
    ------
    StoreError
        If no file system serves the URL.
    """
    url = os.fspath(url)
    if url.startswith(("file://", "local://")):
        return LocalObjects(fsspec.core.strip_protocol(url))
    if "://" in url:
        return RemoteObjects(url)
    return LocalObjects(url)


def sync_folder(path: Path) -> None:
    """Wait until a folder's list of files has reached the disk."""
    try:
        sync_path(path)
    except OSError as error:
        raise _cannot("written", str(path), error) from error


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


def _require_key(key: str, url: str) -> None:
    problem = find_name_problem(key)
    if problem is not None:
        raise StoreError(
            "a name leads out of the folder",
            path=url,
            found=f"{key!r}: {problem}",
            expected="a name below it",
            remedy="do not trust what lies there; make it again, or copy it again",
        )


def _cannot(action: str, path: str, error: BaseException) -> StoreError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    remedy = "check the path and its permissions"
    if action == "written":
        remedy = "check the space and the permissions there, and run it again: what is finished is kept"
    elif isinstance(error, IrregularFileError):
        remedy = "put the file there, or remove what lies in its place"
    return StoreError(
        f"cannot be {action}", path=path, found=reason or type(error).__name__, expected=None, remedy=remedy
    )
