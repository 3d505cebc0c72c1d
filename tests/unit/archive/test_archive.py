from __future__ import annotations

import concurrent.futures
import hashlib
import io
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.archives import IMPATIENT, SESSION, SHAPES, npy, session_members, write_session, write_zip
from sensorium_data.archive import MODALITIES, SessionArchive, locate_archive
from sensorium_data.errors import ArchiveError, SourceError, TrialError
from sensorium_data.sessions import find_session
from sensorium_data.testing import Throttle, serve_directory

FOLDER = SESSION.name


def assert_same_as_zipfile(path: Path) -> None:
    with SessionArchive.open(str(path)) as archive, zipfile.ZipFile(path) as oracle:
        infos = [info for info in oracle.infolist() if not info.is_dir()]
        assert list(archive.entries) == [info.filename for info in infos]
        for info in infos:
            entry = archive.entries[info.filename]
            assert (entry.size_bytes, entry.compressed_size_bytes) == (info.file_size, info.compress_size)
            assert (entry.crc32, entry.header_offset, entry.method) == (
                info.CRC,
                info.header_offset,
                info.compress_type,
            )
            assert archive.read_member(info.filename) == oracle.read(info)


class Unseekable(io.RawIOBase):
    """A stream that zipfile cannot go back in, so that it writes data descriptors."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: bytes) -> int:
        self.content += piece
        return len(piece)


class TestSameAsZipfile:
    CONTENTS = {  # noqa: RUF012 - never changed
        f"{FOLDER}/a.npy": npy(np.arange(1000.0)),
        f"{FOLDER}/empty": b"",
        f"{FOLDER}/zeros": bytes(200_000),
        f"{FOLDER}/noise": np.random.default_rng(0).bytes(5000),
        f"{FOLDER}/größe": b"x",
    }

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_stored_and_deflated(self, tmp_path: Path, method: int) -> None:
        assert_same_as_zipfile(write_zip(tmp_path / "a.zip", self.CONTENTS, method))

    @pytest.mark.parametrize("comment", [b"made by hand", bytes(65535)])
    def test_comments(self, tmp_path: Path, comment: bytes) -> None:
        path = write_zip(tmp_path / "a.zip", self.CONTENTS)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment
        assert_same_as_zipfile(path)

    def test_an_end_record_s_signature_in_the_comment(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", self.CONTENTS)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"PK\x05\x06 is no end record, although zipfile takes it for one"
        with SessionArchive.open(str(path)) as archive:
            assert {name: archive.read_member(name) for name in archive.entries} == self.CONTENTS

    def test_data_descriptors(self, tmp_path: Path) -> None:
        stream = Unseekable()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.CONTENTS.items():
                archive.writestr(name, content)
        (tmp_path / "a.zip").write_bytes(stream.content)
        assert_same_as_zipfile(tmp_path / "a.zip")

    @pytest.mark.parametrize("zip64", [False, True])
    def test_bytes_before_the_archive(self, tmp_path: Path, zip64: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if zip64:
            monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        path = write_zip(tmp_path / "a.zip", self.CONTENTS)
        monkeypatch.undo()
        path.write_bytes(b"#!/bin/sh\nexit 1\n" + path.read_bytes())
        assert_same_as_zipfile(path)

    def test_zip64_fields_of_every_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 300)
        path = write_zip(tmp_path / "a.zip", self.CONTENTS)
        monkeypatch.undo()
        assert b"PK\x06\x06" in path.read_bytes()
        assert_same_as_zipfile(path)

    def test_a_zip64_record_with_private_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        raw = write_zip(tmp_path / "a.zip", self.CONTENTS).read_bytes()
        locator = raw.index(b"PK\x06\x07")
        (tmp_path / "a.zip").write_bytes(raw[:locator] + bytes(100) + raw[locator:])
        with SessionArchive.open(str(tmp_path / "a.zip")) as archive:
            assert {name: archive.read_member(name) for name in archive.entries} == self.CONTENTS

    def test_empty_members_without_a_stream(self, tmp_path: Path) -> None:
        raw = bytearray(write_zip(tmp_path / "a.zip", {f"{FOLDER}/a": b""}, zipfile.ZIP_STORED).read_bytes())
        for offset, local in ((8, True), (10, False)):
            struct.pack_into("<H", raw, entry_offset(raw, f"{FOLDER}/a", local=local) + offset, zipfile.ZIP_DEFLATED)
        (tmp_path / "a.zip").write_bytes(raw)
        assert_same_as_zipfile(tmp_path / "a.zip")

    def test_zip64_local_headers(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.CONTENTS.items():
                with archive.open(name, "w", force_zip64=True) as member:
                    member.write(content)
        assert_same_as_zipfile(tmp_path / "a.zip")

    def test_an_archive_of_more_than_4_gib(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        with path.open("wb") as stream:
            stream.truncate(5 << 30)  # a hole, which takes no space
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{FOLDER}/a", b"beyond")
        assert_same_as_zipfile(path)
        assert path.stat().st_size > 5 << 30

    def test_more_than_65535_members(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(65_540):
                archive.writestr(zipfile.ZipInfo(f"{FOLDER}/{i}"), b"")
        with SessionArchive.open(str(path)) as archive:
            assert len(archive.entries) == 65_540


class TestMembers:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_session(tmp_path)

    def test_arrays_are_what_was_saved(self, path: Path) -> None:
        with SessionArchive.open(str(path), SESSION) as archive:
            for name, array in session_members().items():
                np.testing.assert_array_equal(archive.read_array(name), array, strict=True)
            video = archive.read_trial("videos", 10)
            np.testing.assert_array_equal(video, session_members()[f"{FOLDER}/data/videos/10.npy"])
            std = archive.read_statistic("responses", "std")
            assert std.shape == SHAPES["responses"]

    def test_trials_are_in_the_order_of_numbers(self, path: Path) -> None:
        with SessionArchive.open(str(path), SESSION) as archive:
            assert archive.trial_ids() == [0, 1, 10]

    def test_the_folder_is_the_archive_s(self, path: Path) -> None:
        with SessionArchive.open(str(path)) as archive:
            assert archive.name == FOLDER
            assert archive.member("meta/trials/tiers.npy") == f"{FOLDER}/meta/trials/tiers.npy"
            assert FOLDER in repr(archive)

    def test_junk_is_left_out(self, path: Path) -> None:
        junk = ("__MACOSX/._x", f"{FOLDER}/.DS_Store", f"{FOLDER}/data/videos/._0.npy", f"__MACOSX/{FOLDER}/._data")
        with zipfile.ZipFile(path, "a") as archive:
            archive.mkdir(f"{FOLDER}/data/videos/")
            for name in junk:
                archive.writestr(name, b"junk")
        with SessionArchive.open(str(path), SESSION) as archive:
            assert set(archive.entries) == set(session_members())
            assert archive.trial_ids() == [0, 1, 10]

    def test_the_digest_is_the_central_directory_s(self, path: Path) -> None:
        raw = path.read_bytes()
        size, offset = struct.unpack("<2L", raw[-10:-2])
        with SessionArchive.open(str(path)) as archive:
            assert archive.digest == hashlib.sha256(raw[offset : offset + size]).hexdigest()
            assert archive.size_bytes == len(raw)

    def test_threads_read_at_once(self, path: Path) -> None:
        with (
            SessionArchive.open(str(path)) as archive,
            zipfile.ZipFile(path) as oracle,
            concurrent.futures.ThreadPoolExecutor(8) as pool,
        ):
            names = list(archive.entries) * 5
            for name, content in zip(names, pool.map(archive.read_member, names), strict=True):
                assert content == oracle.read(name)

    def test_an_unknown_member_is_named(self, path: Path) -> None:
        with (
            SessionArchive.open(str(path)) as archive,
            pytest.raises(ArchiveError, match=r"trial 7, .*data/videos/7\.npy: no such member"),
        ):
            archive.read_trial("videos", 7)

    @pytest.mark.parametrize("version", [(1, 0), (2, 0)])
    def test_npy_versions(self, tmp_path: Path, version: tuple[int, int]) -> None:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.arange(6.0).reshape(2, 3), version=version)
        path = write_zip(tmp_path / "a.zip", {f"{FOLDER}/a.npy": stream.getvalue()})
        with SessionArchive.open(str(path)) as archive:
            np.testing.assert_array_equal(archive.read_array(f"{FOLDER}/a.npy"), np.arange(6.0).reshape(2, 3))


class TestRequests:
    def test_the_index_takes_at_most_three_requests_and_each_member_one(self, tmp_path: Path) -> None:
        write_session(tmp_path, trials=range(20))
        with serve_directory(tmp_path) as server, SessionArchive.open(locate_archive(SESSION, server.url)) as archive:
            n_for_index, n_bytes_of_index = len(server.requests), server.n_bytes_sent
            assert n_for_index <= 3
            n_bytes = 0
            for n, (name, entry) in enumerate(archive.entries.items(), start=1):
                archive.read_member(name)
                n_bytes += entry.compressed_size_bytes
                assert len(server.requests) == n_for_index + n
            assert server.n_bytes_sent - n_bytes_of_index <= 1.02 * n_bytes
            assert {request.status for request in server.requests} == {206}

    def test_a_session_is_read_by_several_connections_with_hardly_a_byte_too_many(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        sizes = {"videos": 40_000, "responses": 30_000, "behavior": 3_000, "pupil_center": 2_000}
        members = {
            f"{FOLDER}/data/{modality}/{trial}.npy": rng.bytes(size)
            for modality, size in sizes.items()
            for trial in range(200)
        }
        write_zip(tmp_path / f"{FOLDER}.zip", members, zipfile.ZIP_STORED)
        n_bytes = sum(map(len, members.values()))
        with (
            serve_directory(tmp_path, faults=[Throttle(5e6)]) as server,
            SessionArchive.open(locate_archive(SESSION, server.url)) as archive,
            concurrent.futures.ThreadPoolExecutor(4) as pool,
        ):
            n_for_index = len(server.requests)
            assert n_for_index <= 3
            for name, content in zip(members, pool.map(archive.read_member, members), strict=True):
                assert content == members[name]
            ranges = [request.range for request in server.requests[n_for_index:]]
            assert len(ranges) == len(set(ranges)) == len(members)
            assert server.n_bytes_sent <= 1.02 * n_bytes
            # The threads' reads overlap: each has a connection of its own.
            assert server.peak_n_requests == 4

    def test_a_large_index_takes_at_most_three_requests(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        write_zip(tmp_path / "a.zip", {f"{FOLDER}/{i:0200}": b"" for i in range(2000)})
        monkeypatch.undo()
        with serve_directory(tmp_path) as server, SessionArchive.open(server.url_of("a.zip")) as archive:
            assert len(archive.entries) == 2000
            assert len(server.requests) <= 3


class TestLocateArchive:
    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            (None, SESSION.url),
            ("archives", f"archives/{FOLDER}.zip"),
            ("archives/", f"archives/{FOLDER}.zip"),
            ("/data/mine.zip", "/data/mine.zip"),
            ("https://example.org/x", f"https://example.org/x/{FOLDER}.zip"),
            ("https://example.org/x/?a=1&b=/", f"https://example.org/x/{FOLDER}.zip?a=1&b=/"),
            ("https://example.org/mine.ZIP?a=1", "https://example.org/mine.ZIP?a=1"),
            ("https://example.org/x?file=mine.zip", f"https://example.org/x/{FOLDER}.zip?file=mine.zip"),
            ("s3://bucket/x", f"s3://bucket/x/{FOLDER}.zip"),
            ("simplecache::s3://bucket/x", f"simplecache::s3://bucket/x/{FOLDER}.zip"),
        ],
    )
    def test_where_an_archive_is(self, source: str | None, expected: str) -> None:
        assert locate_archive(SESSION, source) == expected


class TestWrongSession:
    def test_another_session_s_archive_is_refused(self, tmp_path: Path) -> None:
        other = find_session("G")
        path = write_session(tmp_path, other)
        with pytest.raises(ArchiveError, match=f"found the folder {other.name}, expected the folder {FOLDER}"):
            SessionArchive.open(str(path), SESSION)

    @pytest.mark.parametrize("names", [("data/x", "meta/y"), ("x", "y"), ()])
    def test_an_archive_without_one_folder_is_refused(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        path = write_zip(tmp_path / "a.zip", dict.fromkeys(names, b""))
        with pytest.raises(ArchiveError, match="holds one folder"):
            SessionArchive.open(str(path))


class TestTrialIds:
    def archive_without(self, tmp_path: Path, *missing: str, extra: tuple[str, ...] = ()) -> str:
        members = {name: npy(array) for name, array in session_members().items()}
        for name in missing:
            del members[f"{FOLDER}/{name}"]
        members |= {f"{FOLDER}/{name}": b"" for name in extra}
        return str(write_zip(tmp_path / "a.zip", members))

    @pytest.mark.parametrize("modality", [modality for modality in MODALITIES if modality != "responses"])
    def test_a_missing_file_is_named(self, tmp_path: Path, modality: str) -> None:
        path = self.archive_without(tmp_path, f"data/{modality}/1.npy")
        match = rf"session {FOLDER}, trial 1, .*found no .*/data/{modality}/1\.npy"
        with SessionArchive.open(path) as archive, pytest.raises(ArchiveError, match=match):
            archive.trial_ids()

    def test_responses_may_be_missing(self, tmp_path: Path) -> None:
        with SessionArchive.open(self.archive_without(tmp_path, "data/responses/1.npy")) as archive:
            assert archive.trial_ids() == [0, 1, 10]
            assert [archive.has_array("responses", trial) for trial in (0, 1, 10)] == [True, False, True]
            assert set(archive.fingerprint_trial(1)) == {"videos", "behavior", "pupil_center"}
            names = [f"{FOLDER}/data/{modality}/1.npy" for modality in archive.fingerprint_trial(1)]
            sizes = [archive.entries[name].compressed_size_bytes for name in names]
            assert archive.compressed_size_bytes(1) == sum(sizes)

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_a_folder_that_is_missing_is_named_with_what_there_is(self, tmp_path: Path, modality: str) -> None:
        path = self.archive_without(tmp_path, *(f"data/{modality}/{trial}.npy" for trial in (0, 1, 10)))
        match = (
            rf"the session is not whole: there are no {modality}: found .*0 {modality}.*, "
            rf"expected a file in {FOLDER}/data/{modality}/ for each of 3 trials; get the folders"
        )
        with SessionArchive.open(path) as archive, pytest.raises(ArchiveError, match=match):
            archive.trial_ids()

    def test_all_that_is_missing_is_counted(self, tmp_path: Path) -> None:
        missing = ("data/behavior/1.npy", "data/behavior/10.npy", "data/videos/10.npy", "data/responses/0.npy")
        match = (
            r"trial 1, .*trials lack files: 2 of 3 lack behavior, 1 of 3 lack videos: "
            r"found no .*/data/behavior/1\.npy and 2 more"
        )
        path = self.archive_without(tmp_path, *missing)
        with SessionArchive.open(path) as archive, pytest.raises(ArchiveError, match=match):
            archive.trial_ids()

    @pytest.mark.parametrize("name", ["x.npy", "01.npy", "-1.npy", "1.txt", "sub/1.npy", "1.0.npy", "².npy", ".npy"])
    def test_a_file_without_a_trial_s_name_is_an_error(self, tmp_path: Path, name: str) -> None:
        path = self.archive_without(tmp_path, extra=(f"data/behavior/{name}",))
        match = re.escape(f"data/behavior/{name}: a file is not named by")
        with SessionArchive.open(path) as archive, pytest.raises(ArchiveError, match=match):
            archive.trial_ids()

    def test_no_trials_is_an_error(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {f"{FOLDER}/config.json": b"{}"})
        with SessionArchive.open(str(path)) as archive, pytest.raises(ArchiveError, match="holds no trials"):
            archive.trial_ids()


class TestNoArchive:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "the archive is empty: found 0 bytes"),
            (b"\n<!DOCTYPE html><html>captcha</html>", "this is a web page, not an archive"),
            (b"\x1f\x8b\x08rest", r"this is no zip file: found 7 bytes that start with b'\\x1f\\x8b"),
            (b"PK\x03\x04" + bytes(1000), "the archive is truncated: its end is missing: found 1004 bytes"),
        ],
    )
    def test_what_it_is_instead_is_said(self, tmp_path: Path, content: bytes, expected: str) -> None:
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(ArchiveError, match=expected):
            SessionArchive.open(str(tmp_path / "a.zip"), SESSION)

    def test_bytes_after_the_archive_are_an_error(self, tmp_path: Path) -> None:
        path = write_session(tmp_path)
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(ArchiveError, match="found 4 bytes after it"):
            SessionArchive.open(str(path))

    def test_a_split_archive_is_an_error(self, tmp_path: Path) -> None:
        path = write_session(tmp_path)
        raw = bytearray(path.read_bytes())
        struct.pack_into("<2H", raw, len(raw) - 18, 1, 1)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match="one part of a split archive"):
            SessionArchive.open(str(path))

    def test_files_are_closed_after_errors(self, tmp_path: Path) -> None:
        (tmp_path / "a.zip").write_bytes(b"no zip")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(ArchiveError):
                SessionArchive.open(str(tmp_path / "a.zip"))
        assert len(os.listdir("/proc/self/fd")) == before

    def test_closed_archives_cannot_be_read(self, tmp_path: Path) -> None:
        with SessionArchive.open(str(write_session(tmp_path))) as archive:
            pass
        with pytest.raises(SourceError, match="closed"):
            archive.read_trial("videos", 0)

    def test_an_archive_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=f"{FOLDER}.zip: there is no such file"):
            SessionArchive.open(locate_archive(SESSION, str(tmp_path)), SESSION, policy=IMPATIENT)


def entry_offset(raw: bytes, name: str, *, local: bool) -> int:
    """Where a member's central or local header starts."""
    signature, n_fixed = (b"PK\x03\x04", 30) if local else (b"PK\x01\x02", 46)
    at = raw.index(signature)
    while raw[at + n_fixed : at + n_fixed + len(name)] != name.encode():
        at = raw.index(signature, at + 1)
    return at


