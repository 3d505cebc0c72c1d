"""Which trials stay in memory, within a budget that is never exceeded."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from sensorium_data.errors import UsageError
from sensorium_data.machine import memory_limit_bytes

__all__ = ["BlockCache", "default_cache_bytes"]


class _Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


_Block = TypeVar("_Block", bound=_Sized)


class BlockCache(Generic[_Block]):
    """Keeps blocks until a budget is full; nothing is evicted.

    Training visits every trial once an epoch in an order that is new each time. Evicting the one not used for longest
    would keep just those that are needed last; keeping the first ones serves as many as fit, every epoch.

    Parameters
    ----------
    budget_bytes : int
        Memory for blocks; 0 keeps none.

    Raises
    ------
    UsageError
        If the budget is negative.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise UsageError("the cache cannot be negative", found=f"{budget_bytes} bytes", expected="at least 0")
        self.budget_bytes = budget_bytes
        self._blocks: dict[Hashable, _Block] = {}
        self._size_bytes = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Memory that the kept blocks take now."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._blocks

    def get(self, key: Hashable) -> _Block | None:
        """Return a kept block."""
        return self._blocks.get(key)

    def has_room(self, size_bytes: int) -> bool:
        """Return whether a block of this size would be kept now."""
        return self._size_bytes + size_bytes <= self.budget_bytes

    def offer(self, key: Hashable, block: _Block) -> bool:
        """Keep a block if it fits; return whether it is kept."""
        with self._lock:
            if key in self._blocks:
                return True
            if self._size_bytes + block.size_bytes > self.budget_bytes:
                return False
            self._blocks[key] = block
            self._size_bytes += block.size_bytes
            return True


def default_cache_bytes() -> int:
    """Return a quarter of the memory this process may use: the machine's, or its control group's if that is less."""
    return memory_limit_bytes() // 4
