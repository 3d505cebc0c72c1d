"""Written zips are what the standard library's zipfile says a zip is."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest

from sensorium_data.simulation import ZipWriter
from sensorium_data.simulation.zip_writer import pack_member

CONTENT = {"folder/": b"", "folder/deflated.npy": b"abc" * 5000, "folder/stored.npy": os.urandom(300), "empty": b""}


def write_zip(path: Path, *, zip64: bool) -> None:
    with ZipWriter(path, zip64=zip64) as archive:
        for name, data in CONTENT.items():
            archive.write(pack_member(name, data, deflate="deflated" in name))


@pytest.mark.parametrize("zip64", [False, True])
def test_zipfile_reads_every_member(tmp_path: Path, zip64: bool) -> None:
    path = tmp_path / "made.zip"
    write_zip(path, zip64=zip64)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == CONTENT
        compressions = {info.filename: info.compress_type for info in archive.infolist()}
        assert compressions["folder/deflated.npy"] == zipfile.ZIP_DEFLATED
        assert compressions["folder/stored.npy"] == zipfile.ZIP_STORED
        assert archive.getinfo("folder/").is_dir()


def test_zip64_fields_stand_in_every_place_they_can(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"
    write_zip(path, zip64=True)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    assert data[end + 8 : end + 20] == b"\xff" * 12, "the end of the directory leaves its numbers to Zip64"
    locator = data.rindex(b"PK\x06\x07")
    (where,) = struct.unpack_from("<Q", data, locator + 8)
    assert data[where : where + 4] == b"PK\x06\x06"
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            sizes = data[info.header_offset + 18 : info.header_offset + 26]
            assert sizes == b"\xff" * 8, f"the local header of {info.filename} leaves its sizes to Zip64"
            assert info.extract_version == 45
            kind, length = struct.unpack_from("<2H", info.extra)
            assert (kind, length) == (1, 24)


def test_small_archives_need_no_zip64(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"
    write_zip(path, zip64=False)
    assert b"PK\x06\x06" not in path.read_bytes()


def test_members_past_four_gigabytes_get_zip64_offsets(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"
    with ZipWriter(path) as archive:
        archive.write(pack_member("before", b"1"))
        # As if members of 5 GiB had been written: a hole in the file.
        archive._file.seek(5 << 30)
        archive._offset = 5 << 30
        archive.write(pack_member("after", b"22"))
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("after").header_offset == 5 << 30
        assert (archive.read("before"), archive.read("after")) == (b"1", b"22")


def test_a_failed_archive_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"

    def write_half() -> None:
        with ZipWriter(path) as archive:
            archive.write(pack_member("a", b"1"))
            assert not path.exists(), "an archive is not there before it is whole"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert list(tmp_path.iterdir()) == []