class TestBadMembers:
    NAME = f"{FOLDER}/data/responses/1.npy"

    def damaged(self, tmp_path: Path, change: Callable[[bytearray], None]) -> SessionArchive:
        path = write_session(tmp_path)
        raw = bytearray(path.read_bytes())
        change(raw)
        path.write_bytes(raw)
        return SessionArchive.open(str(path), SESSION)

    def patched(self, tmp_path: Path, offset: int, layout: str, *values: int, local: bool = False) -> SessionArchive:
        def change(raw: bytearray) -> None:
            struct.pack_into(layout, raw, entry_offset(raw, self.NAME, local=local) + offset, *values)

        return self.damaged(tmp_path, change)

    def assert_refused(self, archive: SessionArchive, match: str) -> None:
        with archive, pytest.raises(ArchiveError, match=match) as caught:
            archive.read_trial("responses", 1)
        error = caught.value
        assert (error.session, error.trial) == (FOLDER, 1)
        assert self.NAME in str(error)
        assert error.remedy

    def test_wrong_crc(self, tmp_path: Path) -> None:
        self.assert_refused(
            self.patched(tmp_path, 16, "<L", 0xDEADBEEF), "the member is damaged: found CRC .*, expected CRC deadbeef"
        )

    def test_flipped_data(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 3000, "<B", 0x55, local=True), "damaged|inflated|size")

    def test_encrypted(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 8, "<H", 1), "the member is encrypted")

    def test_another_method(self, tmp_path: Path) -> None:
        self.assert_refused(
            self.patched(tmp_path, 10, "<H", 12), "unsupported way: found method 12, expected 0 .* or 8"
        )

    def test_a_stream_longer_than_declared_is_not_inflated(self, tmp_path: Path) -> None:
        self.assert_refused(
            self.patched(tmp_path, 24, "<L", 100),
            "another size .*: found a damaged or longer stream, expected a stream of 100 bytes",
        )

    def test_a_stream_shorter_than_declared(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 24, "<L", 9000), "another size .*, expected 9000 bytes")

    def test_no_local_header(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 0, "<L", 0, local=True), "no member starts where the index says")

    def test_another_local_method(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 8, "<H", 0, local=True), "another member is where the index says")

    def test_larger_than_any_published_member(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sensorium_data.limits.MAX_MEMBER_SIZE_BYTES", 5000)
        self.assert_refused(self.patched(tmp_path, 30, "<H", 0), "too large to be a session's")

    def test_another_local_name(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 30, "<B", 65, local=True), "another member is where the index says")

    def test_a_local_name_that_runs_over_the_data(self, tmp_path: Path) -> None:
        self.assert_refused(self.patched(tmp_path, 28, "<H", 60000, local=True), "the member runs into the next one")


