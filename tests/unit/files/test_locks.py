"""One holder at a time, also where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sensorium_data.files import close_locked, holder_of, lock_folder, open_locked, try_lock, try_lock_shared
from sensorium_data.files import locks as locks_module


def open_at(path: Path) -> Callable[[], int]:
    return lambda: os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def is_same_file(descriptor: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(descriptor), path.stat())


def take_locks_away(monkeypatch: pytest.MonkeyPatch, number: int, *, but_below: Path | None) -> None:
    """Let flock fail with an error, as the file system of everything but what is below a folder."""
    flock = fcntl.flock

    def fail(descriptor: int, operation: int) -> None:
        if but_below is None or not Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(but_below):
            raise OSError(number, os.strerror(number))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(locks_module, "_told", set())


@pytest.fixture(params=[None, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EBADF], ids=str)
def file_system(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file system with locks, and some without; the temporary folder has some."""
    if request.param is not None:
        local = tmp_path / "local"
        local.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(local))
        take_locks_away(monkeypatch, request.param, but_below=local)


@pytest.mark.usefixtures("file_system")
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
        close_locked(first)
        descriptor = second.result(timeout=30)
    assert len(waits) == 1
    assert is_same_file(descriptor, path)
    close_locked(descriptor)


@pytest.mark.usefixtures("file_system")
def test_a_folder_is_held_by_one_and_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    held = lock_folder(tmp_path)
    assert held is not None
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    close_locked(held)
    again = lock_folder(tmp_path)
    assert again is not None
    close_locked(again)
    assert os.listdir("/proc/self/fd") == before


def test_a_lock_on_what_is_gone_is_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = open_at(path)()
    path.rename(tmp_path / "other")
    assert not try_lock(descriptor, path)
    path.touch()
    assert not try_lock(descriptor, path)
    close_locked(descriptor)


def test_where_there_are_no_locks_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium_data.files.locks.HAS_LOCKS", False)
    path = tmp_path / "file"
    descriptors = [open_locked(path, open_at(path), on_wait=pytest.fail) for _ in range(2)]
    # Both hold the file at once.
    assert len(set(descriptors)) == 2
    for descriptor in descriptors:
        close_locked(descriptor)


def test_who_inherits_the_lock_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "local"
    local.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(local))
    path = tmp_path / "remote"
    first, second = (open_at(path)() for _ in range(2))
    take_locks_away(monkeypatch, errno.ENOSYS, but_below=local)
    assert try_lock(first, path)
    assert holder_of(first) != first
    inherited = os.dup(holder_of(first))
    close_locked(first)
    assert not try_lock(second, path)
    os.close(inherited)
    assert try_lock(second, path)
    close_locked(second)


def test_what_keeps_processes_apart_is_told_once_a_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    take_locks_away(monkeypatch, errno.ENOLCK, but_below=None)
    with caplog.at_level(logging.WARNING):
        held = [lock_folder(tmp_path) for _ in range(2)]
    for descriptor in held:
        assert descriptor is not None
        close_locked(descriptor)
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: its file system has no locks (No locks available): nor can a file in ")
    assert line.endswith("write there with one process at a time")


def test_without_a_folder_for_other_files_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    take_locks_away(monkeypatch, errno.ENOSYS, but_below=tmp_path / "not there")
    descriptor = lock_folder(tmp_path)
    assert descriptor is not None
    close_locked(descriptor)
    assert "No such file or directory" in caplog.text


def test_another_error_is_none_of_the_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_locks_away(monkeypatch, errno.EIO, but_below=None)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Input/output error"):
        lock_folder(tmp_path)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("file_system")
def test_a_lock_that_is_shared_keeps_out_those_who_want_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first, second, third, fourth = (open_at(path)() for _ in range(4))
    assert try_lock_shared(first, path)
    assert try_lock_shared(second, path)
    close_locked(first)
    assert not try_lock(third, path)
    close_locked(second)
    assert try_lock(third, path)
    assert not try_lock_shared(fourth, path)
    for descriptor in (third, fourth):
        close_locked(descriptor)
