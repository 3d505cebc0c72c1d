"""Functions that open a store or sessions of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects
from sensorium_data.sessions import Session, find_session
from sensorium_data.store.store import Store, StoreLike
from sensorium_data.store.versions import read_root_versions

# Loaded where it is used: what asks only whether a session is finished would wait a second for it.
if TYPE_CHECKING:
    import xarray as xr

__all__ = ["open_session", "open_sessions", "open_statistics", "open_store", "recover_versions", "stored_sessions"]


def open_store(store: StoreLike) -> Store:
    """Open a store for reading. A :class:`Store` is returned as it is.

    Parameters
    ----------
    store : Store or path
        Path or fsspec URL of the store's root.

    Raises
    ------
    StoreError
        If there is no store.
    """
    opened = Store.at(store)
    if opened is not store:
        if isinstance(opened.objects, LocalObjects):
            opened = Store(opened.objects.anchor())
        # Both raise where there is no store, or a damaged one.
        _ = opened.sessions, opened.versions
    return opened


def recover_versions(store: StoreLike) -> tuple[Store, StoreError | None]:
    """Open a store whose versions may be unreadable: they are those that the root's metadata name then.

    Returns
    -------
    store : Store
        The store.
    damage : StoreError or None
        Why the versions cannot be read; None where they can.

    Raises
    ------
    StoreError
        If there is no store.
    """
    opened = Store.at(store)
    _ = opened.sessions
    try:
        _ = opened.versions
    except StoreError as error:
        versions = read_root_versions(opened.objects, lambda: opened.root_metadata)
        return opened.assume_versions(versions), error
    return opened, None


def open_session(store: StoreLike, session: str | Session) -> xr.Dataset:
    """Open a session of a store.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias (``"F"``) or full name.

    Returns
    -------
    xarray.Dataset
        The data variables are dask arrays, a chunk a trial; the coordinates are in memory. ``movie`` is the session's
        own id of the movie, equal for its repeats. ``movie_group`` is equal for all trials of the store's sessions
        that show the movie, where :func:`sensorium_data.movies.link_movies` has compared them; else it is equal to
        ``movie``.

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
    found = find_session(session)
    return open_store(store)[found]


def open_statistics(store: StoreLike, session: str | Session) -> xr.Dataset:
    """Open the archive's own statistics of a session; see :meth:`Store.statistics`."""
    found = find_session(session)
    return open_store(store).statistics(found)


def open_sessions(store: StoreLike, sessions: Iterable[str | Session] | None = None) -> xr.DataTree:
    """Open sessions of a store as one tree, a node a session: ``tree["F"]``, or by its full name.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    sessions : iterable of str, optional
        Aliases or full names; all sessions of the store by default.

    Raises
    ------
    StoreError
        As :func:`open_session` does.
    """
    return open_store(store).tree(sessions)


def stored_sessions(store: StoreLike) -> tuple[Session, ...]:
    """Return the sessions published in a store, in catalogue order.

    Raises
    ------
    StoreError
        If there is no store.
    """
    return open_store(store).sessions
