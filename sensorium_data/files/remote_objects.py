"""Objects behind an fsspec URL: an object store, HTTP, memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec.core

from sensorium_data.errors import StoreError
from sensorium_data.files.object_failures import describe_failure, require_key
from sensorium_data.machine import share_threads

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["RemoteObjects"]


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
        require_key(key, self._url)
        return RemoteObjects(f"{self._url}/{key}")

    def locate(self, key: str) -> str:
        return f"{self._url}/{key}"

    def _full(self, key: str) -> str:
        require_key(key, self._url)
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
            raise describe_failure("written", self.locate(key), error) from error

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
            raise describe_failure(action, self.locate(key) if key else self._url, error) from error
