from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sensorium_data.submission.plan as plan_module
import sensorium_data.submission.write as submission_module
import sensorium_data.submission.writer as writer_module
from fixtures.session_stores import TrialFacts, write_session_store
from fixtures.submissions import FINAL, FINAL_BONUS, LIVE, LIVE_BONUS, PREDICTED_TRIALS, Predicted, read_member, submit
from sensorium_data.errors import PredictionsError, SubmissionError, UnknownNameError, UsageError
from sensorium_data.frames import FRAMES_PROFILES, frames_of
from sensorium_data.predictions import from_arrays
from sensorium_data.sessions import Tier, Track
from sensorium_data.store import open_store
from sensorium_data.submission import SubmissionReport, verify_submission, write_submission
from sensorium_data.submission.plan import make_plan
from sensorium_data.submission.sources import open_entry


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return Predicted(tmp_path_factory.mktemp("submission"))


def test_main_track_is_one_zip_of_both_files(predicted: Predicted, tmp_path: Path) -> None:
    report = submit(predicted, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "submission_main.json",
        "submission_main.md",
        "submission_main.sha256",
        "submission_main.zip",
    ]
    assert zipfile.ZipFile(tmp_path / "submission_main.zip").namelist() == [LIVE, FINAL]
    assert [Path(file.path).name for file in report.files] == ["submission_main.zip"]
    assert report.files[0].members == (LIVE, FINAL)
    assert report.files[0].n_rows == 2 * (2 + 1)


def test_bonus_stages_are_zipped_apart(predicted: Predicted, tmp_path: Path) -> None:
    report = submit(predicted, tmp_path, "bonus")
    names = {Path(file.path).name: file.members for file in report.files}
    assert names == {"submission_bonus_live.zip": (LIVE_BONUS,), "submission_bonus_final.zip": (FINAL_BONUS,)}
    for name, members in names.items():
        assert zipfile.ZipFile(tmp_path / name).namelist() == list(members)


