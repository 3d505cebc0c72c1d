"""Submissions that were made to break whoever reads them: each is refused in words, and the command goes on."""

from __future__ import annotations

import base64
import os
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

import sensorium_data.submission.zip as zip_module
from fixtures.command_line import run_command
from fixtures.submissions import FINAL_BONUS, LIVE, Recorded, make_zip, sentences, write_as_the_readme, zip_files
from sensorium_data.errors import SubmissionError
from sensorium_data.limits import MAX_SUBMISSION_ROWS, MAX_ZIP_MEMBERS
from sensorium_data.submission import repair_submission, validate_submission
from sensorium_data.submission.reader import ParquetReader
from sensorium_data.submission.section import FileSection

SIGNATURE_SIZE_BYTES = 28


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("content"))


class PlainKeys(pe.KmsClient):
    """Keeps no secrets."""

    def __init__(self, _configuration: object) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, _name: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, _name: str) -> bytes:
        return base64.b64decode(wrapped_key)


def encrypt(path: Path, *, plaintext_footer: bool) -> None:
    configuration = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": ["mouse"]}, plaintext_footer=plaintext_footer
    )
    properties = pe.CryptoFactory(PlainKeys).file_encryption_properties(pe.KmsConnectionConfig(), configuration)
    table = pa.table({"mouse": ["F"], "trial_indices": [2], "prediction": [[[1.0]]], "neuron_ids": [[1]]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)


def encrypt_without_signature(path: Path) -> None:
    """Write an encrypted column that nothing announces: pyarrow aborts the process that looks at it."""
    encrypt(path, plaintext_footer=True)
    data = path.read_bytes()
    (footer_size,) = struct.unpack("<I", data[-8:-4])
    signed = len(data) - 8 - SIGNATURE_SIZE_BYTES
    path.write_bytes(data[:signed] + struct.pack("<I", footer_size - SIGNATURE_SIZE_BYTES) + b"PAR1")


def write_zeros(path: Path, lengths: list[int]) -> None:
    """Write rows of one list of so many equal values each."""
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(ends, pa.array(np.zeros(ends[-1], np.float32)))
    whole = pa.array(np.arange(len(lengths) + 1, dtype=np.int32))
    columns = [["F"] * len(lengths), [2] * len(lengths), pa.ListArray.from_arrays(whole, lists), [[1]] * len(lengths)]
    names = ["mouse", "trial_indices", "prediction", "neuron_ids"]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path, compression="brotli")
    assert path.stat().st_size < 20_000


def write_nulls(path: Path) -> None:
    nulls = pa.nulls(MAX_SUBMISSION_ROWS + 1, pa.string())
    pq.write_table(pa.table({"mouse": nulls, "trial_indices": nulls}), path)


HOSTILE: list[tuple[str, Callable[[Path], None], str]] = [
    ("encrypted", lambda path: encrypt(path, plaintext_footer=True), "the file is encrypted; write it without"),
    ("encrypted-footer", lambda path: encrypt(path, plaintext_footer=False), "found Could not read encrypted metadata"),
    ("crash", encrypt_without_signature, "reading the file makes the Parquet library crash: found SIGABRT"),
    (
        "many-values",
        lambda path: write_zeros(path, [20_000_001]),
        "more values of prediction in row group 0 than a submission can have: found 20,000,001, expected at most "
        "20,000,000 (MAX_SUBMISSION_NEURONS times MAX_SUBMISSION_FRAMES for each row)",
    ),
    ("many-rows", write_nulls, "found 20,001, expected at most 20,000 (MAX_SUBMISSION_ROWS)"),
]


