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
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import aiohttp
import fsspec

from sensorium_data.byte_source import DOWNLOAD_BY_HAND, START_AGAIN, ByteSource, RetryPolicy, describe_error
from sensorium_data.errors import SourceError
from sensorium_data.http_source import HttpSource

__all__ = ["ByteSource", "FileSource", "FilesystemSource", "HttpSource", "RetryPolicy", "open_source"]


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
    scheme, separator, _ = url.partition("://")
    if not separator:
        return FileSource(url, tail_size_bytes=tail_size_bytes)
    match scheme.lower():
        case "http" | "https":
            return HttpSource(url, tail_size_bytes=tail_size_bytes, policy=policy)
        case "file" | "local":
            return FileSource(_path_of_file_url(url), tail_size_bytes=tail_size_bytes)
        case _:
            return FilesystemSource(url, tail_size_bytes=tail_size_bytes, policy=policy)


class FileSource(ByteSource):
    """A local file, read by :func:`os.pread`: one descriptor serves all threads."""

    def __init__(self, path: str, *, tail_size_bytes: int = 1) -> None:
        self.url = path
        self._descriptor = -1
        with _local_errors(path):
            # Without O_NONBLOCK, opening a named pipe would wait for a writer.
            descriptor = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptor = descriptor
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "something else"
                raise SourceError(
                    "this is no file",
                    path=path,
                    found=kind,
                    expected="a .zip file",
                    remedy="name the archive itself, or pass the folder that holds it with --source DIR",
                )
            self.size_bytes = status.st_size
            self.modified = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC).isoformat()
            self.tail = self.read(max(0, self.size_bytes - tail_size_bytes), self.size_bytes)
        except BaseException:
            self.close()
            raise

    def _read(self, start: int, stop: int) -> bytes:
        if self._descriptor < 0:
            raise SourceError("the source was closed before it was read", path=self.url)
        pieces: list[bytes] = []
        position = start
        while position < stop:
            with _local_errors(self.url):
                piece = os.pread(self._descriptor, stop - position, position)
            if not piece:
                raise SourceError(
                    "the file became shorter while it was being read",
                    path=self.url,
                    found=f"{position} bytes",
                    expected=f"{self.size_bytes} bytes",
                    remedy=START_AGAIN,
                )
            pieces.append(piece)
            position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FilesystemSource(ByteSource):
    """A file on any other file system that fsspec knows (``s3://``, ``gs://``, ``memory://``, chained URLs)."""

    def __init__(self, url: str, *, tail_size_bytes: int = 1, policy: RetryPolicy | None = None) -> None:
        self.url = url
        self._policy = policy or RetryPolicy()
        try:
            self._filesystem, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise SourceError(
                "this kind of URL cannot be read",
                path=url,
                found=describe_error(error),
                remedy="install the fsspec package for it, or " + DOWNLOAD_BY_HAND,
            ) from error
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
        self.modified = _modified_of(info)
        self.tail = self.read(max(0, self.size_bytes - tail_size_bytes), self.size_bytes)

    def _read(self, start: int, stop: int) -> bytes:
        def read() -> bytes:
            content = bytes(self._filesystem.cat_file(self._path, start=start, end=stop))
            if len(content) != stop - start:
                raise OSError(errno.EIO, f"{len(content)} of {stop - start} bytes")
            return content

        content: bytes = self._insist(read)
        return content

    def _insist(self, call: Callable[[], Any]) -> Any:
        """Call it, again after transient errors, and turn what remains into a SourceError."""
        for attempt in range(1, self._policy.n_attempts + 1):
            try:
                return call()
            except Exception as error:
                # Plug-ins raise what their client libraries raise: missing credentials, for one, are no OSError.
                is_transient = isinstance(error, (OSError, aiohttp.ClientError)) and not isinstance(
                    error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
                )
                if not is_transient or attempt == self._policy.n_attempts:
                    raise SourceError(
                        f"the archive cannot be read{f' after {attempt} attempts' if is_transient else ''}",
                        path=self.url,
                        found=describe_error(error),
                        remedy="check the URL, the credentials and the network: what is done is kept",
                    ) from error
                time.sleep(self._policy.wait_s(attempt))
        raise AssertionError("a retry policy allows at least one attempt")

    def close(self) -> None:
        """Do nothing: fsspec keeps and shares its file systems."""


def _modified_of(info: Mapping[str, Any]) -> str | None:
    for key in ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return value.isoformat()
        if isinstance(value, int | float):
            return datetime.datetime.fromtimestamp(value, datetime.UTC).isoformat()
        if value is not None:
            return str(value)
    return None


def _path_of_file_url(url: str) -> str:
    return unquote(url.partition("://")[2])


@contextmanager
def _local_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(
            "there is no such file", path=path, remedy="check the path, or the folder given with --source"
        ) from error
    except PermissionError as error:
        raise SourceError("this file may not be read", path=path, remedy="check its permissions") from error
    except OSError as error:
        raise SourceError("this file cannot be read", path=path, found=error.strerror) from error
