from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import sensorium_data.submission.validation as validation_module
from fixtures.submissions import (
    FINAL,
    FINAL_BONUS,
    LIVE,
    LIVE_BONUS,
    Recorded,
    assert_only,
    make_zip,
    sentences,
    write_as_the_readme,
    zip_files,
)
from sensorium_data.submission import validate_submission


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("validation"))


ZIPS: list[tuple[str, tuple[str, ...], str, str]] = [
    ("main-alone", (LIVE,), "members", f"a main file is missing: found {LIVE}, expected also {FINAL}"),
    ("final-alone", (FINAL,), "members", f"a main file is missing: found {FINAL}, expected also {LIVE}"),
    ("both-tracks", (LIVE, FINAL, LIVE_BONUS), "members", "files of both tracks in one zip"),
    ("both-bonus", (LIVE_BONUS, FINAL_BONUS), "members", "both bonus files in one zip"),
    ("folder", (f"{LIVE} as upload/{LIVE}", FINAL), "members", f"a member lies in a folder: found 'upload/{LIVE}'"),
    ("parent", (f"{LIVE} as ../../{LIVE}", FINAL), "members", f"a member lies in a folder: found '../../{LIVE}'"),
    ("root", (f"{LIVE} as /{LIVE}", FINAL), "members", "a member lies in a folder"),
    ("windows", (f"{LIVE} as upload\\{LIVE}", FINAL), "members", "a member lies in a folder"),
    (
        "auto-name",
        (f"{LIVE_BONUS} as predictions_file_live_test_bonus_track.parquet.brotli",),
        "name",
        "a predictions file is not named as the server wants it: found "
        f"'predictions_file_live_test_bonus_track.parquet.brotli', expected {LIVE_BONUS}; rename it to {LIVE_BONUS}",
    ),
    ("no-brotli", (f"{FINAL_BONUS} as {FINAL_BONUS[:-7]}",), "name", f"rename it to {FINAL_BONUS}"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "check", "expected"), [z[1:] for z in ZIPS], ids=[z[0] for z in ZIPS])
def test_wrong_zips_are_refused(
    recorded: Recorded, tmp_path: Path, members: tuple[str, ...], check: str, expected: str
) -> None:
    path = make_zip(recorded, tmp_path, *members)
    assert_only(validate_submission([path], recorded.store), check, expected)
    # Nothing is unpacked where the zip says.
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "submission.zip",
        *(f"{i}.bin" for i in range(len(members))),
    }


def test_swapped_files_are_refused(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, f"{LIVE} as {FINAL}", f"{FINAL} as {LIVE}")
    report = validate_submission([path], recorded.store)
    assert_only(report, "trials", "the trial is of another tier", ["the session has no row of this tier", ""][0])


def test_wrongly_named_bare_file_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    path = write_as_the_readme(recorded.rows(LIVE), tmp_path / "predictions_file_main_track.parquet.brotli")
    assert_only(validate_submission([path], recorded.store), "name", f"rename it to {LIVE}")
    path = write_as_the_readme(
        [{**row, "mouse": "?"} for row in recorded.rows(LIVE)], tmp_path / "predictions_file.parquet.brotli"
    )
    report = validate_submission([path], recorded.store)
    assert any(f"expected {LIVE} or {FINAL} or" in sentence for sentence in sentences(report))


def test_files_of_a_zip_have_one_profile(recorded: Recorded, tmp_path: Path) -> None:
    members = {
        LIVE: write_as_the_readme(recorded.rows(LIVE), tmp_path / "0"),
        FINAL: write_as_the_readme(recorded.rows(FINAL, n_cut=1), tmp_path / "1"),
    }
    report = validate_submission([zip_files(tmp_path / "submission.zip", members)], recorded.store)
    assert_only(report, "one profile", "the files of the zip are of different frames profiles")


def test_what_finder_adds_is_named_and_not_read(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"__MACOSX/._{LIVE}", b"resource fork")
        archive.writestr(".DS_Store", b"")
    report = validate_submission([path], recorded.store)
    assert_only(report, "members", "found '.DS_Store'; leave it out", f"found '__MACOSX/._{LIVE}'")


def test_empty_zip_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    path = zip_files(tmp_path / "empty.zip", {})
    assert_only(validate_submission([path], recorded.store), "members", "no predictions file in the zip")


def test_member_that_is_there_twice_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.write(tmp_path / "0.bin", LIVE)
    assert_only(validate_submission([path], recorded.store), "members", f"a member is in the zip twice: found '{LIVE}'")


def test_too_large_upload_is_refused(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_module, "MAX_UPLOAD_SIZE_BYTES", 1000)
    report = validate_submission([make_zip(recorded, tmp_path)], recorded.store)
    assert_only(report, "size", "submission.zip: the file is too large to upload: found", "expected at most 1,000")
