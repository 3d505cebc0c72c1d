"""What this process may use of the machine: its share of cores and memory, not what the machine has."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "TRIAL_WORK_BYTES",
    "bound_jobs",
    "count_cores",
    "free_memory_bytes",
    "memory_limit_bytes",
    "share_threads",
]

#: Memory that a trial of real size (8,000 neurons, 300 frames) takes while it is converted, checked or scored.
TRIAL_WORK_BYTES = 100_000_000

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_CONTROL_GROUPS = Path("/proc/self/cgroup")


def count_cores() -> int:
    """Return how many cores this process may use: those of its affinity, or its control groups' quota if less.

    ``dask.system.cpu_count`` takes a tenth of a second to import, and knows no quota of the groups above.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([n_cores, *(math.ceil(quota) for quota in _core_quotas())]))


def share_threads() -> None:
    """Size Zarr's thread pool by this process's cores, unless its configuration says how many threads it has.

    Python sizes such pools by the cores of the whole machine. Has no effect once Zarr's pool exists.
    """
    import zarr

    if zarr.config.get("threading.max_workers", None) is None:
        # As many as Python's pools have, which keep some for waiting on disks and networks.
        zarr.config.set({"threading.max_workers": min(32, count_cores() + 4)})


def memory_limit_bytes() -> int:
    """Return how much memory this process may use: the machine's, or its control group's if that is less."""
    import psutil

    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _memory_shares())])


def free_memory_bytes() -> int:
    """Return how much memory this process can still get: of the machine, or of its control group if that is less."""
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *(limit - used for limit, used in _memory_shares())]))


def bound_jobs(n_jobs: int, *, warn: Callable[[str], None] | None = None) -> int:
    """Return how many of some jobs, each of which works on a trial, fit into free memory; at least 1.

    Parameters
    ----------
    n_jobs : int
        How many are wanted.
    warn : callable, optional
        Told, in one sentence, if they do not all fit.
    """
    free = free_memory_bytes()
    n_fitting = max(1, free // TRIAL_WORK_BYTES)
    if n_fitting >= n_jobs:
        return n_jobs
    if warn is not None:
        warn(
            f"{n_jobs} trials at the same time do not fit into free memory: found {free / 1e9:.1f} GB free, "
            f"expected {n_jobs * TRIAL_WORK_BYTES / 1e9:.1f} GB; goes on with {n_fitting}"
        )
    return n_fitting


def _core_quotas() -> Iterator[float]:
    """Yield how many cores each control group that this process is in may use, if it has a limit."""
    for group, is_unified in _control_groups("cpu"):
        # A group at the top has no such files, and of a container's path the host's part is not seen.
        with contextlib.suppress(OSError):
            if is_unified:
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
            if quota.isdecimal():
                yield int(quota) / int(period)


def _memory_shares() -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of each control group that this process is in and that has a limit.

    What the kernel keeps of files and gives back when memory is short does not count as used.
    """
    for group, is_unified in _control_groups("memory"):
        names = (
            ("memory.max", "memory.current", "inactive_file")
            if is_unified
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        with contextlib.suppress(OSError):
            limit, usage = ((group / name).read_text().strip() for name in names[:2])
            if limit.isdecimal():
                statistics = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                yield int(limit), max(0, int(usage) - int(statistics.get(names[2], 0)))


def _control_groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of the control groups that limit this process, and whether they are of the second version."""
    try:
        lines = _OWN_CONTROL_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CONTROL_GROUPS / controller if controllers else _CONTROL_GROUPS
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if not group.is_relative_to(root):
                break
            yield group, not controllers
