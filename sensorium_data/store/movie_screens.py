"""What tells a session's movies apart in a few bytes a frame: one file a session, beside the sessions.

Linking compares each new trial with those of all other sessions. Their signatures take 45 kB a trial, a screen 600
bytes. It is made from the signatures, also for sessions that an earlier version published: a missing or outdated screen
is made anew, and the session stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects, describe_damage, digest_bytes, read_sealed, seal
from sensorium_data.sessions import is_full_name
from sensorium_data.store.versions import session_name_of

__all__ = [
    "SCREENS_FOLDER",
    "MovieScreen",
    "delete_damaged_screens",
    "find_screen_problems",
    "keep_screens_of",
    "locate_screen",
]

#: Where a store's root keeps the screens.
SCREENS_FOLDER = "movies"

_ENDING = ".screen"
# Raised whenever a reader of the previous version would misread the file, or cells mean something else.
_VERSION = 1
_LENGTH_N_BYTES = 8
_CELL = np.dtype("<u2")


@dataclass(frozen=True, eq=False)
class MovieScreen:
    """What linking has to know of a session, but for the videos that it compares.

    Attributes
    ----------
    session : str
        The session's full name.
    ledger : str
        SHA-256 of the bytes of the session's ledger: with another ledger the screen is outdated.
    content : str
        :func:`sensorium_data.store.Store.digest` of the session.
    digest : str
        :func:`sensorium_data.store.digest_movies` of the session.
    largest_error : float
        Largest error of a pixel of its videos.
    movies : tuple of str
        The session's own id of the movie that each trial shows.
    n_frames : np.ndarray
        (trial,), the valid frames.
    cells : np.ndarray
        (time, trial) uint16: :func:`sensorium_data.movies.screens.screen_trials`.
    """

    session: str
    ledger: str
    content: str
    digest: str
    largest_error: float
    movies: tuple[str, ...]
    n_frames: np.ndarray
    cells: np.ndarray

    def to_bytes(self) -> bytes:
        """Return the file's bytes, the same for the same screen: a JSON header behind its length, then the cells."""
        cells = np.ascontiguousarray(self.cells, _CELL).tobytes()
        header = seal(
            {
                "version": _VERSION,
                "session": self.session,
                "ledger": self.ledger,
                "content": self.content,
                "movies_digest": self.digest,
                "largest_error": self.largest_error,
                "movies": list(self.movies),
                "n_frames": self.n_frames.tolist(),
                "shape": list(self.cells.shape),
                "cells": digest_bytes(cells),
            }
        )
        return len(header).to_bytes(_LENGTH_N_BYTES, "little") + header + cells

    @classmethod
    def from_bytes(cls, data: bytes) -> MovieScreen:
        """Read the file's bytes; a :class:`ValueError` if they are damaged, or another version's."""
        try:
            end = _LENGTH_N_BYTES + int.from_bytes(data[:_LENGTH_N_BYTES], "little")
            header, is_sealed = read_sealed(data[_LENGTH_N_BYTES:end])
            cells = data[end:]
            if not is_sealed or digest_bytes(cells) != header["cells"]:
                raise ValueError("its bytes are not those that were written")
            if header["version"] != _VERSION:
                raise ValueError(f"version {header['version']}, expected {_VERSION}")
            n_frames = np.array(header["n_frames"], np.int64)
            longest, n_trials = (int(length) for length in header["shape"])
            if not n_trials == len(n_frames) == len(header["movies"]) or n_frames.max(initial=0) > longest:
                raise ValueError("its parts do not fit each other")
            return cls(
                session=str(header["session"]),
                ledger=str(header["ledger"]),
                content=str(header["content"]),
                digest=str(header["movies_digest"]),
                largest_error=float(header["largest_error"]),
                movies=tuple(str(movie) for movie in header["movies"]),
                n_frames=n_frames,
                cells=np.frombuffer(cells, _CELL).reshape(longest, n_trials),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(describe_damage(error)) from error

    @classmethod
    def read(cls, objects: Objects, group: str, *, session: str, ledger: str) -> MovieScreen | None:
        """Return the screen of a session's group; None if it has to be made.

        Parameters
        ----------
        objects : Objects
            The store's root.
        group : str
            The session's group.
        session, ledger : str
            Of the screen, if it is still that of the group.

        Raises
        ------
        StoreError
            If the file is there and the disk does not give it.
        """
        try:
            screen = cls.from_bytes(objects.read(locate_screen(group)))
        except (FileNotFoundError, ValueError):
            return None
        return screen if (screen.session, screen.ledger) == (session, ledger) else None

    def write(self, objects: Objects, group: str) -> None:
        """Keep the screen of a session's group; a reader sees it whole or not at all."""
        key = locate_screen(group)
        if isinstance(objects, LocalObjects):
            objects.clear_unfinished(key)
        # It is made again for the next one.
        with contextlib.suppress(StoreError):
            objects.write(key, self.to_bytes())


def locate_screen(group: str) -> str:
    """Return where a store's root keeps the screen of a group."""
    return f"{SCREENS_FOLDER}/{group}{_ENDING}"


def keep_screens_of(objects: Objects, groups: set[str]) -> None:
    """Delete the screens of all groups but these, such as those of replaced versions."""
    _delete(objects, lambda key: key.removesuffix(_ENDING) not in groups)


def delete_damaged_screens(objects: Objects) -> None:
    """Delete the screens that :func:`find_screen_problems` names; they are made anew when they are needed."""
    _delete(objects, lambda key: _find_problem(objects, f"{SCREENS_FOLDER}/{key}") is not None)


def find_screen_problems(objects: Objects, groups: set[str]) -> dict[str, str]:
    """Return what is wrong with each damaged screen.

    A missing one, and one of a session that was converted anew, are no damage: nobody reads them.

    Parameters
    ----------
    objects : Objects
        The store's root.
    groups : set of str
        The groups whose screens are looked at also where the folder does not list them, or cannot be listed.
    """
    if isinstance(objects, LocalObjects):
        folder = objects.root / SCREENS_FOLDER
        if os.path.lexists(folder) and not folder.is_dir():
            return {SCREENS_FOLDER: "not a folder; move what lies there"}
    listed = objects.child(SCREENS_FOLDER).keys() or ()
    # What has a screen's name and is no file is not listed.
    keys = {locate_screen(group) for group in groups}
    keys.update(f"{SCREENS_FOLDER}/{key}" for key in listed if _is_screen(key))
    found = {key: _find_problem(objects, key) for key in sorted(keys)}
    return {key: problem for key, problem in found.items() if problem is not None}


def _find_problem(objects: Objects, key: str) -> str | None:
    try:
        MovieScreen.from_bytes(objects.read(key))
    except FileNotFoundError:
        return None
    except (ValueError, StoreError) as error:
        return str(error)
    return None


def _delete(objects: Objects, is_unwanted: Callable[[str], bool]) -> None:
    folder = objects.child(SCREENS_FOLDER)
    for key in folder.keys() or ():
        if _is_screen(key) and is_unwanted(key):
            folder.delete(key)


def _is_screen(key: str) -> bool:
    """Whether screens have this key in their folder; somebody else's file may have the same ending."""
    return key.endswith(_ENDING) and is_full_name(session_name_of(key.removesuffix(_ENDING)))
