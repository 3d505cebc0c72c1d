"""Finding the movies that several sessions of a store show.

Sessions come in pairs that were shown nearly the same movies, and a movie that one mouse saw in a test tier another
saw as oracle. Splits and leakage go by ids that tell this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects
from sensorium_data.movies.grouping import join_groups
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSIONS
from sensorium_data.store import (
    LINKS_KEY,
    MovieLinks,
    SessionLinks,
    Store,
    StoreLike,
    digest_movies,
    exclusive_access,
    open_store,
    read_movie_groups,
    read_movies_digest,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MovieLinks", "link_movies"]

_LOCK = "movies"


def link_movies(store: StoreLike, *, jobs: int = 4, progress: Progress = ignore_progress) -> MovieLinks:
    """Find which movies of a store's sessions are the same, and let :func:`sensorium_data.open_session` know.

    The movies get common ids, which readers add as the coordinate ``movie_group``: the one that a movie has in the
    first session that shows it, in the order of the catalogue, sessions that are not in it after those that are, by
    name. So the ids depend on which sessions there are, and not on the order in which they came. The sessions' own ids,
    ``movie``, stay as they are.

    Sessions that were compared before are not compared with each other again, and where nothing is new
    nothing is read and nothing is written. Two runs at once do no harm on a local disk.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    jobs : int
        Videos read at once.
    progress : Progress
        Told after each trial compared.

    Returns
    -------
    MovieLinks
        For every session of the store.

    Raises
    ------
    StoreError
        If there is no store, a session in it is damaged, or the store cannot be written.
    """
    opened = open_store(store)
    objects = opened.objects
    # Without opening the sessions, which takes longer than all else where nothing is to be done.
    links = _read_links(opened)
    if _covers_all(links, opened):
        return links
    with exclusive_access(objects, _LOCK, waiting="wait for another run to link movies", progress=progress):
        if isinstance(objects, LocalObjects):
            objects.clear_unfinished(LINKS_KEY)
        # As it is now: somebody may have linked or published while this waited.
        opened = Store(objects)
        links = _read_links(opened)
        if not _covers_all(links, opened):
            links = _compare(opened, _open_recordings(opened), links, jobs=jobs, progress=progress)
            links = MovieLinks(
                {name: replace(one, content=opened.digest(name)) for name, one in links.sessions.items()}
            )
            objects.write_durably(LINKS_KEY, links.to_bytes())
    return links


def _open_recordings(store: Store) -> dict[str, xr.Dataset]:
    """Open the store's sessions by their full names, in the order in which they give movies their ids."""
    order = {name: position for position, name in enumerate(SESSIONS)}
    names = sorted((session.name for session in store), key=lambda n: (order.get(n, len(order)), n))
    return {name: store.as_stored(name) for name in names}


def _read_links(store: Store) -> MovieLinks:
    try:
        return store.links
    except StoreError as error:
        # A damaged file, which readers refuse, is made anew; one that the disk does not give is not.
        if not isinstance(error.__cause__, ValueError):
            raise
        return MovieLinks()


def _covers_all(links: MovieLinks, store: Store) -> bool:
    return links.sessions.keys() == {session.name for session in store} and all(
        links.sessions[session.name].content == store.digest(session)
        or links.sessions[session.name].digest == read_movies_digest(store.zarr_store(session))
        for session in store
    )


@dataclass(frozen=True)
class _Trials:
    """The trials to compare, one after the other, sessions that were compared before first.

    Attributes
    ----------
    sessions : list of str
        Each trial's session.
    positions : list of int
        Its place in that session.
    groups : list of (str, str)
        What is known of its movie: equal for trials that show the same.
    batches : list of int
        The sessions that were compared before make one batch, the others one each.
    """

    sessions: list[str]
    positions: list[int]
    groups: list[tuple[str, str]]
    batches: list[int]


def _compare(
    store: Store, recordings: Mapping[str, xr.Dataset], links: MovieLinks, *, jobs: int, progress: Progress
) -> MovieLinks:
    trials = _list_trials(recordings, links)
    position_of: dict[tuple[str, str], int] = {}
    firsts = [position_of.setdefault(group, position) for position, group in enumerate(trials.groups)]
    if len(set(trials.batches)) > 1:
        signatures: list[np.ndarray] = []
        # By how much a stored pixel may differ from the archive's.
        errors = {name: float(ds.videos.attrs["largest_absolute_error"]) for name, ds in recordings.items()}
        # In the order of the trials.
        for name in dict.fromkeys(trials.sessions):
            signatures += _read_signatures(store, name, recordings[name])

        def read_video(index: int) -> np.ndarray:
            return _read_video(recordings[trials.sessions[index]], trials.positions[index])

        firsts = join_groups(
            signatures,
            read_video,
            groups=trials.groups,
            batches=trials.batches,
            largest_errors=[errors[name] for name in trials.sessions],
            jobs=jobs,
            progress=lambda n_done: progress("link movies", n_done, len(signatures)),
        )
    return _name_movies(recordings, trials, firsts)


def _list_trials(recordings: Mapping[str, xr.Dataset], links: MovieLinks) -> _Trials:
    # Sessions may have been joined through one that is gone or was converted anew: then all is compared again.
    is_extended = all(name in recordings and links.covers(recordings[name]) for name in links.sessions)
    known = [name for name in recordings if is_extended and name in links.sessions]
    trials = _Trials([], [], [], [])
    for batch, name in enumerate([*known, *(name for name in recordings if name not in known)]):
        is_known = name in known
        dataset = recordings[name]
        movies = read_movie_groups(links.apply(dataset)).tolist() if is_known else dataset.movie.values.tolist()
        trials.sessions.extend([name] * len(movies))
        trials.positions.extend(range(len(movies)))
        trials.groups.extend(("" if is_known else name, movie) for movie in movies)
        trials.batches.extend([0 if is_known else batch] * len(movies))
    return trials


def _read_signatures(store: Store, name: str, dataset: xr.Dataset) -> list[np.ndarray]:
    """Return the signature of each trial's valid frames."""
    values = store.signatures(name).values
    return [values[position, :length] for position, length in enumerate(dataset.n_frames.values.tolist())]


def _read_video(dataset: xr.Dataset, position: int) -> np.ndarray:
    n_frames = int(dataset.n_frames[position])
    video: np.ndarray = dataset.videos.data[position, :n_frames].compute(scheduler="synchronous")
    return video


def _name_movies(recordings: Mapping[str, xr.Dataset], trials: _Trials, firsts: Sequence[int]) -> MovieLinks:
    """Give each group the id that it has in the first session that shows it."""
    group_of = {
        (name, position): first for name, position, first in zip(trials.sessions, trials.positions, firsts, strict=True)
    }
    common: dict[int, str] = {}
    taken: set[str] = set()
    sessions = {}
    for name, dataset in recordings.items():
        ids: dict[str, str] = {}
        for position, own in enumerate(dataset.movie.values.tolist()):
            group = group_of[name, position]
            if group not in common:
                # Two sessions of one scan would name their movies alike.
                common[group] = own if own not in taken else f"{name}:{own.rpartition(':')[2]}"
                taken.add(common[group])
            if common[group] != own:
                ids[own] = common[group]
        sessions[name] = SessionLinks(digest_movies(dataset), ids)
    return MovieLinks(sessions)
