"""The lock of what is written behind a URL, where nothing dies with its process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from sensorium_data.files.leases import hold_lease, no_conditions
from sensorium_data.files.objects import Objects
from sensorium_data.files.remote_objects import RemoteObjects

__all__ = ["hold_place"]


@contextlib.contextmanager
def hold_place(
    objects: Objects,
    key: str,
    problem: str,
    *,
    lock: bool = True,
    on_wait: Callable[[str], None] = lambda holder: None,
) -> Iterator[Callable[[], None]]:
    """Hold the lock of something in an object store. On a local disk nothing is locked here.

    Parameters
    ----------
    objects : Objects
        The root under which the lock lies.
    key : str
        The lock's.
    problem : str
        What it means that somebody else has it, for the error.
    lock : bool
        Whether to lock at all: the user may see to it that nobody else writes there.
    on_wait : callable, optional
        Told of a holder that may be dead, while it is watched.

    Yields
    ------
    callable
        Raises a :class:`~sensorium_data.errors.LockedError` if the lock was lost. To be called before what counts.

    Raises
    ------
    LockedError
        If somebody else has the lock, and is alive.
    UnlockableError
        If the store cannot be locked.
    StoreError
        If it cannot be reached.
    """
    if not isinstance(objects, RemoteObjects) or objects.is_in_memory or not lock:
        yield _require_nothing
        return
    if not objects.has_conditions:
        raise no_conditions(objects)
    with hold_lease(objects, key, problem, on_wait=on_wait) as lease:
        yield lease.require


def _require_nothing() -> None:
    """Nothing is required of a lock that dies with its process."""
