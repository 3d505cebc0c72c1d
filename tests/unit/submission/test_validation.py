from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.submissions import (
    FINAL,
    FINAL_BONUS,
    LIVE,
    LIVE_BONUS,
    Recorded,
    Rows,
    assert_only,
    make_zip,
    sentences,
    validate_rows,
    write_as_the_readme,
)
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.submission import ValidationReport, repair_submission, validate_submission


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("validation"))


def test_right_submission_passes(recorded: Recorded, tmp_path: Path) -> None:
    report = validate_submission([make_zip(recorded, tmp_path)], recorded.store)
    assert report.passed, sentences(report)
    assert report.to_frame()["passed"].all()
    assert set(report.to_frame()["check"]) == {
        "size", "members", "readable", "columns", "sessions", "trials", "frames", "values", "neurons", "name",
        "one profile",
    }  # fmt: skip


@pytest.mark.parametrize("member", [LIVE_BONUS, FINAL_BONUS])
def test_right_bonus_zip_passes(recorded: Recorded, tmp_path: Path, member: str) -> None:
    report = validate_submission([make_zip(recorded, tmp_path, member)], recorded.store)
    assert report.passed, sentences(report)


def test_bare_files_and_several_zips_are_checked_together(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "zip").mkdir()
    paths = [
        make_zip(recorded, tmp_path / "zip"),
        write_as_the_readme(recorded.rows(LIVE_BONUS), tmp_path / LIVE_BONUS),
        write_as_the_readme(recorded.rows(FINAL_BONUS), tmp_path / FINAL_BONUS),
    ]
    report = validate_submission(paths, recorded.store)
    assert report.passed, sentences(report)
    assert set(report.to_frame()["file"]) == {
        "submission.zip",
        f"submission.zip: {LIVE}",
        f"submission.zip: {FINAL}",
        LIVE_BONUS,
        FINAL_BONUS,
    }


def test_deflated_zip_passes(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, LIVE, FINAL, compression=zipfile.ZIP_DEFLATED)
    assert validate_submission([path], recorded.store).passed


@pytest.mark.parametrize("form", [str, "{}.npy".format, lambda t: f"{t}", np.int32])
def test_trials_may_be_numbers_or_file_names(recorded: Recorded, tmp_path: Path, form: Callable[[int], Any]) -> None:
    def mutate(rows: Rows) -> None:
        for row in rows:
            row["trial_indices"] = form(row["trial_indices"])

    assert validate_rows(recorded, tmp_path, mutate).passed


@pytest.mark.parametrize(("n_cut", "profile"), [(0, "profile official"), (1, "profile 50-298 or 51-299")])
def test_report_names_the_profile(recorded: Recorded, tmp_path: Path, n_cut: int, profile: str) -> None:
    # The bonus file has no trial of more than 300 frames, so one frame less is the whole difference.
    path = write_as_the_readme(recorded.rows(FINAL_BONUS, n_cut), tmp_path / FINAL_BONUS)
    report = validate_submission([path], recorded.store)
    assert report.passed, sentences(report)
    assert report.to_frame().set_index("check").loc["frames", "finding"].endswith(profile)


def test_a_file_that_is_named_twice_is_an_error(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path)
    again = tmp_path / "x" / ".." / path.name
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match=f"{path}: a file is named twice; name each file once"):
        validate_submission([path, again], recorded.store)
    with pytest.raises(UsageError, match="a file is named twice"):
        repair_submission([path, again], recorded.store, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_profile_may_be_insisted_on(recorded: Recorded, tmp_path: Path) -> None:
    path = write_as_the_readme(recorded.rows(FINAL_BONUS), tmp_path / FINAL_BONUS)
    assert validate_submission([path], recorded.store, frames="official").passed
    report = validate_submission([path], recorded.store, frames="51-299")
    assert_only(report, "frames", "the frames are not those of profile 51-299: found (4, 14), which is official")
    with pytest.raises(UnknownNameError, match="unknown frames profile"):
        validate_submission([path], recorded.store, frames="all")


def test_constant_and_negative_predictions_are_warnings(recorded: Recorded, tmp_path: Path) -> None:
    def mutate(rows: Rows) -> None:
        for row in rows[:2]:
            row["prediction"][2] = [0.5] * len(row["prediction"][2])
        rows[3]["prediction"][0][0] = -1.0

    report = validate_rows(recorded, tmp_path, mutate)
    assert report.passed
    assert any("session F" in w and "1 of 4 neurons are constant over all trials" in w for w in report.warnings)
    assert any("session G" in w and "1 predicted value is negative" in w for w in report.warnings)


def test_row_of_a_broken_trial_is_a_warning(recorded: Recorded, tmp_path: Path) -> None:
    report = validate_rows(
        recorded, tmp_path, lambda rows: rows.append({**rows[0], "trial_indices": 3, "prediction": [[]]}), LIVE_BONUS
    )
    assert report.passed, sentences(report)
    assert any("1 row of trials whose stimulus is broken" in warning for warning in report.warnings)


def test_other_codecs_and_sessions_that_could_not_be_checked_are_warnings(recorded: Recorded, tmp_path: Path) -> None:
    path = write_as_the_readme(recorded.rows(LIVE), tmp_path / LIVE, compression="snappy")
    report = validate_submission([path], recorded.store)
    assert report.passed
    assert any("compressed with SNAPPY" in warning for warning in report.warnings)
    assert any("the store lacks H, I, J" in warning for warning in report.warnings)


def test_report_survives_json(recorded: Recorded, tmp_path: Path) -> None:
    report = validate_rows(recorded, tmp_path, lambda rows: rows.pop() and None)
    document = json.loads(report.to_json())
    assert document["passed"] is False
    assert document["violations"][0]["trial"] == 5
    assert ValidationReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_files_of_one_name_are_told_apart_by_their_paths(recorded: Recorded, tmp_path: Path) -> None:
    paths = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        paths.append(write_as_the_readme(recorded.rows(LIVE), tmp_path / folder / LIVE))
    report = validate_submission(paths, recorded.store)
    assert report.passed, sentences(report)
    assert set(report.to_frame()["file"]) == {str(path) for path in paths}


def test_progress_counts_the_rows(recorded: Recorded, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = write_as_the_readme(recorded.rows(LIVE), tmp_path / LIVE)
    validate_submission([path], recorded.store, progress=lambda *call: seen.append(call))
    assert seen == [(f"validate {LIVE}", n, 4) for n in range(1, 5)]