@pytest.mark.parametrize(("write", "expected"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_hostile_parquet_is_refused_and_the_next_file_is_checked(
    recorded: Recorded, tmp_path: Path, write: Callable[[Path], None], expected: str
) -> None:
    write(tmp_path / LIVE)
    good = write_as_the_readme(recorded.rows(FINAL_BONUS), tmp_path / FINAL_BONUS)
    report = validate_submission([tmp_path / LIVE, good], recorded.store)
    assert {(v.file, v.check) for v in report.violations} <= {(LIVE, "readable"), (LIVE, "columns")}
    assert any(expected in sentence for sentence in sentences(report)), sentences(report)
    checks = report.to_frame().set_index(["file", "check"])["passed"]
    assert checks[FINAL_BONUS, "values"]
    repaired = repair_submission([tmp_path / LIVE, good], recorded.store, out=tmp_path / "out")
    assert [Path(file).name for file in repaired.files] == ["submission_bonus_final.zip"]
    assert any(expected in reason for reason in repaired.left_out)


def test_command_survives_a_file_that_crashes_the_library(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encrypt_without_signature(tmp_path / LIVE)
    outcome = run_command(capsys, "validate", tmp_path / LIVE, "--store", recorded.store.url)
    assert outcome.status == 1
    assert f"{LIVE}: reading the file makes the Parquet library crash" in outcome.err


def test_memory_of_decoding_is_bounded(tmp_path: Path) -> None:
    """All values are in one row, which only decoding shows: on average the rows are small."""
    write_zeros(tmp_path / "file", [1, 1, 15_000_000])
    with ParquetReader(memory_bytes=40_000_000) as reader:
        file = reader.open(FileSection(tmp_path / "file"))
        with pytest.raises(SubmissionError, match=r"more memory than a submission needs|library crash"):
            list(file.iterate_rows(["prediction"]))


def test_process_that_is_killed_is_told_and_replaced(recorded: Recorded, tmp_path: Path) -> None:
    section = FileSection(write_as_the_readme(recorded.rows(LIVE), tmp_path / LIVE))
    with ParquetReader() as reader:
        file = reader.open(section)
        assert reader._process is not None
        reader._process.kill()
        with pytest.raises(SubmissionError, match="library crash: found SIGKILL"):
            list(file.iterate_rows(["mouse"]))
        assert len(list(file.iterate_rows(["mouse"]))) == 4


def test_zip_of_many_members_is_refused_at_once(recorded: Recorded, tmp_path: Path) -> None:
    path = zip_files(tmp_path / "many.zip", {})
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(MAX_ZIP_MEMBERS + 1):
            archive.writestr(f"{i}.parquet", b"")
    report = validate_submission([path], recorded.store)
    assert sentences(report) == [
        "many.zip: the zip has more members than a submission can have: found 101, expected at most 100 "
        "(MAX_ZIP_MEMBERS); zip the predictions files alone"
    ]


def test_index_of_a_zip_is_read_up_to_a_bound(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(recorded, tmp_path, FINAL_BONUS)
    # More than what the search for a zip's end reads.
    monkeypatch.setattr(zip_module, "MAX_ZIP_INDEX_SIZE_BYTES", 70_000)
    assert validate_submission([path], recorded.store).passed
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(2):
            archive.writestr("x" * 40_000 + str(i), b"")
    report = validate_submission([path], recorded.store)
    assert "expected at most 70,000 (MAX_ZIP_INDEX_SIZE_BYTES)" in sentences(report)[0]


def test_member_is_not_unpacked_beyond_a_bound(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_module, "MIN_UNPACKED_LIMIT_BYTES", 1_000_000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-folder"))
    (tmp_path / "zeros").write_bytes(b"PAR1" + bytes(3_000_000))
    path = zip_files(tmp_path / "bomb.zip", {FINAL_BONUS: tmp_path / "zeros"}, zipfile.ZIP_DEFLATED)
    report = validate_submission([path], recorded.store)
    assert "found 3,000,004 bytes from " in sentences(report)[0]
    assert "expected at most 1,000,000 (MIN_UNPACKED_LIMIT_BYTES); zip without compression" in sentences(report)[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_methods_are_unpacked_and_their_damage_is_named(recorded: Recorded, tmp_path: Path, method: int) -> None:
    path = make_zip(recorded, tmp_path, FINAL_BONUS, compression=method)
    assert validate_submission([path], recorded.store).passed
    data = bytearray(path.read_bytes())
    data[30 + len(FINAL_BONUS) + 40] ^= 0xFF
    path.write_bytes(data)
    assert "a member cannot be read: found " in sentences(validate_submission([path], recorded.store))[0]


@pytest.mark.parametrize("name", ["live.pq", "predictions_final.parquet.br", "predictions"])
def test_predictions_in_a_zip_are_known_by_their_content(recorded: Recorded, tmp_path: Path, name: str) -> None:
    path = make_zip(recorded, tmp_path, f"{FINAL_BONUS} as {name}")
    report = validate_submission([path], recorded.store)
    assert {violation.check for violation in report.violations} == {"name"}
    assert f"rename it to {FINAL_BONUS}" in sentences(report)[0]
    assert repair_submission([path], recorded.store, out=tmp_path / "out").validation.passed


def test_no_process_is_left_behind(recorded: Recorded, tmp_path: Path) -> None:
    section = FileSection(write_as_the_readme(recorded.rows(LIVE), tmp_path / LIVE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ParquetReader() as reader:
            rows = reader.open(section).iterate_rows(["mouse"])
            next(rows)
            process = reader._process
            rows.close()  # The other rows are still on the way.
            assert process is not None
            assert process.returncode is not None
            assert len(list(reader.open(section).iterate_rows(["mouse"]))) == 4
            process = reader._process
        assert process is not None
        assert process.returncode is not None


@pytest.mark.parametrize("handle", [validate_submission, lambda paths, store: repair_submission(paths, store, out="x")])
def test_pipe_is_refused_before_it_is_read(recorded: Recorded, tmp_path: Path, handle: Callable[..., object]) -> None:
    os.mkfifo(tmp_path / LIVE)
    with pytest.raises(SubmissionError, match=r"cannot be opened: found a pipe or a device, expected a file"):
        handle([tmp_path / LIVE], recorded.store)
