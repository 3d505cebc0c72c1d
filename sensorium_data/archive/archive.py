"""A session's archive, read in place: members by byte range, checked, never unpacked to disk."""

from __future__ import annotations

import difflib
import io
import os
import threading
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.lib import format as npy_format

from sensorium_data.archive.pointers import POINTER_SIZE_BYTES, find_pointer
from sensorium_data.archive.sources import ByteSource, RetryPolicy, open_source
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES, ZipEntry, ZipIndex, read_index
from sensorium_data.archive.zip_member import DOWNLOAD_AGAIN, describe_member_error, is_junk, read_zip_member, trial_of
from sensorium_data.errors import ArchiveError, SourceError, TrialError
from sensorium_data.schema import VARIABLES
from sensorium_data.sessions import SESSIONS, Session

__all__ = ["MODALITIES", "Origin", "SessionArchive", "ZipEntry", "locate_archive"]

#: What every trial has one file of, under ``data/``.
MODALITIES = tuple(VARIABLES)
# Responses may be withheld trial by trial.
_NEVER_WITHHELD = tuple(modality for modality in MODALITIES if modality != "responses")

# Python 3.11 counts the depth of all threads' syntax trees in one place, and numpy parses headers as Python
# literals: two threads at once can end in a SystemError.
_HEADER_LOCK = threading.Lock()


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
    if source.lower().startswith(("http://", "https://")):
        cut = min((source.find(mark) for mark in "?#" if mark in source), default=len(source))
        place, query = source[:cut], source[cut:]
    if place.lower().endswith(".zip"):
        return source
    if "://" not in place:
        return os.path.join(place, f"{session.name}.zip")
    return f"{place.rstrip('/')}/{session.name}.zip{query}"


class Origin(NamedTuple):
    """Where an archive came from, and what stamped its version there.

    Attributes
    ----------
    url : str
        Its URL.
    modified : str or None
        ETag, Last-Modified or modification time; None if there is none.
    """

    url: str
    modified: str | None


