from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from fixtures.archives import IMPATIENT, write_noise
from fixtures.downloads import SEGMENT_SIZE_BYTES, download
from sensorium_data.archive.download import download_archive
from sensorium_data.errors import DownloadError, SourceError
from sensorium_data.files import FileVersion, open_part
from sensorium_data.testing import DirectoryServer, Throttle, serve_directory
from sensorium_data.testing.faults import (
    AnswerStatus,
    IgnoreRange,
    NoContentLength,
    NoStamps,
    OnRequests,
    RefuseHead,
    Replay,
)
from sensorium_data.testing.server import Fault

#: Index and check; then the segments.
N_OPENING_REQUESTS = 1


pytestmark = pytest.mark.usefixtures("small_segments")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


HABITS: dict[str, list[Fault]] = {
    "ranges": [],
    "ranges without lengths": [NoContentLength()],
    "ranges without stamps": [NoStamps()],
    "no HEAD": [RefuseHead()],
    "whole files": [IgnoreRange()],
    "whole files without lengths": [IgnoreRange(), NoContentLength()],
    "whole files without lengths and stamps": [IgnoreRange(), NoContentLength(), NoStamps()],
}


@pytest.mark.parametrize("faults", HABITS.values(), ids=HABITS)
def test_the_file_is_the_server_s(origin: Path, target: Path, faults: list[Fault]) -> None:
    with serve_directory(origin.parent, faults=faults) as server:
        report = download(server, origin, target)
    assert target.read_bytes() == origin.read_bytes()
    assert (report.status, report.path, report.size_bytes) == ("downloaded", target, origin.stat().st_size)
    assert (report.n_bytes_received, report.n_bytes_resumed) == (origin.stat().st_size, 0)
    assert names_in(target.parent) == {"a.zip", "a.zip.json"}


