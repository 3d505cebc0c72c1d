"""Memory for arrays that come and go at a high rate, used again."""

from __future__ import annotations

import bisect
import math
import threading
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ArrayPool"]

# Buffers are of whole multiples of this, so that trials of different lengths fit into each other's.
_GRAIN_SIZE_BYTES = 1 << 20
# A larger buffer than this, relative to what is asked for, is left for others.
_MOST_WASTE = 2.0


class ArrayPool:
    """Gives arrays in memory that earlier ones have left; a thread may free what another has taken.

    Fresh memory costs as much as filling it: the system clears every page of it at its first use. A batch and the
    trials it is cut from are tens of megabytes, which the allocator would return to the system, and get from it
    again, batch after batch.

    Parameters
    ----------
    idle_bytes : int
        Memory that is kept while nobody uses it.

    Examples
    --------
    >>> pool = ArrayPool(1 << 26)
    >>> first = pool.empty((1000, 300))
    >>> address = first.ctypes.data
    >>> del first
    >>> pool.empty((900, 300)).ctypes.data == address
    True
    """

    def __init__(self, idle_bytes: int) -> None:
        self._idle_bytes = idle_bytes
        # By size, then by age.
        self._free: list[tuple[int, int, npt.NDArray[np.uint8]]] = []
        # Given back, and not yet among the free ones.
        self._returned: deque[npt.NDArray[np.uint8]] = deque()
        self._n_freed = 0
        self._size_bytes = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Memory that waits to be used again."""
        return self._size_bytes

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return an array of undefined values; its memory is used again when no array that views it is left."""
        dtype = np.dtype(dtype)
        size = dtype.itemsize * math.prod(shape)
        buffer = self._take(size)
        if buffer is None:
            buffer = np.empty(max(1, math.ceil(size / _GRAIN_SIZE_BYTES)) * _GRAIN_SIZE_BYTES, np.uint8)
        # The array, its views, and tensors made of them keep the lease alive, and nothing else does.
        return np.asarray(_Lease(self, buffer))[:size].view(dtype).reshape(shape)

    def _take(self, size_bytes: int) -> npt.NDArray[np.uint8] | None:
        with self._lock:
            self._sort_returned()
            position = bisect.bisect_left(self._free, size_bytes, key=lambda entry: entry[0])
            if position == len(self._free):
                return None
            found, _, buffer = self._free[position]
            if found > max(_MOST_WASTE * size_bytes, _GRAIN_SIZE_BYTES):
                return None
            del self._free[position]
            self._size_bytes -= found
            return buffer

    def _give_back(self, buffer: npt.NDArray[np.uint8]) -> None:
        self._returned.append(buffer)
        # Python may collect garbage, and so call this, anywhere, also in a thread that holds the lock at that moment:
        # to wait for it would be to wait forever. Who holds it, or takes it next, sorts what is returned meanwhile.
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._sort_returned()
            finally:
                self._lock.release()

    def _sort_returned(self) -> None:
        """Put what was given back among the free buffers, as far as it may be kept; the lock is held."""
        while self._returned:
            buffer = self._returned.popleft()
            if self._size_bytes + buffer.nbytes > self._idle_bytes:
                continue
            self._n_freed += 1
            bisect.insort(self._free, (buffer.nbytes, self._n_freed, buffer), key=lambda entry: entry[:2])
            self._size_bytes += buffer.nbytes


class _Lease:
    """What the arrays in a buffer are based on: when it goes, the buffer is free."""

    def __init__(self, pool: ArrayPool, buffer: npt.NDArray[np.uint8]) -> None:
        self._pool = pool
        self._buffer = buffer
        self.__array_interface__ = buffer.__array_interface__

    def __del__(self) -> None:
        self._pool._give_back(self._buffer)
