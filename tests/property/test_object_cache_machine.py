"""Any sequence of reads, damage and restarts on a folder of objects, with its bound as the invariant."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sensorium_data.files import ObjectCache, StoredObject

NUMBERS = st.integers(0, 9)


class ObjectCacheMachine(RuleBasedStateMachine):
    """A cache of ten objects, of which never all fit at once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(sizes=st.lists(st.integers(0, 90), min_size=10, max_size=10), limit_bytes=st.integers(0, 200))
    def choose(self, sizes: list[int], limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.cache = ObjectCache(self.folder, limit_bytes)
        self.data = [bytes([number]) * size for number, size in enumerate(sizes)]

    def read(self, number: int) -> int:
        """Read an object and return how often it was fetched."""
        n_fetched = 0

        def fetch() -> bytes:
            nonlocal n_fetched
            n_fetched += 1
            return self.data[number]

        assert self.cache.read(StoredObject.of(self.data[number]), fetch) == self.data[number]
        return n_fetched

    @rule(number=NUMBERS)
    def read_twice(self, number: int) -> None:
        assert self.read(number) <= 1
        # What was read last is the last to go.
        assert self.read(number) == (1 if len(self.data[number]) > self.limit_bytes else 0)

    @rule(number=NUMBERS, cut=st.integers(0, 3))
    def damage(self, number: int, cut: int) -> None:
        for path in self.folder.rglob(StoredObject.of(self.data[number]).digest):
            data = path.read_bytes()
            path.write_bytes(data[:cut] + bytes(byte ^ 0xFF for byte in data[cut:]))

    @rule()
    def restart(self) -> None:
        self.cache = ObjectCache(self.folder, self.limit_bytes)

    @rule(limit_bytes=st.integers(0, 200))
    def restart_with_another_bound(self, limit_bytes: int) -> None:
        self.limit_bytes = max(limit_bytes, self.size_bytes)
        self.restart()

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @invariant()
    def never_exceeds_its_bound(self) -> None:
        assert self.size_bytes <= getattr(self, "limit_bytes", 0)


ObjectCacheMachine.TestCase.settings = settings(stateful_step_count=20)
TestObjectCache = ObjectCacheMachine.TestCase
