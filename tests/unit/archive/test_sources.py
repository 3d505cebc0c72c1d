from __future__ import annotations

import asyncio
import concurrent.futures
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from aiohttp import web
from fsspec.implementations.memory import MemoryFileSystem

from fixtures.archives import IMPATIENT
from sensorium_data.archive.sources import FileSource, FilesystemSource, RetryPolicy, open_source
from sensorium_data.errors import RangesRefusedError, SourceChangedError, SourceError, UsageError
from sensorium_data.files import HttpSource
from sensorium_data.testing import Throttle, serve_directory
from sensorium_data.testing.faults import (
    AnswerStatus,
    DropBody,
    IgnoreRange,
    IgnoreSuffixRange,
    NoContentLength,
    NoStamps,
    OnPath,
    Redirect,
    RefuseHead,
    Replay,
    Stall,
)

CONTENT = np.random.default_rng(0).bytes(100_000)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


pytestmark = pytest.mark.usefixtures("sound_server")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some bytes.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def memory_url() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/some.bin", CONTENT)
    yield "memory://bucket/some.bin"
    filesystem.store.clear()


def test_a_path_a_server_and_a_file_system_give_the_same_bytes(file: Path, memory_url: str) -> None:
    with serve_directory(file.parent) as server:
        for url in (str(file), file.as_uri(), server.url_of(file.name), memory_url):
            with open_source(url, tail_size_bytes=100) as source:
                assert source.size_bytes == len(CONTENT)
                assert source.tail == CONTENT[-100:]
                assert source.read(0, len(CONTENT)) == CONTENT
                assert source.read(17, 4711) == CONTENT[17:4711]
                assert source.read(5, 5) == b""
                with pytest.raises(SourceError, match="outside the file"):
                    source.read(len(CONTENT) - 1, len(CONTENT) + 1)


@pytest.mark.parametrize("size_bytes", [0, 1, 99])
def test_a_file_shorter_than_its_tail_is_its_tail(tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "short.bin").write_bytes(CONTENT[:size_bytes])
    with serve_directory(tmp_path) as server:
        for url in (str(tmp_path / "short.bin"), server.url_of("short.bin")):
            with open_source(url, tail_size_bytes=100) as source:
                assert source.size_bytes == size_bytes
                assert source.tail == CONTENT[:size_bytes]


def test_modification_is_stamped(file: Path) -> None:
    os.utime(file, (0, 0))
    with open_source(str(file)) as source:
        assert source.modified == "1970-01-01T00:00:00+00:00"
    with serve_directory(file.parent) as server, open_source(server.url_of(file.name)) as source:
        first = source.modified
    os.utime(file, (5, 5))
    with serve_directory(file.parent) as server, open_source(server.url_of(file.name)) as source:
        assert first is not None
        assert source.modified != first


class TestLocalFile:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"gone\.zip: there is no such file; check the path"):
            open_source(str(tmp_path / "gone.zip"))

    def test_a_folder_is_no_archive(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"this is no file: found a folder, expected a file"):
            open_source(str(tmp_path))

    def test_a_named_pipe_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SourceError, match="this is no file"):
            open_source(str(tmp_path / "pipe"))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file_is_named(self, file: Path) -> None:
        file.chmod(0)
        with pytest.raises(SourceError, match="may not be read"):
            open_source(str(file))

    def test_a_file_that_shrinks_is_noticed(self, file: Path) -> None:
        with open_source(str(file)) as source:
            os.truncate(file, 1000)
            for stop in (1000, 2000):
                with pytest.raises(SourceChangedError, match=r"changed while .* found 1000 bytes of .*; start again"):
                    source.read(0, stop)

    def test_a_file_that_is_written_over_is_noticed(self, file: Path) -> None:
        with open_source(str(file)) as source:
            with file.open("r+b") as stream:
                stream.write(b"x")
            os.utime(file, (1, 1))  # a clock may not have ticked since
            with pytest.raises(SourceChangedError, match=r"found 100000 bytes of 1970-01-01T00:00:01\+00:00"):
                source.read(50_000, 50_010)

    def test_a_file_that_another_replaces_is_read_on_as_it_was(self, file: Path) -> None:
        with open_source(str(file)) as source:
            (file.parent / "other").write_bytes(bytes(100_000))
            (file.parent / "other").replace(file)
            assert source.read(0, 100_000) == CONTENT

    def test_reading_after_closing_is_an_error_and_closing_twice_is_none(self, file: Path) -> None:
        source = FileSource(str(file))
        source.close()
        source.close()
        with pytest.raises(SourceError, match="closed"):
            source.read(0, 1)


