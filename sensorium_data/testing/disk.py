"""A disk that fails at the n-th step: the process is killed there, or an error comes back.

What is written goes through a few functions of :mod:`os` and :mod:`pathlib`; :func:`faulty_disk` puts a fault before
each of their calls. Steps are counted from 0, over all threads.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = ["OPERATIONS", "DiskFault", "FailFrom", "KillAt", "StepCounter", "faulty_disk", "in_child"]

#: What counts as a step.
OPERATIONS = ("write", "pwrite", "truncate", "replace", "rename", "unlink", "fsync", "mkdir")

# A fault lies between a call and the disk while another thread's call does: one step at a time is counted.
_LOCK = threading.RLock()


class DiskFault(Protocol):
    """Called before each step; may raise what the disk would, or not return."""

    def __call__(self, step: int, operation: str) -> None:
        """Meet a step.

        Parameters
        ----------
        step : int
            Its number.
        operation : str
            One of :data:`OPERATIONS`.
        """


@dataclass(frozen=True)
class KillAt:
    """Kills the process (SIGKILL) before a step: of a file being written, half is there."""

    step: int

    def __call__(self, step: int, operation: str) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FailFrom:
    """Fails every step from one on, as a full (``ENOSPC``) or read-only (``EROFS``) disk does.

    Attributes
    ----------
    step : int
        The first that fails.
    code : int
        The error's number.
    """

    step: int
    code: int = errno.ENOSPC

    def __call__(self, step: int, operation: str) -> None:
        if step >= self.step:
            raise OSError(self.code, os.strerror(self.code))


@dataclass
class StepCounter:
    """How many steps there were.

    Attributes
    ----------
    n_steps : int
        So far.
    """

    n_steps: int = field(default=0)


@contextmanager
def faulty_disk(fault: DiskFault | None = None, *, operations: Collection[str] = OPERATIONS) -> Iterator[StepCounter]:
    """Put a fault before each step that this process takes on its disks while the context lasts.

    Parameters
    ----------
    fault : DiskFault, optional
        What happens; by default steps are only counted.
    operations : collection of str
        What counts as a step.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, faulty_disk(FailFrom(1)) as counter:
    ...     _ = Path(folder, "first").write_bytes(b"fits")
    ...     Path(folder, "second").write_bytes(b"does not fit")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device
    """
    counter = StepCounter()

    def count(operation: str) -> None:
        if operation not in operations:
            return
        with _LOCK:
            step = counter.n_steps
            counter.n_steps += 1
            if fault is not None:
                fault(step, operation)

    def counted(operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            count(operation)
            return function(*arguments, **options)

        return step

    write_bytes = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if "write" in operations:
            # Whatever happens at this step happens with half of the file there.
            write_bytes(path, memoryview(data)[: len(data) // 2])
        count("write")
        return write_bytes(path, data)

    originals: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, function: Callable[..., Any]) -> None:
        originals.append((owner, name, getattr(owner, name)))
        setattr(owner, name, function)

    try:
        patch(Path, "write_bytes", write)
        patch(Path, "replace", counted("replace", Path.replace))
        patch(Path, "unlink", counted("unlink", Path.unlink))
        patch(Path, "mkdir", counted("mkdir", Path.mkdir))
        patch(os, "rename", counted("rename", os.rename))
        patch(os, "pwrite", counted("pwrite", os.pwrite))
        patch(os, "ftruncate", counted("truncate", os.ftruncate))
        patch(os, "fsync", counted("fsync", os.fsync))
        yield counter
    finally:
        for owner, name, original in reversed(originals):
            setattr(owner, name, original)


def in_child(function: Callable[[], int]) -> int | None:
    """Return what a function returns in a forked process; ``None`` if that was killed.

    Only for processes that run no other thread.

    Raises
    ------
    SystemExit
        If the process failed in another way; its traceback is on standard error.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, str(function()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if status != 0 or not text:
        raise SystemExit(f"the child failed with status {status}")
    return int(text)
