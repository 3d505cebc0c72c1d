"""A session's unpacked folder, on a disk or at any fsspec URL that can be listed."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from isal import isal_zlib

from sensorium_data import limits
from sensorium_data.archive.container import Fingerprint
from sensorium_data.archive.layout import LANDMARKS, has_place, is_junk, trial_of
from sensorium_data.archive.pointers import Pointer, find_broken_link
from sensorium_data.archive.sources import (
    FileSource,
    RetryPolicy,
    format_time,
    insist,
    local_errors,
    local_path,
    modified_of,
    open_filesystem,
)
from sensorium_data.errors import ArchiveError, SourceChangedError, SourceError
from sensorium_data.files import describe_change
from sensorium_data.names import find_name_problem

__all__ = ["TreeContainer", "TreeEntry"]

_PIECE_SIZE_BYTES = 8 << 20
# Files whose checksums are read at once: a disk and a server are busy with as many.
_READ_AT_ONCE = 4


@dataclass(frozen=True)
class TreeEntry:
    """One file below a session's folder.

    Attributes
    ----------
    name : str
        Path below the folder, parts separated by ``/``.
    size_bytes : int
        Its size.
    modified : str or None
        Its time of modification or ETag; ``None`` where the file system has none.
    """

    name: str
    size_bytes: int
    modified: str | None

    @property
    def compressed_size_bytes(self) -> int:
        """Its size: nothing is compressed."""
        return self.size_bytes


class TreeContainer(ABC):
    """The files in a session's folder. Nothing is kept but the list of them and the checksums that were read.

    A folder states no checksums: they are computed when files are read, or told by :meth:`recall` for files that have
    not been touched since. The list is made once, on opening; a file that is then found changed ends the reading.

    Parameters
    ----------
    url : str
        The folder that holds ``data`` and ``meta``: a path, or an fsspec URL.
    session : str, optional
        Named in errors.

    Raises
    ------
    SourceError
        If the folder cannot be listed, or holds links that lead out of it or to content that was not fetched.
    ArchiveError
        If a name leads out of it.
    """

    remedy = "unpack the archive again, or copy the folder again"
    states_checksums = False

    def __init__(self, url: str, session: str | None = None) -> None:
        self.url = url
        self.label = url.rstrip("/").rpartition("/")[2]
        self._session = session
        self._checksums: dict[str, int] = {}
        entries = sorted(self._list(), key=lambda entry: entry.name)
        self.entries: Mapping[str, TreeEntry] = MappingProxyType({entry.name: entry for entry in entries})
        self._placed = [entry for entry in entries if has_place(entry.name)]
        self.size_bytes = sum(entry.size_bytes for entry in self._placed)
        self.modified = self._find_last_change(self._placed)

    @staticmethod
    def open(url: str, session: str | None = None, *, policy: RetryPolicy | None = None) -> TreeContainer:
        """Open the folder at a path or URL and list its files."""
        path = local_path(url)
        return RemoteTree(url, session, policy) if path is None else LocalTree(path, session)

    @property
    def stamp(self) -> str:
        """SHA-256 over names, sizes and times of modification."""
        return _digest_lines(f"{entry.modified} {entry.size_bytes} {entry.name}" for entry in self._placed)

    @property
    def digest(self) -> str:
        """SHA-256 over names, sizes and CRC-32 of the files that have a place in a session.

        Files whose checksums are not known yet are read for it.
        """
        unknown = [entry.name for entry in self._placed if entry.name not in self._checksums]
        pool = ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="checksum")
        try:
            list(pool.map(self.fingerprint, unknown))
        finally:
            pool.shutdown(cancel_futures=True)
        return _digest_lines(
            f"{self._checksums[entry.name]:08x} {entry.size_bytes} {entry.name}" for entry in self._placed
        )

    def locate(self, name: str) -> str:
        """Return the file's path or URL."""
        return f"{self.url.rstrip('/')}/{name}"

    def fetched_as(self, name: str) -> str:
        """Return the folder: what is fetched for one file has to be fetched for all."""
        return self.url

    def read(self, name: str, *, session: str) -> bytes:
        """Return a file's content from one read.

        Raises
        ------
        SourceChangedError
            If the file changed since the folder was listed.
        SourceError
            If it cannot be read, or is too large to be a session's.
        """
        entry = self._readable(name)
        content = b"".join(self._read(entry, entry.size_bytes))
        self._checksums[name] = isal_zlib.crc32(content)
        return content

    def read_start(self, name: str, size_bytes: int, *, session: str) -> bytes:
        """Return the first bytes of a file's content, in one read; errors as of :meth:`read`."""
        pieces = self._read(self._readable(name), size_bytes)
        try:
            return next(pieces, b"")
        finally:
            pieces.close()

    def fingerprint(self, name: str) -> Fingerprint:
        """Return a file's CRC-32 and size; it is read if its checksum is not known."""
        entry = self._readable(name)
        if name not in self._checksums:
            crc32 = 0
            for piece in self._read(entry, _PIECE_SIZE_BYTES):
                crc32 = isal_zlib.crc32(piece, crc32)
            self._checksums[name] = crc32
        return self._checksums[name], entry.size_bytes

    def stamp_of(self, name: str) -> str | None:
        """Return a file's time of modification or ETag."""
        return self.entries[name].modified

    def recall(self, name: str, stamp: str, fingerprint: Fingerprint) -> None:
        """Take the checksum that a file had with this time and size for its own, if it still has them.

        The risk: a file that was changed, while its size stayed and its time was set back, is taken for unchanged.
        """
        entry = self.entries.get(name)
        crc32, size_bytes = fingerprint
        if entry is not None and (entry.modified, entry.size_bytes) == (stamp, size_bytes):
            self._checksums.setdefault(name, crc32)

    def close(self) -> None:  # noqa: B027 - no tree has to
        """Do nothing: no file stays open."""

    def _readable(self, name: str) -> TreeEntry:
        entry = self.entries[name]
        if entry.size_bytes > limits.MAX_MEMBER_SIZE_BYTES:
            raise SourceError(
                "the file is too large to be a session's",
                session=self._session,
                trial=trial_of(name),
                path=self.locate(name),
                found=f"{entry.size_bytes} bytes",
                expected=f"at most {limits.MAX_MEMBER_SIZE_BYTES} bytes (MAX_MEMBER_SIZE_BYTES)",
                remedy=self.remedy,
            )
        return entry

    def _describe_change(self, entry: TreeEntry, found: str) -> SourceChangedError:
        return describe_change(self.locate(entry.name), found, f"{entry.size_bytes} bytes of {entry.modified}")

    @abstractmethod
    def _list(self) -> Iterator[TreeEntry]:
        """List the folder's own files, and all below ``data`` and ``meta``, but junk."""

    @abstractmethod
    def _find_last_change(self, entries: list[TreeEntry]) -> str | None:
        """Return when a file was changed last, if that can be told."""

    @abstractmethod
    def _read(self, entry: TreeEntry, piece_size_bytes: int) -> Generator[bytes, None, None]:
        """Yield a file's content in pieces, and check that it is still the file that was listed."""


