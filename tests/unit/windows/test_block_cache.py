"""Blocks in memory, within a budget."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.errors import UsageError
from sensorium_data.windows import BlockCache, default_cache_bytes


@dataclass(frozen=True)
class Block:
    """Anything that has a size."""

    size_bytes: int


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=30))
def test_a_block_is_kept_if_it_fits_beside_those_before_it(budget_bytes: int, offers: list[tuple[int, int]]) -> None:
    cache: BlockCache[Block] = BlockCache(budget_bytes)
    kept: dict[int, int] = {}
    for key, size_bytes in offers:
        fits = sum(kept.values()) + size_bytes <= budget_bytes
        assert cache.has_room(size_bytes) == fits
        if key not in kept and fits:
            kept[key] = size_bytes
        assert cache.offer(key, Block(size_bytes)) == (key in kept)
        assert cache.size_bytes == sum(kept.values()) <= budget_bytes
    assert len(cache) == len(kept)
    for key in range(10):
        assert (key in cache) == (key in kept)
        assert cache.get(key) == (Block(kept[key]) if key in kept else None)


def test_offers_of_many_threads_never_exceed_the_budget() -> None:
    class SlowBlock:
        """Gives other threads a chance between the question whether it fits and its being kept."""

        @property
        def size_bytes(self) -> int:
            threading.Event().wait(0.0002)
            return 10

    cache: BlockCache[SlowBlock] = BlockCache(255)
    largest = 0

    def offer(number: int) -> bool:
        nonlocal largest
        is_kept = cache.offer(number // 2, SlowBlock())
        largest = max(largest, cache.size_bytes, 10 * len(cache))
        return is_kept

    with ThreadPoolExecutor(16) as executor:
        results = list(executor.map(offer, range(200)))
    assert largest <= 255
    assert (len(cache), cache.size_bytes) == (25, 250)
    # Each key was offered twice, and kept once.
    assert sum(results) == 50


def test_a_budget_of_nothing_keeps_nothing_and_a_negative_one_is_refused() -> None:
    cache: BlockCache[Block] = BlockCache(0)
    assert not cache.offer("a", Block(1))
    with pytest.raises(UsageError, match="found -1 bytes, expected at least 0"):
        BlockCache(-1)


def test_the_default_cache_is_a_share_of_the_memory() -> None:
    assert 2**20 < default_cache_bytes() < 2**50