class TestHttp:
    def test_the_first_request_brings_the_size_and_the_tail(self, file: Path) -> None:
        with serve_directory(file.parent) as server, open_source(server.url_of(file.name), tail_size_bytes=50):
            assert [(r.method, r.range, r.status) for r in server.requests] == [("GET", "bytes=-50", 206)]
            assert server.n_bytes_sent == 50

    def test_a_server_without_suffix_ranges_will_do(self, file: Path) -> None:
        for status in (200, 400, 416, 501):
            with (
                serve_directory(file.parent, faults=[IgnoreSuffixRange(status)]) as server,
                open_source(server.url_of(file.name), tail_size_bytes=50) as source,
            ):
                assert source.size_bytes == len(CONTENT)
                assert source.tail == CONTENT[-50:]
                assert len(server.requests) <= 3

    @pytest.mark.parametrize("faults", [[], [NoContentLength()]], ids=["with its length", "in chunks"])
    def test_a_server_that_sends_whole_files_only_is_told_and_so_is_the_remedy(
        self, file: Path, faults: list[NoContentLength]
    ) -> None:
        with (
            serve_directory(file.parent, faults=[IgnoreRange(), *faults]) as server,
            pytest.raises(RangesRefusedError, match=r"ignores byte ranges.*--mode download.*--source DIR"),
        ):
            open_source(server.url_of(file.name))

    def test_a_server_without_lengths_and_stamps_will_do(self, file: Path) -> None:
        with (
            serve_directory(file.parent, faults=[NoContentLength(), NoStamps()]) as server,
            open_source(server.url_of(file.name)) as source,
        ):
            assert (source.size_bytes, source.modified) == (len(CONTENT), None)
            assert source.read(10, 20) == CONTENT[10:20]

    def test_another_tail_tells_a_change_where_nothing_is_stamped(self, file: Path) -> None:
        with (
            serve_directory(file.parent, faults=[NoStamps()]) as server,
            open_source(server.url_of(file.name), tail_size_bytes=50) as source,
        ):
            source.check_unchanged()
            file.write_bytes(CONTENT[::-1])
            with pytest.raises(SourceChangedError, match="changed while it was being read: found another tail"):
                source.check_unchanged()

    def test_reads_of_many_threads_overlap(self, file: Path) -> None:
        gate = threading.Barrier(120)

        async def meet(request, handler):
            await asyncio.get_running_loop().run_in_executor(pool_of_server, gate.wait, 30)
            return await handler(request)

        with (
            concurrent.futures.ThreadPoolExecutor(120) as pool_of_server,
            serve_directory(file.parent, faults=[Replay([None, *[meet] * 120])]) as server,
            open_source(server.url_of(file.name)) as source,
            concurrent.futures.ThreadPoolExecutor(120) as pool,
        ):
            # No request is answered before all have come: fewer connections than threads would wait for ever.
            parts = pool.map(lambda start: source.read(start, start + 100), range(0, 12_000, 100))
            assert b"".join(parts) == CONTENT[:12_000]
            assert server.peak_n_requests == 120

    def test_an_empty_file_is_told_from_the_refusal_of_its_range(self, file: Path) -> None:
        async def refuse(request, handler):
            return web.Response(status=416, headers={"Content-Range": "bytes */0"}, text="<html>416</html>")

        with (
            serve_directory(file.parent, faults=[refuse]) as server,
            open_source(server.url_of(file.name), tail_size_bytes=50) as source,
        ):
            assert (source.size_bytes, source.tail) == (0, b"")

    def test_a_server_that_refuses_head_will_do(self, file: Path) -> None:
        with (
            serve_directory(file.parent, faults=[RefuseHead()]) as server,
            open_source(server.url_of(file.name)) as source,
        ):
            assert source.read(0, 10) == CONTENT[:10]

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects_are_followed(self, file: Path, status: int) -> None:
        with (
            serve_directory(file.parent, faults=[Redirect(status)]) as server,
            open_source(server.url_of(file.name)) as source,
        ):
            assert source.read(10, 20) == CONTENT[10:20]

    def test_endless_redirects_end(self, file: Path) -> None:
        loop = Redirect(query="never")
        with (
            serve_directory(
                file.parent, faults=[lambda request, handler: loop(request.clone(rel_url="/x"), handler)]
            ) as s,
            pytest.raises(SourceError, match="cannot be opened"),
        ):
            open_source(s.url_of(file.name), policy=IMPATIENT)

    def test_many_threads_share_one_source(self, file: Path) -> None:
        with (
            serve_directory(file.parent) as server,
            open_source(server.url_of(file.name)) as source,
            concurrent.futures.ThreadPoolExecutor(16) as pool,
        ):
            starts = range(0, len(CONTENT), 1000)
            parts = pool.map(lambda start: source.read(start, start + 1000), starts)
            assert b"".join(parts) == CONTENT

    def test_reading_after_closing_is_an_error_and_closing_twice_is_none(self, file: Path) -> None:
        with serve_directory(file.parent) as server:
            source = HttpSource(server.url_of(file.name))
            source.close()
            source.close()
            with pytest.raises(SourceError, match="closed"):
                source.read(0, 1)

    @pytest.mark.parametrize("url", ["http://", "http://[x/a.zip", "http://host:port/a.zip", "https:///a.zip"])
    def test_a_url_that_is_none_is_named(self, url: str) -> None:
        with pytest.raises(SourceError, match=r"this is no URL|this URL cannot be opened") as caught:
            open_source(url, policy=IMPATIENT)
        assert caught.value.path == url

    def test_closing_closes_the_connections(self, file: Path) -> None:
        transports = []

        async def note(request, handler):
            transports.append(request.transport)
            return await handler(request)

        with serve_directory(file.parent, faults=[note]) as server:
            with open_source(server.url_of(file.name)) as source:
                source.read(0, 10)
                assert not transports[0].is_closing()
            wait_until(lambda: all(transport.is_closing() for transport in transports))
            assert len(set(transports)) == 1  # and there was but one

    def test_a_close_ends_the_attempts_of_other_threads(self, file: Path) -> None:
        patient = RetryPolicy(n_attempts=1000, backoff_s=0.05, backoff_max_s=0.05)
        with (
            serve_directory(file.parent, faults=[Replay([None, *[AnswerStatus(503)] * 1000])]) as server,
            concurrent.futures.ThreadPoolExecutor(1) as pool,
        ):
            with open_source(server.url_of(file.name), policy=patient) as source:
                reading = pool.submit(source.read, 0, 10)
                wait_until(lambda: len(server.requests) > 2)
            with pytest.raises(SourceError, match="closed before it was read"):
                reading.result(timeout=30)

    @pytest.mark.parametrize("n_bytes_before", [0, 1000])
    def test_a_close_ends_the_reads_of_other_threads(self, file: Path, n_bytes_before: int) -> None:
        stall = Stall(n_bytes_before, duration_s=60)
        with (
            serve_directory(file.parent, faults=[Replay([None, *[stall] * 8])]) as server,
            concurrent.futures.ThreadPoolExecutor(8) as pool,
        ):
            with open_source(server.url_of(file.name)) as source:
                reading = [pool.submit(source.read, 0, 10_000) for _ in range(8)]
                wait_until(lambda: server.peak_n_requests == 8)
            for read in reading:
                with pytest.raises(SourceError, match="closed before it was read"):
                    read.result(timeout=30)

    def test_headers_of_fsspec_s_configuration_are_sent(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"headers": {"Authorization": "Bearer x"}}})
        seen = []

        async def note(request, handler):
            seen.append(request.headers.get("Authorization"))
            return await handler(request)

        with serve_directory(file.parent, faults=[note]) as server, open_source(server.url_of(file.name)):
            assert seen == ["Bearer x"]