class TestBadIndex:
    def write(self, tmp_path: Path, *names: str) -> str:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                info = zipfile.ZipInfo("x")
                info.filename = name
                archive.writestr(info, b"x")
        return str(path)

    @pytest.mark.parametrize(
        "name", ["/etc/passwd", "../x", f"{FOLDER}/../../x", "C:/x", "\\x", "..\\x", "a\\..\\..\\x"]
    )
    def test_names_that_lead_out_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ArchiveError, match="leads out of the archive"):
            SessionArchive.open(self.write(tmp_path, f"{FOLDER}/a", name), SESSION)

    @pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
    def test_a_member_that_is_there_twice_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, f"{FOLDER}/data/videos/3.npy", f"{FOLDER}/data/videos/3.npy")
        with pytest.raises(ArchiveError, match=r"trial 3, .*holds a member twice"):
            SessionArchive.open(path, SESSION)

    def test_members_that_overlap_are_refused(self, tmp_path: Path) -> None:
        path = Path(self.write(tmp_path, f"{FOLDER}/a", f"{FOLDER}/b"))
        raw = bytearray(path.read_bytes())
        struct.pack_into("<L", raw, entry_offset(raw, f"{FOLDER}/b", local=False) + 42, 0)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match="does not fit into the archive"):
            SessionArchive.open(str(path))

    def test_a_size_that_deflate_cannot_reach_is_refused(self, tmp_path: Path) -> None:
        path = write_zip(tmp_path / "a.zip", {f"{FOLDER}/a": bytes(1000)})
        raw = bytearray(path.read_bytes())
        struct.pack_into("<L", raw, entry_offset(raw, f"{FOLDER}/a", local=False) + 24, 1 << 31)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match="claims a size that deflate cannot reach"):
            SessionArchive.open(str(path))

    def test_a_count_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        path = Path(self.write(tmp_path, f"{FOLDER}/a", f"{FOLDER}/b"))
        raw = bytearray(path.read_bytes())
        struct.pack_into("<2H", raw, len(raw) - 14, 3, 3)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match="found 2 entries, expected 3 entries"):
            SessionArchive.open(str(path))

    @pytest.mark.parametrize(("offset", "size", "position"), [(None, 5000, 12), (5000, None, 16)])
    def test_a_directory_that_cannot_be_there_is_refused(
        self, tmp_path: Path, offset: int | None, size: int | None, position: int
    ) -> None:
        path = Path(self.write(tmp_path, f"{FOLDER}/a"))
        raw = bytearray(path.read_bytes())
        struct.pack_into("<L", raw, len(raw) - 22 + position, offset or size)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match="cannot be where the end record says"):
            SessionArchive.open(str(path))

    def test_a_member_on_another_disk_is_refused(self, tmp_path: Path) -> None:
        path = Path(self.write(tmp_path, f"{FOLDER}/a"))
        raw = bytearray(path.read_bytes())
        struct.pack_into("<H", raw, entry_offset(raw, f"{FOLDER}/a", local=False) + 34, 1)
        path.write_bytes(raw)
        with pytest.raises(ArchiveError, match=f"member {FOLDER}/a is on another disk"):
            SessionArchive.open(str(path))

    def test_a_missing_zip64_record_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        path = Path(self.write(tmp_path, f"{FOLDER}/a", f"{FOLDER}/b"))
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"PK\x06\x06", b"PK\x06\x00"))
        with pytest.raises(ArchiveError, match="the Zip64 record is not where its locator says"):
            SessionArchive.open(str(path))
        path.write_bytes(raw.replace(b"PK\x06\x07", b"PK\x06\x00"))
        with pytest.raises(ArchiveError, match=r"central directory|Zip64"):
            SessionArchive.open(str(path))


