"""What an archive's reader does when the server misbehaves: go on, or say what is wrong; never return wrong bytes."""

from __future__ import annotations

import concurrent.futures
import datetime
import email.utils
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from fixtures.archives import IMPATIENT, SESSION, npy, write_noise, write_session, write_zip
from sensorium_data.archive import SessionArchive
from sensorium_data.archive.sources import RetryPolicy
from sensorium_data.archive.zip_index import TAIL_SIZE_BYTES
from sensorium_data.errors import ArchiveError, SensoriumError, SourceChangedError, SourceError
from sensorium_data.testing import DirectoryServer, serve_directory
from sensorium_data.testing.faults import (
    AnswerHtml,
    AnswerStatus,
    ChangeETag,
    ChangeLastModified,
    CloseConnection,
    CompressBody,
    DropBody,
    FlipBit,
    IgnoreRange,
    NoContentLength,
    NoStamps,
    OnPath,
    OnRequests,
    Redirect,
    RefuseHead,
    Replay,
    ShiftContentRange,
    Stall,
)
from sensorium_data.testing.server import Fault, Handler, find_file, find_range

MEMBER = f"{SESSION.name}/data/responses/1.npy"
N_INDEX_REQUESTS = 1


pytestmark = pytest.mark.usefixtures("sound_server")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_session(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def content(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(MEMBER)


@contextmanager
def opened(
    path: Path, *faults: Fault, after_index: bool = True, policy: RetryPolicy = IMPATIENT
) -> Iterator[tuple[SessionArchive, DirectoryServer]]:
    """Open the archive from a server; faults begin, by default, once the index is read."""
    late = [OnRequests(fault, range(N_INDEX_REQUESTS, 10_000)) if after_index else fault for fault in faults]
    with (
        serve_directory(path.parent, faults=late) as server,
        SessionArchive.open(server.url_of(path.name), SESSION, policy=policy) as archive,
    ):
        yield archive, server


@dataclass(frozen=True)
class Both:
    """Two faults at once, the first one outermost."""

    outer: Fault
    inner: Fault

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        async def inner(request: web.Request) -> web.StreamResponse:
            return await self.inner(request, handler)

        return await self.outer(request, inner)


def once(fault: Fault) -> Fault:
    """The first request after the index meets the fault."""
    return Replay([fault])


RECOVERABLE = {
    "body in chunks dropped at once": Both(NoContentLength(), DropBody(0)),
    "body in chunks dropped after some bytes": Both(NoContentLength(), DropBody(1000)),
    "connection closed without an answer": CloseConnection(),
    "body dropped at once": DropBody(0),
    "body dropped after some bytes": DropBody(1000),
    "stall before the body": Stall(0, 30),
    "stall in the body": Stall(1000, 30),
    "status 429": AnswerStatus(429),
    "status 500": AnswerStatus(500),
    "status 502": AnswerStatus(502, {"Retry-After": "soon"}),
    "status 503": AnswerStatus(503, {"Retry-After": "0"}),
    "status 503 with a web page": AnswerHtml(503),
    "status 504": AnswerStatus(504),
}


@pytest.mark.parametrize("fault", RECOVERABLE.values(), ids=RECOVERABLE)
def test_a_transient_fault_is_tried_again(path: Path, content: bytes, fault: Fault) -> None:
    with opened(path, once(fault)) as (archive, server):
        assert archive.read_member(MEMBER) == content
        assert len(server.requests) == N_INDEX_REQUESTS + 2


@pytest.mark.parametrize("fault", RECOVERABLE.values(), ids=RECOVERABLE)
def test_a_transient_fault_while_opening_is_tried_again(path: Path, content: bytes, fault: Fault) -> None:
    with opened(path, once(fault), after_index=False) as (archive, _):
        assert archive.read_member(MEMBER) == content


@pytest.mark.parametrize("fault", RECOVERABLE.values(), ids=RECOVERABLE)
def test_a_lasting_fault_is_an_error_after_a_bounded_number_of_attempts(path: Path, fault: Fault) -> None:
    with opened(path, fault) as (archive, server):
        with pytest.raises(SourceError, match="did not deliver in 3 attempts") as caught:
            archive.read_member(MEMBER)
        # aiohttp itself repeats a request once whose kept connection turns out to be closed.
        assert len(server.requests) <= N_INDEX_REQUESTS + 2 * IMPATIENT.n_attempts
        assert caught.value.path == archive.url
        assert "--source DIR" in str(caught.value)


def test_a_dropped_body_is_continued_where_it_broke(path: Path, content: bytes) -> None:
    with opened(path, Replay([DropBody(1000), DropBody(500)])) as (archive, server):
        assert archive.read_member(MEMBER) == content
        entry = archive.entries[MEMBER]
        last = entry.stop_offset - 1
        starts = [entry.header_offset + n for n in (0, 1000, 1500)]
        assert [r.range for r in server.requests[N_INDEX_REQUESTS:]] == [f"bytes={start}-{last}" for start in starts]


def test_a_server_that_cuts_every_answer_delivers_all_the_same(tmp_path: Path) -> None:
    name, content = f"{SESSION.name}/data/videos/0.npy", np.random.default_rng(0).bytes(200_000)
    path = write_zip(tmp_path / "a.zip", {name: content, f"{SESSION.name}/config.json": b"{}"}, zipfile.ZIP_STORED)
    with opened(path, DropBody(20_000), after_index=False) as (archive, server):
        assert archive.read_member(name) == content
        # The tail goes on where it broke, which the first answer has told.
        first = path.stat().st_size - TAIL_SIZE_BYTES
        tails = [f"bytes={first + n}-{path.stat().st_size - 1}" for n in (20_000, 40_000, 60_000)]
        assert [r.range for r in server.requests[:4]] == [f"bytes=-{TAIL_SIZE_BYTES}", *tails]
        # Nothing travels twice.
        assert server.n_bytes_sent <= path.stat().st_size + TAIL_SIZE_BYTES


@dataclass
class DropOnce:
    """Drops the body of one answer after a number of bytes, whenever it is loaded."""

    after_n_bytes: int | None = None

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        after_n_bytes, self.after_n_bytes = self.after_n_bytes, None
        return await (handler(request) if after_n_bytes is None else DropBody(after_n_bytes)(request, handler))


@pytest.mark.parametrize("habits", [[], [NoContentLength()]], ids=["with lengths", "in chunks"])
def test_a_body_may_break_off_at_any_byte(tmp_path: Path, habits: list[Fault]) -> None:
    name = f"{SESSION.name}/data/behavior/0.npy"
    content = npy(np.arange(4.0))
    path = write_zip(tmp_path / "a.zip", {name: content, f"{SESSION.name}/config.json": b"{}"})
    drop = DropOnce()
    with opened(path, drop, *habits) as (archive, server):
        entry = archive.entries[name]
        for n_bytes in range(entry.stop_offset - entry.header_offset + 1):
            drop.after_n_bytes = n_bytes
            before = server.n_bytes_sent
            assert archive.read_member(name) == content
            assert drop.after_n_bytes is None
            # What has come is not asked for again.
            assert server.n_bytes_sent - before == entry.stop_offset - entry.header_offset


def test_the_index_may_break_off_at_any_byte(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{SESSION.name}/config.json": b"{}"})
    drop = DropOnce()
    with serve_directory(tmp_path, faults=[drop]) as server:
        for n_bytes in range(path.stat().st_size + 1):
            drop.after_n_bytes = n_bytes
            with SessionArchive.open(server.url_of("a.zip"), SESSION, policy=IMPATIENT) as archive:
                assert archive.read_member(f"{SESSION.name}/config.json") == b"{}"


def test_no_empty_range_is_asked_for_once_every_byte_has_come(path: Path, content: bytes) -> None:
    with opened(path, Both(NoContentLength(), DropBody(1 << 30))) as (archive, server):
        assert archive.read_member(MEMBER) == content
        assert [r.status for r in server.requests[N_INDEX_REQUESTS:]] == [206]


def test_a_body_that_always_breaks_off_is_told(path: Path) -> None:
    with (
        opened(path, DropBody(100)) as (archive, _),
        pytest.raises(SourceError, match="3 attempts: found the connection broke after 300 bytes, expected bytes"),
    ):
        archive.read_member(MEMBER)


def test_the_wait_that_a_server_asks_for_is_kept(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    waits_s: list[float] = []
    wait_s = RetryPolicy.wait_s

    def noted(policy: RetryPolicy, attempt: int, retry_after_s: float | None = None) -> float:
        waits_s.append(wait_s(policy, attempt, retry_after_s))
        return waits_s[-1]

    monkeypatch.setattr(RetryPolicy, "wait_s", noted)
    date = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1), usegmt=True)
    for wanted, kept_s in (("0", 0.0), ("3600", IMPATIENT.retry_after_max_s), (date, IMPATIENT.retry_after_max_s)):
        with opened(path, once(AnswerStatus(429, {"Retry-After": wanted}))) as (archive, _):
            begin = time.monotonic()
            assert archive.read_member(MEMBER) == content
            assert time.monotonic() - begin >= kept_s
        assert waits_s == [kept_s]
        waits_s.clear()


REFUSED = {
    "the whole file instead of a range": (IgnoreRange(), "the server ignores byte ranges"),
    "other bytes than asked for": (ShiftContentRange(), "the server sent other bytes than asked for"),
    "a compressed range": (CompressBody(), "the server compresses byte ranges: found gzip"),
    "a captcha": (AnswerHtml(), "answered with a web page, perhaps a captcha or a login: found status 200, text/html"),
    "a web page as a range": (AnswerHtml(206), "answered with a web page"),
    "another version": (ChangeETag(), "the archive changed while it was being read"),
    "another time of modification": (ChangeLastModified(), "the archive changed while it was being read"),
    "a whole file in chunks": (Both(IgnoreRange(), NoContentLength()), "the server ignores byte ranges"),
    "a compressed range in chunks": (Both(NoContentLength(), CompressBody()), "the server compresses byte ranges"),
    "status 416": (AnswerStatus(416), "the server refused the request: found status 416"),
    "status 416 with another size": (
        AnswerStatus(416, {"Content-Range": "bytes */1000"}),
        "the archive changed while it was being read: found 1000 bytes",
    ),
    "status 404": (AnswerStatus(404), "there is no such file on the server: found status 404 Not Found"),
    "status 403": (AnswerStatus(403), "the server refuses access: found status 403"),
    "status 401": (AnswerStatus(401), "the server wants a login"),
    "status 418": (AnswerStatus(418), "the server refused the request: found status 418"),
    "no content": (AnswerStatus(204), "the server refused the request: found status 204"),
    "a range without saying which": (AnswerStatus(206), "the server does not say which bytes it sent"),
}


#: Not wrong before there is another answer to compare with.
RIGHT_WHILE_OPENING = ("another version", "another time of modification", "status 416 with another size")


@pytest.mark.parametrize(("fault", "match"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_answer_is_refused_at_once(path: Path, fault: Fault, match: str) -> None:
    with opened(path, fault) as (archive, server):
        with pytest.raises(SourceError, match=match) as caught:
            archive.read_member(MEMBER)
        assert len(server.requests) == N_INDEX_REQUESTS + 1
        assert caught.value.path == archive.url
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("fault", "match"),
    [REFUSED[name] for name in REFUSED if name not in RIGHT_WHILE_OPENING],
    ids=[name for name in REFUSED if name not in RIGHT_WHILE_OPENING],
)
def test_a_wrong_answer_while_opening_is_refused(path: Path, fault: Fault, match: str) -> None:
    with pytest.raises(SensoriumError, match=match), opened(path, fault, after_index=False):
        pass


def test_a_server_that_ignores_ranges_is_told_apart_without_reading_the_archive(tmp_path: Path) -> None:
    size_bytes = 20 << 30
    with (tmp_path / "huge.zip").open("wb") as stream:
        stream.truncate(size_bytes)  # a hole, which takes no space
    begin = time.monotonic()
    with (
        serve_directory(tmp_path, faults=[IgnoreRange()]) as server,
        pytest.raises(SourceError, match=r"ignores byte ranges.*download the archive first.*--source DIR"),
    ):
        SessionArchive.open(server.url_of("huge.zip"), policy=IMPATIENT)
    assert time.monotonic() - begin < 5


def test_a_file_replaced_between_two_reads_is_noticed(tmp_path: Path) -> None:
    path = write_session(tmp_path)
    with opened(path) as (archive, _):
        archive.read_member(MEMBER)
        replacement = write_session(tmp_path / "..", trials=(0, 1, 2))
        replacement.replace(path)
        with pytest.raises(SourceChangedError, match=r"changed while it was being read: found .*; start again"):
            archive.read_member(MEMBER)


@pytest.mark.parametrize("habits", [[], [NoStamps()]], ids=["with stamps", "without stamps"])
@pytest.mark.parametrize("seed", [0, 1], ids=["another size", "the same size"])
def test_a_changed_archive_can_be_opened_again_and_a_damaged_one_is_told_from_it(
    tmp_path: Path, habits: list[Fault], seed: int
) -> None:
    path = write_noise(tmp_path)
    name = f"{SESSION.name}/data/responses/13.npy"
    with serve_directory(tmp_path, faults=habits) as server:
        with SessionArchive.open(server.url_of(path.name), SESSION, policy=IMPATIENT) as archive:
            write_noise(tmp_path, seed=1, n_members=14 if seed else 15)
            os.utime(path, (5, 5))
            with pytest.raises(SourceChangedError):
                archive.read_member(name)
        with (
            SessionArchive.open(server.url_of(path.name), SESSION, policy=IMPATIENT) as archive,
            zipfile.ZipFile(path) as oracle,
        ):
            assert archive.read_member(name) == oracle.read(name)
            first = f"{SESSION.name}/data/responses/0.npy"
            with path.open("r+b") as stream:
                stream.seek(archive.entries[first].header_offset + 500)
                stream.write(b"damaged")
            os.utime(path, (6, 6))
            with pytest.raises(ArchiveError if habits else SourceChangedError):
                archive.read_member(first)


def test_a_flipped_bit_in_a_member_is_an_error_that_names_it(path: Path) -> None:
    with SessionArchive.open(str(path)) as archive:
        offset = archive.entries[MEMBER].header_offset + 2000
    with opened(path, FlipBit(offset)) as (archive, _), pytest.raises(ArchiveError) as caught:
        archive.read_member(MEMBER)
    assert (caught.value.session, caught.value.trial) == (SESSION.name, 1)
    assert MEMBER in str(caught.value)


@pytest.mark.parametrize("n_damaged", [1, 2])
def test_a_member_that_is_damaged_on_its_way_is_fetched_again(path: Path, n_damaged: int) -> None:
    with SessionArchive.open(str(path)) as archive:
        offset = archive.entries[MEMBER].header_offset + 2000
    # After each damaged answer the archive's end is read, which tells whether it was replaced.
    flip = OnRequests(FlipBit(offset), range(0, 2 * n_damaged, 2))
    with opened(path, flip) as (archive, server), zipfile.ZipFile(path) as oracle:
        assert archive.read_member(MEMBER) == oracle.read(MEMBER)
        asked = [request.range for request in server.requests]
    assert asked.count(asked[-1]) == n_damaged + 1


@dataclass(frozen=True)
class Misstate:
    """Sends the right bytes, some more or fewer of them, and states their range and length wrongly."""

    n_more_bytes: int = 0
    n_more_in_range: int = 0
    n_more_in_length: int | None = None

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        content = find_file(request).read_bytes()
        start, stop = find_range(request, len(content))
        last = stop - 1 + self.n_more_in_range
        response = web.StreamResponse(status=206, headers={"Content-Range": f"bytes {start}-{last}/{len(content)}"})
        if self.n_more_in_length is not None:
            response.content_length = stop - start + self.n_more_in_length
        await response.prepare(request)
        await response.write(content[start : stop + self.n_more_bytes])
        await response.write_eof()
        return response


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (Misstate(n_more_bytes=10), "the server sent more bytes than its own headers say"),
        (Misstate(n_more_in_range=10), "the server sent other bytes than asked for"),
        (Misstate(n_more_in_length=10, n_more_bytes=10), "the server's headers contradict each other"),
    ],
)
def test_a_server_that_miscounts_is_refused(path: Path, fault: Fault, match: str) -> None:
    with opened(path, fault) as (archive, _), pytest.raises(SourceError, match=match):
        archive.read_member(MEMBER)


@pytest.mark.parametrize(
    "fault", [Misstate(n_more_bytes=-10), Misstate(n_more_in_range=-10, n_more_bytes=-10)], ids=["short", "narrow"]
)
def test_the_rest_of_a_short_answer_is_asked_for(path: Path, content: bytes, fault: Fault) -> None:
    with opened(path, once(fault)) as (archive, server):
        assert archive.read_member(MEMBER) == content
        stop = archive.entries[MEMBER].stop_offset
        assert server.requests[-1].range == f"bytes={stop - 10}-{stop - 1}"


@pytest.mark.parametrize("fault", [RefuseHead(), Redirect(), OnPath(AnswerStatus(404), "another file")])
def test_harmless_habits_of_servers_are_borne(path: Path, content: bytes, fault: Fault) -> None:
    with opened(path, fault, after_index=False) as (archive, _):
        assert archive.read_member(MEMBER) == content


def test_no_server_at_all_is_an_error(path: Path) -> None:
    with serve_directory(path.parent) as server:
        url = server.url_of(path.name)
    with pytest.raises(SourceError, match=r"did not deliver in 3 attempts: found ClientConnectorError"):
        SessionArchive.open(url, SESSION, policy=IMPATIENT)


def test_a_web_page_saved_as_the_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text(AnswerHtml().page)
    with (
        serve_directory(tmp_path) as server,
        pytest.raises(ArchiveError, match="this is a web page, not an archive"),
    ):
        SessionArchive.open(server.url_of("a.zip"), policy=IMPATIENT)


def test_many_threads_get_through_a_flaky_server(path: Path) -> None:
    flaky = [DropBody(700), None, AnswerStatus(503), None, CloseConnection(), None] * 5
    with (
        zipfile.ZipFile(path) as oracle,
        # With fewer attempts, all faults could meet one unlucky reader.
        opened(path, Replay(flaky), policy=RetryPolicy(n_attempts=20, backoff_s=0.001)) as (archive, _),
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        names = list(archive.entries) * 2
        for name, content in zip(names, pool.map(archive.read_member, names), strict=True):
            assert content == oracle.read(name)


def test_failures_leave_no_thread_and_no_connection(path: Path) -> None:
    with SessionArchive.open(str(path)):
        pass
    before = {thread.name for thread in threading.enumerate()} | {"fsspecIO"}
    with pytest.raises(SourceError), opened(path, CloseConnection(), after_index=False):
        pass
    assert {thread.name for thread in threading.enumerate()} <= before
