"""Where a session's files are at a source: an archive, or a folder that was unpacked from one."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

from sensorium_data.archive.layout import LANDMARKS, choose_root, is_junk, name_folders
from sensorium_data.archive.sources import local_path, open_filesystem
from sensorium_data.errors import SourceError
from sensorium_data.sessions import SESSIONS, Session

__all__ = ["find_archive", "find_trees", "is_http", "is_tree", "locate_archive"]

# How far below a source a session's folder may lie, and how many folders are looked into for it: on a disk that takes
# a moment, elsewhere each is a request.
_DEPTH = 3
_N_FOLDERS_LOCAL = 5000
_N_FOLDERS_REMOTE = 100


def locate_archive(session: Session, source: str | None = None) -> str:
    """Return where a session's archive is.

    Parameters
    ----------
    session : Session
        Whose archive.
    source : str, optional
        A folder or URL that holds archives, or an archive (``….zip``) itself; by default GIN, where
        they are published. A query string of an HTTP URL stays at its end.

    Raises
    ------
    SourceError
        If no source is given for a session that the catalogue lacks.

    Examples
    --------
    >>> from sensorium_data.sessions import find_session
    >>> locate_archive(find_session("F"), "https://example.org/archives/?token=1")
    'https://example.org/archives/dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20.zip?token=1'
    """
    if source is None:
        if session.url is None:
            near = difflib.get_close_matches(session.name, SESSIONS, n=2, cutoff=0.8)
            raise SourceError(
                "nobody published where this session is",
                session=session,
                expected=f"one of the published sessions, {', '.join(s.alias for s in SESSIONS.values())}",
                remedy=(f"did you mean {' or '.join(near)}? If not, " if near else "check the name, or ")
                + "name the folder or URL that holds its archive with --source",
            )
        return session.url
    place, query = source, ""
    if is_http(source):
        cut = min((source.find(mark) for mark in "?#" if mark in source), default=len(source))
        place, query = source[:cut], source[cut:]
    if place.lower().endswith(".zip"):
        return source
    if "://" not in place:
        return os.path.join(place, f"{session.name}.zip")
    return f"{place.rstrip('/')}/{session.name}.zip{query}"


def find_archive(session: Session, source: str | None = None) -> str:
    """Return where a session's archive or unpacked folder is.

    An archive ``<session>.zip`` comes before a folder. The folder is the one of the session's name, at the source or
    up to three folders below it, or else the only one there that holds a session's files and is not named like a
    published session; for a session that the catalogue lacks, not like any other session. HTTP servers cannot be
    listed: they are asked for the archive.

    Parameters
    ----------
    session : Session
        Whose archive.
    source : str, optional
        As :func:`locate_archive` takes it, or a folder as it was unpacked from an archive, or one that holds such.

    Returns
    -------
    str
        A path or URL. Where neither is there, that of the archive.

    Raises
    ------
    SourceError
        If no source is given for a session that the catalogue lacks, or the source holds other sessions' folders only.
    ArchiveError
        If several folders could be the session's.
    """
    archive = locate_archive(session, source)
    if source is None or is_http(source):
        return archive
    folders = _Folders(source)
    if archive == source and not (folders.is_local and folders.exists("")):
        return archive
    if archive != source and folders.holds_archive(session):
        return archive
    roots = list(folders.find_roots(session.name))
    if not roots:
        return archive
    root = choose_root(roots, folders.label, session, path=source)
    if root is None:
        raise SourceError(
            "neither the session's archive nor its folder is there",
            session=session,
            path=source,
            found=name_folders([root or folders.label for root in roots]),
            expected=f"{session.name}.zip, or the folder {session.name}",
            remedy="check the folder given with --source, or name the sessions that it holds"
            + ("" if session.is_described else ", or rename the folder"),
        )
    return folders.join(root)


def find_trees(source: str) -> list[str]:
    """Return the names of the unpacked folders at a source, of a session's layout; none where it cannot be listed."""
    if is_http(source):
        return []
    folders = _Folders(source)
    return [(root.rstrip("/") or folders.label).rpartition("/")[2] for root in folders.find_roots()]


def is_tree(url: str) -> bool:
    """Whether there is a folder at a path or URL, rather than a file."""
    if is_http(url):
        return False
    folders = _Folders(url)
    return folders.exists("") if folders.is_local or not url.lower().endswith(".zip") else False


def is_http(url: str) -> bool:
    """Whether this is the URL of a web server."""
    return url.lower().startswith(("http://", "https://"))


class _Folders:
    """The folders at a source, whatever file system it is on; a name of one ends in ``/``, the source's is empty."""

    def __init__(self, source: str) -> None:
        path = local_path(source)
        self.is_local = path is not None
        self._source = source if path is None else path
        self.label = self._source.rstrip("/").rpartition("/")[2] or os.path.basename(os.path.realpath(self._source))

    def join(self, folder: str) -> str:
        top = self._source.rstrip("/") or "/"
        return f"{top}/{folder}".rstrip("/") if folder else top

    def exists(self, folder: str) -> bool:
        if self.is_local:
            return os.path.isdir(self.join(folder))
        try:
            filesystem, path = open_filesystem(self.join(folder))
            return bool(filesystem.isdir(path))
        except Exception:  # noqa: BLE001 - plug-ins raise what their client libraries raise; opening the file tells it
            return False

    def holds_archive(self, session: Session) -> bool:
        if self.is_local:
            # A broken link of git-annex is an archive that was not fetched.
            return os.path.lexists(os.path.join(self._source, f"{session.name}.zip"))
        return any(is_file and name == f"{session.name}.zip" for name, is_file in self._list(""))

    def find_roots(self, named: str | None = None) -> Iterator[str]:
        """Yield the folders that hold a session's layout, outermost ones only; where one is ``named``, only its own."""
        left = _N_FOLDERS_LOCAL if self.is_local else _N_FOLDERS_REMOTE
        level = [""]
        for _ in range(_DEPTH + 1):
            following: list[str] = []
            for folder in level:
                if left <= 0:
                    return
                left -= 1
                below = self._folders_below(folder)
                if any(
                    mark in below and not parts.isdisjoint(self._folders_below(f"{folder}{mark}/"))
                    for mark, parts in LANDMARKS.items()
                ):
                    yield folder
                elif named in below:
                    following = [f"{folder}{named}/"]
                    break
                else:
                    following += [f"{folder}{name}/" for name in below]
            level = following

    def _folders_below(self, folder: str) -> list[str]:
        names = [name for name, is_file in self._list(folder) if not is_file]
        return sorted(name for name in names if not name.startswith(".") and not is_junk(name))

    def _list(self, folder: str) -> list[tuple[str, bool]]:
        """Return names and whether each is a file's; none of a folder that cannot be listed."""
        if self.is_local:
            try:
                with os.scandir(self.join(folder)) as children:
                    return [(child.name, not child.is_dir()) for child in children]
            except OSError:
                return []
        try:
            filesystem, path = open_filesystem(self.join(folder))
            filesystem.invalidate_cache(path)
            found = filesystem.ls(path, detail=True)
        except Exception:  # noqa: BLE001 - as above
            return []
        top = path.rstrip("/") + "/"
        names = [(str(info["name"]).rstrip("/"), info.get("type") == "file") for info in found]
        return [
            (name.removeprefix(top), is_file)
            for name, is_file in names
            if name.startswith(top) and name.removeprefix(top) not in ("", "..")
        ]
