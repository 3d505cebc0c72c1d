"""Published session stores: opening, listing and describing them.

A store's root holds a Zarr group for each session under its full name. A session is there when its ``zarr.json``
is: :mod:`sensorium_data.ingest.convert` makes it visible whole, and nothing changes it afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects, open_objects
from sensorium_data.schema import COORDINATES, SCHEMA_VERSION, SIGNATURE, VARIABLES
from sensorium_data.sessions import Session, Tier, find_session
from sensorium_data.store.ledger import LEDGER_KEY, Ledger
from sensorium_data.store.movie_ids import MovieLinks
from sensorium_data.store.publishing import PARTIAL_FOLDER, ROOT_TITLE, list_published, list_root
from sensorium_data.store.template import METADATA_KEY
from sensorium_data.store.versions import current_group

# Loaded where they are used: what asks only whether a session is finished would wait a second for them.
if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = [
    "describe_session",
    "describe_store",
    "format_range",
    "open_session",
    "open_session_as_stored",
    "open_sessions",
    "open_signatures",
    "open_statistics",
    "read_attributes",
    "read_ledger",
    "read_sound_attributes",
    "require_schema",
    "require_session",
    "session_digest",
    "stored_sessions",
]

_STATISTICS_GROUP = "statistics"
_MOVIES_GROUP = "movies"
# The other variables are stored in one chunk each.
_CHUNKED_VARIABLES = ("videos", "responses")


# Reading


def open_session(store: str, session: str) -> xr.Dataset:
    """Open a session of a store.

    Parameters
    ----------
    store : str
        Path or fsspec URL of the store's root.
    session : str
        Alias (``"F"``) or full name.

    Returns
    -------
    xarray.Dataset
        The data variables are dask arrays, a chunk a trial; the coordinates are in memory. ``movie`` holds ids that
        are equal across sessions, where :func:`sensorium_data.movies.link_movies` has compared them.

    Raises
    ------
    StoreError
        If there is no such store or no such session in it, or if the session is unfinished, damaged, or of another
        schema version.
    UnknownNameError
        If no session has this name.

    Examples
    --------
    >>> recording = open_session("stores", "F")  # doctest: +SKIP
    >>> recording.responses.sel(trial=recording.tier == "oracle")  # doctest: +SKIP
    """
    dataset = open_session_as_stored(store, session)
    return MovieLinks.read(open_objects(store)).apply(dataset)


def open_session_as_stored(store: str, session: str) -> xr.Dataset:
    """Open a session with the ids that it gives its movies for itself; else as :func:`open_session`."""
    found = find_session(session)
    objects = open_objects(store)
    group = current_group(objects, found)
    if read_sound_attributes(objects, found, group) is None:
        raise _not_there(objects, found)
    dataset = _open_group(objects, group, found)
    missing = [name for name in VARIABLES if name not in dataset] + [
        name
        for name, field in COORDINATES.items()
        if set(field.dims) <= set(dataset.dims) and name not in dataset.coords
    ]
    if missing:
        raise _damaged(objects, found, f"no array {', '.join(missing)}")
    return _load_coordinates(dataset, "trial")


def open_statistics(store: str, session: str) -> xr.Dataset:
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
    objects = open_objects(store)
    group = require_session(objects, found)
    return _load_coordinates(_open_group(objects, f"{group}/{_STATISTICS_GROUP}", found), "statistic")


def open_signatures(store: str, session: str) -> xr.DataArray:
    """Return the signatures of a session's videos: what tells movies apart without reading them.

    Returns
    -------
    xarray.DataArray
        (trial, time, feature), not read yet: :func:`sensorium_data.movies.sign_video` of each trial, NaN past its end.

    Raises
    ------
    StoreError
        As :func:`open_session` does.
    """
    found = find_session(session)
    objects = open_objects(store)
    group = require_session(objects, found)
    signatures: xr.DataArray = _open_group(objects, f"{group}/{_MOVIES_GROUP}", found)[SIGNATURE.name]
    return signatures


def open_sessions(store: str, sessions: Iterable[str] | None = None) -> xr.DataTree:
    """Open sessions of a store as one tree, a node a session under its full name.

    Parameters
    ----------
    store : str
        Path or fsspec URL of the store's root.
    sessions : iterable of str, optional
        Aliases or full names; all sessions of the store by default.

    Raises
    ------
    StoreError
        As :func:`open_session` does.
    """
    chosen = stored_sessions(store) if sessions is None else tuple(find_session(name) for name in sessions)
    import xarray as xr

    nodes = {"/": xr.Dataset(attrs={"title": ROOT_TITLE})}
    for session in chosen:
        nodes[session.name] = open_session(store, session.name)
        nodes[f"{session.name}/{_STATISTICS_GROUP}"] = open_statistics(store, session.name)
    return xr.DataTree.from_dict(nodes)


def stored_sessions(store: str) -> tuple[Session, ...]:
    """Return the sessions published in a store, in catalogue order.

    Raises
    ------
    StoreError
        If there is no store.
    """
    return _list_sessions(open_objects(store))


def read_sound_attributes(objects: Objects, session: Session, group: str) -> dict[str, Any] | None:
    """Return the attributes of a published session's group, ``None`` if it is not there.

    On a local disk every object's size is compared with the ledger: Zarr reads a missing chunk as NaN and says
    nothing. Elsewhere that takes a request each, and is left to :func:`sensorium_data.ingest.verify_session`.

    Raises
    ------
    StoreError
        If the session is damaged, or was written with another schema version.
    """
    attributes = read_attributes(objects, session, group)
    if attributes is None:
        return None
    require_schema(objects, session, group, attributes)
    if isinstance(objects, LocalObjects):
        for key, stored in read_ledger(objects, session, group).objects.items():
            size = objects.size(f"{group}/{key}")
            if size != stored.size_bytes:
                found = f"{key} is missing" if size is None else f"{key} has {size} bytes"
                raise _damaged(objects, session, found, f"{stored.size_bytes} bytes")
    return attributes


def read_attributes(objects: Objects, session: Session, group: str) -> dict[str, Any] | None:
    """Return the attributes of a published session's group as they are, ``None`` if it is not there.

    Raises
    ------
    StoreError
        If they cannot be read.
    """
    try:
        metadata = json.loads(objects.read(f"{group}/{METADATA_KEY}"))
        attributes = metadata["attributes"]
        if metadata["node_type"] != "group" or not isinstance(attributes, dict):
            raise ValueError("not a group's")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(objects, session, f"unreadable metadata ({error})") from error
    return attributes


def require_schema(objects: Objects, session: Session, group: str, attributes: Mapping[str, Any]) -> None:
    """Raise a :class:`StoreError` if a group was written with another version of the schema."""
    if attributes.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            "the session was written with another schema version",
            session=session,
            path=objects.locate(group),
            found=attributes.get("schema_version"),
            expected=SCHEMA_VERSION,
            remedy="ingest it again, into another store",
        )


def read_ledger(objects: Objects, session: Session, group: str) -> Ledger:
    """Return the ledger of a published session's group; a :class:`StoreError` if it is missing or damaged."""
    key = f"{group}/{LEDGER_KEY}"
    try:
        data = objects.read(key)
    except FileNotFoundError:
        raise _damaged(objects, session, "no ledger") from None
    return Ledger.from_bytes(data, path=objects.locate(key), session=str(session))


