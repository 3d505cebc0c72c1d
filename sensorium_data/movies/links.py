"""Finding the movies that several sessions of a store show.

Sessions come in pairs that were shown nearly the same movies, and a movie that one mouse saw in a test tier another
saw as oracle. Splits and leakage go by ids that tell this.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sensorium_data.errors import LockedError, StoreError
from sensorium_data.files import LocalObjects, Objects, RemoteObjects, hold_lease
from sensorium_data.movies.screens import screen_trials
from sensorium_data.movies.session_joining import ScreenedSession, SessionTrials, join_sessions
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSIONS
from sensorium_data.store import (
    LINKS_KEY,
    MovieLinks,
    MovieScreen,
    SessionLinks,
    Store,
    StoreLike,
    digest_movies,
    exclusive_access,
    keep_screens_of,
    lock_key,
    open_store,
    read_movies_digest,
)
from sensorium_data.visible_text import make_visible

if TYPE_CHECKING:
    import zarr

__all__ = ["MovieLinks", "link_movies"]

_LOCK = "movies"
_WAITING = "wait for another run to link movies"
_PROBLEM = "another process is linking movies"
_POLL_S = 2.0


def link_movies(store: StoreLike, *, jobs: int = 4, progress: Progress = ignore_progress) -> MovieLinks:
    """Find which movies of a store's sessions are the same, and let :func:`sensorium_data.open_session` know.

    The movies get common ids, which readers add as the coordinate ``movie_group``: the one that a movie has in the
    first session that shows it, in the order of the catalogue, sessions that are not in it after those that are, by
    name. So the ids depend on which sessions there are, and not on the order in which they came. The sessions' own ids,
    ``movie``, stay as they are.

    Sessions that were compared before are not compared with each other again, and where nothing is new
    nothing is read and nothing is written. Of each session so much is kept beside the sessions that a new one is
    compared with all others by 600 bytes a trial, and by the videos only of trials that may show one movie. Two runs at
    once do no harm on a local disk and on S3.

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
    # Without the lock, and without opening the sessions, which takes longer than all else if nothing is to be done.
    links = _read_links(opened)
    if _covers_all(links, opened):
        return links
    # Nothing was waited for elsewhere.
    fresh = [] if isinstance(objects, LocalObjects) else [opened]

    def compose(before: bytes | None) -> bytes:
        nonlocal links
        # As it is now: somebody may have linked or published while this waited, or before it could write.
        current = fresh.pop() if fresh else Store(objects)
        links = _parse_links(before)
        if before is not None and _covers_all(links, current):
            return before
        links = _compare(current, links, jobs=jobs, progress=progress)
        return links.to_bytes()

    with (
        exclusive_access(objects, _LOCK, waiting=_WAITING, progress=progress),
        _taking_turns(objects, fresh.clear, progress),
    ):
        if isinstance(objects, LocalObjects):
            objects.clear_unfinished(LINKS_KEY)
        objects.update(LINKS_KEY, compose)
    return links


@contextlib.contextmanager
def _taking_turns(objects: Objects, on_wait: Callable[[], None], progress: Progress) -> Iterator[None]:
    """Have machines that link in one object store do so one after the other.

    The file is right without it: it is written under a condition. But whoever loses has to compare once more.
    """
    if not isinstance(objects, RemoteObjects) or objects.is_in_memory or not objects.has_conditions:
        yield
        return
    has_waited = False

    def tell(holder: str) -> None:
        nonlocal has_waited
        has_waited = True
        on_wait()
        progress(f"{_WAITING}: {make_visible(holder)}", 0, 1)

    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold_lease(objects, lock_key(_LOCK), _PROBLEM, on_wait=tell))
            except LockedError as error:
                tell(str(error.found))
                time.sleep(_POLL_S)
            except StoreError:
                # Who may not lock here goes on; what is written there is as right.
                break
            else:
                break
        if has_waited:
            progress(_WAITING, 1, 1)
        yield


def _read_links(store: Store) -> MovieLinks:
    try:
        return store.links
    except StoreError as error:
        # A damaged file, which readers refuse, is made anew; one that the disk does not give is not.
        if not isinstance(error.__cause__, ValueError):
            raise
        return MovieLinks()


def _parse_links(data: bytes | None) -> MovieLinks:
    """Return what the file says; nothing if there is none, or a damaged one: it is made anew."""
    with contextlib.suppress(ValueError):
        return MovieLinks() if data is None else MovieLinks.from_bytes(data)
    return MovieLinks()


def _covers_all(links: MovieLinks, store: Store) -> bool:
    return links.sessions.keys() == {session.name for session in store} and all(
        links.sessions[session.name].content == store.digest(session)
        or links.sessions[session.name].digest == read_movies_digest(store.zarr_store(session))
        for session in store
    )


