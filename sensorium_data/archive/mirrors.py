"""Where a session's archive can be had: several places tried in order, read in place or downloaded first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

import fsspec

from sensorium_data import limits
from sensorium_data.archive.archive import Origin, SessionArchive
from sensorium_data.archive.layout import find_roots
from sensorium_data.archive.locations import find_archive, find_trees, is_http, is_tree, locate_archive
from sensorium_data.archive.sources import open_source
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES, read_index
from sensorium_data.errors import ArchiveError, RangesRefusedError, SensoriumError, SourceError
from sensorium_data.files import RetryPolicy, cache_folder, describe_error, split_url
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session

__all__ = ["Mode", "default_downloads", "holds_session_files", "list_sessions", "open_archive"]


class Mode(StrEnum):
    """How an archive on a server is read.

    ``AUTO`` reads it in place where the server sends byte ranges and downloads it where it does not; ``STREAM`` never
    downloads; ``DOWNLOAD`` always does. Local archives and unpacked folders are read where they lie in any mode.
    """

    AUTO = "auto"
    STREAM = "stream"
    DOWNLOAD = "download"


def open_archive(
    session: Session,
    sources: Sequence[str] = (),
    *,
    mode: Mode = Mode.AUTO,
    downloads: str | Path | None = None,
    policy: RetryPolicy | None = None,
    jobs: int = 4,
    progress: Progress = ignore_progress,
) -> SessionArchive:
    """Open a session's archive from the first place that has it.

    Parameters
    ----------
    session : Session
        Whose archive.
    sources : sequence of str
        Folders, URLs or archives, as :func:`~sensorium_data.archive.find_archive` takes them; by default the places
        where the session is published, the most complete repository first.
    mode : Mode
        Whether to read in place or to download.
    downloads : path, optional
        The folder that downloads are kept in; by default :func:`default_downloads`.
    policy : RetryPolicy, optional
        How long to insist with each place.
    jobs : int
        Connections of a download.
    progress : Progress
        Told how far a download is.

    Returns
    -------
    SessionArchive
        To be closed by the caller. Its ``origin`` and ``modified`` are those of the place that it came from.

    Raises
    ------
    SourceError, ArchiveError
        If no place has the archive, whole and sound; with several of them, the message says what is wrong with each.
    DownloadError
        If a download cannot be written.
    """
    failures: list[SensoriumError] = []
    for source in sources or session.urls or (None,):
        try:
            url = find_archive(session, source)
            if mode is Mode.DOWNLOAD and not _is_local(url) and not is_tree(url):
                return _download(session, url, downloads, policy, jobs, progress)
            try:
                return SessionArchive.open(url, session, policy=policy)
            except RangesRefusedError:
                if mode is Mode.STREAM:
                    raise
            return _download(session, url, downloads, policy, jobs, progress)
        except (SourceError, ArchiveError) as failure:
            failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    raise SourceError(
        f"none of the {len(failures)} sources has a usable archive",
        session=session,
        found=" | ".join(str(failure) for failure in failures),
        remedy="mend what each message says, or name another source with --source",
    ) from failures[-1]


def default_downloads() -> Path:
    """Return the folder that downloads are kept in: ``sensorium/archives`` in the user's folder for caches."""
    return cache_folder("archives")


def list_sessions(source: str, *, policy: RetryPolicy | None = None) -> tuple[str, ...]:
    """Return the names of the archives that lie at a source, without ``.zip``, and of unpacked folders, sorted.

    Parameters
    ----------
    source : str
        A folder, or any URL that fsspec understands. Of an ``http(s)://`` URL, the links on the page there count,
        as servers show folders. An archive (``….zip``) itself is the only one at its place.
    policy : RetryPolicy, optional
        How long to insist where a server does not answer.

    Returns
    -------
    tuple of str
        Empty where a server shows no list of its files.

    Raises
    ------
    SourceError
        If there is no such folder, or no such server.
    """
    path = split_url(source).path if is_http(source) else source
    if path.lower().endswith(".zip"):
        names = [path]
    elif is_http(source):
        names = _list_page(source, policy or RetryPolicy())
    else:
        names = [*_list_folder(source), *(f"{name}.zip" for name in find_trees(source))]
    stems = (name.rstrip("/").rpartition("/")[2] for name in names)
    return tuple(sorted({stem[:-4] for stem in stems if stem.lower().endswith(".zip") and not stem.startswith(".")}))


def holds_session_files(source: str, name: str, *, policy: RetryPolicy | None = None) -> bool:
    """Whether an archive or folder holds a session's files, whatever its name; of an archive the index is read.

    Parameters
    ----------
    source : str
        As :func:`list_sessions` takes it.
    name : str
        What that returned.
    policy : RetryPolicy, optional
        How long to insist where a server does not answer.

    Returns
    -------
    bool
        False also for an archive that cannot be read.
    """
    if name in find_trees(source):
        return True
    quoted = quote(name) if is_http(source) else name
    url = locate_archive(Session(name=quoted, alias=name, scan=name), source)
    try:
        with open_source(url, tail_size_bytes=TAIL_SIZE_BYTES, policy=policy) as archive:
            index = read_index(archive, session=None)
    except (SourceError, ArchiveError):
        return False
    return bool(find_roots(entry.name.replace("\\", "/") for entry in index.entries))


def _download(
    session: Session,
    url: str,
    downloads: str | Path | None,
    policy: RetryPolicy | None,
    jobs: int,
    progress: Progress,
) -> SessionArchive:
    path = Path(downloads or default_downloads()) / f"{session.name}.zip"
    from sensorium_data.archive.download import download_archive

    report = download_archive(url, path, policy=policy, jobs=jobs, progress=progress, label=session.alias)
    return SessionArchive.open(str(report.path), session, origin=Origin(report.url, report.modified))


def _is_local(url: str) -> bool:
    scheme, separator, _ = url.partition("://")
    return not separator or scheme.lower() in ("file", "local")


def _list_folder(source: str) -> list[str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(os.path.expanduser(source))
        return [str(name) for name in filesystem.ls(path, detail=False)]
    except Exception as error:  # plug-ins raise what their client libraries raise
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise SourceError(
            "there is no such folder" if missing else "the folder cannot be listed",
            path=source,
            found=None if missing else describe_error(error),
            remedy="check the --source given and the credentials for it",
        ) from error


def _list_page(source: str, policy: RetryPolicy) -> list[str]:
    """Return the paths that a server's page links to, of files right below it."""
    from sensorium_data.files import HttpClient, check_transient, is_html

    place = split_url(source)
    place = place._replace(path=place.path.rstrip("/") + "/", fragment="")
    with HttpClient(place.geturl(), policy) as client:

        async def request() -> bytes:
            async with client.get({}) as response:
                check_transient(response)
                if response.status != 200 or not is_html(response):
                    return b""
                page = bytearray()
                watch = client.watch_rate()
                async for piece in response.content.iter_any():
                    watch.note(len(piece))
                    page += piece
                    if len(page) > limits.MAX_PAGE_SIZE_BYTES:
                        return b""
                return bytes(page)

        page = client.insist(lambda: client.run(request), expected="a list of files")
    links = _Links()
    links.feed(page.decode("utf-8", "replace"))
    folder = unquote(place.path)
    targets = [urlsplit(urljoin(place.geturl(), target)) for target in links.targets]
    paths = [unquote(target.path) for target in targets if target.netloc == place.netloc]
    return [path for path in paths if path.startswith(folder) and "/" not in path[len(folder) :]]


class _Links(HTMLParser):
    """Gathers what a page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]
