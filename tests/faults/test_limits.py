"""Archives and servers that claim, send or hold more than a session has: refused by a bound that the error names."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from fixtures.archives import IMPATIENT
from fixtures.downloads import download
from sensorium_data import limits
from sensorium_data.archive import SessionArchive, list_sessions, reserve_memory
from sensorium_data.archive.sources import ByteSource, FileSource, open_source
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES, read_index
from sensorium_data.archive.zip_member import check_readable, read_zip_member
from sensorium_data.errors import ArchiveError, DownloadError, SourceError, TrialError
from sensorium_data.ingest import convert_session
from sensorium_data.testing import serve_directory
from sensorium_data.testing.faults import IgnoreRange, NoContentLength, Throttle
from sensorium_data.testing.recordings import make_recording
from sensorium_data.testing.server import Handler


class Endless(ByteSource):
    """A file of any size that ends with ``tail``; whoever reads more than that has been taken in."""

    def __init__(self, size_bytes: int, tail: bytes) -> None:
        self.url, self.modified, self.size_bytes, self.tail = "endless", None, size_bytes, tail

    def _read(self, start: int, stop: int) -> bytes:
        raise AssertionError(f"{stop - start} bytes were read")

    def close(self) -> None:
        pass


def end_records(n_entries: int, size_bytes: int, offset: int, at: int) -> bytes:
    """The Zip64 record, its locator and the end record, as APPNOTE.TXT 4.3.14 to 4.3.16 has them."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n_entries, n_entries, size_bytes, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    return record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


@pytest.mark.parametrize(
    ("n_entries", "size_bytes", "name"),
    [
        (10, 60_000_000_000, "MAX_INDEX_SIZE_BYTES"),
        (10, limits.MAX_INDEX_SIZE_BYTES + 1, "MAX_INDEX_SIZE_BYTES"),
        (1 << 40, 1000, "MAX_INDEX_ENTRIES"),
    ],
)
def test_an_index_that_no_session_has_is_not_read(n_entries: int, size_bytes: int, name: str) -> None:
    tail = end_records(n_entries, size_bytes, 0, size_bytes)
    with pytest.raises(ArchiveError, match=rf"endless: .*found .*, expected at most .*\({name}\)"):
        read_index(Endless(size_bytes + len(tail), tail))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive of 12 members of a hundred thousand zeros."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(12):
            archive.writestr(f"m/{number}", bytes(100_000))
    return tmp_path / "a.zip"


def test_an_index_is_read_no_further_than_it_says_it_goes(packed: Path) -> None:
    raw = bytearray(packed.read_bytes())
    raw[-14:-10] = struct.pack("<2H", 5, 5)
    packed.write_bytes(raw)
    with (
        FileSource(str(packed), tail_size_bytes=TAIL_SIZE_BYTES) as source,
        pytest.raises(ArchiveError, match="found more, expected 5 entries"),
    ):
        read_index(source)


@pytest.mark.parametrize("field", ["size_bytes", "compressed_size_bytes"])
def test_a_member_that_no_session_has_is_not_read(packed: Path, field: str) -> None:
    with FileSource(str(packed), tail_size_bytes=TAIL_SIZE_BYTES) as source:
        entry = read_index(source).entries[0]
        check_readable(source, entry)
        large = replace(entry, **{field: limits.MAX_MEMBER_SIZE_BYTES + 1})
        with pytest.raises(ArchiveError, match=r"m/0: .*found 1073741825 bytes.*\(MAX_MEMBER_SIZE_BYTES\)"):
            read_zip_member(source, large)


def test_arrays_unpacked_at_a_time_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = make_recording("F", ["train"] * 12)
    for trial in range(12):
        recording = recording.with_trial(trial, videos=np.zeros((36, 64, 100)))
    recording.write(tmp_path / "archives", method=zipfile.ZIP_DEFLATED)
    n_alive_bytes, peak, lock = 0, 0, threading.Lock()
    read = SessionArchive.read_trial

    def give_back(n_bytes: int) -> None:
        nonlocal n_alive_bytes
        with lock:
            n_alive_bytes -= n_bytes

    def count(self: SessionArchive, modality: str, trial: int) -> np.ndarray:
        nonlocal n_alive_bytes, peak
        values = read(self, modality, trial)
        with lock:
            n_alive_bytes += values.nbytes
            peak = max(peak, n_alive_bytes)
        weakref.finalize(values, give_back, values.nbytes)
        time.sleep(0.01)
        return values

    monkeypatch.setattr(SessionArchive, "read_trial", count)
    for n_at_once in (3, 1):
        monkeypatch.setattr(limits, "MAX_UNPACKED_AT_ONCE_BYTES", n_at_once * 2_000_000)
        peak = 0
        with pytest.raises(TrialError, match="wrong shape of videos"):
            convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path / "archives"), jobs=8)
        assert peak == n_at_once * 36 * 64 * 100 * 8