class SessionArchive:
    """One session's zip archive, read where it lies.

    The index takes two or three reads, each member one. Members are checked (local header, size, CRC-32) each
    time they are read. Nothing is kept but the index, nothing is written. Reads are safe from many threads.

    Open it with :meth:`open`, as a context manager.

    Attributes
    ----------
    url : str
        Where the archive is.
    size_bytes : int
        The archive's size.
    origin : str
        Where it came from: ``url``, or where the file at ``url`` was downloaded from.
    modified : str or None
        Its ETag, Last-Modified or modification time at its origin.
    digest : str
        SHA-256 of its central directory, in hexadecimal: equal for archives with equal members.
    name : str
        The session's full name: the folder that holds everything.
    entries : mapping of str to ZipEntry
        The members by their full names, in the archive's order, without folders and junk
        (``__MACOSX/``, ``.DS_Store``).

    Examples
    --------
    >>> with SessionArchive.open("archives/dynamic29515-10-12-….zip") as archive:  # doctest: +SKIP
    ...     archive.read_trial("responses", archive.trial_ids()[0]).shape
    (7863, 324)
    """

    def __init__(
        self, source: ByteSource, index: ZipIndex, session: Session | None = None, origin: Origin | None = None
    ) -> None:
        self._source = source
        self.url = source.url
        self.origin, self.modified = origin or Origin(source.url, source.modified)
        self.size_bytes = source.size_bytes
        self.digest = index.digest
        self.name = session.name if session is not None else ""
        self.entries: Mapping[str, ZipEntry] = MappingProxyType(self._without_junk(index.entries))
        self.name = self._find_folder(session)

    @classmethod
    def open(
        cls,
        url: str,
        session: Session | None = None,
        *,
        policy: RetryPolicy | None = None,
        origin: Origin | None = None,
    ) -> SessionArchive:
        """Open the archive at a path or URL and read its index.

        Parameters
        ----------
        url : str
            Path, ``http(s)://`` URL, or any URL that fsspec understands; see :func:`locate_archive`.
        session : Session, optional
            Whose archive it must be.
        policy : RetryPolicy, optional
            How long to insist where a server does not deliver.
        origin : Origin, optional
            Where the file at ``url`` was downloaded from.

        Raises
        ------
        SourceError
            If its bytes cannot be had.
        ArchiveError
            If it is no archive, a damaged one, or another session's.
        """
        source = open_source(url, tail_size_bytes=TAIL_SIZE_BYTES, policy=policy)
        try:
            index = read_index(source, session=session.name if session is not None else None)
            return cls(source, index, session, origin)
        except BaseException:
            source.close()
            raise

    def close(self) -> None:
        """Close the file or the connections; members cannot be read afterwards."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SessionArchive {self.name}: {len(self.entries)} members, {self.size_bytes:,} bytes at {self.url}>"

    def member(self, relative: str) -> str:
        """Return a member's full name, e.g. of ``meta/trials/tiers.npy``."""
        return f"{self.name}/{relative}"

    def fingerprint_members(self, members: Mapping[str, str]) -> dict[str, tuple[int, int]]:
        """Return the CRC-32 and the size of members as the index states them: equal for members of equal content.

        Parameters
        ----------
        members : mapping of str to str
            Names inside the session's folder, by a name of one's choice; those that are not there are left out.
        """
        found = {name: self.entries.get(self.member(relative)) for name, relative in members.items()}
        return {name: (entry.crc32, entry.size_bytes) for name, entry in found.items() if entry is not None}

    def fingerprint_trial(self, trial: int) -> dict[str, tuple[int, int]]:
        """Return the CRC-32 and the size of a trial's members, by modality."""
        return self.fingerprint_members({modality: f"data/{modality}/{trial}.npy" for modality in MODALITIES})

    def compressed_size_bytes(self, trial: int) -> int:
        """Return the compressed size of a trial's members."""
        names = (self.member(f"data/{modality}/{trial}.npy") for modality in MODALITIES)
        return sum(self.entries[name].compressed_size_bytes for name in names if name in self.entries)

    def has_array(self, modality: str, trial: int) -> bool:
        """Whether the archive has a file of this modality for this trial."""
        return self.member(f"data/{modality}/{trial}.npy") in self.entries

    def trial_ids(self) -> list[int]:
        """Return the ids of the trials, ascending: the file names under ``data/``.

        A trial may lack its responses: they are withheld. The responses of all trials may not be missing.

        Raises
        ------
        ArchiveError
            If a trial lacks another file, no trial has responses, or a file there is not named by a trial's id.
        """
        ids_by_modality = {modality: self._ids_of(modality) for modality in MODALITIES}
        ids = set().union(*ids_by_modality.values())
        if not ids:
            raise self._error(
                "the archive holds no trials", expected=f"files such as {self.member('data/videos/0.npy')}"
            )
        empty = [modality for modality, present in ids_by_modality.items() if not present]
        if empty:
            raise self._error(
                f"the session is not whole: there are no {', no '.join(empty)}",
                found=", ".join(f"{len(present)} {modality}" for modality, present in ids_by_modality.items()),
                expected=f"a file in {self.member(f'data/{empty[0]}/')} for each of {len(ids)} trials",
                remedy="get the folders that are missing, or " + DOWNLOAD_AGAIN,
            )
        missing = [(i, m) for i in sorted(ids) for m in _NEVER_WITHHELD if i not in ids_by_modality[m]]
        if missing:
            trial, modality = missing[0]
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            counts = Counter(m for _, m in missing)
            raise self._error(
                f"trials lack files: {', '.join(f'{n} of {len(ids)} lack {m}' for m, n in counts.items())}",
                trial=trial,
                found=f"no {self.member(f'data/{modality}/{trial}.npy')}{others}",
                expected=f"every trial in {', '.join(_NEVER_WITHHELD)}",
            )
        return sorted(ids)

    def read_trial(self, modality: str, trial: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Return one array of one trial as the archive holds it.

        Parameters
        ----------
        modality : str
            ``videos`` (height, width, frame), ``responses`` (neuron, frame), ``behavior`` or
            ``pupil_center`` (channel, frame).
        trial : int
            The trial's id.
        """
        return self.read_array(self.member(f"data/{modality}/{trial}.npy"))

    def read_statistic(self, variable: str, statistic: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Return one of the archive's own statistics over trials, e.g. ``("responses", "std")`` (neuron, frame)."""
        return self.read_array(self.member(f"meta/statistics/{variable}/all/{statistic}.npy"))

    def read_array(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the array in a ``.npy`` member.

        The array is read-only: it is a view of the member's bytes. It may be in C or Fortran order.

        Raises
        ------
        TrialError
            If the member is no ``.npy`` file, holds Python objects, or is longer or shorter than its shape says.
        ArchiveError
            If there is no such member or it is damaged.
        """
        content = self.read_member(name)
        try:
            return _parse_npy(content)
        except _NpyError as error:
            problem, found, expected = error.args
            remedy = "convert the archive as it was published"
            pointer = find_pointer(bytes(content)) if len(content) <= POINTER_SIZE_BYTES else None
            if pointer is not None:
                problem, found, remedy = pointer.problem, pointer.found, pointer.remedy(name)
            raise TrialError(
                problem,
                session=self.name,
                trial=trial_of(name),
                path=f"{self.url}: {name}",
                found=found,
                expected=expected,
                remedy=remedy,
            ) from error

    def read_member(self, name: str) -> bytes | bytearray:
        """Return a member's content, inflated and checked, from one read.

        Raises
        ------
        ArchiveError
            If there is no such member, it is encrypted or compressed by another method than deflate, or its
            header, size or CRC are wrong.
        SourceChangedError
            If the archive was replaced since it was opened.
        SourceError
            If its bytes cannot be had.
        """
        return read_zip_member(self._source, self._entry(name), session=self.name)

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Names of the members that have no place in a session's layout, in the archive's order; nothing reads them.

        What has one: ``config.json``, everything under ``meta/``, and the files of the four modalities under ``data/``.
        """
        prefixes = tuple(self.member(folder) for folder in ("meta/", *(f"data/{m}/" for m in MODALITIES)))
        return tuple(
            name for name in self.entries if not name.startswith(prefixes) and name != self.member("config.json")
        )

    def _entry(self, name: str) -> ZipEntry:
        entry = self.entries.get(name)
        if entry is None:
            raise self._error("no such member", member=name, remedy="check the name, or " + DOWNLOAD_AGAIN)
        return entry

    def _ids_of(self, modality: str) -> set[int]:
        folder = self.member(f"data/{modality}/")
        ids = set()
        for name in self.entries:
            if name.startswith(folder):
                stem = name[len(folder) :].removesuffix(".npy")
                if not (name.endswith(".npy") and stem.isascii() and stem.isdigit() and str(int(stem)) == stem):
                    raise self._error(
                        "a file is not named by its trial's id", member=name, expected=f"{folder}<integer>.npy"
                    )
                ids.add(int(stem))
        return ids

    def _without_junk(self, entries: Iterable[ZipEntry]) -> dict[str, ZipEntry]:
        kept: dict[str, ZipEntry] = {}
        for entry in entries:
            if entry.is_directory or is_junk(entry.name):
                continue
            if entry.name in kept:
                raise self._error("the archive holds a member twice", member=entry.name)
            kept[entry.name] = entry
        return kept

    def _find_folder(self, session: Session | None) -> str:
        folders = sorted({name.partition("/")[0] for name in self.entries if "/" in name})
        if session is not None:
            if session.name not in folders:
                raise self._error(
                    "this is another session's archive",
                    found=_folders_in_words(folders),
                    expected=f"the folder {session.name}",
                    remedy="pass the archive of this session, or name the session that it holds",
                )
            return session.name
        if len(folders) != 1:
            raise self._error(
                "a session's archive holds one folder, named as the session",
                found=_folders_in_words(folders),
                expected="one folder",
                remedy="pack the session's folder itself",
            )
        return folders[0]

    def _error(
        self,
        problem: str,
        *,
        member: str | None = None,
        trial: int | None = None,
        found: object = None,
        expected: object = None,
        remedy: str = DOWNLOAD_AGAIN,
    ) -> ArchiveError:
        if member is not None:
            return describe_member_error(
                self.url, member, self.name, problem, found=found, expected=expected, remedy=remedy
            )
        return ArchiveError(
            problem,
            session=self.name or None,
            trial=trial,
            path=self.url,
            found=found,
            expected=expected,
            remedy=remedy,
        )


class _NpyError(Exception):
    """Why bytes are no array: problem, found, expected."""


def _parse_npy(content: bytes | bytearray) -> np.ndarray[Any, np.dtype[Any]]:
    # The header is at most 64 KiB in the versions numpy writes for plain dtypes; only that much is copied.
    head = io.BytesIO(content[: 1 << 17])
    try:
        with _HEADER_LOCK:
            version = npy_format.read_magic(head)
            if version == (1, 0):
                shape, is_fortran, dtype = npy_format.read_array_header_1_0(head)
            elif version == (2, 0):
                shape, is_fortran, dtype = npy_format.read_array_header_2_0(head)
            else:
                raise _NpyError("the member is of another .npy version", version, "(1, 0) or (2, 0)")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise _NpyError("the member is no .npy array", str(error), "a .npy file") from error
    if dtype.hasobject:
        raise _NpyError(
            "the array holds Python objects, which are never unpickled", f"dtype {dtype}", "numbers or text"
        )
    if any(n < 0 for n in shape):
        raise _NpyError("the array's shape is impossible", shape, "lengths of 0 or more")
    size_bytes = dtype.itemsize
    for n in shape:
        size_bytes *= n
    payload = memoryview(content).toreadonly()[head.tell() :]
    if len(payload) != size_bytes:
        raise _NpyError(
            "the array has another size than its header says",
            f"{len(payload)} bytes",
            f"{size_bytes} bytes for shape {shape} of {dtype}",
        )
    return np.ndarray(shape, dtype, payload, order="F" if is_fortran else "C")


def _folders_in_words(folders: list[str]) -> str:
    if not folders:
        return "no folder"
    shown = ", ".join(folders[:4])
    return f"the folders {shown}{', …' if len(folders) > 4 else ''}" if len(folders) > 1 else f"the folder {shown}"