def session_digest(store: str, session: str) -> str:
    """Return a SHA-256 that identifies the published content of a session.

    Two stores made from the same archive have the same digest, wherever the archive was read from.

    Raises
    ------
    StoreError
        If the session is not there or its ledger is damaged.
    """
    found = find_session(session)
    objects = open_objects(store)
    return read_ledger(objects, found, require_session(objects, found)).content_digest


# Describing


def describe_store(store: str) -> pd.DataFrame:
    """Return what is in a store, a row a session.

    Returns
    -------
    pandas.DataFrame
        Columns alias, session, trials, neurons, frames (length of the padded frame axis), size_bytes and source.

    Raises
    ------
    StoreError
        If there is no store, or a session in it is damaged.
    """
    import pandas as pd

    objects = open_objects(store)
    rows = []
    for session in _list_sessions(objects):
        dataset = open_session(store, session.name)
        rows.append(
            {
                "alias": session.alias,
                "session": session.name,
                "trials": dataset.sizes["trial"],
                "neurons": dataset.sizes["neuron"],
                "frames": dataset.sizes["time"],
                "size_bytes": read_ledger(objects, session, current_group(objects, session)).size_bytes,
                "source": dataset.attrs.get("source", ""),
            }
        )
    return pd.DataFrame(rows, columns=["alias", "session", "trials", "neurons", "frames", "size_bytes", "source"])


def describe_session(store: str, session: str) -> pd.DataFrame:
    """Return what a session's trials are, a row a tier.

    Returns
    -------
    pandas.DataFrame
        Columns tier, trials, movies, frames (their range over valid trials), stimuli, withheld (trials without
        responses) and broken (trials without a valid stimulus).

    Raises
    ------
    StoreError
        As :func:`open_session` does.
    """
    import pandas as pd

    dataset = open_session(store, session)
    rows = []
    for tier in Tier:
        trials = dataset.coords.to_dataset().isel(trial=np.flatnonzero(dataset.tier.values == str(tier)))
        valid = trials.valid.values
        lengths = trials.n_frames.values[valid]
        if trials.sizes["trial"]:
            rows.append(
                {
                    "tier": str(tier),
                    "trials": trials.sizes["trial"],
                    "movies": len(set(trials.movie.values[valid].tolist())),
                    "frames": format_range(lengths),
                    "stimuli": ", ".join(sorted(set(trials.stimulus.values[valid].tolist()))),
                    "withheld": int(trials.responses_withheld.values.sum()),
                    "broken": int((~valid).sum()),
                }
            )
    return pd.DataFrame(rows, columns=["tier", "trials", "movies", "frames", "stimuli", "withheld", "broken"])


