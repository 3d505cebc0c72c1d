from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fixtures.session_stores import write_session_store
from fixtures.submissions import (
    FINAL,
    LIVE,
    LIVE_BONUS,
    RECORDED_TRIALS,
    Recorded,
    assert_only,
    make_zip,
    sentences,
    write_as_the_readme,
)
from sensorium_data.errors import SubmissionError, UsageError
from sensorium_data.submission import validate_submission


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("validation"))


def test_damaged_files_are_violations_beside_the_others(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "cut.zip").write_bytes(make_zip(recorded, tmp_path).read_bytes()[:-30])
    whole = (tmp_path / "0.bin").read_bytes()
    (tmp_path / LIVE).write_bytes(whole[:-9] + b"\x00" * 9)
    (tmp_path / FINAL).write_bytes(b"")
    (tmp_path / "picture.zip").write_bytes(b"\x89PNG\r\n")
    paths = [tmp_path / name for name in ("text.zip", "cut.zip", LIVE, FINAL, "picture.zip")]
    report = validate_submission(paths, recorded.store)
    assert_only(
        report,
        "readable",
        "text.zip: the file is neither a zip nor a Parquet file: found other bytes at its start; give",
        "cut.zip: the zip is damaged",
        f"{LIVE}: the file cannot be read as Parquet",
        f"{FINAL}: the file is neither a zip nor a Parquet file: found an empty file",
        "picture.zip: the file is neither a zip nor a Parquet file: found a PNG image",
    )


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_byte_of_a_member_is_found(recorded: Recorded, tmp_path: Path, compression: int) -> None:
    path = make_zip(recorded, tmp_path, LIVE, FINAL, compression=compression)
    data = bytearray(path.read_bytes())
    data[30 + len(LIVE) + 200] ^= 0x10
    path.write_bytes(data)
    report = validate_submission([path], recorded.store)
    assert {(v.file, v.check) for v in report.violations} == {(f"submission.zip: {LIVE}", "readable")}
    assert "a member cannot be read" in sentences(report)[0]


def test_flipped_bytes_of_a_bare_file_are_no_crash(recorded: Recorded, tmp_path: Path) -> None:
    whole = write_as_the_readme(recorded.rows(LIVE), tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(4, len(whole), 25):
        data = bytearray(whole)
        data[position] ^= 0xFF
        (tmp_path / LIVE).write_bytes(data)
        report = validate_submission([tmp_path / LIVE], recorded.store)
        assert report.checks


def test_encrypted_member_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, LIVE_BONUS)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    path.write_bytes(data)
    assert_only(validate_submission([path], recorded.store), "readable", "neither encrypted nor split")


def test_member_that_claims_too_much_is_not_unpacked(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, LIVE_BONUS, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, 10**15)
    name_end = directory + 46 + len(LIVE_BONUS)
    data[name_end:name_end] = extra
    struct.pack_into("<I", data, directory + 24, 0xFFFFFFFF)
    struct.pack_into("<H", data, directory + 30, len(extra))
    end = data.index(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, struct.unpack_from("<I", data, end + 12)[0] + len(extra))
    path.write_bytes(data)
    report = validate_submission([path], recorded.store)
    assert_only(report, "readable", "unpacks to more than a submission can be: found 1,000,000,000,000,000 bytes")


def test_names_do_not_reach_the_terminal_raw(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, f"{LIVE_BONUS} as \x1b[31m{LIVE_BONUS}")
    report = validate_submission([path], recorded.store)
    text = "".join(sentences(report)) + report.to_frame().to_string() + "".join(report.warnings)
    assert "\x1b" not in text


def test_paths_that_cannot_be_opened_are_errors(recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"nothing\.zip: cannot be opened: found No such file"):
        validate_submission([tmp_path / "nothing.zip"], recorded.store)
    with pytest.raises(SubmissionError, match="cannot be opened: found a folder where a file is expected"):
        validate_submission([tmp_path], recorded.store)
    with pytest.raises(UsageError, match="no file to validate"):
        validate_submission([], recorded.store)


def test_store_without_scored_sessions_is_an_error(recorded: Recorded, tmp_path: Path) -> None:
    write_session_store(tmp_path / "store", "A", RECORDED_TRIALS, n_neurons=2)
    with pytest.raises(SubmissionError, match="holds no session that the competition scores"):
        validate_submission([make_zip(recorded, tmp_path)], str(tmp_path / "store"))
