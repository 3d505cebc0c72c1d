"""How much is unpacked into memory at a time, in all threads together."""

from __future__ import annotations

import threading
import traceback
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

    What would never fit waits until nothing else is unpacked. Whoever holds a reservation makes no second one. An error
    that leaves the block keeps no array alive.

    Parameters
    ----------
    size_bytes : int
        Of what will be unpacked; the memory has to be free again, or accounted for otherwise, when the block ends.
    """
    global _n_reserved_bytes
    with _one_at_a_time, _changed:
        _changed.wait_for(
            lambda: not _n_reserved_bytes or _n_reserved_bytes + size_bytes <= limits.MAX_UNPACKED_AT_ONCE_BYTES
        )
        _n_reserved_bytes += size_bytes
    try:
        yield
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        with _changed:
            _n_reserved_bytes -= size_bytes
            _changed.notify_all()


def _forget_locals(error: BaseException | None) -> None:
    """Drop what the frames that an error has come through hold, and those of the errors behind it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
