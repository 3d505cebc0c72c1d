"""Where a store's bytes live: whole objects under a root, on a local disk or behind any fsspec URL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fsspec.core
from isal import isal_zlib

from sensorium_data.errors import StoreError
from sensorium_data.machine import share_threads

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = [
    "LocalObjects",
    "Objects",
    "RemoteObjects",
    "StoredObject",
    "digest_bytes",
    "open_objects",
    "sync_folder",
    "sync_path",
]


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the digest of an object's bytes: SHA-256, the fastest of hashlib where the CPU has instructions for it."""
    return hashlib.sha256(data).hexdigest()


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

    Parameters
    ----------
    root : path
        The directory; it need not exist before the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    @property
    def url(self) -> str:
        return str(self.root)

    def child(self, key: str) -> LocalObjects:
        return LocalObjects(self.root / key)

    def locate(self, key: str) -> str:
        return str(self.root / key)

    def read_into(self, key: str, target: memoryview) -> int:
        """Fill ``target`` with an object's first bytes, and return how many; raises what :meth:`read` raises."""
        path = self.root / key
        try:
            with path.open("rb", buffering=0) as file:
                n_read = 0
                while n_new := file.readinto(target[n_read:]):
                    n_read += n_new
                return n_read
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise _cannot("read", str(path), error) from error

    def read(self, key: str) -> bytes:
        path = self.root / key
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(str(path)) from error
        except OSError as error:
            raise _cannot("read", str(path), error) from error

    def write(self, key: str, data: bytes | memoryview) -> None:
        self._write(key, data, lambda temporary: None)

    def write_durably(self, key: str, data: bytes) -> None:
        # Synced under its temporary name: a file that has the right name has the right bytes.
        self._write(key, data, sync_path)
        sync_folder((self.root / key).parent)

    def _write(self, key: str, data: bytes | memoryview, before_naming: Callable[[Path], None]) -> None:
        path = self.root / key
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
        try:
            sync_path(self.root / key)
        except OSError as error:
            raise _cannot("written", str(self.root / key), error) from error

    def sync_folders(self) -> None:
        """Wait until the names of all objects, and of the folders they are in, have reached the disk."""
        for folder, _, _ in os.walk(self.root):
            sync_folder(Path(folder))

    def clear_unfinished(self, key: str) -> None:
        """Delete what killed writers of an object left. The caller must hold the lock of its writers."""
        path = self.root / key
        for temporary in path.parent.glob(f".{path.name}.*.tmp"):
            temporary.unlink(missing_ok=True)

    def size(self, key: str) -> int | None:
        try:
            return (self.root / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _cannot("read", str(self.root / key), error) from error

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def keys(self) -> list[str] | None:
        return sorted(
            os.path.relpath(os.path.join(folder, name), self.root).replace(os.sep, "/")
            for folder, _, names in os.walk(self.root)
            for name in names
        )

    def delete(self, key: str) -> None:
        try:
            (self.root / key).unlink(missing_ok=True)
        except OSError as error:
            raise _cannot("deleted", str(self.root / key), error) from error

    def delete_all(self) -> None:
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
        return RemoteObjects(f"{self._url}/{key}")

    def locate(self, key: str) -> str:
        return f"{self._url}/{key}"

    def _full(self, key: str) -> str:
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
    """Return the objects under a local path, a ``file://`` URL or any fsspec URL.

    Raises
    ------
    StoreError
        If no file system serves the URL.
    """
    url = os.fspath(url)
    if url.startswith("file://"):
        return LocalObjects(fsspec.core.strip_protocol(url))
    if "://" in url or "::" in url:
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


def _cannot(action: str, path: str, error: BaseException) -> StoreError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    remedy = "check the path and its permissions"
    if action == "written":
        remedy = "check the space and the permissions there, and run it again: what is finished is kept"
    return StoreError(
        f"cannot be {action}", path=path, found=reason or type(error).__name__, expected=None, remedy=remedy
    )
