"""How much is unpacked into memory at a time, in all threads together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sensorium_data import limits

__all__ = ["reserve_memory"]

_one_at_a_time = threading.Lock()
_changed = threading.Condition()
_n_reserved_bytes = 0


@contextmanager
def reserve_memory(size_bytes: int) -> Iterator[None]:
    """Wait until so many bytes may be unpacked beside those that are, in the order of the calls.

    What would never fit waits until nothing else is unpacked. Whoever holds a reservation makes no second one.
    """
    global _n_reserved_bytes
    with _one_at_a_time, _changed:
        _changed.wait_for(
            lambda: not _n_reserved_bytes or _n_reserved_bytes + size_bytes <= limits.MAX_UNPACKED_AT_ONCE_BYTES
        )
        _n_reserved_bytes += size_bytes
    try:
        yield
    finally:
        with _changed:
            _n_reserved_bytes -= size_bytes
            _changed.notify_all()
