"""Reading on in forked processes, such as the workers of PyTorch's DataLoader."""

from __future__ import annotations

import functools
import os
import sys
import threading
from typing import Any

__all__ = ["survive_forks"]


@functools.cache
def survive_forks() -> None:
    """Let processes that are forked from this one, from now on, read dask arrays that were opened here.

    A forked process has none of its parent's threads, and dask hands it their pools all the same: whoever computes
    there waits for ever. Zarr and fsspec forget theirs by themselves.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_pools)


def _forget_pools() -> None:
    threaded: Any = sys.modules.get("dask.threaded")
    if threaded is not None:
        threaded.default_pool = None
        threaded.pools.clear()
        # Another thread of the parent may have held it.
        threaded.pools_lock = threading.Lock()
