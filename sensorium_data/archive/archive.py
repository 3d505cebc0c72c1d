"""A session's files, read where they lie: in an archive, by byte range and never unpacked, or in a folder."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from sensorium_data.archive.container import Container, Entry, Fingerprint, ZipContainer
from sensorium_data.archive.layout import (
    MODALITIES,
    choose_root,
    find_owner,
    find_roots,
    has_place,
    is_name_of_another,
    name_folders,
    trial_of,
)
from sensorium_data.archive.locations import is_tree
from sensorium_data.archive.npy import HEAD_SIZE_BYTES, NpyError, NpyObjectsError, parse_npy, parse_npy_header
from sensorium_data.archive.pointers import POINTER_SIZE_BYTES, find_pointer
from sensorium_data.archive.sources import RetryPolicy, open_source
from sensorium_data.archive.tree import TreeContainer
from sensorium_data.archive.unpacking import reserve_memory
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES, read_index
from sensorium_data.counting import count_things
from sensorium_data.errors import ArchiveError, TrialError
from sensorium_data.sessions import SESSIONS, Session, parse_trial

__all__ = ["Origin", "SessionArchive", "members_of_trial"]

# Responses may be withheld trial by trial.
_NEVER_WITHHELD = tuple(modality for modality in MODALITIES if modality != "responses")
# What another lab need not have recorded; the published sessions have it.
_OPTIONAL = ("behavior", "pupil_center")


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
    """One session's files, read where they lie: in its zip archive, or in the folder that was unpacked from one.

    The index of an archive takes two or three reads, each member one. Members are checked (local header, size,
    CRC-32) each time they are read. Nothing is kept but the list of files, nothing is written. Reads are safe from
    many threads.

    The files may lie at any depth, in a folder of any name, if there is one place only where they can: a folder of the
    session's name, or else the only folder that has the layout and no session's name. Of a session that the catalogue
    lacks, neither that folder nor the archive may have a name that another session could have.

    Open it with :meth:`open`, as a context manager.

    Parameters
    ----------
    container : Container
        The archive or folder.
    session : Session, optional
        Whose files they must be.
    origin : Origin, optional
        Where the archive was downloaded from.

    Attributes
    ----------
    url : str
        Where the archive or folder is.
    size_bytes : int
        The archive's size, or that of the session's files in a folder.
    origin : str
        Where it came from: ``url``, or where the file at ``url`` was downloaded from.
    modified : str or None
        Its ETag, Last-Modified or modification time at its origin.
    name : str
        The session's full name.
    is_named : bool
        Whether the folder that holds everything, the archive's file or the folder given has the session's name.
    entries : mapping of str to Entry
        The members by their full names, in the archive's order, without folders and junk
        (``__MACOSX/``, ``.DS_Store``).

    Examples
    --------
    >>> with SessionArchive.open("archives/dynamic29515-10-12-….zip") as archive:  # doctest: +SKIP
    ...     archive.read_trial("responses", archive.trial_ids()[0]).shape
    (7863, 324)
    """

    def __init__(self, container: Container, session: Session | None = None, origin: Origin | None = None) -> None:
        self._container = container
        self.url = container.url
        self.origin, self.modified = origin or Origin(container.url, container.modified)
        self.size_bytes = container.size_bytes
        self.entries: Mapping[str, Entry] = container.entries
        self.name = session.name if session is not None else ""
        self._root = self._find_root(session)
        if session is None:
            self.name = self._root.rstrip("/").rpartition("/")[2] or container.label
        self.is_named = session is None or find_owner(self._root, container.label, session) == session.name

    @classmethod
    def open(
        cls,
        url: str,
        session: Session | None = None,
        *,
        policy: RetryPolicy | None = None,
        origin: Origin | None = None,
    ) -> SessionArchive:
        """Open the archive at a path or URL and read its index, or the folder there and list its files.

        Parameters
        ----------
        url : str
            Path, ``http(s)://`` URL, or any URL that fsspec understands; see :func:`find_archive`.
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
        name = session.name if session is not None else None
        if is_tree(url):
            return cls(TreeContainer.open(url, name, policy=policy), session, origin)
        source = open_source(url, tail_size_bytes=TAIL_SIZE_BYTES, policy=policy)
        try:
            return cls(ZipContainer(source, read_index(source, session=name), name), session, origin)
        except BaseException:
            source.close()
            raise

    def close(self) -> None:
        """Close the file or the connections; members cannot be read afterwards."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        n_members = count_things(len(self.entries), "member")
        return f"<SessionArchive {self.name}: {n_members}, {self.size_bytes:,} bytes at {self.url}>"

    @property
    def digest(self) -> str:
        """SHA-256 over the members' names, sizes and checksums, in hexadecimal: equal for equal members.

        Of an archive, that of its central directory. For a folder, files are read whose checksums are not known.
        """
        return self._container.digest

    @property
    def stamp(self) -> str:
        """What marks this version without reading the files: for an archive its digest."""
        return self._container.stamp

    @property
    def states_checksums(self) -> bool:
        """Whether fingerprints and digest are known without reading the files, as in an archive."""
        return self._container.states_checksums

    def member(self, relative: str) -> str:
        """Return a member's full name, e.g. of ``meta/trials/tiers.npy``."""
        return f"{self._root}{relative}"

    def locate(self, name: str) -> str:
        """Return where a member is, for errors."""
        return self._container.locate(name)

    def fingerprint_members(self, members: Mapping[str, str]) -> dict[str, Fingerprint]:
        """Return the CRC-32 and the size of members: equal for members of equal content.

        Parameters
        ----------
        members : mapping of str to str
            Names inside the session's folder, by a name of one's choice; those that are not there are left out.
        """
        return {key: self._container.fingerprint(name) for key, name in self._present(members)}

    def fingerprint_trial(self, trial: int) -> dict[str, Fingerprint]:
        """Return the CRC-32 and the size of a trial's members, by modality."""
        return self.fingerprint_members(members_of_trial(trial))

    def stamp_members(self, members: Mapping[str, str]) -> dict[str, str]:
        """Return what marks the version of each member that states no checksum, as a folder's files do.

        Parameters
        ----------
        members : mapping of str to str
            As :meth:`fingerprint_members` takes them.
        """
        stamps = {key: self._container.stamp_of(name) for key, name in self._present(members)}
        return {key: stamp for key, stamp in stamps.items() if stamp is not None}

    def recall(
        self, members: Mapping[str, str], stamps: Mapping[str, str], fingerprints: Mapping[str, Fingerprint]
    ) -> None:
        """Take fingerprints that members had for theirs, if they still have the same stamps: they need not be read.

        Parameters
        ----------
        members : mapping of str to str
            As :meth:`fingerprint_members` takes them.
        stamps, fingerprints : mapping
            What :meth:`stamp_members` and :meth:`fingerprint_members` returned at another time.
        """
        for key, name in self._present(members):
            if key in stamps and key in fingerprints:
                self._container.recall(name, stamps[key], fingerprints[key])

    def compressed_size_bytes(self, trial: int) -> int:
        """Return the compressed size of a trial's members."""
        return sum(self.entries[name].compressed_size_bytes for _, name in self._present(members_of_trial(trial)))

    def unpacked_size_bytes(self, trial: int) -> int:
        """Return the size of a trial's members once they are read."""
        return sum(self.entries[name].size_bytes for _, name in self._present(members_of_trial(trial)))

    def has_array(self, modality: str, trial: int) -> bool:
        """Whether the archive has a file of this modality for this trial."""
        return self.member(f"data/{modality}/{trial}.npy") in self.entries

    def trial_ids(self) -> list[int]:
        """Return the ids of the trials, ascending: the file names under ``data/``.

        A trial may lack its responses: they are withheld. The responses of all trials may not be missing. A session
        that the catalogue lacks may have no behavior or no pupil centers at all: :attr:`absent_modalities`.

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
        absent = self.absent_modalities
        empty = [modality for modality, present in ids_by_modality.items() if not present and modality not in absent]
        if empty:
            raise self._error(
                f"the session is not whole: there are no {', no '.join(empty)}",
                found=", ".join(f"{len(present)} {modality}" for modality, present in ids_by_modality.items()),
                expected=f"a file in {self.member(f'data/{empty[0]}/')} for each of {len(ids)} trials",
                remedy="get the folders that are missing, or " + self._container.remedy,
            )
        required = [modality for modality in _NEVER_WITHHELD if modality not in absent]
        missing = [(i, m) for i in sorted(ids) for m in required if i not in ids_by_modality[m]]
        if missing:
            trial, modality = missing[0]
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            counts = Counter(m for _, m in missing)
            raise self._error(
                f"trials lack files: {', '.join(f'{n} of {len(ids)} lack {m}' for m, n in counts.items())}",
                trial=trial,
                found=f"no {self.member(f'data/{modality}/{trial}.npy')}{others}",
                expected=f"every trial in {', '.join(required)}",
                remedy=None
                if self.is_published
                else "add the files that are missing, or take out those trials; behavior and pupil_center may be left "
                "out for all trials together",
            )
        return sorted(ids)

    @property
    def is_published(self) -> bool:
        """Whether the session is one of the ten whose layout is known in every part."""
        return self.name in SESSIONS

    @property
    def absent_modalities(self) -> tuple[str, ...]:
        """The modalities that a session that the catalogue lacks has no file of: of behavior and pupil centers."""
        if self.is_published:
            return ()
        return tuple(modality for modality in _OPTIONAL if not self._has_files(f"data/{modality}/"))

    def has_member(self, relative: str) -> bool:
        """Whether there is a file of this name inside the session's folder."""
        return self.member(relative) in self.entries

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
            return parse_npy(content)
        except NpyError as error:
            raise self._describe_npy_error(name, content, error) from error

    def read_array_header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return the shape and the dtype of the array in a ``.npy`` member, from the start of it alone.

        Raises
        ------
        TrialError, ArchiveError
            As :meth:`read_array` does. Damage further on is not noticed here.
        """
        if name not in self.entries:
            raise self._no_such_member(name)
        with contextlib.suppress(NpyError):
            return parse_npy_header(self._container.read_start(name, HEAD_SIZE_BYTES, session=self.name))
        # The header is longer than that, or damaged.
        with reserve_memory(self.entries[name].size_bytes):
            values = self.read_array(name)
            return values.shape, values.dtype

    def read_member(self, name: str) -> bytes | bytearray:
        """Return a member's content, from one read; an archive's is inflated and checked.

        Raises
        ------
        ArchiveError
            If there is no such member; if an archive's is encrypted or compressed by another method than deflate, or
            its header, size or CRC are wrong.
        SourceChangedError
            If the archive was replaced since it was opened.
        SourceError
            If its bytes cannot be had.
        """
        if name not in self.entries:
            raise self._no_such_member(name)
        return self._container.read(name, session=self.name)

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Names of the members that have no place in a session's layout, in the archive's order; nothing reads them.

        What has one: ``config.json``, everything under ``meta/``, and the files of the four modalities under ``data/``.
        """
        return tuple(
            name
            for name in self.entries
            if not (name.startswith(self._root) and has_place(name.removeprefix(self._root)))
        )

    def _present(self, members: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """Yield the keys and full names of those members that are there."""
        named = ((key, self.member(relative)) for key, relative in members.items())
        return ((key, name) for key, name in named if name in self.entries)

    def _has_files(self, folder: str) -> bool:
        start = self.member(folder)
        return any(name.startswith(start) for name in self.entries)

    def _no_such_member(self, name: str) -> ArchiveError:
        return self._error("no such member", member=name, remedy="check the name, or " + self._container.remedy)

    def _describe_npy_error(self, name: str, content: bytes | bytearray, error: NpyError) -> TrialError:
        problem, found, expected = error.args
        remedy = "convert the archive as it was published"
        if isinstance(error, NpyObjectsError):
            # The user's own file, and the user's own machine: who wrote it may unpickle it.
            remedy = (
                "save it as text or numbers, e.g. in Python with "
                "`a = numpy.load(f, allow_pickle=True); numpy.save(f, numpy.array(a.tolist()))`"
            )
        elif not self.is_published:
            remedy = "save the array again with numpy.save"
        pointer = find_pointer(bytes(content)) if len(content) <= POINTER_SIZE_BYTES else None
        if pointer is not None:
            problem, found = pointer.problem, pointer.found
            remedy = pointer.remedy(self._container.fetched_as(name))
        return TrialError(
            problem,
            session=self.name,
            trial=trial_of(name),
            path=self.locate(name),
            found=found,
            expected=expected,
            remedy=remedy,
        )

    def _ids_of(self, modality: str) -> set[int]:
        folder = self.member(f"data/{modality}/")
        ids = set()
        for name in self.entries:
            if name.startswith(folder):
                file = name[len(folder) :]
                trial = parse_trial(file.removesuffix(".npy")) if file.endswith(".npy") else None
                if trial is None:
                    raise self._error(
                        "a file is not named by its trial's id",
                        member=name,
                        expected=f"{folder}<integer of up to 9 digits>.npy",
                    )
                ids.add(trial)
        return ids

    def _find_root(self, session: Session | None) -> str:
        """Return the folder that holds everything: empty, or ending in ``/``."""
        label = self._container.label
        roots = find_roots(self.entries)
        folders = sorted({name.partition("/")[0] for name in self.entries if "/" in name})
        if session is not None:
            root = choose_root(roots, label, session, path=self.url)
            # A folder inside another folder was chosen for its own name; an archive's name is all its content's.
            is_of_another = self._container.states_checksums and is_name_of_another(label, session)
            if root is not None and is_of_another and find_owner(root, label, session) is None:
                raise self._error(
                    "the archive is named like another session",
                    found=label,
                    expected=session.name,
                    remedy=f"name the session {label}, or rename the archive",
                )
            if root is not None:
                return root
            if not roots and session.name in folders:
                return f"{session.name}/"
            raise self._error(
                "this is another session's archive",
                found=name_folders([root or label for root in roots] or folders),
                expected=f"the folder {session.name}",
                remedy="pass the archive of this session, or name the session that it holds"
                + ("" if session.is_described else ", or rename its folder"),
            )
        if len(roots) == 1 and (roots[0] or not self._container.states_checksums):
            return roots[0]
        if len(folders) != 1 or roots:
            raise self._error(
                "a session's archive holds one folder, named as the session",
                found=name_folders(roots or folders),
                expected="one folder",
                remedy="pack the session's folder itself",
            )
        return f"{folders[0]}/"

    def _error(
        self,
        problem: str,
        *,
        member: str | None = None,
        trial: int | None = None,
        found: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> ArchiveError:
        return ArchiveError(
            problem,
            session=self.name or None,
            trial=trial if member is None else trial_of(member),
            path=self.url if member is None else self.locate(member),
            found=found,
            expected=expected,
            remedy=remedy or self._container.remedy,
        )


def members_of_trial(trial: int) -> dict[str, str]:
    """Return the names of a trial's files inside the session's folder, by modality."""
    return {modality: f"data/{modality}/{trial}.npy" for modality in MODALITIES}
