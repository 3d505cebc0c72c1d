"""The ingests that run on this machine at the same time and share its cores, known by locks in the temporary folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from sensorium_data.files import HAS_LOCKS, close_locked, lock_existing, require_own_folder, try_lock

__all__ = ["counted_ingests"]

_ENDING = ".lock"


@contextlib.contextmanager
def counted_ingests() -> Iterator[int]:
    """Count an ingest of this process among those of the machine while the block runs.

    Yields
    ------
    int
        How many there are now, this one among them. Those of the same user count that may use the same cores; 1 where
        the temporary folder cannot be used.
    """
    with contextlib.ExitStack() as stack:
        n_others = 0
        if HAS_LOCKS:
            with contextlib.suppress(OSError):
                folder = Path(tempfile.gettempdir(), f"sensorium-ingests-{os.getuid()}-{_identify_cores()}")
                require_own_folder(folder)
                folder.mkdir(exist_ok=True)
                own = stack.enter_context(_held_file(folder))
                n_others = sum(_is_held(path) for path in folder.glob(f"*{_ENDING}") if path != own)
        yield 1 + n_others


def _identify_cores() -> str:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return hashlib.sha256(str(cores).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _held_file(folder: Path) -> Iterator[Path]:
    """Hold the lock of a new file, which gets its name when it is locked: others delete what nobody holds."""
    path = folder / f"{uuid.uuid4().hex}{_ENDING}"
    begun = path.with_suffix(".tmp")
    descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try_lock(descriptor, begun)
        begun.rename(path)
        yield path
    finally:
        # Somebody may have deleted the folder.
        with contextlib.suppress(OSError):
            for one in (begun, path):
                one.unlink(missing_ok=True)
        close_locked(descriptor)


def _is_held(path: Path) -> bool:
    """Whether somebody holds the lock of a file; what a killed process left is deleted."""
    try:
        descriptor = lock_existing(path)
    except BlockingIOError:
        return True
    if descriptor is not None:
        path.unlink(missing_ok=True)
        close_locked(descriptor)
    return False
