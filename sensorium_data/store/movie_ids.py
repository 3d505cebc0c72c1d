"""The ids of movies that several sessions of a store show: one file beside the sessions, applied when they are opened.

A published session never changes, and names its movies for itself: ``movie``. Which movies of several sessions are the
same stands in ``movies.json`` in the store's root, which :mod:`sensorium_data.movies.links` writes, and becomes the
coordinate ``movie_group``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium_data.errors import StoreError, UsageError
from sensorium_data.files import Objects, describe_damage, read_sealed, seal
from sensorium_data.schema import MOVIE_GROUP
from sensorium_data.sessions import is_full_name
from sensorium_data.store.versions import repair_root

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.store import Store as ZarrStore

__all__ = ["LINKS_KEY", "MovieLinks", "SessionLinks", "digest_movies", "read_movie_groups", "read_movies_digest"]

#: Where a store's root keeps the ids.
LINKS_KEY = "movies.json"

_LABELS = ("trial", "n_frames", "movie")

# Raised whenever a reader of the previous version would misread the file.
_VERSION = 1


@dataclass(frozen=True)
class SessionLinks:
    """What the movies of a session are called across sessions.

    Attributes
    ----------
    digest : str
        :func:`digest_movies` of the session that was compared.
    ids : mapping of str to str
        From the session's own id of a movie to the common one, where they differ.
    content : str
        :func:`sensorium_data.store.Store.digest` of the session that was compared; empty in files of older versions.
        It says without opening the session that nothing is to be done.
    """

    digest: str
    ids: Mapping[str, str]
    content: str = ""


@dataclass(frozen=True)
class MovieLinks:
    """Which movies of a store's sessions are the same.

    Attributes
    ----------
    sessions : mapping of str to SessionLinks
        By full name; every session that was compared.
    """

    sessions: Mapping[str, SessionLinks] = field(default_factory=dict)

    @property
    def n_linked_movies(self) -> int:
        """Movies that bear another session's id, each session's counted."""
        return sum(len(links.ids) for links in self.sessions.values())

    def covers(self, dataset: xr.Dataset) -> bool:
        """Whether this very session was compared, and not another conversion under its name.

        Parameters
        ----------
        dataset : xarray.Dataset
            As stored, with the session's own ids.
        """
        links = self.sessions.get(str(dataset.attrs.get("session")))
        return links is not None and links.digest == digest_movies(dataset)

    def apply(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a session with the coordinate ``movie_group``; equal to ``movie`` if it was not compared.

        Parameters
        ----------
        dataset : xarray.Dataset
            As stored, with the session's own ids.
        """
        is_compared = self.covers(dataset)
        ids = self.sessions[dataset.attrs["session"]].ids if is_compared else {}
        groups = np.array([ids.get(own, own) for own in dataset.movie.values.tolist()], dtype=np.str_)
        attributes = dict(MOVIE_GROUP.attributes)
        if not is_compared:
            attributes["comment"] = "equal to movie: the session has not been compared with others"
        return dataset.assign_coords({MOVIE_GROUP.name: (MOVIE_GROUP.dims, groups, attributes)})

    def to_bytes(self) -> bytes:
        """Return the file's bytes, the same for the same links."""
        sessions = {
            name: {"digest": links.digest, "ids": dict(links.ids), "content": links.content}
            for name, links in self.sessions.items()
        }
        return seal({"version": _VERSION, "sessions": sessions})

    @classmethod
    def from_bytes(cls, data: bytes) -> MovieLinks:
        """Read the file's bytes; a :class:`ValueError` if they are damaged, or another version's."""
        try:
            content, _ = read_sealed(data)
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}, expected {_VERSION}")
            unknown = content.keys() - {"version", "sessions"}
            if unknown:
                raise ValueError(f"an entry {sorted(unknown)[0]}")
            for name in content["sessions"]:
                if not is_full_name(name):
                    raise ValueError(f"{name!r} is no session's full name")
            return cls(
                {
                    str(name): SessionLinks(
                        str(links["digest"]),
                        {str(own): str(common) for own, common in links["ids"].items()},
                        str(links.get("content", "")),
                    )
                    for name, links in content["sessions"].items()
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(describe_damage(error)) from error

    @classmethod
    def read(cls, objects: Objects) -> MovieLinks:
        """Return the links of a store; none if no sessions were compared yet.

        Raises
        ------
        StoreError
            If the file cannot be read or is damaged.
        """
        try:
            return cls.from_bytes(objects.read(LINKS_KEY))
        except FileNotFoundError:
            return cls()
        except ValueError as error:
            raise StoreError(
                "the ids of movies across sessions cannot be read",
                path=objects.locate(LINKS_KEY),
                found=str(error),
                remedy=repair_root(objects),
            ) from error


def read_movie_groups(dataset: xr.Dataset) -> np.ndarray:
    """Return ``movie_group`` of each trial, (trial,): what has to be compared between sessions.

    Raises
    ------
    UsageError
        If the dataset was opened without it: own ids differ between sessions also where the movie is the same.
    """
    if MOVIE_GROUP.name not in dataset.coords:
        raise UsageError(
            "the session was opened without the ids of movies across sessions",
            session=dataset.attrs.get("session"),
            found=f"no coordinate {MOVIE_GROUP.name}",
            expected=f"{MOVIE_GROUP.name}, which a session alone does not hold",
            remedy="open it with sensorium_data.open_session or from an opened store",
        )
    groups: np.ndarray = dataset[MOVIE_GROUP.name].values
    return groups


def digest_movies(dataset: xr.Dataset) -> str:
    """Return a SHA-256 that identifies a session's trials, its own grouping of them into movies, and its archive.

    It takes what every reader of the session has in memory, unlike the digest of the session's ledger.

    Parameters
    ----------
    dataset : xarray.Dataset
        As stored, with the session's own ids.
    """
    return _digest_labels(dataset.attrs, {name: dataset[name].values for name in _LABELS})


def read_movies_digest(group: ZarrStore) -> str:
    """Return :func:`digest_movies` of a published group: three small arrays are read, and nothing else is loaded."""
    import zarr

    opened: Any = zarr.open_group(group, mode="r")
    return _digest_labels(opened.attrs, {name: opened[name][...] for name in _LABELS})


def _digest_labels(attributes: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> str:
    content = [attributes.get("source_digest"), *(labels[name].tolist() for name in _LABELS)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
