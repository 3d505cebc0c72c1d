"""Objects behind an fsspec URL: an object store, HTTP, memory."""

from __future__ import annotations

import contextlib
import datetime
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec.core

from sensorium_data.errors import StoreError
from sensorium_data.files.byte_source import RetryPolicy
from sensorium_data.files.object_failures import describe_failure, require_key
from sensorium_data.files.remote_failures import is_remote_failure, is_transient, remedy_for, status_of
from sensorium_data.files.stored_object import ObjectStatus
from sensorium_data.machine import share_threads

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["RemoteObjects"]

_OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "s3", "s3a"})

# Another writer of the root is done in a second or so.
_N_UPDATES = 30
# How the file systems call the time of an object: S3, Azure, Google, SFTP, memory.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")

# A condition that does not hold, and two writes at the same time.
_OVERTAKEN_STATUSES = frozenset({409, 412})

_Value = TypeVar("_Value")

# The hosts and buckets that have answered a request of this process, by file system.
_answered: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


class RemoteObjects:
    """Objects behind an fsspec URL: an object store, HTTP, memory.

    Parameters
    ----------
    url : str
        The root's URL.
    policy : RetryPolicy, optional
        How long to insist on a request of a server that has answered before.
    """

    def __init__(self, url: str, policy: RetryPolicy | None = None) -> None:
        self.policy = policy or RetryPolicy()
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
        return RemoteObjects(f"{self._url}/{key}", self.policy)

    def locate(self, key: str) -> str:
        return f"{self._url}/{key}"

    def _full(self, key: str) -> str:
        require_key(key, self._url)
        return f"{self._path}/{key}"

    def read(self, key: str) -> bytes:
        path = self._full(key)
        return self._insist("read", key, lambda: bytes(self._fs.cat_file(path, **self._in_one_request)))

    def write(self, key: str, data: bytes | memoryview) -> None:
        # An object store shows an object only when its upload is complete.
        content = bytes(data)
        self._put(key, lambda path: self._fs.pipe_file(path, content))

    def write_durably(self, key: str, data: bytes) -> None:
        self.write(key, data)

    def update(self, key: str, make: Callable[[bytes | None], bytes]) -> None:
        for attempt in range(1, _N_UPDATES + 1):
            before, condition = self._read_with_condition(key)
            after = make(before)
            if after == before:
                return
            try:
                self._put(key, partial(self._write_if, after, condition))
            except StoreError as error:
                if not condition or not _is_overtaken(error.__cause__):
                    raise
            else:
                # Without conditions, somebody who wrote at the same time is noticed afterwards.
                if condition or self._read_with_condition(key)[0] == after:
                    return
            time.sleep(self.policy.wait_s(min(attempt, 3)))
        raise StoreError(
            "others change the object all the time",
            path=self.locate(key),
            found=f"{_N_UPDATES} attempts",
            remedy="run it again: what is finished is kept",
        )

    def _write_if(self, data: bytes, condition: dict[str, Any], path: str) -> None:
        self._fs.pipe_file(path, data, **condition)

    def _read_with_condition(self, key: str) -> tuple[bytes | None, dict[str, Any]]:
        """Return an object's bytes, and what makes a write fail if they have changed since; nothing where none does."""
        conditional = bool(self._protocols & {"s3", "s3a"})
        path = self._full(key)
        try:
            # The tag first: if somebody writes in between, it is older than the bytes, and the write fails.
            self._fs.invalidate_cache()
            tag = self._insist("read", key, lambda: self._fs.info(path))["ETag"] if conditional else None
            return self.read(key), {} if tag is None else {"IfMatch": tag}
        except FileNotFoundError:
            return None, {"mode": "create"} if conditional else {}

    def upload(self, path: Path, key: str) -> None:
        """Make an object of a local file, whatever its size."""
        self._put(key, lambda target: self._fs.put_file(str(path), target))

    def _put(self, key: str, put: Callable[[str], object]) -> None:
        path = self._full(key)

        def attempt() -> None:
            try:
                put(path)
            except FileNotFoundError:
                # Object stores have no folders, but servers of files do. A bucket is not made: its name was mistyped.
                if self._is_object_store:
                    raise
                self._fs.makedirs(self._fs._parent(path), exist_ok=True)
                put(path)

        try:
            self._insist("written", key, attempt)
        except (FileNotFoundError, NotImplementedError) as error:
            raise describe_failure("written", self.locate(key), error, remedy_for(error)) from error

    def download(self, key: str, path: Path) -> None:
        """Make a local file of an object, whatever its size; raises what :meth:`read` raises."""
        source = self._full(key)
        self._insist("read", key, lambda: self._fs.get_file(source, str(path)))

    def size(self, key: str) -> int | None:
        self._fs.invalidate_cache()
        path = self._full(key)
        try:
            info = self._insist("read", key, lambda: self._fs.info(path))
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
            found = self._insist("listed", "", lambda: self._fs.find(self._path))
        except FileNotFoundError:
            return []
        root = self._fs._strip_protocol(self._path)
        return sorted(str(path)[len(root) :].lstrip("/") for path in found)

    def statuses(self) -> dict[str, ObjectStatus] | None:
        if "http" in self._url.partition("://")[0]:
            return None
        self._fs.invalidate_cache()
        try:
            found = self._insist("listed", "", lambda: self._fs.find(self._path, detail=True))
        except FileNotFoundError:
            return {}
        root = self._fs._strip_protocol(self._path)
        return {
            str(path)[len(root) :].lstrip("/"): ObjectStatus(int(info.get("size") or 0), _time_of(info))
            for path, info in sorted(found.items())
        }

    def folders(self) -> list[str] | None:
        if "http" in self._url.partition("://")[0]:
            return None
        self._fs.invalidate_cache()
        try:
            entries = self._insist("listed", "", lambda: self._fs.ls(self._path, detail=True))
        except FileNotFoundError:
            return []
        return sorted(
            str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"
        )

    def delete(self, key: str) -> None:
        path = self._full(key)
        with contextlib.suppress(FileNotFoundError):
            self._insist("deleted", key, lambda: self._fs.rm_file(path))

    def delete_all(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._insist("deleted", "", lambda: self._fs.rm(self._path, recursive=True))

    def zarr_store(self) -> ZarrStore:
        from zarr.storage import FsspecStore

        share_threads()
        return FsspecStore.from_url(self._url, storage_options=self._in_one_request, read_only=True)

    @property
    def _in_one_request(self) -> dict[str, Any]:
        """Options of a read: s3fs would first ask for the size, to read large objects in parts."""
        return {"max_concurrency": 1} if self._protocols & {"s3", "s3a"} else {}

    @property
    def _protocols(self) -> set[str]:
        protocols = self._fs.protocol
        return {protocols} if isinstance(protocols, str) else set(protocols)

    @property
    def _host(self) -> str:
        return self._url.partition("://")[2].partition("/")[0]

    @property
    def _is_object_store(self) -> bool:
        return bool(_OBJECT_STORES & self._protocols)

    def _insist(self, action: str, key: str, call: Callable[[], _Value]) -> _Value:
        """Call it, again after failures that may pass, and name the object in what remains."""
        for attempt in range(1, self.policy.n_attempts + 1):
            try:
                value = call()
                _answered.setdefault(self._fs, set()).add(self._host)
                return value
            except FileNotFoundError:
                raise
            except Exception as error:
                if not is_remote_failure(error):
                    raise
                # A server that never answered is more likely misnamed than away.
                has_answered = self._host in _answered.get(self._fs, ()) or status_of(error) is not None
                may_pass = is_transient(error) and has_answered
                if not may_pass or attempt == self.policy.n_attempts:
                    path = self.locate(key) if key else self._url
                    raise describe_failure(action, path, error, remedy_for(error)) from error
                time.sleep(self.policy.wait_s(attempt))
        raise AssertionError("a retry policy allows at least one attempt")


def _time_of(info: Mapping[str, Any]) -> float | None:
    """Return when an object was written, which each file system says in its own way."""
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            # Without a zone it is UTC: so do the object stores' clients.
            return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _is_overtaken(error: BaseException | None) -> bool:
    """Whether a conditional write failed because somebody else wrote."""
    if isinstance(error, FileExistsError):
        return True
    return error is not None and any(
        status_of(one) in _OVERTAKEN_STATUSES for one in (error, error.__cause__) if one is not None
    )
