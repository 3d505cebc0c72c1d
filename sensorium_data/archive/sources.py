"""Where an archive's bytes come from: a local file, an HTTP(S) server, or any other fsspec URL.

A :class:`ByteSource` hands out ranges of bytes and nothing else, and is safe to read from many
threads. What can go wrong on the way (a server that ignores ranges, a captcha instead of the
file, a dropped connection, a file replaced while it is read) is either retried or becomes a
:class:`~sensorium_data.errors.SourceError` that says what to do.
"""

from __future__ import annotations

import datetime
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import fsspec

from sensorium_data.archive.pointers import Pointer, find_broken_link
from sensorium_data.errors import SourceChangedError, SourceError, describe_os_error
from sensorium_data.files import (
    DOWNLOAD_BY_HAND,
    ByteSource,
    IrregularFileError,
    RetryPolicy,
    describe_change,
    describe_error,
    is_transient,
    open_regular,
)

__all__ = [
    "ByteSource",
    "FileSource",
    "FilesystemSource",
    "RetryPolicy",
    "format_time",
    "insist",
    "local_errors",
    "local_path",
    "modified_of",
    "open_filesystem",
    "open_source",
]


def open_source(url: str, *, tail_size_bytes: int = 1, policy: RetryPolicy | None = None) -> ByteSource:
    """Open the bytes at ``url``.

    Parameters
    ----------
    url : str
        A path, an ``http(s)://`` or ``file://`` URL, or any other URL that fsspec understands.
    tail_size_bytes : int
        How many of the last bytes to read along.
    policy : RetryPolicy, optional
        How long to insist, where the bytes come over a network.

    Raises
    ------
    SourceError
        If there is nothing at ``url`` that can be read by range.
    """
    policy = policy or RetryPolicy()
    path = local_path(url)
    if path is not None:
        return FileSource(path, tail_size_bytes=tail_size_bytes)
    match url.partition("://")[0].lower():
        case "http" | "https":
            # aiohttp takes long to import, and archives on disk do not need it.
            from sensorium_data.files import HttpSource

            return HttpSource(url, tail_size_bytes=tail_size_bytes, policy=policy)
        case _:
            return FilesystemSource(url, tail_size_bytes=tail_size_bytes, policy=policy)


class FileSource(ByteSource):
    """A local file, read by :func:`os.pread`: one descriptor serves all threads.

    A file that is written while it is read is noticed, by its size and time of modification; one that another was
    renamed to is read on as it was opened.
    """

    def __init__(self, path: str, *, tail_size_bytes: int = 1) -> None:
        self.url = path
        self._descriptor = -1
        try:
            with local_errors(path):
                self._descriptor = open_regular(os.path.expanduser(path))
            status = os.fstat(self._descriptor)
            self.size_bytes = status.st_size
            self._version = status.st_size, status.st_mtime_ns
            self.modified = format_time(status.st_mtime)
            self.tail = self.read(max(0, self.size_bytes - tail_size_bytes), self.size_bytes)
        except BaseException:
            self.close()
            raise

    def _read(self, start: int, stop: int) -> bytes:
        if self._descriptor < 0:
            raise SourceError("the source was closed before it was read", path=self.url)
        pieces: list[bytes] = []
        position = start
        with local_errors(self.url):
            while position < stop and (piece := os.pread(self._descriptor, stop - position, position)):
                pieces.append(piece)
                position += len(piece)
            # After the bytes: whatever was written before they were read shows now.
            status = os.fstat(self._descriptor)
        if position < stop or (status.st_size, status.st_mtime_ns) != self._version:
            raise describe_change(
                self.url,
                f"{status.st_size} bytes of {format_time(status.st_mtime)}",
                f"{self.size_bytes} bytes of {self.modified}",
            )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FilesystemSource(ByteSource):
    """A file on any other file system that fsspec knows (``s3://``, ``gs://``, ``memory://``, chained URLs).

    The risk: whether the file changed is asked only when a read comes back short, or by :meth:`check_unchanged`. A
    request for each read would double them; the members' CRC tells the rest.
    """

    def __init__(self, url: str, *, tail_size_bytes: int = 1, policy: RetryPolicy | None = None) -> None:
        self.url = url
        self._policy = policy or RetryPolicy()
        self._filesystem, self._path = open_filesystem(url)
        info = self._insist(lambda: self._filesystem.info(self._path))
        if info.get("type", "file") != "file" or info.get("size") is None:
            raise SourceError(
                "this is no file",
                path=url,
                found=info.get("type", "no size"),
                expected="a .zip file",
                remedy=DOWNLOAD_BY_HAND,
            )
        self.size_bytes = int(info["size"])
        self.modified = modified_of(info)
        self.tail = self.read(max(0, self.size_bytes - tail_size_bytes), self.size_bytes)

    def _read(self, start: int, stop: int) -> bytes:
        def read() -> bytes:
            content = bytes(self._filesystem.cat_file(self._path, start=start, end=stop))
            if len(content) != stop - start:
                self._check_info()
                raise OSError(errno.EIO, f"{len(content)} of {stop - start} bytes")
            return content

        content: bytes = self._insist(read)
        return content

    def check_unchanged(self) -> None:
        self._insist(self._check_info)
        super().check_unchanged()

    def _check_info(self) -> None:
        self._filesystem.invalidate_cache()
        info = self._filesystem.info(self._path)
        found = info.get("size"), modified_of(info)
        if found != (self.size_bytes, self.modified):
            raise describe_change(
                self.url, f"{found[0]} bytes of {found[1]}", f"{self.size_bytes} bytes of {self.modified}"
            )

    def _insist(self, call: Callable[[], Any]) -> Any:
        return insist(call, url=self.url, policy=self._policy)

    def close(self) -> None:
        """Do nothing: fsspec keeps and shares its file systems."""


