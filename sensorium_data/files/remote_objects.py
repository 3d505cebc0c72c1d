"""Objects behind an fsspec URL: an object store, HTTP, memory."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec.asyn
import fsspec.core

from sensorium_data.errors import StoreError
from sensorium_data.files.byte_source import RetryPolicy
from sensorium_data.files.object_failures import describe_failure, require_key
from sensorium_data.files.remote_failures import is_remote_failure, is_transient, remedy_for, status_of
from sensorium_data.files.stored_object import ObjectStatus, digest_stream
from sensorium_data.files.web_address import split_url
from sensorium_data.machine import share_threads

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["RemoteObjects"]

_S3_PROTOCOLS = frozenset({"s3", "s3a"})
_OBJECT_STORES = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "s3", "s3a"})
# Others are refused: of paramiko's SFTP, used from several threads, a request never ended, sshfs's cannot be opened by
# Zarr, and webdav4 takes its server from a setting.
_SUPPORTED = _OBJECT_STORES | {"file", "http", "https", "local", "memory"}

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

    #: As many as the clients keep connections.
    n_requests_at_once = 10

    def __init__(self, url: str, policy: RetryPolicy | None = None) -> None:
        self.policy = policy or RetryPolicy()
        self._url = url.rstrip("/")
        protocol = url.partition("://")[0]
        if protocol not in _SUPPORTED:
            raise StoreError(
                "URLs of this kind are not supported",
                path=url,
                found=f"{protocol}://",
                expected="a path, a URL of s3://, gs://, az:// or abfs://, or one of http:// or https:// to read from",
                remedy="mount the place as a folder, with sshfs or `rclone mount`, and give the folder's path",
            )
        split_url(url)
        if not url.partition("://")[2].strip("/"):
            raise StoreError("the URL names no place", path=url, expected=f"{protocol}://, and what is there")
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

    @property
    def file_system(self) -> Any:
        """The fsspec file system that serves the URL: the same one for all objects of a server."""
        return self._fs

    @property
    def is_in_memory(self) -> bool:
        """Whether the objects lie in this process's memory, so that no other process can reach them."""
        return "memory" in self._protocols

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

    def digest(self, key: str) -> str:
        self._fs.invalidate_cache()
        path = self._full(key)

        def read_all() -> str:
            try:
                with self._fs.open(path, "rb") as file:
                    return digest_stream(file)
            except (FileExistsError, NotADirectoryError) as error:
                # A file lies where a folder would have to.
                raise FileNotFoundError(path) from error

        return self._insist("read", key, read_all)

    def write(self, key: str, data: bytes | memoryview) -> str | None:
        # An object store shows an object only when its upload is complete.
        content = bytes(data)
        return _confirmed_tag(self._put(key, lambda path: self._fs.pipe_file(path, content)), content)

    def write_durably(self, key: str, data: bytes) -> str | None:
        return self.write(key, data)

    def update(self, key: str, make: Callable[[bytes | None], bytes]) -> None:
        for attempt in range(1, _N_UPDATES + 1):
            before, tag = self.read_tagged(key)
            after = make(before)
            if after == before:
                return
            if self.has_conditions:
                if self.write_if(key, after, tag) is not None:
                    return
            else:
                self.write(key, after)
                # Somebody who wrote at the same time is noticed afterwards.
                if self.read_tagged(key)[0] == after:
                    return
            time.sleep(self.policy.wait_s(min(attempt, 3)))
        raise StoreError(
            "others change the object all the time",
            path=self.locate(key),
            found=f"{_N_UPDATES} attempts",
            remedy="run it again: what is finished is kept",
        )

    @property
    def has_conditions(self) -> bool:
        """Whether the store writes and deletes under the condition that nobody else has written."""
        return bool(self._protocols & _S3_PROTOCOLS)

    def read_tagged(self, key: str) -> tuple[bytes | None, str | None]:
        """Return an object's bytes and the tag of this version of it; None and None if it is not there.

        There are tags where :attr:`has_conditions` is true.
        """
        path = self._full(key)
        try:
            if not self.has_conditions:
                return self.read(key), None
            # Both of one answer: what is asked for in two requests may be of two versions.
            data, tag = self._insist("read", key, lambda: fsspec.asyn.sync(self._fs.loop, _get_tagged, self._fs, path))
            return bytes(data), str(tag)
        except FileNotFoundError:
            return None, None

    def write_if(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Write an object if its tag is still this one; if there is no such object, where it is None.

        Returns
        -------
        str or None
            The new tag; None if somebody else has written or deleted the object.

        Raises
        ------
        StoreError
            If it cannot be written for another reason.
        """
        condition = {"mode": "create"} if tag is None else {"IfMatch": tag}
        try:
            answer = self._put(key, lambda path: self._fs.pipe_file(path, data, **condition))
        except StoreError as error:
            is_gone = tag is not None and isinstance(error.__cause__, FileNotFoundError)
            if is_gone or _is_overtaken(error.__cause__):
                return None
            raise
        return str(answer["ETag"])

    def delete_if(self, key: str, tag: str) -> None:
        """Delete an object if its tag is still this one, where the store knows that condition, else as it is."""
        bucket, name, _ = self._fs.split_path(self._full(key))
        try:
            self._insist(
                "deleted", key, lambda: self._fs.call_s3("delete_object", Bucket=bucket, Key=name, IfMatch=tag)
            )
        except (FileNotFoundError, StoreError) as error:
            if isinstance(error, StoreError) and not _is_overtaken(error.__cause__):
                raise

    def upload(self, path: Path, key: str) -> None:
        """Make an object of a local file, whatever its size."""
        self._put(key, lambda target: self._fs.put_file(str(path), target))

    def _put(self, key: str, put: Callable[[str], _Value]) -> _Value:
        path = self._full(key)

        def attempt() -> _Value:
            try:
                return put(path)
            except FileNotFoundError:
                # Object stores have no folders, but servers of files do. A bucket is not made: its name was mistyped.
                if self._is_object_store:
                    raise
                self._fs.makedirs(self._fs._parent(path), exist_ok=True)
                return put(path)

        try:
            return self._insist("written", key, attempt)
        except (FileNotFoundError, NotImplementedError) as error:
            raise describe_failure("written", self.locate(key), error, remedy_for(error)) from error

    def download(self, key: str, path: Path) -> None:
        """Make a local file of an object, whatever its size; raises what :meth:`read` raises."""
        source = self._full(key)
        self._insist("read", key, lambda: self._fs.get_file(source, str(path)))

    def sign(self, key: str, valid_s: int) -> str | None:
        """Return a URL under which anybody who has it can read an object for so long, in seconds.

        None where the file system makes no such URLs. Whether there is the object is not looked up.
        """
        path = self._full(key)
        try:
            return str(self._insist("signed", key, lambda: self._fs.sign(path, expiration=valid_s)))
        except NotImplementedError:
            return None

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

    def statuses(self) -> dict[str, ObjectStatus] | None:
        # HTTP servers show folders as web pages, if at all.
        if "http" in self._url.partition("://")[0]:
            return None
        self._fs.invalidate_cache()
        parent, _, name = self._path.rpartition("/")
        try:
            if parent and self._protocols & _S3_PROTOCOLS:
                # In this form s3fs asks no further when there is nothing.
                found = self._insist("listed", "", lambda: self._fs.find(parent, prefix=f"{name}/", detail=True))
            else:
                found = self._insist("listed", "", lambda: self._fs.find(self._path, detail=True))
        except FileNotFoundError:
            return {}
        root = self._fs._strip_protocol(self._path)
        return {
            str(path)[len(root) :].lstrip("/"): ObjectStatus(
                int(info.get("size") or 0), _time_of(info), info.get("ETag") if self.has_conditions else None
            )
            for path, info in sorted(found.items())
        }

    def keys(self) -> list[str] | None:
        statuses = self.statuses()
        return None if statuses is None else list(statuses)

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

    def delete_keys(self, keys: Collection[str]) -> None:
        if not keys:
            return
        paths = [self._full(key) for key in keys]
        with contextlib.suppress(FileNotFoundError):
            self._insist("deleted", "", lambda: self._fs.rm(paths))

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
        return {"max_concurrency": 1} if self._protocols & _S3_PROTOCOLS else {}

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


async def _get_tagged(file_system: Any, path: str) -> tuple[bytes, str]:
    bucket, name, _ = file_system.split_path(path)
    answer = await file_system._call_s3("get_object", Bucket=bucket, Key=name)
    async with answer["Body"] as body:
        return bytes(await body.read()), str(answer["ETag"])


def _confirmed_tag(answer: object, content: bytes) -> str | None:
    """Return the tag in an answer to a write, if it says that the store has these very bytes.

    Of an object that was sent whole the tag is the MD5 of what has arrived. It is none where the store encrypts with a
    key of the user's, or puts parts together.
    """
    tag = answer.get("ETag") if isinstance(answer, dict) else None
    is_confirmed = tag is not None and tag.strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()
    return tag if is_confirmed else None


def _is_overtaken(error: BaseException | None) -> bool:
    """Whether a conditional write failed because somebody else wrote."""
    if isinstance(error, FileExistsError):
        return True
    return error is not None and any(
        status_of(one) in _OVERTAKEN_STATUSES for one in (error, error.__cause__) if one is not None
    )