def test_every_byte_is_sent_once_and_the_tail_twice(origin: Path, target: Path) -> None:
    with serve_directory(origin.parent) as server:
        download(server, origin, target)
        size_bytes = origin.stat().st_size
        n_segments = -(-size_bytes // SEGMENT_SIZE_BYTES)
        assert len(server.requests) == N_OPENING_REQUESTS + n_segments
        assert server.n_bytes_sent <= size_bytes + 70_000


def test_segments_come_over_several_connections(origin: Path, target: Path) -> None:
    gate = threading.Barrier(3)

    async def meet(request, handler):  # type: ignore[no-untyped-def]
        await asyncio.get_running_loop().run_in_executor(None, gate.wait, 30)
        return await handler(request)

    with serve_directory(origin.parent, faults=[Replay([None, meet, meet, meet])]) as server:
        download(server, origin, target, jobs=3)
        assert server.peak_n_requests == 3


def test_any_url_can_be_downloaded(origin: Path, target: Path) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/a.zip", origin.read_bytes())
    try:
        assert download_archive("memory://bucket/a.zip", target).status == "downloaded"
        assert download_archive("memory://bucket/a.zip", target).status == "already there"
    finally:
        filesystem.store.clear()
    assert target.read_bytes() == origin.read_bytes()


class TestAlreadyThere:
    @pytest.mark.parametrize("faults", HABITS.values(), ids=HABITS)
    def test_a_finished_file_is_compared_and_not_read_again(
        self, origin: Path, target: Path, faults: list[Fault]
    ) -> None:
        with serve_directory(origin.parent, faults=faults) as server:
            download(server, origin, target)
            before, n_requests = target.stat(), len(server.requests)
            report = download(server, origin, target)
            if faults[-1:] == [NoStamps()] and IgnoreRange() in faults:
                # Nothing tells this version from another one.
                assert report.status == "downloaded"
                return
            assert (report.status, report.n_bytes_received) == ("already there", 0)
            # Reading changes its time of access, and a write its time of change.
            assert (target.stat().st_ino, target.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
            # A server that refuses ranges is asked for them first.
            n_more = len(server.requests) - n_requests
            assert n_more == (1 if IgnoreRange() not in faults else 3)

    @pytest.mark.parametrize("faults", [[], [IgnoreRange()]], ids=["ranges", "whole files"])
    def test_a_new_version_replaces_it(self, origin: Path, target: Path, faults: list[Fault]) -> None:
        with serve_directory(origin.parent, faults=faults) as server:
            download(server, origin, target)
            write_noise(origin.parent, seed=1)
            os.utime(origin, (5, 5))
            assert download(server, origin, target).status == "downloaded"
        assert target.read_bytes() == origin.read_bytes()

    def test_a_file_put_there_by_hand_is_known_by_its_index(self, origin: Path, target: Path) -> None:
        target.parent.mkdir()
        target.write_bytes(origin.read_bytes())
        with serve_directory(origin.parent) as server:
            assert download(server, origin, target).status == "already there"

    @pytest.mark.parametrize("faults", [[], [IgnoreRange()]], ids=["ranges", "whole files"])
    @pytest.mark.parametrize("was_downloaded", [False, True])
    def test_a_file_that_no_download_made_is_never_replaced(
        self, origin: Path, target: Path, faults: list[Fault], was_downloaded: bool
    ) -> None:
        with serve_directory(origin.parent, faults=faults) as server:
            if was_downloaded:
                download(server, origin, target)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(b"three years of somebody's work")
            with pytest.raises(DownloadError, match=rf"{target}: a file that was not downloaded by this software"):
                download(server, origin, target)
        assert target.read_bytes() == b"three years of somebody's work"
        assert not target.with_name("a.zip.part").exists()

    def test_a_download_that_was_killed_while_it_replaced_a_file_goes_on(
        self, origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def kill(*_: object) -> None:
            raise KeyboardInterrupt

        with serve_directory(origin.parent) as server:
            download(server, origin, target)
            write_noise(origin.parent, seed=1)
            os.utime(origin, (5, 5))
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", lambda path, new: kill() if new == target else os.replace(path, new))
                with pytest.raises(KeyboardInterrupt):
                    download(server, origin, target)
            assert download(server, origin, target).status == "downloaded"
        assert target.read_bytes() == origin.read_bytes()

    def test_a_file_of_another_mirror_is_known_by_its_index(self, origin: Path, target: Path) -> None:
        with serve_directory(origin.parent) as server:
            download(server, origin, target)
        os.utime(origin, (5, 5))  # mirrors stamp as they like
        with serve_directory(origin.parent) as mirror:
            assert download(mirror, origin, target).status == "already there"

    @pytest.mark.parametrize("record", ["", "[]", "{}", '{"mtime_ns": 1}', '{"url": 1, "nothing": 2}'])
    def test_a_damaged_record_does_no_harm(self, origin: Path, target: Path, record: str) -> None:
        with serve_directory(origin.parent) as server:
            download(server, origin, target)
            target.with_name("a.zip.json").write_text(record)
            assert download(server, origin, target).status == "already there"

    def test_nothing_is_written_beside_a_finished_file(self, origin: Path, target: Path) -> None:
        with serve_directory(origin.parent) as server:
            download(server, origin, target)
            before = target.parent.stat().st_mtime_ns
            download(server, origin, target)
            assert target.parent.stat().st_mtime_ns == before

    def test_a_token_is_not_written_down_and_may_be_another_the_next_time(self, origin: Path, target: Path) -> None:
        with serve_directory(origin.parent) as server:
            url = server.url_of(origin.name)
            assert download_archive(f"{url}?token=secret", target).status == "downloaded"
            assert "secret" not in target.with_name("a.zip.json").read_text()
            assert download_archive(f"{url}?token=other", target).status == "already there"

    def test_a_server_that_is_gone_is_an_error(self, origin: Path, target: Path) -> None:
        with serve_directory(origin.parent) as server:
            download(server, origin, target)
        with pytest.raises(SourceError, match="did not deliver"):
            download(server, origin, target)


class TestResume:
    @pytest.fixture
    def interrupted(self, origin: Path, target: Path) -> Iterator[tuple[DirectoryServer, int]]:
        """A server, and how many bytes of its archive an interrupted run has left."""
        # The index and two segments come; then the server is out of order for the rest of this run.
        out_of_order = set(range(N_OPENING_REQUESTS + 2, 1000))
        with serve_directory(origin.parent, faults=[OnRequests(AnswerStatus(404), out_of_order)]) as server:
            with pytest.raises(SourceError, match="no such file"):
                download(server, origin, target, jobs=1)
            out_of_order.clear()
            yield server, 2 * SEGMENT_SIZE_BYTES

    def test_it_goes_on_where_it_stopped(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int]
    ) -> None:
        server, n_bytes_left = interrupted
        assert not target.exists()
        n_requests = len(server.requests)
        report = download(server, origin, target)
        assert target.read_bytes() == origin.read_bytes()
        assert (report.n_bytes_resumed, report.n_bytes_received) == (
            n_bytes_left,
            origin.stat().st_size - n_bytes_left,
        )
        starts = [int(r.range.removeprefix("bytes=").split("-")[0] or 0) for r in server.requests[n_requests + 1 :]]
        assert min(starts) == n_bytes_left

    def test_it_goes_on_from_another_mirror(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int]
    ) -> None:
        os.utime(origin, (5, 5))
        with serve_directory(origin.parent) as mirror:
            assert download(mirror, origin, target).n_bytes_resumed == interrupted[1]
        assert target.read_bytes() == origin.read_bytes()

    @pytest.mark.parametrize("what", ["stamp", "content", "part", "size"])
    def test_it_starts_over_where_what_is_there_cannot_be_trusted(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int], what: str
    ) -> None:
        part = target.with_name("a.zip.part")
        match what:
            case "stamp":
                os.utime(origin, (5, 5))
            case "content":
                write_noise(origin.parent, seed=1)
            case "part":
                part.unlink()
            case "size":
                os.truncate(part, 1000)
        assert download(interrupted[0], origin, target).n_bytes_resumed == 0
        assert target.read_bytes() == origin.read_bytes()

    @pytest.mark.parametrize("record", [None, "", '{"finished": [[0', '{"mine": 1}', "a link"])
    def test_bytes_that_no_record_vouches_for_are_kept(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int], record: str | None
    ) -> None:
        part, path = target.with_name("a.zip.part"), target.with_name("a.zip.part.json")
        if record == "a link":
            path.rename(target.with_name("mine"))
            path.symlink_to("mine")
        elif record is None:
            path.unlink()
        else:
            path.write_text(record)
        before = {entry: entry.read_bytes() for entry in target.parent.iterdir()}
        told = "no record says that a download made it" if record is None else "has the name of a download's record"
        with pytest.raises(DownloadError, match=rf"{told}.*; move it away, or choose another folder"):
            download(interrupted[0], origin, target)
        assert {entry: entry.read_bytes() for entry in target.parent.iterdir()} == before
        assert part in before

    @pytest.mark.parametrize("faults", [[], [IgnoreRange()]], ids=["ranges", "whole files"])
    @pytest.mark.parametrize("name", ["a.zip.json", "a.zip.part", "a.zip.part.json"])
    def test_files_of_somebody_else_beside_it_are_kept(
        self, origin: Path, target: Path, faults: list[Fault], name: str
    ) -> None:
        target.parent.mkdir()
        for mine in (name, f".{name}.tmp", f"{name}.tmp"):
            target.with_name(mine).write_text("mine")
        with (
            serve_directory(origin.parent, faults=faults) as server,
            pytest.raises(DownloadError, match="move it away"),
        ):
            download(server, origin, target)
        left = {path.name: path.read_text() for path in target.parent.iterdir()}
        # The one that was made to be locked may stay; nothing is in it.
        assert left.pop("a.zip.part" if name != "a.zip.part" else "", "") == ""
        assert left == dict.fromkeys((name, f".{name}.tmp", f"{name}.tmp"), "mine")

    def test_a_part_with_another_name_is_left_alone(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int]
    ) -> None:
        part, other = target.with_name("a.zip.part"), target.with_name("thesis")
        part.unlink()
        other.write_text("years of work")
        os.link(other, part)
        with pytest.raises(DownloadError, match=r"a\.zip\.part: .*a file that has other names, too.*move it"):
            download(interrupted[0], origin, target)
        assert other.read_text() == "years of work"

    @pytest.mark.parametrize("name", ["a.zip.part", "a.zip.part.json", "a.zip"])
    def test_a_folder_in_the_place_of_a_file_is_to_be_moved(self, origin: Path, target: Path, name: str) -> None:
        target.with_name(name).mkdir(parents=True)
        with (
            serve_directory(origin.parent) as server,
            pytest.raises(DownloadError, match=rf"{name}: .*move it away"),
        ):
            download(server, origin, target)
        assert target.with_name(name).is_dir()

    @pytest.mark.parametrize(
        "finished",
        [
            "[[0, 1e999]]",
            "[[0, NaN]]",
            "[[0, 1.5]]",
            "[[true, 3]]",
            '[["0", "3"]]',
            "[[-5, 3]]",
            "[[3, 1]]",
            "[[0, 99999999999]]",
            "[[0]]",
            "[0]",
            "{}",
            str([[2 * i, 2 * i + 1] for i in range(400_000)]),
        ],
        ids=lambda text: text[:20],
    )
    def test_it_starts_over_where_no_download_wrote_what_is_there(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int], finished: str
    ) -> None:
        path = target.with_name("a.zip.part.json")
        record = json.loads(path.read_text()) | {"finished": "HERE"}
        path.write_text(json.dumps(record).replace('"HERE"', finished))
        assert download(interrupted[0], origin, target).n_bytes_resumed == 0
        assert target.read_bytes() == origin.read_bytes()

    def test_bytes_that_rotted_meanwhile_are_fetched_again(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int]
    ) -> None:
        part = target.with_name("a.zip.part")
        raw = bytearray(part.read_bytes())
        raw[SEGMENT_SIZE_BYTES + 5] ^= 1
        part.write_bytes(raw)
        report = download(interrupted[0], origin, target)
        assert target.read_bytes() == origin.read_bytes()
        assert report.n_bytes_resumed == interrupted[1]
        # The damaged member was fetched again, and not the whole of it.
        assert report.n_bytes_received < 1.1 * origin.stat().st_size

    def test_its_record_says_what_came_of_which_version(
        self, origin: Path, target: Path, interrupted: tuple[DirectoryServer, int]
    ) -> None:
        record = json.loads(target.with_name("a.zip.part.json").read_text())
        assert record["url"] == interrupted[0].url_of(origin.name)
        assert record["size_bytes"] == origin.stat().st_size
        assert record["finished"] == [[0, interrupted[1]]]


