"""The lock of a session: one process converts it at a time, on one machine or on several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from sensorium_data.files import LocalObjects, Objects, hold_place
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session
from sensorium_data.store.publishing import exclusive_access, lock_key
from sensorium_data.visible_text import make_visible

__all__ = ["hold_session"]


@contextlib.contextmanager
def hold_session(
    objects: Objects, session: Session, *, lock: bool = True, progress: Progress = ignore_progress
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a session. On a local disk whoever holds it is waited for; on an object store it is told.

    Parameters
    ----------
    objects : Objects
        The store's root.
    session : Session
        Which session.
    lock : bool
        Whether object stores are locked, too.
    progress : Progress
        Told during a wait, and when it is over.

    Yields
    ------
    callable
        Raises a :class:`~sensorium_data.errors.LockedError` if the lock was lost. To be called before what counts.

    Raises
    ------
    LockedError
        If a process on this machine or another has the lock in an object store.
    StoreError
        If the lock cannot be made.
    """
    waiting = f"wait for another run to finish {session.alias}"
    if isinstance(objects, LocalObjects):
        with exclusive_access(objects, session.name, waiting=waiting, progress=progress):
            yield _require_nothing
        return
    told: list[str] = []

    def tell(holder: str) -> None:
        # Another machine has written who it is.
        told[:] = [f"{waiting}: {make_visible(holder)}"]
        progress(told[0], 0, 1)

    problem = f"another process is ingesting session {session.alias}"
    with hold_place(objects, lock_key(session.name), problem, lock=lock, on_wait=tell) as require:
        if told:
            progress(told[0], 1, 1)
        yield require


def _require_nothing() -> None:
    """Nothing is required of a lock that dies with its process."""