def _compare(store: Store, links: MovieLinks, *, jobs: int, progress: Progress) -> MovieLinks:
    order = {name: position for position, name in enumerate(SESSIONS)}
    names = sorted((session.name for session in store), key=lambda name: (order.get(name, len(order)), name))
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="screens") as pool:
        screens = {}
        for screen in pool.map(lambda name: _screen_session(store, name), names):
            screens[screen.session] = screen
            progress("screen movies", len(screens), len(names))
    # Sessions may have been joined through one that is gone or was converted anew: then all is compared again.
    is_extended = all(name in screens and one.digest == screens[name].digest for name, one in links.sessions.items())
    known = [name for name in names if is_extended and name in links.sessions]
    ids = {name: links.sessions[name].ids if name in known else {} for name in names}
    # Those that were compared before come first.
    trials = SessionTrials(
        [
            ScreenedSession(
                name=name,
                is_known=name in known,
                groups=[("" if name in known else name, ids[name].get(own, own)) for own in screens[name].movies],
                n_frames=screens[name].n_frames,
                cells=screens[name].cells,
                largest_error=screens[name].largest_error,
            )
            for name in sorted(names, key=lambda name: name not in known)
        ]
    )
    with _OpenSessions(store, screens) as opened:
        firsts = join_sessions(trials, opened.read_signatures, opened.read_video, jobs=jobs, progress=progress)
    keep_screens_of(store.objects, {store.group(name) for name in names})
    return _name_movies(screens, dict(zip(trials.names, trials.split(firsts), strict=True)))


def _screen_session(store: Store, name: str) -> MovieScreen:
    """Return what is kept of a session's movies; make it and keep it, if it is missing or outdated."""
    group, ledger = store.group(name), store.ledger_digest(name)
    screen = MovieScreen.read(store.objects, group, session=name, ledger=ledger)
    if screen is None:
        dataset = store.movies(name)
        screen = MovieScreen(
            session=name,
            ledger=ledger,
            content=store.digest(name),
            digest=digest_movies(dataset),
            # By how much a stored pixel may differ from the archive's.
            largest_error=float(dataset.videos.attrs["largest_absolute_error"]),
            movies=tuple(dataset.movie.values.tolist()),
            n_frames=dataset.n_frames.values,
            cells=screen_trials(_read_signatures(store, name, dataset.n_frames.values)),
        )
        screen.write(store.objects, group)
        store.release(name)
    return screen


class _OpenSessions:
    """Reads what has to be compared. The sessions whose videos were read last stay open, which takes some megabytes."""

    _LIMIT = 8

    def __init__(self, store: Store, screens: Mapping[str, MovieScreen]) -> None:
        self._store = store
        self._screens = screens
        self._opened: dict[str, zarr.Array[Any]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._opened:
            self._store.release(name)

    def read_signatures(self, name: str) -> list[np.ndarray]:
        # Nearly always some of its videos are compared: what is read to open it serves both.
        self._open(name)
        return _read_signatures(self._store, name, self._screens[name].n_frames)

    def read_video(self, name: str, position: int) -> np.ndarray:
        return np.asarray(self._open(name)[position, : int(self._screens[name].n_frames[position])])

    def _open(self, name: str) -> zarr.Array[Any]:
        with self._lock:
            videos = self._opened.pop(name, None)
            if videos is None:
                videos = self._store.videos(name)
            self._opened[name] = videos
            if len(self._opened) > self._LIMIT:
                oldest = next(iter(self._opened))
                del self._opened[oldest]
                self._store.release(oldest)
        return videos


def _read_signatures(store: Store, name: str, n_frames: np.ndarray) -> list[np.ndarray]:
    """Return the signature of each trial's valid frames."""
    values = store.signatures(name).values
    return [values[position, :length] for position, length in enumerate(n_frames.tolist())]


def _name_movies(screens: Mapping[str, MovieScreen], firsts: Mapping[str, Sequence[int]]) -> MovieLinks:
    """Give each group the id that it has in the first session that shows it."""
    common: dict[int, str] = {}
    taken: set[str] = set()
    sessions = {}
    for name, screen in screens.items():
        ids: dict[str, str] = {}
        for own, group in zip(screen.movies, firsts[name], strict=True):
            if group not in common:
                # Two sessions of one scan would name their movies alike.
                common[group] = own if own not in taken else f"{name}:{own.rpartition(':')[2]}"
                taken.add(common[group])
            if common[group] != own:
                ids[own] = common[group]
        sessions[name] = SessionLinks(screen.digest, ids, screen.content)
    return MovieLinks(sessions)