class TestFilesystem:
    def test_a_missing_object_is_named(self) -> None:
        with pytest.raises(SourceError, match="memory://nowhere: the archive cannot be read"):
            open_source("memory://nowhere", policy=IMPATIENT)

    def test_an_unknown_protocol_says_what_to_install(self) -> None:
        with pytest.raises(SourceError, match="install the fsspec package"):
            open_source("no-such-protocol://bucket/some.zip")

    def test_a_folder_is_no_archive(self, memory_url: str) -> None:
        with pytest.raises(SourceError, match="this is no file: found directory"):
            open_source("memory://bucket")

    def test_transient_errors_and_short_reads_are_tried_again(
        self, memory_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = [ConnectionResetError("reset"), b"short", CONTENT[:10]]

        def cat_file(self, path, start=None, end=None, **options):
            answer = script.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        with open_source(memory_url, policy=IMPATIENT) as source:
            monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
            assert source.read(0, 10) == CONTENT[:10]
            script.extend([ConnectionResetError("reset")] * 3)
            with pytest.raises(SourceError, match="after 3 attempts: found ConnectionResetError reset"):
                source.read(0, 10)
            assert isinstance(source, FilesystemSource)

    def test_a_file_that_shrinks_is_noticed_when_a_read_comes_back_short(self, memory_url: str) -> None:
        with open_source(memory_url, policy=IMPATIENT) as source:
            fsspec.filesystem("memory").pipe("/bucket/some.bin", CONTENT[:1000])
            with pytest.raises(SourceChangedError, match="changed while it was being read: found 1000 bytes of"):
                source.read(500, 1500)

    def test_a_file_that_is_replaced_is_noticed_on_request(self, memory_url: str) -> None:
        with open_source(memory_url, policy=IMPATIENT) as source:
            source.check_unchanged()
            fsspec.filesystem("memory").pipe("/bucket/some.bin", CONTENT[::-1])
            with pytest.raises(SourceChangedError):
                source.check_unchanged()

    def test_what_a_plug_in_raises_is_told(self, memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class NoCredentialsError(Exception):
            pass

        calls = []

        def info(self, path, **options):
            calls.append(path)
            raise NoCredentialsError("unable to locate credentials")

        monkeypatch.setattr(MemoryFileSystem, "info", info)
        with pytest.raises(SourceError, match=r"NoCredentialsError unable to locate credentials; check .* credentials"):
            open_source(memory_url, policy=IMPATIENT)
        assert len(calls) == 1  # trying again would not help


class TestRetryPolicy:
    def test_waits_grow_to_a_bound_and_differ(self) -> None:
        policy = RetryPolicy(backoff_s=1, backoff_max_s=10)
        for attempt, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (9, 10)):
            waits = {policy.wait_s(attempt) for _ in range(20)}
            assert len(waits) > 1
            assert all(longest / 2 <= wait <= longest for wait in waits)

    def test_one_attempt_is_the_least(self) -> None:
        with pytest.raises(UsageError, match="found 0, expected at least 1"):
            RetryPolicy(n_attempts=0)

    def test_what_the_server_asks_for_is_granted_up_to_a_bound(self) -> None:
        policy = RetryPolicy(retry_after_max_s=60)
        assert policy.wait_s(1, 7.0) == 7.0
        assert policy.wait_s(1, 3600.0) == 60.0


class TestServer:
    def test_it_leaves_no_thread(self, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        with serve_directory(tmp_path):
            assert set(threading.enumerate()) > before
        assert set(threading.enumerate()) <= before

    def test_nothing_outside_its_folder_is_served(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "open").mkdir()
        (tmp_path / "open" / "link").symlink_to(tmp_path / "secret")
        with serve_directory(tmp_path / "open") as server:
            for path in ("%2e%2e/secret", "link", "", "gone"):
                with pytest.raises(SourceError, match="no such file"):
                    open_source(f"{server.url}/{path}")

    def test_its_log_tells_method_path_range_and_status(self, file: Path) -> None:
        with serve_directory(file.parent) as server:
            open_source(server.url_of(file.name), tail_size_bytes=3).close()
            fsspec.filesystem("http").info(server.url_of(file.name))
            assert server.requests[0] == ("GET", "/some bytes.bin", "bytes=-3", 206)
            assert server.requests[1][0] == "HEAD"

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="no such folder"), serve_directory(tmp_path / "gone"):
            pass

    def test_modification_times_are_sent(self, file: Path) -> None:
        os.utime(file, (0, 0))
        with (
            serve_directory(file.parent) as server,
            urllib.request.urlopen(server.url_of(file.name)) as answer,  # noqa: S310 - this machine's own
        ):
            assert answer.headers["Last-Modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"
            assert answer.headers["ETag"]
            assert answer.read() == CONTENT

    def test_it_counts_what_it_sends_and_what_it_sends_at_once(self, file: Path) -> None:
        (file.parent / "other.bin").write_bytes(CONTENT)
        with serve_directory(file.parent, faults=[OnPath(DropBody(300), "some"), Throttle(1e6)]) as server:
            with urllib.request.urlopen(server.url_of("other.bin")) as answer:  # noqa: S310 - this machine's own
                answer.read()
            with pytest.raises(SourceError, match="did not deliver"):
                open_source(server.url_of(file.name), tail_size_bytes=1000, policy=IMPATIENT)
            assert server.n_bytes_by_path == {"/other.bin": len(CONTENT), "/some bytes.bin": 3 * 300}
            assert server.n_bytes_sent == len(CONTENT) + 900
            assert server.peak_n_requests == 1

    def test_it_throttles(self, file: Path) -> None:
        begin = time.monotonic()
        with (
            serve_directory(file.parent, faults=[Throttle(len(CONTENT) / 0.5)]) as server,
            urllib.request.urlopen(server.url_of(file.name)) as answer,  # noqa: S310 - this machine's own
        ):
            assert answer.read() == CONTENT
        assert time.monotonic() - begin > 0.49

    @pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
    def test_it_sends_nothing_to_who_has_it_already(self, file: Path, name: str) -> None:
        condition = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}[name]
        with serve_directory(file.parent) as server:
            url = server.url_of(file.name)
            with urllib.request.urlopen(url) as answer:  # noqa: S310 - this machine's own
                stamp = answer.headers[name]
            for known, status in ((stamp, 304), ('"another"', 200)):
                request = urllib.request.Request(url, headers={condition: known})  # noqa: S310
                try:
                    with urllib.request.urlopen(request) as answer:  # noqa: S310
                        found = answer.status
                except urllib.error.HTTPError as error:
                    found = error.code
                    error.close()
                assert found == status

    def test_a_range_past_the_end_is_refused_with_the_size(self, file: Path) -> None:
        with serve_directory(file.parent) as server:
            request = urllib.request.Request(server.url_of(file.name), headers={"Range": "bytes=100000-100001"})  # noqa: S310
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request)  # noqa: S310
            assert (caught.value.code, caught.value.headers["Content-Range"]) == (416, "bytes */100000")
            caught.value.close()

    def test_nothing_else_listens(self, tmp_path: Path) -> None:
        with serve_directory(tmp_path) as server:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        with pytest.raises(SourceError, match="did not deliver in 3 attempts"):
            open_source(server.url_of("x"), policy=IMPATIENT)


@pytest.mark.parametrize("proxy", ["foo", "junk://x", "http://127.0.0.1:9\x1b[2J", "http://[bad", "http://"])
def test_a_proxy_that_cannot_be_one_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(
        SourceError, match=r"a proxy that the environment names cannot be used: found http_proxy=.*unset"
    ):
        open_source("http://archive.invalid/x.zip")
