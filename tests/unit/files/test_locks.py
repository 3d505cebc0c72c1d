from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sensorium_data.files import lock_folder, open_locked, try_lock


def open_at(path: Path) -> Callable[[], int]:
    return lambda: os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def is_same_file(descriptor: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), path.stat())


@pytest.mark.parametrize("take_away", [Path.unlink, lambda path: path.rename(path.with_name("finished"))])
def test_who_waits_for_a_file_that_is_taken_away_gets_the_next_one(
    tmp_path: Path, take_away: Callable[[Path], object]
) -> None:
    path = tmp_path / "file"
    waiting = threading.Event()
    waits: list[None] = []

    def on_wait() -> None:
        waits.append(None)
        waiting.set()

    first = open_locked(path, open_at(path), on_wait=on_wait)
    assert waits == []
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(open_locked, path, open_at(path), on_wait=on_wait)
        assert waiting.wait(30)
        take_away(path)
        os.close(first)
        descriptor = second.result(timeout=30)
    assert len(waits) == 1
    assert is_same_file(descriptor, path)
    os.close(descriptor)


def test_a_folder_is_held_by_one_and_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    held = lock_folder(tmp_path)
    assert held is not None
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    os.close(held)
    again = lock_folder(tmp_path)
    assert again is not None
    os.close(again)
    assert os.listdir("/proc/self/fd") == before


def test_a_lock_on_what_is_gone_is_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = open_at(path)()
    path.rename(tmp_path / "other")
    assert not try_lock(descriptor, path)
    path.touch()
    assert not try_lock(descriptor, path)
    os.close(descriptor)


def test_where_there_are_no_locks_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium_data.files.locks.HAS_LOCKS", False)
    path = tmp_path / "file"
    descriptors = [open_locked(path, open_at(path), on_wait=pytest.fail) for _ in range(2)]
    # Both hold the file at once.
    assert len(set(descriptors)) == 2
    for descriptor in descriptors:
        os.close(descriptor)
