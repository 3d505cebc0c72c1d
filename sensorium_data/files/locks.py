"""Locks of files and folders: one holder at a time, and none once its process is dead.

They are the operating system's (flock). ``filelock.FileLock`` does not fit: it locks only regular files, keeps the
descriptor to itself, does not notice that the file it has just locked was renamed, and refuses another user's file in a
folder such as ``/tmp``; here runs and predictions lock their folders, downloads write through the locked descriptor and
rename the file, trainings pass their descriptors on, and all users of a machine share the locks of its GPUs.
``filelock.lock_descriptor`` wraps the system call alone, and all that is written here would still be needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; one process at a time is the user's part there.
    fcntl = None  # type: ignore[assignment]

__all__ = ["HAS_LOCKS", "lacks_locks", "lock_folder", "open_locked", "try_lock"]

#: Whether this platform has locks. Without them everything here behaves as if nobody else were there.
HAS_LOCKS = fcntl is not None

_UNLOCKABLE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def open_locked(path: Path, open_file: Callable[[], int], *, on_wait: Callable[[], None] | None = None) -> int:
    """Open a file and lock it, waiting for whoever holds it.

    Its holder may delete or rename the file while it is held: whoever waits notices, and opens the path again.

    Parameters
    ----------
    path : Path
        Where the file is.
    open_file : callable
        Opens it, makes it if it is not there, and returns the descriptor.
    on_wait : callable, optional
        Called once if somebody else holds the lock.

    Returns
    -------
    int
        The file's descriptor; the lock ends when it is closed, or with the process.

    Raises
    ------
    OSError
        If the file cannot be opened or locked; see :func:`lacks_locks`.
    """
    while True:
        descriptor = open_file()
        try:
            if not _try_flock(descriptor):
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def lock_folder(folder: Path) -> int | None:
    """Lock a folder without waiting.

    Returns
    -------
    int or None
        A descriptor; the lock ends when it is closed, or with the process. None where the platform has no locks.

    Raises
    ------
    BlockingIOError
        If somebody else holds the lock, or had it and has renamed or deleted the folder since.
    OSError
        If the folder cannot be opened or locked.
    """
    if not HAS_LOCKS:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor, folder):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(folder))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file without waiting, and return whether it is locked.

    It is not if somebody else holds the lock, nor if the path has come to name another file or none: a lock on what is
    gone keeps nobody out.

    Raises
    ------
    OSError
        If it cannot be locked; see :func:`lacks_locks`.
    """
    return _try_flock(descriptor) and _is_at(path, descriptor)


def lacks_locks(error: OSError) -> bool:
    """Whether an error says that the file system has no locks."""
    return error.errno in _UNLOCKABLE


def _try_flock(descriptor: int) -> bool:
    if not HAS_LOCKS:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
