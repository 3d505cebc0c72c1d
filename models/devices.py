"""Where models run, and how their results are made repeatable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.machine import count_cores

__all__ = ["bound_threads", "choose_device", "repeatable"]


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu`` or ``cuda``; ``auto`` is a GPU if there is one.

    Raises
    ------
    UsageError
        If there is no such device, or torch sees no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UnknownNameError.of("device", name, ["auto", "cpu", "cuda"])
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UsageError("torch sees no GPU here", found="device cuda", remedy="choose the device auto or cpu")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def bound_threads() -> None:
    """Let torch compute on no more threads than this process has cores, unless ``OMP_NUM_THREADS`` says how many.

    OpenMP knows of a process's affinity, but not of its control group's quota.
    """
    n_cores = count_cores()
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > n_cores:
        torch.set_num_threads(n_cores)


@contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch and ask for deterministic algorithms, and leave both as they were found.

    On a CPU, the same seed then gives the same weights with the same number of threads. On a GPU it does not:
    the gradient of bilinear sampling has no deterministic algorithm there.

    Parameters
    ----------
    seed : int
        Of torch's random numbers on the CPU and on ``device``.
    device : torch.device
        What the block computes on.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills_memory = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(device.type == "cpu")
        # Takes a fifth of the time and finds nothing but reads of memory that nobody wrote.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fills_memory  # type: ignore[attr-defined]
