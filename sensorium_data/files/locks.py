"""Locks of files and folders: one holder at a time, and none once its process is dead.

They are the operating system's (flock). Some file systems have none: Lustre as it is often mounted, NFS for folders and
without its lock service. There a file in this machine's temporary folder is locked instead. That keeps processes of
this machine apart but not those of others, and a line says so.

``filelock.FileLock`` does not fit: it locks only regular files, keeps the descriptor to itself, does not notice that
the file it has just locked was renamed, and refuses another user's file in a folder such as ``/tmp``; here runs and
predictions lock their folders, downloads write through the locked descriptor and rename the file, trainings pass their
descriptors on, and all users of a machine share the locks of its GPUs. ``filelock.lock_descriptor`` wraps the system
call alone, and all that is written here would still be needed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; one process at a time is the user's part there.
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "HAS_LOCKS",
    "close_locked",
    "holder_of",
    "is_stand_in",
    "lock_existing",
    "lock_folder",
    "lock_for_reading",
    "open_locked",
    "open_shared",
    "try_lock",
    "try_lock_shared",
]

#: Whether this platform has locks. Without them everything here behaves as if nobody else were there.
HAS_LOCKS = fcntl is not None

# EBADF: NFS locks only what is open for writing, which a folder cannot be.
_UNLOCKABLE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF)

_logger = logging.getLogger(__name__)

#: The locked files that stand in for open files whose file systems have no locks, by descriptor.
_stand_ins: dict[int, int] = {}
#: Devices of the file systems without locks that were told of.
_told: set[int] = set()
_POLL_S = 0.2


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
        Called several times a second while somebody else holds the lock. What it raises ends the wait.

    Returns
    -------
    int
        The file's descriptor; the lock ends with :func:`close_locked`, or with the process.

    Raises
    ------
    OSError
        If the file cannot be opened or locked.
    """
    while True:
        descriptor = open_file()
        try:
            # The system's own wait could not be ended in a thread.
            while not _try_flock(descriptor, path):
                if on_wait is not None:
                    on_wait()
                time.sleep(_POLL_S)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            close_locked(descriptor)
            raise
        close_locked(descriptor)


def lock_folder(folder: Path) -> int | None:
    """Lock a folder without waiting.

    Returns
    -------
    int or None
        A descriptor; the lock ends with :func:`close_locked`, or with the process. None where the platform has no
        locks.

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
        close_locked(descriptor)
        raise
    return descriptor


def lock_existing(path: Path) -> int | None:
    """Lock a file for oneself without waiting, and without making it.

    Returns
    -------
    int or None
        A descriptor; the lock ends with :func:`close_locked`, or with the process. None if there is no such file, or no
        lock on this platform.

    Raises
    ------
    BlockingIOError
        If somebody else holds the lock, for reading too.
    OSError
        If the file cannot be opened or locked.
    """
    if not HAS_LOCKS:
        return None
    try:
        # NFS locks only what is open for writing.
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if not try_lock(descriptor, path):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
    except BaseException:
        close_locked(descriptor)
        raise
    return descriptor


def lock_for_reading(path: Path) -> int | None:
    """Lock a file together with all others who read it, without waiting.

    Returns
    -------
    int or None
        A descriptor; the lock ends when it is closed, or with the process. None where it cannot be locked: readers go
        on without.
    """
    if not HAS_LOCKS:
        return None
    try:
        # A pipe in the file's place would be waited for; whoever reads the file refuses it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def try_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file without waiting, and return whether it is locked.

    It is not if somebody else holds the lock, nor if the path has come to name another file or none: a lock on what is
    gone keeps nobody out.

    Raises
    ------
    OSError
        If it cannot be locked.
    """
    return _try_flock(descriptor, path) and _is_at(path, descriptor)


def try_lock_shared(descriptor: int, path: Path) -> bool:
    """Lock an open file together with others that do the same, and keep out :func:`try_lock`; else like that."""
    return _try_flock(descriptor, path, is_shared=True) and _is_at(path, descriptor)


def close_locked(descriptor: int) -> None:
    """Close a file that was locked or that could not be, and so end its lock."""
    stand_in = _stand_ins.pop(descriptor, None)
    os.close(descriptor)
    if stand_in is not None:
        os.close(stand_in)


def holder_of(descriptor: int) -> int:
    """Return the descriptor that holds the lock of a locked file: whoever inherits it holds the lock too."""
    return _stand_ins.get(descriptor, descriptor)


def is_stand_in(path: Path) -> bool:
    """Whether this process holds the lock of a file through one in the temporary folder, which others do not see."""
    return any(_is_at(path, descriptor) for descriptor in [*_stand_ins])


def open_shared(path: Path) -> int:
    """Open a lock file that users of a machine share, in a folder such as ``/tmp``; make it if it is not there.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link.
    """
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        # Past the user's mask: others have to open it too.
        os.fchmod(descriptor, 0o666)
        return descriptor
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW)


def _try_flock(descriptor: int, path: Path, *, is_shared: bool = False) -> bool:
    if not HAS_LOCKS:
        return True
    try:
        _flock(descriptor, is_shared)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNLOCKABLE:
            raise
        return _try_stand_in(descriptor, path, is_shared, error.strerror)
    return True


def _try_stand_in(descriptor: int, path: Path, is_shared: bool, reason: str | None) -> bool:
    """Lock a file of the temporary folder for one whose file system has no locks, and say so once."""
    status = os.fstat(descriptor)
    # By what it is, not by its name: whoever renames it keeps its lock.
    name = Path(tempfile.gettempdir(), f"sensorium-{status.st_dev:x}-{status.st_ino:x}.lock")
    try:
        _stand_ins[descriptor] = _open_flocked(name, is_shared)
        kept = f"a file in {name.parent} keeps processes of this machine apart, and nothing those of others"
    except BlockingIOError:
        return False
    except OSError as refusal:
        kept = f"nor can a file in {name.parent} be locked ({refusal.strerror}), so nothing keeps processes apart"
    if status.st_dev not in _told:
        _told.add(status.st_dev)
        message = "%s: its file system has no locks (%s): %s; write there with one process at a time"
        _logger.warning(message, path, reason, kept)
    return True


def _open_flocked(path: Path, is_shared: bool) -> int:
    descriptor = open_shared(path)
    try:
        _flock(descriptor, is_shared)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _flock(descriptor: int, is_shared: bool) -> None:
    fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
