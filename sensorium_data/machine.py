"""What this process may use of the machine: its share of cores and memory, not what the machine has."""

from __future__ import annotations

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
    """Return how many cores this process may use: those of its affinity, or its control group's quota if less."""
    # Imported here: it takes longer than all else that a command needs to answer `--help`.
    from dask.system import cpu_count

    return cpu_count()


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


def _memory_shares() -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of each control group that this process is in and that has a limit.

    What the kernel keeps of files and gives back when memory is short does not count as used.
    """
    try:
        lines = _OWN_CONTROL_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = _CONTROL_GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            names = _CONTROL_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        root, limit_name, usage_name, cache_name = names
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if not group.is_relative_to(root):
                break
            try:
                limit = (group / limit_name).read_text().strip()
                if limit.isdecimal():
                    statistics = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                    used = int((group / usage_name).read_text()) - int(statistics.get(cache_name, 0))
                    yield int(limit), max(0, used)
            except OSError:
                # The path is the host's, of which a container sees the end alone.
                continue