def test_what_would_never_fit_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_AT_ONCE_BYTES", 10)
    holding: list[int] = []

    def hold(size_bytes: int) -> int:
        with reserve_memory(size_bytes):
            holding.append(size_bytes)
            time.sleep(0.002)
            held = sum(holding)
            holding.remove(size_bytes)
        return held

    with ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(hold, [5, 100, 5, 5, 5, 100, 10, 1] * 4))
    assert set(sums) <= {*range(1, 11), 100}


def test_memory_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_AT_ONCE_BYTES", 10)
    for _ in range(3):
        with pytest.raises(KeyError), reserve_memory(9):
            raise KeyError


def test_a_body_whose_size_is_not_stated_ends_at_a_bound(
    origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNSIZED_BODY_BYTES", 50_000)
    with (
        serve_directory(origin.parent, faults=[IgnoreRange(), NoContentLength()]) as server,
        pytest.raises(SourceError, match=r"found over 50000 bytes, .*\(MAX_UNSIZED_BODY_BYTES\)"),
    ):
        download(server, origin, target)
    assert not os.listdir(target.parent)


def test_a_body_whose_size_is_stated_may_be_longer(origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNSIZED_BODY_BYTES", 50_000)
    monkeypatch.setattr(limits, "MIN_DISK_FREE_BYTES", 1 << 60)
    with serve_directory(origin.parent, faults=[IgnoreRange()]) as server:
        download(server, origin, target)
    assert target.read_bytes() == origin.read_bytes()


@pytest.mark.usefixtures("small_segments")
def test_a_body_whose_size_is_not_stated_leaves_room_on_the_disk(
    origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIN_DISK_FREE_BYTES", 1 << 60)
    with (
        serve_directory(origin.parent, faults=[IgnoreRange(), NoContentLength()]) as server,
        pytest.raises(DownloadError, match=r"bytes free, expected .*\(MIN_DISK_FREE_BYTES\); free some"),
    ):
        download(server, origin, target)
    assert not os.listdir(target.parent)


def steps_of(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is looked at."""
    return map(float, itertools.count(0, seconds)).__next__


@pytest.mark.parametrize("whole", [False, True])
def test_a_server_that_trickles_is_given_up(origin: Path, target: Path, whole: bool) -> None:
    trickle = Throttle(2000)
    policy = replace(IMPATIENT, n_attempts=2, clock=steps_of(25))
    with (
        serve_directory(origin.parent, faults=[IgnoreRange(), trickle] if whole else [trickle]) as server,
        pytest.raises(SourceError, match=r"in 2 attempts: found \d+ bytes in 75 s, .*\(MIN_RATE_BYTES_PER_S\)"),
    ):
        download(server, origin, target, policy)


def test_a_list_of_files_that_trickles_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("<html>" + "<a href=x.zip>" * 100)
    policy = replace(IMPATIENT, n_attempts=1, clock=steps_of(25))

    async def list_slowly(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"<a>")
            await asyncio.sleep(0.02)
        return response

    with (
        serve_directory(tmp_path, faults=[list_slowly]) as server,
        pytest.raises(SourceError, match=r"MIN_RATE_BYTES_PER_S"),
    ):
        list_sessions(server.url, policy=policy)


def test_a_server_that_is_only_slow_is_not_given_up(origin: Path, target: Path) -> None:
    # A megabyte in every look at the clock is more than a kilobyte a second.
    policy = replace(IMPATIENT, clock=steps_of(0.5))
    with serve_directory(origin.parent) as server:
        download(server, origin, target, policy)
    assert target.read_bytes() == origin.read_bytes()


@contextmanager
def repeating_server(begin: bytes, line: bytes) -> Iterator[str]:
    """A server that answers with ``begin`` and then repeats a line for ever; yields its URL."""
    stopping = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(4096)
                connection.sendall(begin)
                while not stopping.wait(0.01):
                    connection.sendall(line)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"
        finally:
            stopping.set()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("begin", "line"),
    [(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 206 Partial Content\r\n", b"X-More: 1\r\n")],
    ids=["100 Continue", "headers"],
)
def test_an_answer_that_never_begins_is_given_up(begin: bytes, line: bytes) -> None:
    policy = replace(IMPATIENT, n_attempts=1, connect_timeout_s=0.2, stall_timeout_s=0.1)
    with (
        repeating_server(begin, line) as url,
        pytest.raises(SourceError, match=r"in 1 attempts: found no answer in time"),
    ):
        open_source(url, policy=policy)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(SourceError, match="this is no file: found a named pipe, expected a file"):
        open_source(str(tmp_path / "pipe.zip"))
    with pytest.raises(SourceError, match="this is no file: found a device"):
        open_source("/dev/zero")