class TestBadArrays:
    NAME = f"{FOLDER}/data/responses/1.npy"

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (npy(np.array([{"a": 1}, None], dtype=object)), "Python objects, which are never unpickled"),
            (npy(np.zeros(2, dtype=[("a", object)])), "Python objects"),
            (npy(np.arange(10.0))[:-8], r"found 72 bytes, expected 80 bytes for shape \(10,\) of float64"),
            (npy(np.arange(10.0)) + b"x", "found 81 bytes, expected 80 bytes"),
            (npy(np.arange(10.0))[:20], "not a .npy array: found a header that is cut short or damaged"),
            (npy(np.arange(10.0)).replace(b"(10,), } ", b"(-1,-10)}"), "shape is impossible"),
            (npy(np.arange(10.0)).replace(b"(10,)", b"((1,)"), "not a .npy array"),
            (npy(np.arange(10.0)).replace(b"<f8", b"<q9"), "not a .npy array"),
            (b"\x93NUMPY\x03\x00" + npy(np.arange(10.0))[8:], r"found \(3, 0\), expected"),
            (b"text", "not a .npy array: found other bytes at its start"),
            (b"", "not a .npy array: found an empty file"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, content: bytes, match: str) -> None:
        path = write_zip(tmp_path / "a.zip", {self.NAME: content})
        with SessionArchive.open(str(path)) as archive, pytest.raises(TrialError, match=match) as caught:
            archive.read_trial("responses", 1)
        assert (caught.value.session, caught.value.trial) == (FOLDER, 1)
        assert caught.value.path == f"{path}: {self.NAME}"
        assert caught.value.remedy
