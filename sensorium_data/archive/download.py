"""An archive to disk: by several connections, resumed, and verified before it has a name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlunsplit

from sensorium_data import limits
from sensorium_data.archive.layout import is_junk
from sensorium_data.archive.pointers import POINTER_SIZE_BYTES, find_pointer
from sensorium_data.archive.sources import ByteSource, FileSource, open_source
from sensorium_data.archive.unpacking import reserve_memory
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES, ZipEntry, ZipIndex, read_index
from sensorium_data.archive.zip_member import N_ATTEMPTS, check_readable, read_zip_member
from sensorium_data.errors import ArchiveError, RangesRefusedError, SourceChangedError
from sensorium_data.files import (
    FileHead,
    FileVersion,
    HttpClient,
    PartFile,
    PieceWriter,
    RetryPolicy,
    disk_errors,
    open_part,
    read_head,
    read_version,
    require_own,
    split_url,
    stream_whole,
)
from sensorium_data.ordered_map import as_finished
from sensorium_data.progress import Progress, ignore_progress

__all__ = ["DownloadReport", "download_archive"]

# What is lost when a connection is cut for good, times the number of connections; also what is held in memory.
_SEGMENT_SIZE_BYTES = 8 << 20

_MAX_RESTARTS = 3
_MAX_REPAIRS = N_ATTEMPTS - 1


@dataclass(frozen=True)
class DownloadReport:
    """What :func:`download_archive` did.

    Attributes
    ----------
    url : str
        Where the archive came from.
    path : Path
        Where it is.
    status : str
        ``"downloaded"`` or ``"already there"``.
    size_bytes : int
        Its size.
    modified : str or None
        Its ETag, Last-Modified or modification time at ``url``.
    n_bytes_received : int
        Bytes that came in this run and were written; those of an answer that broke off are not counted.
    n_bytes_resumed : int
        Bytes that earlier runs had left.
    duration_s : float
        Seconds it took.
    """

    url: str
    path: Path
    status: str
    size_bytes: int
    modified: str | None
    n_bytes_received: int
    n_bytes_resumed: int
    duration_s: float


def download_archive(
    url: str,
    path: str | Path,
    *,
    policy: RetryPolicy | None = None,
    jobs: int = 4,
    progress: Progress = ignore_progress,
    label: str | None = None,
) -> DownloadReport:
    """Download an archive, or find that it is there already.

    The bytes go to ``<path>.part``. After any interruption, the same call goes on where the last one stopped,
    from another mirror too if its archive has the same index. Where the server sends whole files only, each attempt
    begins at the first byte. The file gets its name when its size is right, its index can be read, and every member has
    passed its check; damaged members are fetched again. A file that changes at the server is begun anew, never spliced.

    A finished file is compared with the server's, by one request where the server stamps its versions. One of another
    version is replaced if it was downloaded by this function, and left alone otherwise. Two downloads to
    one path at once do no harm on a file system that knows locks: the second waits, and finds the work done.

    Parameters
    ----------
    url : str
        ``http(s)://`` URL, or any other that fsspec understands.
    path : path
        The file to write; its folder is made if it is not there.
    policy : RetryPolicy, optional
        How long to insist where a server does not deliver.
    jobs : int
        Connections, and members verified at once. Each needs about 50 MB of memory.
    progress : Progress
        Told after each 8 MiB, and after each member when they are verified.
    label : str, optional
        What is downloaded, for ``progress``; the file's name by default.

    Raises
    ------
    SourceError
        If the archive cannot be had, or changes time and again.
    ArchiveError
        If it is no archive, or is damaged at the server too.
    DownloadError
        If it cannot be written, or another file lies there. What was downloaded is kept.
    """
    download = _Download(url, Path(os.path.expanduser(path)), policy or RetryPolicy(), jobs, progress, label)
    return download.run()


class _Download:
    def __init__(
        self, url: str, path: Path, policy: RetryPolicy, jobs: int, progress: Progress, label: str | None
    ) -> None:
        self._url = url
        # What is written to the disk: a query may hold a token, and so may what stands before the host.
        self._place = _without_secrets(url)
        self._path = path
        self._policy = policy
        self._jobs = max(1, jobs)
        self._progress = progress
        self._label = label or path.name
        self._started = time.monotonic()
        self._n_bytes_received = 0
        self._n_bytes_resumed = 0
        self._sends_ranges = False
        self._counting = threading.Lock()

    def run(self) -> DownloadReport:
        for _ in range(_MAX_RESTARTS):
            try:
                return self._by_ranges()
            except RangesRefusedError:
                # Not from the first byte for one wrong answer among good ones.
                if not self._sends_ranges:
                    return self._whole()
            except SourceChangedError:
                # What was there is told from the new version when it is opened.
                continue
        try:
            return self._by_ranges()
        except RangesRefusedError:
            return self._whole()

    def _by_ranges(self) -> DownloadReport:
        with open_source(self._url, tail_size_bytes=TAIL_SIZE_BYTES, policy=self._policy) as source:
            self._sends_ranges = True
            version = FileVersion(self._place, source.size_bytes, source.modified)
            if self._is_there(version, source):
                return self._report("already there", version)
            require_own(self._path)
            # Read before the rest: what is no archive need not be downloaded.
            index = read_index(source)
            _check_members(source, index)
            version = replace(version, digest=index.digest)
            with open_part(self._path, on_wait=self._wait) as part:
                if self._is_there(version, source):
                    part.discard()
                    return self._report("already there", version)
                part.resume(version)
                self._n_bytes_resumed = max(0, part.n_bytes_finished - self._n_bytes_received)
                self._fetch_sound(source, part, version)
                part.publish()
        return self._report("downloaded", version)

    def _fetch_sound(self, source: ByteSource, part: PartFile, version: FileVersion) -> None:
        """Fetch what is missing, and again what is damaged."""
        for repair in range(_MAX_REPAIRS + 1):
            self._fetch_missing(source, part)
            damage = self._find_damage(part.path, version)
            if damage is None:
                return
            # Where nothing is stamped, a version that came in between shows here first.
            source.check_unchanged()
            # Kept out of the record, so that another run fetches it again, too.
            part.forget(damage.ranges)
            if repair == _MAX_REPAIRS:
                raise damage.error

    def _fetch_missing(self, source: ByteSource, part: PartFile) -> None:
        missing = part.missing(_SEGMENT_SIZE_BYTES)
        self._tell(part.n_bytes_finished, source.size_bytes)

        def fetch(start: int, stop: int) -> None:
            part.write(start, source.read(start, stop))
            part.finish(start, stop)
            with self._counting:
                self._n_bytes_received += stop - start

        pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="download")
        try:
            for future in as_finished([pool.submit(fetch, *segment) for segment in missing]):
                future.result()
                self._tell(part.n_bytes_finished, source.size_bytes)
        except BaseException:
            # Reads under way end at once, and so do their attempts.
            source.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            part.record()

    def _whole(self) -> DownloadReport:
        with HttpClient(self._url, self._policy) as client:
            head = read_head(client)
            version = FileVersion(self._place, head.size_bytes, head.modified)
            if self._is_there(version, None):
                return self._report("already there", version)
            require_own(self._path)
            with open_part(self._path, on_wait=self._wait) as part:
                if self._is_there(version, None):
                    part.discard()
                    return self._report("already there", version)
                for repair in range(_MAX_REPAIRS + 1):
                    stream_whole(client, lambda head: self._begin(part, head, client))
                    damage = self._find_damage(part.path, None)
                    if damage is None:
                        break
                    if repair == _MAX_REPAIRS:
                        part.discard()
                        raise damage.error
                part.publish()
                return self._report("downloaded", part.version or version)

    def _begin(self, part: PartFile, head: FileHead, client: HttpClient) -> PieceWriter:
        part.start_over(FileVersion(self._place, head.size_bytes, head.modified))
        self._n_bytes_received = 0
        self._tell(0, head.size_bytes)

        def write(piece: bytes) -> None:
            before = self._n_bytes_received
            part.write(before, piece)
            now = self._n_bytes_received = before + len(piece)
            if now // _SEGMENT_SIZE_BYTES > before // _SEGMENT_SIZE_BYTES or now == head.size_bytes:
                self._tell(now, head.size_bytes)
                if head.size_bytes is None:
                    part.check_reserve()
            if head.size_bytes is None and now > limits.MAX_UNSIZED_BODY_BYTES:
                part.discard()
                raise client.refuse(
                    "the server does not state the size of the archive, and sends more than any archive has",
                    found=f"over {limits.MAX_UNSIZED_BODY_BYTES} bytes",
                    expected=f"at most {limits.MAX_UNSIZED_BODY_BYTES} bytes (MAX_UNSIZED_BODY_BYTES)",
                )

        return write

    def _tell(self, n_bytes: int, size_bytes: int | None) -> None:
        """Report progress in segments; where the size is not known, one more is always to come."""
        n_done = n_bytes // _SEGMENT_SIZE_BYTES
        n_total = n_done + 1 if size_bytes is None else -(-size_bytes // _SEGMENT_SIZE_BYTES)
        n_done = n_total if n_bytes == size_bytes else n_done
        self._progress(f"download {self._label}", n_done, n_total, n_bytes=n_bytes)

    def _is_there(self, version: FileVersion, source: ByteSource | None) -> bool:
        """Whether the finished file is the server's; ``source`` is None where its index cannot be read."""
        with disk_errors(self._path):
            try:
                size_bytes = self._path.stat().st_size
            except FileNotFoundError:
                return False
        if version.size_bytes not in (None, size_bytes):
            return False
        known = read_version(self._path)
        if known is not None and known.url == version.url and None not in (known.modified, version.modified):
            return known.modified == version.modified
        if source is None:
            return version.size_bytes is not None
        # Of another server, put there by hand, or never stamped: the indexes tell.
        try:
            with FileSource(str(self._path), tail_size_bytes=TAIL_SIZE_BYTES) as file:
                return read_index(file).digest == (version.digest or read_index(source).digest)
        except ArchiveError:
            return False

    def _find_damage(self, path: Path, version: FileVersion | None) -> _Damage | None:
        """Check the index and every member of what was downloaded."""
        with FileSource(str(path), tail_size_bytes=TAIL_SIZE_BYTES) as file:
            try:
                index = read_index(file)
                if version is not None and index.digest != version.digest:
                    raise ArchiveError(
                        "the archive's index is damaged", found=index.digest[:12], expected=str(version.digest)[:12]
                    )
            except ArchiveError as error:
                if file.size_bytes <= POINTER_SIZE_BYTES and (pointer := find_pointer(file.read(0, file.size_bytes))):
                    raise ArchiveError(
                        pointer.problem, path=self._url, found=pointer.found, remedy=pointer.remedy(self._url)
                    ) from error
                return _Damage([(0, file.size_bytes)], _at(self._url, error))
            try:
                _check_members(file, index)
            except ArchiveError as error:
                raise _at(self._url, error) from error
            return self._find_damaged_members(file, _members_of(index))

    def _find_damaged_members(self, file: FileSource, members: Sequence[ZipEntry]) -> _Damage | None:
        errors: list[ArchiveError] = []
        ranges: list[tuple[int, int]] = []

        def check(entry: ZipEntry) -> None:
            try:
                with reserve_memory(entry.size_bytes):
                    read_zip_member(file, entry, session=_session_of(entry))
            except ArchiveError as error:
                errors.append(_at(f"{self._url}: {entry.name}", error))
                ranges.append((entry.header_offset, entry.stop_offset))

        pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="check")
        try:
            for n_done, future in enumerate(as_finished([pool.submit(check, m) for m in members]), start=1):
                future.result()
                self._progress(f"check {self._label}", n_done, len(members))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return _Damage(ranges, errors[0]) if errors else None

    def _wait(self) -> None:
        self._progress(f"wait for another download of {self._label}", 0, 1)

    def _report(self, status: str, version: FileVersion) -> DownloadReport:
        return DownloadReport(
            url=self._url,
            path=self._path,
            status=status,
            size_bytes=self._path.stat().st_size,
            modified=version.modified,
            n_bytes_received=self._n_bytes_received,
            n_bytes_resumed=self._n_bytes_resumed,
            duration_s=time.monotonic() - self._started,
        )


@dataclass(frozen=True)
class _Damage:
    #: Bytes to fetch again.
    ranges: Sequence[tuple[int, int]]
    error: ArchiveError


def _members_of(index: ZipIndex) -> list[ZipEntry]:
    return [entry for entry in index.entries if not entry.is_directory and not is_junk(entry.name)]


def _check_members(source: ByteSource, index: ZipIndex) -> None:
    for entry in _members_of(index):
        check_readable(source, entry, session=_session_of(entry))


def _without_secrets(url: str) -> str:
    """Return an HTTP(S) URL without its query and user; any other one as it is."""
    if not url.lower().startswith(("http://", "https://")):
        return url
    place = split_url(url)
    return urlunsplit((place.scheme, place.netloc.rpartition("@")[2], place.path, "", ""))


def _session_of(entry: ZipEntry) -> str:
    return entry.name.partition("/")[0]


def _at(path: str, error: ArchiveError) -> ArchiveError:
    """Return the error as one of the server's file: to whom the part's own name is shown, it says nothing."""
    return ArchiveError(
        error.problem,
        session=error.session,
        trial=error.trial,
        path=path,
        found=error.found,
        expected=error.expected,
        remedy=error.remedy,
    )