def local_path(url: str) -> str | None:
    """Return the path on this machine that a path or URL stands for, ``~`` for the home as well; else ``None``."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return os.path.expanduser(url)
    return unquote(url.partition("://")[2]) if scheme.lower() in ("file", "local") else None


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises
    ------
    SourceError
        If no installed package knows this kind of URL.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceError(
            "this kind of URL cannot be read",
            path=url,
            found=describe_error(error),
            remedy="install the fsspec package for it, or " + DOWNLOAD_BY_HAND,
        ) from error
    return filesystem, str(path)


def insist(call: Callable[[], Any], *, url: str, policy: RetryPolicy) -> Any:
    """Call it, again after transient errors, and turn what remains into a SourceError about ``url``."""
    for attempt in range(1, policy.n_attempts + 1):
        try:
            return call()
        except SourceChangedError:
            raise
        except Exception as error:
            # Plug-ins raise what their client libraries raise: missing credentials, for one, are no OSError.
            may_pass = is_transient(error)
            if not may_pass or attempt == policy.n_attempts:
                raise SourceError(
                    f"the archive cannot be read{f' after {attempt} attempts' if may_pass else ''}",
                    path=url,
                    found=describe_error(error),
                    remedy="check the URL, the credentials and the network: what is done is kept",
                ) from error
            time.sleep(policy.wait_s(attempt))
    raise AssertionError("a retry policy allows at least one attempt")


def modified_of(info: Mapping[str, Any]) -> str | None:
    """Return what marks a file's version in what fsspec tells of it: an ETag, or a time; ``None`` if nothing does."""
    for key in ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return value.isoformat()
        if isinstance(value, int | float):
            return format_time(value)
        if value is not None:
            return str(value)
    return None


def format_time(seconds: float) -> str:
    """Return a time of modification as sources state it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


@contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn errors of the operating system into a :class:`SourceError` about ``path``."""
    try:
        yield
    except (FileNotFoundError, IrregularFileError) as error:
        link = find_broken_link(os.path.expanduser(path))
        if isinstance(link, Pointer):
            raise SourceError(link.problem, path=path, found=link.found, remedy=link.remedy(path)) from error
        if link is not None:
            raise SourceError(
                "this is a link that leads nowhere",
                path=path,
                found=f"a link to {link}",
                remedy="put there what it should lead to, or name another --source",
            ) from error
        if isinstance(error, IrregularFileError):
            raise SourceError(
                "this is no file",
                path=path,
                found=error.kind,
                expected="a file",
                remedy="name the archive itself, or pass the folder that holds it with --source DIR",
            ) from error
        raise SourceError(
            "there is no such file", path=path, remedy="check the path, or the folder given with --source"
        ) from error
    except PermissionError as error:
        raise SourceError("this file may not be read", path=path, remedy="check its permissions") from error
    except OSError as error:
        raise SourceError("this file cannot be read", path=path, found=describe_os_error(error)) from error