class LocalTree(TreeContainer):
    """A folder on a disk. Links are followed to files below it, and to the content that git-annex keeps for it."""

    def _list(self) -> Iterator[TreeEntry]:
        unfetched: list[tuple[str, Pointer]] = []
        places = _places_of_content(self.url)
        folders = [""]
        while folders:
            folder = folders.pop()
            with local_errors(self.locate(folder)), os.scandir(self.locate(folder)) as found:
                children = list(found)
            for child in children:
                name = f"{folder}{child.name}"
                is_landmark = name in LANDMARKS
                if is_junk(name) or not (is_landmark or folder or child.is_file(follow_symlinks=False)):
                    continue  # Beside data and meta, other folders and links are none of the session's.
                if child.is_symlink():
                    link = find_broken_link(child.path)
                    if isinstance(link, Pointer):
                        unfetched.append((name, link))
                        continue
                    self._check_link(child, places, link)
                with local_errors(child.path):
                    if child.is_dir():
                        folders.append(f"{name}/")
                        continue
                    status = child.stat()
                yield TreeEntry(name, status.st_size, format_time(status.st_mtime))
        if unfetched:
            name, pointer = min(unfetched, key=lambda one: one[0])
            others = f" and {len(unfetched) - 1} more" if len(unfetched) > 1 else ""
            raise SourceError(
                pointer.problem,
                session=self._session,
                trial=trial_of(name),
                path=self.locate(name),
                found=pointer.found + others,
                remedy=pointer.remedy(self.url),
            )

    def _check_link(self, child: os.DirEntry[str], places: tuple[str, ...], target: str | None) -> None:
        if target is None:
            target = os.path.realpath(child.path)
            if any(target.startswith(place) for place in places) and not os.path.isdir(target):
                return
        raise SourceError(
            "a link leads out of the session's folder, to a folder, or nowhere",
            session=self._session,
            path=child.path,
            found=f"a link to {target}",
            expected=f"a file or folder, or a link to a file below {self.url}",
            remedy="put there what it leads to",
        )

    def _find_last_change(self, entries: list[TreeEntry]) -> str | None:
        return max((entry.modified or "" for entry in entries), default=None)

    def _read(self, entry: TreeEntry, piece_size_bytes: int) -> Generator[bytes, None, None]:
        with FileSource(self.locate(entry.name)) as source:
            if (source.size_bytes, source.modified) != (entry.size_bytes, entry.modified):
                raise self._describe_change(entry, f"{source.size_bytes} bytes of {source.modified}")
            for start in range(0, entry.size_bytes, max(1, piece_size_bytes)):
                yield source.read(start, min(start + piece_size_bytes, entry.size_bytes))


