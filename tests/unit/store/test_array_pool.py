"""Memory that is used again."""

from __future__ import annotations

import bisect
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sensorium_data.store import ArrayPool


def test_memory_in_use_is_never_given_twice() -> None:
    pool = ArrayPool(1 << 26)
    generator = np.random.default_rng(0)
    held: dict[int, np.ndarray] = {}
    for step in range(500):
        array = pool.empty((int(generator.integers(1, 400)), 1000))
        array[...] = step
        # A view keeps the memory as the array itself does.
        held[step] = array[::2].T
        for old in generator.choice(list(held), 1 if len(held) < 20 else 5).tolist():
            held.pop(old, None)
        assert all((view == key).all() for key, view in held.items())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (1025, 30), (2, 36, 64)])
def test_arrays_are_as_asked_for(shape: tuple[int, ...], dtype: str) -> None:
    array = ArrayPool(0).empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned


def test_no_more_is_kept_idle_than_allowed() -> None:
    pool = ArrayPool(5 << 20)
    arrays = [pool.empty((1 << 18,)) for _ in range(9)]
    assert pool.size_bytes == 0
    while arrays:
        arrays.pop()
        assert pool.size_bytes <= 5 << 20
    assert pool.size_bytes == 5 << 20
    none_idle = ArrayPool(0)
    none_idle.empty((10,))
    assert none_idle.size_bytes == 0


def test_a_small_array_does_not_take_a_large_ones_memory() -> None:
    pool = ArrayPool(1 << 26)
    pool.empty((1 << 24,), np.uint8)
    kept = pool.size_bytes
    small = pool.empty((1 << 20,), np.uint8)
    assert pool.size_bytes == kept
    del small


def test_garbage_collected_amid_a_return_does_not_lock_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ArrayPool(1 << 26)
    insort = bisect.insort

    def collect_and_insort(*arguments: object, **settings: object) -> None:
        # Where Python would, if the allocations up to here were just as many as it takes.
        gc.collect()
        insort(*arguments, **settings)  # type: ignore[call-overload]

    def return_two() -> None:
        cycle: list[object] = [pool.empty((100,))]
        cycle.append(cycle)
        array = pool.empty((100,))
        monkeypatch.setattr(bisect, "insort", collect_and_insort)
        del cycle
        del array

    thread = threading.Thread(target=return_two, daemon=True)
    thread.start()
    # Looking for garbage among all that the tests have left takes seconds on a busy machine.
    thread.join(240)
    assert not thread.is_alive()
    # Both came back.
    assert pool.size_bytes == 2 << 20


def test_threads_share_a_pool() -> None:
    pool = ArrayPool(8 << 20)

    def work(number: int) -> bool:
        array = pool.empty((number % 7 + 1, 100_000))
        array[...] = number
        other = pool.empty((number % 3 + 1, 100_000))
        other[...] = -1
        return bool((array == number).all())

    with ThreadPoolExecutor(6) as executor:
        assert all(executor.map(work, range(200)))
    assert pool.size_bytes <= 8 << 20
