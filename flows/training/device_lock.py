"""A lock a GPU, so that it does one training at a time whoever starts them on this machine.

The lock dies with its holder; the lock file says who that is.
"""

from __future__ import annotations

import datetime
import getpass
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files import HAS_LOCKS, close_locked, holder_of, open_shared, try_lock

__all__ = ["hold_devices", "list_gpus"]

_POLL_S = 1.0


def list_gpus(n_devices: int) -> list[str]:
    """Return names of the first GPUs that this process sees, the same in every process and whatever it sees else.

    Raises
    ------
    UsageError
        If there are fewer.
    """
    import torch

    n_seen = torch.cuda.device_count()
    if n_seen < n_devices:
        raise UsageError(
            "torch sees fewer GPUs than are asked for",
            found=n_seen,
            expected=n_devices,
            remedy="lower n_devices, or look at CUDA_VISIBLE_DEVICES",
        )
    return [f"gpu-{torch.cuda.get_device_properties(index).uuid}" for index in range(n_devices)]


@contextmanager
def hold_devices(
    names: Sequence[str], purpose: str, *, folder: Path, write_line: Callable[[str], None]
) -> Iterator[list[int]]:
    """Hold the locks of some devices while the block runs, waiting for whoever has them.

    Parameters
    ----------
    names : sequence of str
        Of the devices; each has the file ``sensorium-<name>.lock``.
    purpose : str
        What this process does with them, for those who wait.
    folder : Path
        Where the files are: the same for all who share the devices.
    write_line : callable
        Told for whom this process waits.

    Yields
    ------
    list of int
        The locks' file descriptors; whoever inherits one holds the lock too.

    Raises
    ------
    UsageError
        If a lock file cannot be opened.
    """
    # In one order everywhere: two that want several devices would wait for each other for ever.
    in_order = sorted(names) if HAS_LOCKS else []
    with ExitStack() as stack:
        yield [stack.enter_context(_hold(folder, name, purpose, write_line)) for name in in_order]


@contextmanager
def _hold(folder: Path, name: str, purpose: str, write_line: Callable[[str], None]) -> Iterator[int]:
    path = folder / f"sensorium-{name}.lock"
    told = None
    while True:
        descriptor = _open(path)
        try:
            # Someone who tidies up may have removed the file since it was opened.
            if try_lock(descriptor, path):
                user = getpass.getuser()
                now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
                _write_holder(descriptor, f"process {os.getpid()} of {user}, {purpose}, since {now}")
                yield holder_of(descriptor)
                _write_holder(descriptor, "")
                return
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
        finally:
            close_locked(descriptor)
        if holder != told:
            write_line(f"waiting for {name}, which is taken: {holder}")
            told = holder
        time.sleep(_POLL_S)


def _open(path: Path) -> int:
    try:
        return open_shared(path)
    except OSError as error:
        raise UsageError(
            "the lock of a GPU cannot be opened",
            path=path,
            found=describe_os_error(error),
            remedy="check its permissions, or name another folder in SENSORIUM_LOCKS",
        ) from error


def _write_holder(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