class TestDisk:
    def test_a_folder_that_cannot_be_written_is_one_clear_error(self, origin: Path, tmp_path: Path) -> None:
        (tmp_path / "no folder").write_text("")
        with (
            serve_directory(origin.parent) as server,
            pytest.raises(DownloadError, match=r"no folder/a\.zip.*cannot be written: found .*; move it away"),
        ):
            download(server, origin, tmp_path / "no folder" / "a.zip")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_a_read_only_folder_is_one_clear_error(self, origin: Path, target: Path) -> None:
        target.parent.mkdir(mode=0o500)
        with serve_directory(origin.parent) as server, pytest.raises(DownloadError, match="Permission denied"):
            download(server, origin, target)

    def test_a_full_disk_is_told_before_anything_is_downloaded(
        self, origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Usage:
            free = 1000

        monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
        for faults in ([], [IgnoreRange()]):
            with serve_directory(origin.parent, faults=faults) as server:
                with pytest.raises(
                    DownloadError,
                    match=rf"not enough space .*found 1,000 bytes free, expected {origin.stat().st_size:,}",
                ):
                    download(server, origin, target)
                assert not target.exists()

    @pytest.mark.parametrize("faults", [[], [IgnoreRange()]], ids=["ranges", "whole files"])
    def test_a_disk_that_fills_is_one_clear_error_and_the_part_is_kept(
        self, origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Fault]
    ) -> None:
        whole_pwrite = os.pwrite

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            if offset >= 2 * SEGMENT_SIZE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole_pwrite(descriptor, data, offset)

        with serve_directory(origin.parent, faults=faults) as server:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", pwrite)
                with pytest.raises(DownloadError, match=r"a\.zip\.part: .* found No space left.*what is done is kept"):
                    download(server, origin, target, jobs=1)
            report = download(server, origin, target)
            assert report.n_bytes_resumed == (0 if faults else 2 * SEGMENT_SIZE_BYTES)
        assert target.read_bytes() == origin.read_bytes()

    def test_short_writes_are_continued(self, origin: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole_pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole_pwrite(fd, data[:1000], offset))
        with serve_directory(origin.parent) as server:
            download(server, origin, target)
        assert target.read_bytes() == origin.read_bytes()