def test_pandas_reads_back_the_predictions_bit_by_bit(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    table = read_member(tmp_path / "submission_main.zip", LIVE)
    assert table.columns.tolist() == ["mouse", "trial_indices", "prediction", "neuron_ids"]
    rows = [(name, trial) for name, trial in zip(table["mouse"], table["trial_indices"], strict=True)]
    f, g = predicted.sessions["F"].session.name, predicted.sessions["G"].session.name
    # By session, then by trial id, whatever the order in the store.
    assert rows == [(f, 2), (f, 5), (g, 2), (g, 5)]
    for _, row in table.iterrows():
        alias = "F" if row["mouse"] == f else "G"
        n_frames = {2: 72, 5: 310}[row["trial_indices"]]
        prediction = np.stack(row["prediction"].tolist())
        assert prediction.dtype == np.float32
        assert np.array_equal(prediction, predicted.value(alias, row["trial_indices"])[:, 50:n_frames])
        assert np.array_equal(row["neuron_ids"], predicted.sessions[alias].neurons)


def test_parquet_is_as_the_server_wants_it(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    with zipfile.ZipFile(tmp_path / "submission_main.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        file = pq.ParquetFile(io.BytesIO(archive.read(LIVE)))
    assert str(file.schema_arrow.field("trial_indices").type) == "int64"
    assert str(file.schema_arrow.field("mouse").type) == "string"
    assert file.schema_arrow.metadata is None
    assert file.metadata.num_row_groups == file.metadata.num_rows == 4
    for column in range(4):
        chunk = file.metadata.row_group(0).column(column)
        assert chunk.compression == "BROTLI"
        assert not chunk.has_dictionary_page
        assert set(chunk.encodings) <= {"PLAIN", "RLE"}


@pytest.mark.parametrize(
    ("profile", "frames"),
    [
        ("official", {2: (50, 72), 5: (50, 310)}),
        pytest.param("50-298", {2: (50, 71), 5: (50, 299)}, marks=pytest.mark.slow),
        ("51-299", {2: (51, 72), 5: (51, 300)}),
    ],
)
def test_each_profile_holds_its_frames(
    predicted: Predicted, tmp_path: Path, profile: str, frames: dict[int, tuple[int, int]]
) -> None:
    report = submit(predicted, tmp_path, frames=profile)
    assert report.frames == profile
    table = read_member(tmp_path / "submission_main.zip", LIVE)
    for trial, prediction in zip(table["trial_indices"][:2], table["prediction"][:2], strict=True):
        first, end = frames[trial]
        assert np.array_equal(np.stack(prediction.tolist()), predicted.value("F", trial)[:, first:end])


def test_profiles_give_the_published_numbers_of_frames() -> None:
    counts = {n: [len(frames_of(profile, n)) for profile in FRAMES_PROFILES] for n in (300, 240, 324)}
    assert counts == {300: [250, 249, 249], 240: [190, 189, 189], 324: [274, 249, 249]}


def test_raw_predictions_are_multiplied_by_the_precision(predicted: Predicted, tmp_path: Path) -> None:
    raw = predicted.write("raw", units="raw")
    submit(predicted, tmp_path, predictions=raw)
    table = read_member(tmp_path / "submission_main.zip", FINAL)
    std = predicted.sessions["F"].std
    floor = 0.01 * np.nanmean(std)
    precision = np.where(std > floor, 1 / np.where(std > floor, std, 1), 1 / floor)
    expected = (predicted.value("F", 6) * precision)[:, 50:71]
    assert np.allclose(np.stack(table["prediction"][0].tolist()), expected, rtol=1e-6)


def test_old_sessions_and_broken_trials_are_left_out_with_a_note(predicted: Predicted, tmp_path: Path) -> None:
    report = submit(predicted, tmp_path, "bonus")
    table = read_member(tmp_path / "submission_bonus_live.zip", LIVE_BONUS)
    assert table["trial_indices"].tolist() == [8, 8]
    assert not table["mouse"].str.contains("29156").any()
    assert any(note.startswith("left out A:") for note in report.notes)
    broken = [note for note in report.notes if "trial 3: left out, its stimulus is broken" in note]
    assert len(broken) == 2


def test_same_predictions_give_the_same_bytes(predicted: Predicted, tmp_path: Path) -> None:
    copy = predicted.write("copy")
    for name, predictions in (("one", predicted.path), ("two", copy)):
        submit(predicted, tmp_path / name, predictions=predictions)
        submit(predicted, tmp_path / name, "bonus", predictions=predictions)
    for path in (tmp_path / "one").iterdir():
        if path.suffix == ".zip":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_rerun_does_nothing(predicted: Predicted, tmp_path: Path) -> None:
    first = submit(predicted, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = submit(predicted, tmp_path)
    assert (first.status, second.status) == ("written", "already done")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert second.files == first.files
    assert second.validation == first.validation
    assert second.notes == first.notes


def test_digests_that_were_taken_away_are_missed(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    manifest = tmp_path / "submission_main.sha256"
    lines = manifest.read_text().splitlines(keepends=True)
    assert len(lines) == 3
    for line in lines:
        manifest.write_text("".join(one for one in lines if one != line))
        name = line.split()[1]
        assert verify_submission(str(tmp_path)).problems == (f"submission_main.sha256: does not name {name}",)
    manifest.unlink()
    assert verify_submission(str(tmp_path)).problems == ("submission_main.sha256: missing",)
    assert submit(predicted, tmp_path).status == "already done"
    assert verify_submission(str(tmp_path)).passed


@pytest.mark.parametrize(
    ("name", "is_listed"),
    [
        ("submission_main.zip", False),
        ("submission_main.md", True),
        pytest.param("submission_main.zip", True, marks=pytest.mark.slow),
        pytest.param("submission_main.md", False, marks=pytest.mark.slow),
    ],
)
def test_what_somebody_changed_is_not_replaced(
    predicted: Predicted, tmp_path: Path, name: str, is_listed: bool
) -> None:
    submit(predicted, tmp_path)
    path, manifest = tmp_path / name, tmp_path / "submission_main.sha256"
    written = path.read_bytes()
    path.write_bytes(written + b"mine")
    if is_listed:  # Somebody has run sha256sum again.
        mine = hashlib.sha256(written + b"mine").hexdigest()
        manifest.write_text(manifest.read_text().replace(hashlib.sha256(written).hexdigest(), mine))
        assert mine in manifest.read_text()
    with pytest.raises(SubmissionError, match=rf"{name}: the (zip|model card) is not the one that was written here"):
        submit(predicted, tmp_path)
    assert path.read_bytes() == written + b"mine"
    path.unlink()
    submit(predicted, tmp_path)
    assert path.read_bytes() == written
    assert verify_submission(str(tmp_path)).passed


@pytest.mark.parametrize("name", ["zip", "json", "md", "sha256"])
@pytest.mark.parametrize("has_submission", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_files_of_somebody_else_are_not_replaced(
    predicted: Predicted, tmp_path: Path, name: str, has_submission: bool
) -> None:
    name = f"submission_main.{name}"
    if has_submission:
        submit(predicted, tmp_path)
    (tmp_path / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SubmissionError, match=rf"{name}: (another file has the name|the zip is not) .*; move it"):
        submit(predicted, tmp_path, frames="50-298")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "damage", ["", *(pytest.param(text, marks=pytest.mark.slow) for text in ("{", "[]", '{"identity": {}}'))]
)
def test_damaged_record_is_told_and_not_replaced(predicted: Predicted, tmp_path: Path, damage: str) -> None:
    submit(predicted, tmp_path)
    record = tmp_path / "submission_main.json"
    for text in (damage, record.read_text().replace('"float32"', '"float64"')):
        record.write_text(text)
        with pytest.raises(SubmissionError, match=r"record, or the record was changed: found .*; move it"):
            submit(predicted, tmp_path)
        assert record.read_text() == text
    assert verify_submission(str(tmp_path)).problems == ("submission_main.json: the digest of its bytes differs",)
    for path in tmp_path.iterdir():
        path.unlink()
    assert submit(predicted, tmp_path).status == "written"


def test_temporary_files_of_somebody_else_stay(predicted: Predicted, tmp_path: Path) -> None:
    mine, left = tmp_path / ".submission_main.backup.tmp", tmp_path / f".submission_main.json.{'0' * 32}.tmp"
    mine.write_text("mine")
    left.write_text("of a killed writer")
    submit(predicted, tmp_path)
    assert (mine.read_text(), left.exists()) == ("mine", False)


def test_a_lost_record_is_written_again(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    (tmp_path / "submission_main.json").unlink()
    assert submit(predicted, tmp_path).status == "written"
    assert verify_submission(str(tmp_path)).passed


def test_nothing_is_written_into_predictions(predicted: Predicted, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a submission cannot be written into a stored session, predictions or a run"):
        submit(predicted, predicted.path)
    assert not list(Path(predicted.path).glob("submission*"))


def test_digests_of_files_that_somebody_added_are_kept(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    notes, manifest = tmp_path / "notes.txt", tmp_path / "submission_main.sha256"
    notes.write_text("mine")
    line = f"{hashlib.sha256(b'mine').hexdigest()}  notes.txt\n"
    manifest.write_text(manifest.read_text() + line)
    assert submit(predicted, tmp_path, frames="50-298").status == "written"
    assert line in manifest.read_text()
    assert verify_submission(str(tmp_path)).n_objects == 4


@pytest.mark.parametrize("name", ["submission_main.md", pytest.param("submission_main.json", marks=pytest.mark.slow)])
def test_files_of_earlier_versions_without_a_digest_in_them_are_known(
    predicted: Predicted, tmp_path: Path, name: str
) -> None:
    submit(predicted, tmp_path)
    path, manifest = tmp_path / name, tmp_path / "submission_main.sha256"
    written = path.read_bytes()
    lines = [
        line for line in written.split(b"\n") if b'  "digest": ' not in line and b"SHA-256 of the text" not in line
    ]
    earlier = b"\n".join(lines)
    path.write_bytes(earlier)
    with pytest.raises(SubmissionError, match="is not the one that was written here"):
        submit(predicted, tmp_path, frames="50-298")
    digests = [hashlib.sha256(data).hexdigest() for data in (written, earlier)]
    manifest.write_text(manifest.read_text().replace(*digests))
    assert submit(predicted, tmp_path, frames="50-298").status == "written"


def test_official_frames_come_with_what_was_scored_in_2023(predicted: Predicted, tmp_path: Path) -> None:
    def told(report: SubmissionReport) -> list[str]:
        return [note for note in report.notes if "2023 held 50-298, 249 values of a 300-frame trial" in note]

    official = submit(predicted, tmp_path / "official")
    assert len(told(official)) == 1
    assert told(official)[0] in Path(official.card).read_text()
    # A rerun that has nothing to do says it again.
    assert told(submit(predicted, tmp_path / "official")) == told(official)
    for profile in ("50-298", "51-299"):
        other = submit(predicted, tmp_path / profile, frames=profile)
        assert told(other) == []
        assert "2023 held" not in Path(other.card).read_text()


def test_other_frames_or_other_predictions_are_written_again(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    assert submit(predicted, tmp_path, frames="50-298").status == "written"
    fewer = predicted.write("fewer", first=17)
    assert submit(predicted, tmp_path, frames="50-298", predictions=fewer).status == "written"


def test_report_carries_the_zips_and_the_checks(predicted: Predicted, tmp_path: Path) -> None:
    report = submit(predicted, tmp_path)
    path = tmp_path / "submission_main.zip"
    assert report.files[0].size_bytes == path.stat().st_size
    assert report.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report.validation.passed
    assert set(report.validation.to_frame().columns) == {"file", "check", "passed", "finding"}
    assert report.validation.to_frame()["passed"].all()
    record = json.loads((tmp_path / "submission_main.json").read_text())
    assert record["identity"]["frames"] == "official"


def test_bonus_of_one_stage_is_written_with_a_note(predicted: Predicted, tmp_path: Path) -> None:
    live = predicted.write("live-bonus", "FG", tiers=("live_test_bonus",))
    report = submit(predicted, tmp_path, "bonus", predictions=live)
    assert [Path(file.path).name for file in report.files] == ["submission_bonus_live.zip"]
    assert "no zip for final_test_bonus: it was not predicted" in report.notes


def test_main_track_needs_both_tiers(predicted: Predicted, tmp_path: Path) -> None:
    live = predicted.write("live-main", "FG", tiers=("live_test_main",))
    with pytest.raises(PredictionsError, match=r"found live_test_main, .* also final_test_main; predict into one"):
        submit(predicted, tmp_path / "out", predictions=live)
    with pytest.raises(PredictionsError, match="expected also live_test_bonus, final_test_bonus"):
        submit(predicted, tmp_path / "out", "bonus", predictions=live)
    assert not (tmp_path / "out").exists()


def test_every_scored_session_of_the_store_has_to_be_predicted(predicted: Predicted, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="found F, expected also G"):
        submit(predicted, tmp_path, predictions=predicted.write("only-f", "F"))
    with pytest.raises(PredictionsError, match="found A, expected also F, G"):
        submit(predicted, tmp_path, predictions=predicted.write("only-a", "A"))


def test_trial_that_the_store_gained_is_an_error(predicted: Predicted, tmp_path: Path) -> None:
    more = (*PREDICTED_TRIALS, TrialFacts(20, "final_test_main", 71, "m4"))
    for alias, n_neurons in (("F", 4), ("G", 5)):
        write_session_store(tmp_path / "store", alias, more, n_neurons=n_neurons, n_frames_padded=324)
    with pytest.raises(PredictionsError, match=r"trial 20, .*trials of final_test_main are not predicted: found 1"):
        write_submission(predicted.path, str(tmp_path / "store"), track="main", out=str(tmp_path / "out"))


def test_frames_that_were_not_predicted_are_an_error_and_leave_nothing(predicted: Predicted, tmp_path: Path) -> None:
    late = predicted.write("late", "FG", first=60)
    with pytest.raises(PredictionsError, match=r"session F .*trial 2, .*no value at 10 frames between 50 and 59"):
        submit(predicted, tmp_path, predictions=late)
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_zips_that_were_there(predicted: Predicted, tmp_path: Path) -> None:
    submit(predicted, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PredictionsError):
        submit(predicted, tmp_path, predictions=predicted.write("late-2", "FG", first=60))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_zip_over_the_limit_is_refused(predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size_bytes = submit(predicted, tmp_path / "whole").files[0].size_bytes
    monkeypatch.setattr(writer_module, "MAX_UPLOAD_SIZE_BYTES", size_bytes // 2)
    with pytest.raises(SubmissionError, match=r"submission_main.zip: the zip is too large to upload: found about"):
        submit(predicted, tmp_path / "before")
    assert list((tmp_path / "before").iterdir()) == []
    # What the estimate from a few rows lets through is noticed while it is written.
    monkeypatch.setattr(submission_module, "_ESTIMATE_ERROR", 1.0)
    with pytest.raises(SubmissionError, match=rf"found more than .* expected at most {size_bytes // 2:,}"):
        submit(predicted, tmp_path / "during")
    assert list((tmp_path / "during").iterdir()) == []


def test_full_disk_is_noticed_before_writing(
    predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=3000))
    with pytest.raises(SubmissionError, match=r"does not fit on the disk: found 3,000 bytes free, expected about"):
        submit(predicted, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("float_type", ["float32", "float64"])
def test_estimated_size_is_near_the_written_one(tmp_path: Path, float_type: str) -> None:
    trials = [TrialFacts(i, "live_test_main" if i % 2 else "final_test_main", 240 + 10 * i) for i in range(9)]
    store, predictions = str(tmp_path / "store"), str(tmp_path / "p")
    write_session_store(tmp_path / "store", "F", trials, n_neurons=60)
    rng = np.random.default_rng(0)
    arrays = {"F": {facts.trial: rng.random((60, facts.n_frames), np.float32) for facts in trials}}
    from_arrays(predictions, store, arrays, response_units="standardized")
    plan = make_plan(open_entry(predictions), open_store(store), Track.MAIN, "official", float_type)
    report = write_submission(predictions, store, track="main", float_type=float_type, out=str(tmp_path / "out"))
    assert plan.estimate_size_bytes("submission_main.zip") == pytest.approx(report.files[0].size_bytes, rel=0.05)


def test_doubles_hold_the_same_numbers(predicted: Predicted, tmp_path: Path) -> None:
    report = submit(predicted, tmp_path, float_type="float64")
    assert report.float_type == "float64"
    with zipfile.ZipFile(tmp_path / "submission_main.zip") as archive:
        schema = pq.read_schema(io.BytesIO(archive.read(LIVE)))
    assert schema.field("prediction").type == pa.list_(pa.list_(pa.float64()))
    table = read_member(tmp_path / "submission_main.zip", LIVE)
    prediction = np.stack(table["prediction"][0].tolist())
    assert prediction.dtype == np.float64
    assert np.array_equal(prediction, predicted.value("F", 2)[:, 50:72].astype(np.float64))
    assert submit(predicted, tmp_path, float_type="float32").status == "written"
    with pytest.raises(UnknownNameError, match="unknown type of values: found 'float16'"):
        submit(predicted, tmp_path, float_type="float16")


def test_what_does_not_pass_the_validator_gets_no_name(
    predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "MEMBER_NAMES", {**plan_module.MEMBER_NAMES, Tier.LIVE_TEST_MAIN: "live.brotli"})
    with pytest.raises(SubmissionError, match=r"does not pass the validator: found .*a main file is missing"):
        submit(predicted, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_large_members_are_zip64(predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_ZIP64_SIZE_BYTES", 0)
    submit(predicted, tmp_path)
    table = read_member(tmp_path / "submission_main.zip", LIVE)
    assert len(table) == 4


def test_wrong_names_propose_the_right_ones(predicted: Predicted, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown track: found 'man'; did you mean main"):
        submit(predicted, tmp_path, "man")
    with pytest.raises(UnknownNameError, match="unknown frames profile: found '50-299'"):
        submit(predicted, tmp_path, frames="50-299")


def test_folder_that_cannot_be_written_is_named(predicted: Predicted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SubmissionError, match="file: the submission cannot be written: found a file, not a folder"):
        submit(predicted, tmp_path / "file")


def test_progress_counts_rows_of_writing_and_of_checking(predicted: Predicted, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    submit(predicted, tmp_path, progress=lambda label, done, total: seen.setdefault(label, []).append((done, total)))
    assert seen["write main submission"] == [(n, 6) for n in range(1, 7)]
    assert seen[f"validate {LIVE}"] == [(n, 4) for n in range(1, 5)]