def format_range(values: np.ndarray) -> str:
    """Return the range of integers in words.

    Examples
    --------
    >>> format_range(np.array([305, 326, 310])), format_range(np.array([300, 300])), format_range(np.array([]))
    ('305-326', '300', 'none')
    """
    if len(values) == 0:
        return "none"
    low, high = int(np.min(values)), int(np.max(values))
    return str(low) if low == high else f"{low}-{high}"


# Helpers of the readers


def _list_sessions(objects: Objects) -> tuple[Session, ...]:
    if isinstance(objects, LocalObjects):
        _require_store(objects)
        return list_published(objects)
    if not objects.exists(METADATA_KEY):
        raise _no_store(objects)
    return list_root(objects)


def require_session(objects: Objects, session: Session) -> str:
    """Return the group of a session's current version."""
    group = current_group(objects, session)
    if read_attributes(objects, session, group) is None:
        raise _not_there(objects, session)
    return group


def _not_there(objects: Objects, session: Session) -> StoreError:
    """Return the error that says why a session cannot be opened; raise it if there is not even a store."""
    present = _list_sessions(objects)
    if isinstance(objects, LocalObjects) and (objects.root / PARTIAL_FOLDER / session.name).is_dir():
        return StoreError(
            "ingest has not finished", session=session, path=objects.url, remedy="run it again: it resumes"
        )
    return StoreError(
        "the session is not in the store",
        session=session,
        path=objects.url,
        found=", ".join(s.alias for s in present) or "no session",
        remedy=f"run `sensorium ingest {session.alias} --store {objects.url}`",
    )


def _require_store(objects: LocalObjects) -> None:
    if not objects.root.is_dir():
        raise StoreError(
            "no such folder" if not objects.root.exists() else "not a folder",
            path=objects.url,
            remedy="give the root of a store that `sensorium ingest` made",
        )
    if not objects.exists(METADATA_KEY) and not list_published(objects):
        if (objects.root / PARTIAL_FOLDER).is_dir():
            return
        raise _no_store(objects)


def _no_store(objects: Objects) -> StoreError:
    return StoreError(
        "no session store here",
        path=objects.url,
        expected=f"a {METADATA_KEY} that lists sessions",
        remedy="give the root of a store that `sensorium ingest` made",
    )


def _damaged(objects: Objects, session: Session, found: str, expected: str | None = None) -> StoreError:
    return StoreError(
        "the store is damaged",
        session=session,
        path=objects.locate(session.name),
        found=found,
        expected=expected,
        remedy="`sensorium verify` lists what is wrong; `sensorium ingest --repair` converts that again",
    )


def _open_group(objects: Objects, path: str, session: Session) -> xr.Dataset:
    import xarray as xr

    try:
        dataset: xr.Dataset = xr.open_zarr(objects.child(path).zarr_store(), consolidated=True, chunks=None)
    except FileNotFoundError as error:
        raise _damaged(objects, session, f"no group {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(objects, session, f"unreadable metadata ({error})") from error
    return dataset


def _load_coordinates(dataset: xr.Dataset, chunk_dim: str) -> xr.Dataset:
    """Load the coordinates, and make the data variables dask arrays.

    Parameters
    ----------
    dataset : xarray.Dataset
        As opened, nothing read.
    chunk_dim : str
        The dimension along which the large variables are cut into chunks of length 1.
    """
    # Variables: a DataArray of one coordinate would bring copies of all the others.
    coordinates = {name: _as_plain_text(dataset.variables[name].load()) for name in dataset.coords}
    variables = {
        name: variable.chunk(
            {dim: 1 if dim == chunk_dim and name in _CHUNKED_VARIABLES else -1 for dim in variable.dims}
        )
        for name, variable in dataset.data_vars.items()
    }
    return dataset.assign(variables).assign_coords(coordinates)


def _as_plain_text(coordinate: xr.Variable) -> xr.Variable:
    """Return text as NumPy's fixed-width kind: what Zarr reads, StringDType, much of NumPy cannot take yet."""
    if not isinstance(coordinate.dtype, np.dtypes.StringDType):
        return coordinate
    return coordinate.copy(data=np.array(coordinate.values.tolist(), dtype=np.str_))
