"""What a download does when the server misbehaves or it is killed: go on, or say why not; never keep wrong bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fixtures.archives import SESSION, write_noise, write_zip
from fixtures.downloads import SEGMENT_SIZE_BYTES, download
from sensorium_data.errors import ArchiveError, SensoriumError, SourceChangedError, SourceError
from sensorium_data.testing import serve_directory
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
    OnRequests,
    Redirect,
    Replay,
    ShiftContentRange,
    Stall,
)
from sensorium_data.testing.server import Fault

#: The first request that a download makes for a segment; before it, for whole files, what finds out about the server.
FIRST_SEGMENT = 1


pytestmark = pytest.mark.usefixtures("small_segments", "sound_server")

TRANSIENT: dict[str, Fault] = {
    "connection closed without an answer": CloseConnection(),
    "body dropped at once": DropBody(0),
    "body dropped after some bytes": DropBody(5000),
    "stall before the body": Stall(0, 30),
    "stall in the body": Stall(5000, 30),
    "status 429": AnswerStatus(429, {"Retry-After": "0"}),
    "status 503": AnswerStatus(503),
    "status 503 with a web page": AnswerHtml(503),
}


@pytest.mark.parametrize("at", [0, FIRST_SEGMENT, FIRST_SEGMENT + 3])
@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_transient_fault_is_tried_again(origin: Path, target: Path, fault: Fault, at: int) -> None:
    with serve_directory(origin.parent, faults=[OnRequests(fault, {at})]) as server:
        download(server, origin, target)
    assert target.read_bytes() == origin.read_bytes()


# Two requests for ranges, one to look at the file, one for all of it.
@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize("has_length", [True, False], ids=["with lengths", "in chunks"])
@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_transient_fault_of_a_whole_file_begins_it_anew(
    origin: Path, target: Path, fault: Fault, has_length: bool, at: int
) -> None:
    faults = [OnRequests(fault, {at}), IgnoreRange(), *([] if has_length else [NoContentLength()])]
    with serve_directory(origin.parent, faults=faults) as server:
        report = download(server, origin, target)
    assert target.read_bytes() == origin.read_bytes()
    assert report.n_bytes_received == origin.stat().st_size


@pytest.mark.parametrize("habits", [[], [IgnoreRange()], [IgnoreRange(), NoContentLength()]])
def test_a_lasting_fault_is_an_error_and_the_file_has_no_name(origin: Path, target: Path, habits: list[Fault]) -> None:
    faults = [OnRequests(DropBody(5000), range(3, 10_000)), *habits]
    with (
        serve_directory(origin.parent, faults=faults) as server,
        pytest.raises(SourceError, match=r"did not deliver in 3 attempts: found the connection broke after \d+ bytes"),
    ):
        download(server, origin, target)
    assert not target.exists()


REFUSED: dict[str, tuple[Fault, str]] = {
    "other bytes than asked for": (ShiftContentRange(), "other bytes than asked for"),
    "a compressed body": (CompressBody(), "the server compresses"),
    "a captcha": (AnswerHtml(), "answered with a web page, perhaps a captcha"),
    "status 404": (AnswerStatus(404), "there is no such file on the server"),
    "status 403": (AnswerStatus(403), "the server refuses access"),
}


@pytest.mark.parametrize("at", [0, FIRST_SEGMENT + 1])
@pytest.mark.parametrize(("fault", "match"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_answer_is_an_error_and_the_next_run_goes_on(
    origin: Path, target: Path, fault: Fault, match: str, at: int
) -> None:
    with serve_directory(origin.parent, faults=[OnRequests(fault, {at})]) as server:
        with pytest.raises(SourceError, match=match):
            download(server, origin, target, jobs=1)
        assert not target.exists()
        report = download(server, origin, target)
    # Segments that were asked for before the answer was looked at may have come too.
    n_resumed, rest = divmod(report.n_bytes_resumed, SEGMENT_SIZE_BYTES)
    assert (n_resumed > 0, rest) == (at > 0, 0)
    assert target.read_bytes() == origin.read_bytes()


@pytest.mark.parametrize(("fault", "match"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_answer_for_a_whole_file_is_an_error(origin: Path, target: Path, fault: Fault, match: str) -> None:
    with (
        serve_directory(origin.parent, faults=[Replay([None, None, None, fault]), IgnoreRange()]) as server,
        pytest.raises(SensoriumError, match=match if fault != ShiftContentRange() else "found status 206"),
    ):
        download(server, origin, target)
    assert not target.exists()


def test_one_whole_file_among_ranges_does_not_cost_what_is_there(origin: Path, target: Path) -> None:
    with serve_directory(origin.parent, faults=[OnRequests(IgnoreRange(), {FIRST_SEGMENT + 2})]) as server:
        report = download(server, origin, target, jobs=1)
        assert (report.n_bytes_received, report.n_bytes_resumed) == (origin.stat().st_size, 0)
        assert [r.status for r in server.requests].count(200) == 1
        starts = [r.range for r in server.requests if r.range == f"bytes=0-{SEGMENT_SIZE_BYTES - 1}"]
        assert len(starts) == 1
    assert target.read_bytes() == origin.read_bytes()


def test_a_server_that_stops_sending_ranges_is_asked_for_the_whole_file(origin: Path, target: Path) -> None:
    with serve_directory(origin.parent, faults=[OnRequests(IgnoreRange(), range(3, 1000))]) as server:
        download(server, origin, target)
    assert target.read_bytes() == origin.read_bytes()


def test_redirects_are_followed(origin: Path, target: Path) -> None:
    for faults in ([Redirect()], [Redirect(), IgnoreRange()]):
        target.unlink(missing_ok=True)
        with serve_directory(origin.parent, faults=faults) as server:
            download(server, origin, target)
        assert target.read_bytes() == origin.read_bytes()


class TestChange:
    """The file is replaced at the server while it is downloaded."""

    @pytest.mark.parametrize("n_members", [14, 15], ids=["same size", "other size"])
    @pytest.mark.parametrize(
        ("habits", "at"),
        [
            *(([], at) for at in (1, 2, 5, 8)),
            *(([NoStamps()], at) for at in (1, 2, 5, 8)),
            *(([IgnoreRange()], at) for at in (2, 3, 5)),
            *(([IgnoreRange(), NoStamps()], at) for at in (2, 3)),
        ],
    )
    def test_no_two_versions_are_spliced(
        self, origin: Path, target: Path, habits: list[Fault], at: int, n_members: int
    ) -> None:
        async def replace(request, handler):
            write_noise(target.parent, seed=1, n_members=n_members).replace(origin)
            os.utime(origin, (5, 5))
            return await handler(request)

        old = origin.read_bytes()
        target.parent.mkdir()
        with serve_directory(origin.parent, faults=[OnRequests(replace, {at}), *habits]) as server:
            download(server, origin, target)
            # The change may have come too late for this run; it is never too late for the next one.
            assert target.read_bytes() in (old, origin.read_bytes())
            download(server, origin, target)
        assert origin.read_bytes() != old
        assert target.read_bytes() == origin.read_bytes()

    @pytest.mark.parametrize("fault", [ChangeETag(), ChangeLastModified()])
    def test_a_file_that_changes_all_the_time_is_an_error(self, origin: Path, target: Path, fault: Fault) -> None:
        with serve_directory(origin.parent, faults=[fault]) as server:
            with pytest.raises(SourceChangedError, match=r"changed while it was being read: found .* expected"):
                download(server, origin, target)
            assert len(server.requests) < 20
        assert not target.exists()


class TestDamage:
    def test_a_bit_that_flips_once_is_mended(self, origin: Path, target: Path) -> None:
        offset = 3 * SEGMENT_SIZE_BYTES + 7
        with serve_directory(origin.parent, faults=[OnRequests(FlipBit(offset), range(1, 8))]) as server:
            report = download(server, origin, target, jobs=1)
        assert target.read_bytes() == origin.read_bytes()
        assert origin.stat().st_size < report.n_bytes_received < 1.2 * origin.stat().st_size

    def test_a_damaged_archive_is_an_error_that_names_the_member(self, origin: Path, target: Path) -> None:
        with zipfile.ZipFile(origin) as archive:
            info = archive.infolist()[5]
        whole = origin.read_bytes()
        raw = bytearray(whole)
        raw[info.header_offset + 500] ^= 1
        for habits in ([], [IgnoreRange()]):
            origin.write_bytes(raw)
            with serve_directory(origin.parent, faults=habits) as server:
                with pytest.raises(ArchiveError, match="the member is damaged: found CRC") as caught:
                    download(server, origin, target)
                assert (caught.value.session, caught.value.trial) == (SESSION.name, 5)
                assert caught.value.path == f"{server.url_of(origin.name)}: {info.filename}"
                assert not target.exists()
                status = origin.stat()
                origin.write_bytes(whole)
                os.utime(origin, ns=(status.st_atime_ns, status.st_mtime_ns))
                report = download(server, origin, target)
            assert target.read_bytes() == whole
            if not habits:
                # Mended in place: only what was damaged is fetched again.
                assert report.n_bytes_received < 11_000
            target.unlink()

    @pytest.mark.parametrize("habits", [[], [IgnoreRange()]])
    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "the archive is empty"),
            (b"<!DOCTYPE html><html>captcha</html>", "this is a web page, not an archive"),
            (b"\x1f\x8b\x08" + bytes(100_000), "this is no zip file"),
            (b"PK\x03\x04" + bytes(100_000), "the archive is truncated: its end is missing"),
        ],
    )
    def test_what_is_no_archive_is_said(
        self, origin: Path, target: Path, content: bytes, match: str, habits: list[Fault]
    ) -> None:
        origin.write_bytes(content)
        with serve_directory(origin.parent, faults=habits) as server:
            with pytest.raises(ArchiveError, match=match) as caught:
                download(server, origin, target)
            assert str(caught.value.path) == server.url_of(origin.name)
            if not habits:
                assert server.n_bytes_sent < 70_000  # not all of it
        assert not target.exists()

    @pytest.mark.parametrize("habits", [[], [IgnoreRange()]])
    def test_what_could_not_be_read_is_refused(self, origin: Path, target: Path, habits: list[Fault]) -> None:
        write_zip(origin, {f"{SESSION.name}/data/videos/7.npy": bytes(200_000)}, zipfile.ZIP_LZMA)
        with (
            serve_directory(origin.parent, faults=habits) as server,
            pytest.raises(ArchiveError, match=r"trial 7, .*unsupported way: found method 14"),
        ):
            download(server, origin, target)
        assert not target.exists()


def test_a_download_killed_at_any_step_goes_on(origin: Path, tmp_path: Path) -> None:
    with serve_directory(origin.parent) as server:
        finished = subprocess.run(
            [sys.executable, "-m", "fixtures.download_crashes", server.url_of(origin.name), str(tmp_path / "runs")],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=300,
        )
    assert finished.returncode == 0, finished.stderr
    answer = json.loads(finished.stdout)
    resumed = {int(step): n_bytes for step, n_bytes in answer["resumed"].items()}
    assert len(resumed) == answer["n_steps"] > 15
    for step in ("whole", *resumed):
        folder = tmp_path / "runs" / str(step)
        assert (folder / "a.zip").read_bytes() == origin.read_bytes()
        left = {path.name for path in folder.iterdir()}
        assert {"a.zip"} <= left <= {"a.zip", "a.zip.json", "a.zip.part.json"}, step
    # What an earlier kill left is never less than what a still earlier one did, until the file has its name.
    counts = list(resumed.values())
    named = counts.index(-1)
    assert counts[:named] == sorted(counts[:named])
    assert counts[named - 1] == origin.stat().st_size
    assert set(counts[named:]) == {-1}


def test_nothing_of_the_tests_own_is_left_open(origin: Path, target: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with serve_directory(origin.parent, faults=[OnRequests(AnswerStatus(404), {3})]) as server:
        with pytest.raises(SourceError):
            download(server, origin, target)
        download(server, origin, target)
    opened = {os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before if _is_open(fd)}
    assert not {name for name in opened if re.search("a.zip|socket", name)}


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")
