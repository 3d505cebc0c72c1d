"""A root of session stores, opened for reading.

A store's root holds a Zarr group for each session under its full name. A session is there when its ``zarr.json``
is: :mod:`sensorium_data.ingest` makes it visible whole, and nothing changes it afterwards.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sensorium_data.errors import StoreError, UnknownNameError
from sensorium_data.files import LocalObjects, Objects, digest_bytes, open_objects
from sensorium_data.html_table import write_html_table
from sensorium_data.redaction import hide_secrets
from sensorium_data.schema import COORDINATES, SIGNATURE, VARIABLES
from sensorium_data.sessions import Session, find_session
from sensorium_data.store.absence import explain_absence, no_store, require_store
from sensorium_data.store.datasets import fill_unknown, find_absent, load_coordinates
from sensorium_data.store.groups import (
    damaged,
    damaged_object,
    ingest_command,
    read_attributes,
    read_ledger,
    require_schema,
    require_sound,
)
from sensorium_data.store.ledger import LEDGER_KEY, Ledger
from sensorium_data.store.movie_ids import MovieLinks
from sensorium_data.store.publishing import (
    ROOT_TITLE,
    list_published,
    parse_root,
    read_root_metadata,
    refuse_other_root,
)
from sensorium_data.store.reading import hold_version
from sensorium_data.store.versions import VERSIONS_KEY, read_versions

# Loaded where it is used: what asks only whether a session is finished would wait a second for it.
if TYPE_CHECKING:
    import xarray as xr
    import zarr

    from sensorium_data.store.checked_store import CheckedStore

__all__ = ["SOURCE_KEY", "Store", "StoreLike"]

#: Under which a session's dataset holds the :class:`Store` that it was opened from, in its ``encoding``. xarray keeps
#: that through selections and writes nothing of it.
SOURCE_KEY = "sensorium_store"

_STATISTICS_GROUP = "statistics"
_MOVIES_GROUP = "movies"
_MOVIE_ARRAYS = ("videos", "trial", "n_frames", "movie")

_Value = TypeVar("_Value")


class Store:
    """A root of session stores as it was when it was opened. Made by :func:`~sensorium_data.store.open_store`.

    The root's own objects are read at most once: which sessions there are and which version of each is current when the
    store is opened, and which movies they share when that is first asked for. A published session never changes, so a
    store stays valid when somebody publishes a new version. A store that is opened afterwards sees the new version.
    While it is open, and what was opened from it, ``sensorium clean`` does not delete its versions from a local disk.

    A store may be used from several threads. It is pickled as its absolute URL with its sessions and their versions, so
    another process reads the same versions.

    Parameters
    ----------
    objects : Objects
        What lies under the root. Nothing need be there yet.

    Examples
    --------
    >>> store = open_store("demo/store")  # doctest: +SKIP
    >>> store["F"].responses, store.statistics("F"), store.digest("F")  # doctest: +SKIP
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._lock = threading.RLock()
        self._known: dict[tuple[str, str], Any] = {}

    @classmethod
    def at(cls, store: StoreLike) -> Store:
        """Return the store at a path or fsspec URL, whether or not anything is there; nothing is read yet."""
        return store if isinstance(store, Store) else cls(open_objects(store))

    @property
    def url(self) -> str:
        """The root, as it was given."""
        return self.objects.url

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The published sessions, in catalogue order; a :class:`StoreError` if there is no store."""
        return self._once("sessions", "", self._list_sessions)

    def require_all(self) -> tuple[Session, ...]:
        """Return the published sessions; a :class:`StoreError` if the root lists one that is not there."""
        lost = [session for session in self.listed if session not in self.sessions]
        if lost:
            group = self.group(lost[0])
            command = ingest_command(self.objects, lost[0], group)
            raise StoreError(
                "a session that the store lists is not there",
                session=lost[0],
                path=self.url,
                found=", ".join(session.alias for session in self.sessions) or "no session",
                remedy=f"put its folder back, or run `{command}`; name sessions to go on without it",
            )
        return self.sessions

    @property
    def listed(self) -> tuple[Session, ...]:
        """The sessions that the root's metadata list; none if there are no metadata."""
        return self._root or ()

    @property
    def _root(self) -> tuple[Session, ...] | None:
        return self._once("root", "", lambda: parse_root(self.objects, self.root_metadata))

    @property
    def root_metadata(self) -> bytes | None:
        """The root group's metadata as they are; ``None`` if there are none."""
        return self._once("metadata", "", lambda: read_root_metadata(self.objects))

    def refuse_other_root(self) -> None:
        """Raise a :class:`StoreError` if a session's own folder, or something else but a store, lies here."""
        refuse_other_root(self.objects, self.root_metadata)

    @property
    def versions(self) -> Mapping[str, str]:
        """The groups of the sessions whose current version is not the first, by the session's name."""
        return self._once("versions", "", lambda: MappingProxyType(self._read_versions()))

    def assume_versions(self, versions: Mapping[str, str]) -> Store:
        """Return the same store with other versions taken for the current ones, by the session's name."""
        return _know(self.objects, {("versions", ""): MappingProxyType(dict(versions))})

    @property
    def lacks_versions_file(self) -> bool:
        """Whether the file that says which versions are current was lost; the root's metadata say it then."""
        if not self.versions:
            return False
        try:
            return not self.objects.exists(VERSIONS_KEY)
        except StoreError:
            # Something else lies there, which whoever has recovered the versions was told.
            return False

    @property
    def links(self) -> MovieLinks:
        """Which movies of the sessions are the same; a :class:`StoreError` if the file that says so is damaged."""
        return self._once("links", "", lambda: MovieLinks.read(self.objects))

    def group(self, session: str | Session) -> str:
        """Return the name of the group that holds a session's current version, or would hold its first."""
        name = find_session(session).name
        return self.versions.get(name, name)

    def require_group(self, session: str | Session) -> str:
        """Return the name of the group that holds a session's current version.

        Raises
        ------
        StoreError
            If the session is not there.
        """
        found = find_session(session)
        group = self.group(found)
        if found not in self.sessions or self._attributes(found, group) is None:
            raise explain_absence(self.objects, found, self.group(found), self.sessions)
        return group

    def __contains__(self, session: object) -> bool:
        try:
            return isinstance(session, str | Session) and find_session(session) in self.sessions
        except UnknownNameError:
            return False

    def __iter__(self) -> Iterator[Session]:
        return iter(self.sessions)

    def __len__(self) -> int:
        return len(self.sessions)

    def __getitem__(self, session: str | Session) -> xr.Dataset:
        """Open a session by its alias (``"F"``) or full name; as :func:`open_session` does."""
        dataset = self.as_stored(session)
        return self.links.apply(dataset)

    def as_stored(self, session: str | Session) -> xr.Dataset:
        """Open a session without ``movie_group``, which a session alone does not hold; else as :func:`open_session`."""
        found = find_session(session)
        opened: xr.Dataset = self._once("dataset", found.name, lambda: self._open_dataset(found))
        # Deep: labels are in memory, and what the caller does to them must stay the caller's.
        dataset = opened.copy(deep=True)
        dataset.encoding[SOURCE_KEY] = self
        return dataset

    def movies(self, session: str | Session) -> xr.Dataset:
        """Open what says which movies a session shows, and nothing else: of a remote store each label takes a request.

        Returns
        -------
        xarray.Dataset
            ``videos``, and the labels ``trial``, ``n_frames`` and ``movie``, as the session names its own.

        Raises
        ------
        StoreError
            As :func:`open_session` does.
        """
        found = find_session(session)
        self._require_sound_group(found)
        others = [name for name in (*VARIABLES, *COORDINATES) if name not in _MOVIE_ARRAYS]
        dataset = self._open_group(found, drop_variables=others)
        missing = [name for name in _MOVIE_ARRAYS if name not in dataset.variables]
        if missing:
            raise damaged(self.objects, found, self.group(found), f"no array {', '.join(missing)}")
        return load_coordinates(dataset, "trial")

    def statistics(self, session: str | Session) -> xr.Dataset:
        """Open the archive's own statistics of a session.

        Returns
        -------
        xarray.Dataset
            ``videos`` (statistic, time, height, width), ``responses`` (statistic, neuron, time), ``behavior``
            (statistic, behavior_channel, time) and ``pupil_center`` (statistic, eye_axis, time), all frame by frame;
            select with ``statistics.responses.sel(statistic="std")``.

        Raises
        ------
        StoreError
            As :func:`open_session` does.
        """
        found = find_session(session)
        return load_coordinates(self._open_group(found, _STATISTICS_GROUP), "statistic")

    def signatures(self, session: str | Session) -> xr.DataArray:
        """Return the signatures of a session's videos: what tells movies apart without reading them.

        Returns
        -------
        xarray.DataArray
            (trial, time, feature), not read yet: :func:`sensorium_data.movies.sign_video` of each trial, NaN past its
            end.

        Raises
        ------
        StoreError
            As :func:`open_session` does.
        """
        found = find_session(session)
        signatures: xr.DataArray = self._open_group(found, _MOVIES_GROUP)[SIGNATURE.name]
        return signatures

    def videos(self, session: str | Session) -> zarr.Array[Any]:
        """Return the stored videos, to be read trial by trial: dask takes longer for a trial than its decompression.

        Returns
        -------
        zarr.Array
            (trial, time, height, width), not read yet, NaN past a trial's end.

        Raises
        ------
        StoreError
            If the session is not there or is damaged; so does reading.
        """
        import zarr

        found = find_session(session)
        try:
            videos = zarr.open_group(self.zarr_store(found), mode="r")["videos"]
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise damaged(self.objects, found, self.group(found), f"no array videos ({error})") from error
        if not isinstance(videos, zarr.Array):
            raise damaged(self.objects, found, self.group(found), "no array videos")
        return videos

    def ledger(self, session: str | Session) -> Ledger:
        """Return a session's ledger: every object with its digest, and what each trial was made from.

        Raises
        ------
        StoreError
            If the session is not there, or its ledger is missing or damaged.
        """
        found = find_session(session)
        group = self.require_group(found)
        self._once("lease", group, lambda: hold_version(self.objects, group))
        return self._once("ledger", group, lambda: _frozen(read_ledger(self.objects, found, group)))

    def digest(self, session: str | Session) -> str:
        """Return a SHA-256 that identifies the published content of a session.

        Two stores made from the same archive have the same digest, wherever the archive was read from.

        Raises
        ------
        StoreError
            If the session is not there or its ledger is damaged.
        """
        return self.ledger(session).content_digest

    def ledger_digest(self, session: str | Session) -> str:
        """Return the SHA-256 of the bytes of a session's ledger: what tells at little cost that nothing has changed.

        Unlike :meth:`digest` it also depends on where the archive was read from.

        Raises
        ------
        StoreError
            If the session has no ledger, or the disk does not give it.
        """
        found = find_session(session)
        try:
            return digest_bytes(self.objects.read(f"{self.group(found)}/{LEDGER_KEY}"))
        except FileNotFoundError:
            # Says whether it is the session or its ledger that is not there.
            self.require_group(found)
            raise damaged(self.objects, found, self.group(found), "no ledger") from None

    def release(self, session: str | Session) -> None:
        """Forget what was read of a session, which takes some megabytes; it is read again when it is next asked for."""
        found = find_session(session)
        group = self.group(found)
        with self._lock:
            for key in [("dataset", found.name), *((kind, group) for kind in ("lease", "ledger", "attributes"))]:
                self._known.pop(key, None)

    def tree(self, sessions: Iterable[str | Session] | None = None) -> xr.DataTree:
        """Open sessions as one tree, a node a session, found by alias or full name; as :func:`open_sessions` does."""
        import xarray as xr

        from sensorium_data.store.session_tree import SessionTree

        chosen = self.sessions if sessions is None else tuple(find_session(name) for name in sessions)
        nodes = {"/": xr.Dataset(attrs={"title": ROOT_TITLE})}
        for session in chosen:
            nodes[session.name] = self[session]
            nodes[f"{session.name}/{_STATISTICS_GROUP}"] = self.statistics(session)
        return SessionTree.from_dict(nodes)

    def is_simulated(self, session: str | Session) -> bool:
        """Whether a session says that it is simulated, and no recording.

        Raises
        ------
        StoreError
            If the session is not there, or its metadata cannot be read.
        """
        found = find_session(session)
        group = self.require_group(found)
        attributes = self._attributes(found, group) or {}
        return bool(attributes.get("simulated", False))

    def __repr__(self) -> str:
        simulated = set()
        for session in self.sessions:
            # Also a store with a damaged session can be shown.
            with contextlib.suppress(StoreError):
                if self.is_simulated(session):
                    simulated.add(session)
        named = [f"{one.alias} (simulated)" if one in simulated else one.alias for one in self.sessions]
        return f"<Store {hide_secrets(self.url)}: {', '.join(named) or 'no session'}>"

    def _repr_html_(self) -> str:
        rows = []
        for session in self.sessions:
            sizes: list[object] = [None, None]
            simulated = None
            problem = ""
            try:
                simulated = "yes" if self.is_simulated(session) else "no"
                # Of a remote store this would take requests that nobody asked for.
                if isinstance(self.objects, LocalObjects):
                    dataset = self[session]
                    sizes = [dataset.sizes["trial"], dataset.sizes["neuron"]]
            except StoreError as error:
                problem = error.problem
            rows.append((session.alias, session.name, simulated, *sizes, problem))
        heads = ("alias", "session", "simulated", "trials", "neurons", "")
        return write_html_table(f"Store {hide_secrets(self.url)}", heads, rows)

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[str, dict[tuple[str, str], Any]]]:
        objects = self.objects
        url = str(objects.root.absolute()) if isinstance(objects, LocalObjects) else objects.url
        roots = {key: value for key, value in self._known.items() if key[0] in ("sessions", "root")}
        return _reopen, (url, roots | {("versions", ""): dict(self.versions)})

    def _once(self, kind: str, name: str, read: Callable[[], _Value]) -> _Value:
        """Return what ``read`` returned when it was first called for this kind and name."""
        with self._lock:
            if (kind, name) not in self._known:
                self._known[kind, name] = read()
            value: _Value = self._known[kind, name]
            return value

    def _read_versions(self) -> dict[str, str]:
        return dict(read_versions(self.objects, lambda: self.root_metadata))

    def _list_sessions(self) -> tuple[Session, ...]:
        objects = self.objects
        if isinstance(objects, LocalObjects):
            require_store(objects, self.root_metadata)
            return list_published(objects) or ()
        if self._root is None:
            raise no_store(objects)
        return self._root

    def _open_dataset(self, session: Session) -> xr.Dataset:
        objects = self.objects
        version = int(self._require_sound_group(session)["schema_version"])
        dataset = self._open_group(session)
        absent = find_absent(dataset.attrs)
        missing = [name for name in VARIABLES if name not in dataset and name not in absent] + [
            name
            for name, field in COORDINATES.items()
            if field.since <= version
            and set(field.dims) <= set(dataset.dims)
            and name not in dataset.coords
            and name not in absent
        ]
        if missing:
            raise damaged(objects, session, self.group(session), f"no array {', '.join(missing)}")
        # What a session of an earlier version does not say is unknown, so that sessions of all versions look alike.
        unsaid = [field for field in COORDINATES.values() if field.since > version]
        return load_coordinates(dataset, "trial").assign_coords(
            {field.name: fill_unknown(field, dataset.sizes["trial"]) for field in unsaid}
        )

    def _require_sound_group(self, session: Session) -> Mapping[str, Any]:
        """Return the attributes of a session's group; raise a :class:`StoreError` if it is not there or not sound."""
        objects, group = self.objects, self.require_group(session)
        attributes = self._attributes(session, group) or {}
        require_schema(objects, session, group, attributes)
        require_sound(objects, session, group, self.ledger(session))
        return attributes

    def _attributes(self, session: Session, group: str) -> dict[str, Any] | None:
        return self._once("attributes", group, lambda: read_attributes(self.objects, session, group))

    def zarr_store(self, session: str | Session, path: str = "") -> CheckedStore:
        """Return the Zarr store of a session's group, or of one below it, which compares what is read with the ledger.

        Raises
        ------
        StoreError
            If the session is not there, or its ledger is missing or damaged. Reading raises it for a damaged object.
        """
        # Zarr is slow to import.
        from sensorium_data.store.checked_store import CheckedStore

        found = find_session(session)
        group = self.require_group(found)
        describe = partial(damaged_object, self.objects, found, group)
        objects = self.objects.child(f"{group}/{path}" if path else group)
        ledger, lease = self.ledger(found), hold_version(self.objects, group)
        return CheckedStore(objects.zarr_store(), path, ledger.objects, describe, lease)

    def _open_group(self, session: Session, path: str = "", drop_variables: Iterable[str] = ()) -> xr.Dataset:
        import xarray as xr

        group = self.group(session)
        try:
            # Without the format Zarr also asks for the metadata of the other one.
            dataset: xr.Dataset = xr.open_zarr(
                self.zarr_store(session, path),
                consolidated=True,
                chunks=None,
                zarr_format=3,
                drop_variables=[*drop_variables],
            )
        except FileNotFoundError as error:
            raise damaged(
                self.objects, session, self.group(session), f"no group {path or self.group(session)}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self.objects, session, group, f"unreadable metadata ({error})") from error
        return dataset


#: What functions take that read a store: the store, or the path or fsspec URL of its root.
StoreLike: TypeAlias = str | os.PathLike[str] | Store


def _reopen(url: str, known: Mapping[tuple[str, str], Any]) -> Store:
    return _know(open_objects(url), known)


def _know(objects: Objects, known: Mapping[tuple[str, str], Any]) -> Store:
    store = Store(objects)
    store._known.update(known)
    return store


def _frozen(ledger: Ledger) -> Ledger:
    return replace(ledger, objects=MappingProxyType(dict(ledger.objects)), trials=MappingProxyType(dict(ledger.trials)))
