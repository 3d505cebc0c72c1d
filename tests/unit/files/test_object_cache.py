"""Objects of remote stores on the local disk."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sensorium_data.errors import StoreError, UsageError
from sensorium_data.files import ObjectCache, StoredObject, default_object_cache


class Remote:
    """Objects elsewhere, and how often each was fetched."""

    def __init__(self, *sizes: int) -> None:
        self.data = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
        self.stored = [StoredObject.of(data) for data in self.data]
        self.n_fetched: Counter[int] = Counter()
        self._lock = threading.Lock()

    def read(self, cache: ObjectCache, number: int) -> bytes:
        def fetch() -> bytes:
            with self._lock:
                self.n_fetched[number] += 1
            return self.data[number]

        return cache.read(self.stored[number], fetch)


def kept_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in kept_files(folder))


def test_an_object_is_fetched_once(tmp_path: Path) -> None:
    remote = Remote(100, 200)
    cache = ObjectCache(tmp_path / "objects", 1000)
    for _ in range(3):
        assert [remote.read(cache, number) for number in (0, 1)] == remote.data
    assert remote.n_fetched == {0: 1, 1: 1}
    # Another process, later, finds them.
    assert remote.read(ObjectCache(tmp_path / "objects", 1000), 1) == remote.data[1]
    assert remote.n_fetched[1] == 1
    assert not [path for path in kept_files(tmp_path) if path.suffix == ".partial"]


def test_nothing_is_made_before_something_is_kept(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "objects", 10)
    assert Remote(11).read(cache, 0) == Remote(11).data[0]
    assert list(tmp_path.iterdir()) == []


def test_an_object_larger_than_the_bound_passes_through_and_drives_nothing_out(tmp_path: Path) -> None:
    remote = Remote(60, 101)
    cache = ObjectCache(tmp_path, 100)
    remote.read(cache, 0)
    for _ in range(2):
        assert remote.read(cache, 1) == remote.data[1]
    remote.read(cache, 0)
    assert remote.n_fetched == {0: 1, 1: 2}


def test_an_object_of_just_the_bound_is_kept(tmp_path: Path) -> None:
    remote = Remote(60, 100)
    cache = ObjectCache(tmp_path, 100)
    for number in (0, 1, 1):
        remote.read(cache, number)
    assert remote.n_fetched == {0: 1, 1: 1}
    assert size_of(tmp_path) == 100


def test_those_not_used_for_longest_make_room(tmp_path: Path) -> None:
    remote = Remote(*(6 * [20]))
    cache = ObjectCache(tmp_path, 100)
    for number in range(5):
        remote.read(cache, number)
    # As if hours had passed: read in the order 1, 0, 2, 3, 4.
    for age_s, number in enumerate((4, 3, 2, 0, 1), start=1):
        (path,) = tmp_path.rglob(remote.stored[number].digest)
        os.utime(path, (1e9 - age_s, 1e9 - age_s))
    # Using the oldest one makes it the newest.
    remote.read(cache, 1)
    remote.read(cache, 5)
    assert size_of(tmp_path) <= 100
    kept = {path.name for path in kept_files(tmp_path)}
    gone = {number for number in range(6) if remote.stored[number].digest not in kept}
    assert 1 not in gone
    assert 5 not in gone
    # No younger one goes before an older one.
    assert gone in ({0}, {0, 2})


@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "empty"])
def test_a_damaged_kept_object_is_fetched_again_and_mended(tmp_path: Path, damage: str) -> None:
    remote = Remote(100)
    cache = ObjectCache(tmp_path, 1000)
    remote.read(cache, 0)
    (path,) = kept_files(tmp_path)
    data = remote.data[0]
    path.write_bytes(
        {"flipped": bytes([data[0] ^ 1]) + data[1:], "shorter": data[:-1], "longer": data + b"\0", "empty": b""}[damage]
    )
    assert remote.read(cache, 0) == data
    assert remote.n_fetched[0] == 2
    assert path.read_bytes() == data
    assert remote.read(cache, 0) == data
    assert remote.n_fetched[0] == 2


def test_damaged_fetched_data_is_handed_on_and_not_kept(tmp_path: Path) -> None:
    remote = Remote(100)
    cache = ObjectCache(tmp_path, 1000)
    damaged = remote.data[0][:-1] + b"?"
    assert cache.read(remote.stored[0], lambda: damaged) == damaged
    assert kept_files(tmp_path) == []
    assert remote.read(cache, 0) == remote.data[0]


def test_what_fails_to_be_fetched_is_the_callers_error_and_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise FileNotFoundError("no such object")

    cache = ObjectCache(tmp_path, 1000)
    with pytest.raises(FileNotFoundError, match="no such object"):
        cache.read(Remote(10).stored[0], fail)
    assert kept_files(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file where the folder should be")
    cache = ObjectCache(tmp_path / "objects", 1000)
    with pytest.raises(StoreError, match=r"objects: the local cache.*cannot be written: found .*another folder"):
        Remote(10).read(cache, 0)


def test_a_full_disk_is_an_error_and_leaves_no_half_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def fill_up(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    cache = ObjectCache(tmp_path, 1000)
    remote = Remote(100)
    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(StoreError, match="found No space left on device"):
        remote.read(cache, 0)
    monkeypatch.undo()
    assert kept_files(tmp_path) == []
    assert remote.read(cache, 0) == remote.data[0]


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / "thesis" / "chapter.tex", tmp_path / "ab" / "notes.txt", tmp_path / "readme"]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(bytes(500))
        os.utime(other, (1, 1))
    remote = Remote(60, 60, 60)
    cache = ObjectCache(tmp_path, 100)
    for number in range(3):
        remote.read(cache, number)
    assert all(other.exists() for other in others)
    assert size_of(tmp_path) - 1500 <= 100


def test_what_a_killed_process_left_makes_room_too(tmp_path: Path) -> None:
    remote = Remote(60, 60)
    digest = remote.stored[0].digest
    left = tmp_path / digest[:2] / f"{digest}.{'0' * 32}.partial"
    left.parent.mkdir()
    left.write_bytes(bytes(70))
    os.utime(left, (1, 1))
    remote.read(ObjectCache(tmp_path, 100), 1)
    assert not left.exists()
    assert size_of(tmp_path) == 60


def test_two_caches_on_one_folder_give_what_is_right_and_stay_near_the_bound(tmp_path: Path) -> None:
    remote = Remote(*range(10, 40))
    caches = [ObjectCache(tmp_path, 200), ObjectCache(tmp_path, 200)]
    generator = random.Random(0)
    for _ in range(150):
        number = generator.randrange(30)
        assert remote.read(generator.choice(caches), number) == remote.data[number]
        # Each counts what it adds itself: between two looks, the other may have added as much.
        assert size_of(tmp_path) <= 2 * 200
    # Whoever looks sees all.
    remote.read(ObjectCache(tmp_path, 200), 0)
    caches[0].read(StoredObject.of(bytes(200)), lambda: bytes(200))
    assert size_of(tmp_path) <= 200


def test_threads_share_a_cache_and_never_exceed_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(*range(20, 60, 2))
    cache = ObjectCache(tmp_path, 150)
    write = Path.write_bytes
    sizes: list[int] = []

    def note(path: Path, data: bytes) -> int:
        n_written = write(path, data)
        sizes.append(sum(entry.stat().st_size for entry in path.parent.parent.glob("*/*") if entry.exists()))
        return n_written

    monkeypatch.setattr(Path, "write_bytes", note)

    def work(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(60):
            number = generator.randrange(len(remote.data))
            assert remote.read(cache, number) == remote.data[number]

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(8)))
    assert max(sizes) <= 150
    assert size_of(tmp_path) <= 150
    assert not [path for path in kept_files(tmp_path) if path.suffix == ".partial"]


def test_a_negative_bound_is_refused_and_the_default_is_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="found -1 bytes, expected at least 0"):
        ObjectCache(tmp_path, -1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_object_cache(7).folder == tmp_path / "xdg" / "sensorium" / "objects"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_object_cache(7).folder == tmp_path / "home" / ".cache" / "sensorium" / "objects"
    assert default_object_cache(7).limit_bytes == 7