class TestTwoAtOnce:
    @pytest.mark.parametrize("faults", [[], [IgnoreRange()]], ids=["ranges", "whole files"])
    def test_the_second_waits_and_finds_it_done(self, origin: Path, target: Path, faults: list[Fault]) -> None:
        labels = []
        with (
            serve_directory(origin.parent, faults=[*faults, Throttle(3e5)]) as server,
            ThreadPoolExecutor(4) as pool,
        ):
            url = server.url_of(origin.name)
            runs = [
                pool.submit(
                    download_archive,
                    url,
                    target,
                    policy=IMPATIENT,
                    progress=lambda label, *_, **__: labels.append(label),
                )
                for _ in range(4)
            ]
            statuses = sorted(run.result().status for run in runs)
            assert statuses == ["already there"] * 3 + ["downloaded"]
            assert server.n_bytes_sent < 2 * origin.stat().st_size + 8 * 70_000
        assert target.read_bytes() == origin.read_bytes()
        assert names_in(target.parent) == {"a.zip", "a.zip.json"}
        assert "wait for another download of a.zip" in labels

    def test_who_waited_never_writes_into_the_finished_file(self, target: Path) -> None:
        waiting = threading.Event()

        def overwrite() -> None:
            with open_part(target, on_wait=waiting.set) as part:
                part.start_over(FileVersion("url", 4, None))
                part.write(0, b"new.")

        with ThreadPoolExecutor(1) as pool:
            with open_part(target) as part:
                part.start_over(FileVersion("url", 4, None))
                part.write(0, b"old.")
                other = pool.submit(overwrite)
                assert waiting.wait(30)
                part.publish()
            other.result(timeout=30)
        assert target.read_bytes() == b"old."
        assert target.with_name("a.zip.part").read_bytes() == b"new."


def test_progress_is_told_in_segments_and_members(origin: Path, target: Path) -> None:
    told: list[tuple[str, int, int]] = []
    for faults in ([], [IgnoreRange()], [IgnoreRange(), NoContentLength()]):
        told.clear()
        target.unlink(missing_ok=True)
        with serve_directory(origin.parent, faults=faults) as server:
            download_archive(
                server.url_of(origin.name),
                target,
                policy=IMPATIENT,
                jobs=1,
                label="F",
                progress=lambda *step, **_: told.append(step),
            )
        n_segments = -(-origin.stat().st_size // SEGMENT_SIZE_BYTES)
        downloading = [(n, total) for label, n, total in told if label == "download F"]
        assert downloading[0][0] == 0
        assert [n for n, _ in downloading] == sorted(n for n, _ in downloading)
        if NoContentLength() not in faults:
            assert downloading[-1] == (n_segments, n_segments)
        else:
            assert all(n < total for n, total in downloading)
        assert [(n, total) for label, n, total in told if label == "check F"] == [(n, 14) for n in range(1, 15)]