class RemoteTree(TreeContainer):
    """A folder at an fsspec URL.

    The risk: that a file was changed after it was listed shows only by its size. Its new time of modification shows
    the next time that the folder is listed.
    """

    def __init__(self, url: str, session: str | None, policy: RetryPolicy | None) -> None:
        self._policy = policy or RetryPolicy()
        self._filesystem, self._path = open_filesystem(url)
        super().__init__(url, session)

    def _list(self) -> Iterator[TreeEntry]:
        top = self._path.rstrip("/") + "/"

        def find() -> Mapping[str, Mapping[str, Any]]:
            self._filesystem.invalidate_cache(self._path)
            found: Mapping[str, Mapping[str, Any]] = self._filesystem.find(self._path, detail=True)
            return found

        for path, info in insist(find, url=self.url, policy=self._policy).items():
            name = path.removeprefix(top)
            if name == path or (name and find_name_problem(name) is not None):
                raise ArchiveError(
                    "a file's name leads out of the session's folder",
                    session=self._session,
                    path=self.url,
                    found=repr(path),
                    expected=f"a name below {top}",
                    remedy="do not trust this folder; " + self.remedy,
                )
            is_of_session = "/" not in name or name.partition("/")[0] in LANDMARKS
            if is_of_session and name and not is_junk(name):
                yield TreeEntry(name, int(info.get("size") or 0), modified_of(info))

    def _find_last_change(self, entries: list[TreeEntry]) -> str | None:
        return None

    def _read(self, entry: TreeEntry, piece_size_bytes: int) -> Generator[bytes, None, None]:
        path = f"{self._path.rstrip('/')}/{entry.name}"
        content: bytes = insist(
            lambda: bytes(self._filesystem.cat_file(path)), url=self.locate(entry.name), policy=self._policy
        )
        if len(content) != entry.size_bytes:
            raise self._describe_change(entry, f"{len(content)} bytes")
        yield content


def _places_of_content(root: str) -> tuple[str, ...]:
    """Return where links may lead: below the folder, or to where git-annex keeps the repository's content."""
    real = os.path.realpath(root)
    places = [real]
    folder = real
    while folder != os.path.dirname(folder):
        repository = os.path.join(folder, ".git")
        if os.path.isdir(repository):
            places.append(os.path.join(os.path.realpath(repository), "annex", "objects"))
            break
        folder = os.path.dirname(folder)
    return tuple(f"{place.rstrip('/')}/" for place in places)


def _digest_lines(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        # A file's name may hold a line break.
        digest.update(repr(line).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
