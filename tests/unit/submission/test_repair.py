from __future__ import annotations

import copy
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.submissions import (
    FINAL,
    FINAL_BONUS,
    LIVE,
    LIVE_BONUS,
    F,
    Mutation,
    Recorded,
    Rows,
    make_zip,
    sentences,
    write_as_the_readme,
)
from sensorium_data.errors import SubmissionError
from sensorium_data.sessions import find_session
from sensorium_data.submission import repair_submission, validate_submission, verify_submission
from sensorium_data.submission.repair import RepairReport


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("repair"))


def repair_rows(recorded: Recorded, folder: Path, mutate: Mutation, name: str = LIVE) -> RepairReport:
    """Repair a main submission whose live file's rows are wrong."""
    rows = copy.deepcopy(recorded.rows(LIVE))
    mutate(rows)
    paths = [
        write_as_the_readme(rows, folder / name),
        write_as_the_readme(recorded.rows(FINAL), folder / FINAL),
    ]
    return repair_submission(paths, recorded.store, out=folder / "out")


def read_member(path: Path, member: str) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        return pd.read_parquet(io.BytesIO(archive.read(member)))


def assert_holds(path: Path, member: str, rows: Rows) -> None:
    """The file holds these rows, in this order, to the last bit."""
    table = read_member(path, member)
    assert table["mouse"].tolist() == [row["mouse"] for row in rows]
    assert table["trial_indices"].tolist() == [row["trial_indices"] for row in rows]
    for found, neurons, row in zip(table["prediction"], table["neuron_ids"], rows, strict=True):
        assert np.array_equal(np.stack(found.tolist()), np.array(row["prediction"]))
        assert neurons.tolist() == row["neuron_ids"]


def each(column: str, change: Callable[[object], object]) -> Mutation:
    def mutate(rows: Rows) -> None:
        for row in rows:
            row[column] = change(row[column])

    return mutate


def reorder_neurons(rows: Rows) -> None:
    for row in rows:
        order = np.argsort(row["neuron_ids"])
        row["neuron_ids"] = np.array(row["neuron_ids"])[order].tolist()
        row["prediction"] = np.array(row["prediction"])[order].tolist()


CORRECTED: list[tuple[str, Mutation, str]] = [
    ("nothing", lambda rows: None, "packed into a zip"),
    ("reversed", lambda rows: rows.reverse(), "brought into the order of sessions and trials (3 rows)"),
    ("file-names", each("trial_indices", "{}.npy".format), "given the trial's number (4 rows)"),
    ("digits", each("trial_indices", str), "given the trial's number (4 rows)"),
    ("floats", each("trial_indices", float), "given the trial's number (4 rows)"),
    ("aliases", each("mouse", lambda name: find_session(str(name)).alias), "given the session's full name (4 rows)"),
    ("neurons", reorder_neurons, "neurons brought into the store's order, with their predictions (4 rows)"),
    ("transposed", each("prediction", lambda p: np.array(p).T.tolist()), "transposed, neurons first (4 rows)"),
    ("twice", lambda rows: rows.append(copy.deepcopy(rows[1])), "left out, the same row is there already (1 row)"),
    ("index", lambda rows: [row.update(__index_level_0__=1) for row in rows], "columns too many left out"),
    (
        "old-session",
        lambda rows: rows.append({**rows[0], "mouse": find_session("A").name}),
        "left out, session A is not scored (1 row)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mutate", "told"), [c[1:] for c in CORRECTED], ids=[c[0] for c in CORRECTED])
def test_what_is_meant_is_written_and_every_value_stays(
    recorded: Recorded, tmp_path: Path, mutate: Mutation, told: str
) -> None:
    report = repair_rows(recorded, tmp_path, mutate)
    assert report.validation.passed, sentences(report.validation)
    assert f"{LIVE}: {told}" in report.corrections
    assert report.left_out == ()
    path = tmp_path / "out" / "submission_main.zip"
    assert report.files == (str(path),)
    assert_holds(path, LIVE, recorded.rows(LIVE))
    assert_holds(path, FINAL, recorded.rows(FINAL))
    assert validate_submission([path], recorded.store).passed
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "submission_main.zip",
        "submission_fixed.json",
        "submission_fixed.sha256",
    }


def test_a_row_that_is_left_out_is_not_corrected_too(recorded: Recorded, tmp_path: Path) -> None:
    def repeat_with_an_alias(rows: Rows) -> None:
        rows.append({**copy.deepcopy(rows[1]), "mouse": "F"})

    assert repair_rows(recorded, tmp_path, repeat_with_an_alias).corrections == (
        f"{LIVE}: packed into a zip",
        f"{LIVE}: left out, the same row is there already (1 row)",
        f"{FINAL}: packed into a zip",
    )


@pytest.mark.parametrize("name", ["predictions_file_live_main_track.parquet.brotli", "live.parquet"])
def test_files_are_known_by_what_they_hold(recorded: Recorded, tmp_path: Path, name: str) -> None:
    report = repair_rows(recorded, tmp_path, lambda rows: None, name)
    assert report.validation.passed
    assert f"{name}: named as the server wants it" in report.corrections
    assert_holds(tmp_path / "out" / "submission_main.zip", LIVE, recorded.rows(LIVE))


def test_swapped_and_mixed_files_are_sorted_by_tier(recorded: Recorded, tmp_path: Path) -> None:
    paths = [
        write_as_the_readme(recorded.rows(FINAL), tmp_path / LIVE),
        write_as_the_readme([*recorded.rows(LIVE), *recorded.rows(FINAL_BONUS)], tmp_path / FINAL),
    ]
    report = repair_submission(paths, recorded.store, out=tmp_path / "out")
    assert report.validation.passed
    assert f"{LIVE}: put into the file of final_test_main (2 rows)" in report.corrections
    assert_holds(tmp_path / "out" / "submission_main.zip", LIVE, recorded.rows(LIVE))
    assert_holds(tmp_path / "out" / "submission_main.zip", FINAL, recorded.rows(FINAL))
    assert_holds(tmp_path / "out" / "submission_bonus_final.zip", FINAL_BONUS, recorded.rows(FINAL_BONUS))


def test_zips_are_packed_as_the_server_wants_them(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(
        recorded, tmp_path, f"{LIVE} as upload/{LIVE}", FINAL, LIVE_BONUS, FINAL_BONUS, compression=zipfile.ZIP_DEFLATED
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"__MACOSX/._{LIVE}", b"resource fork")
    assert not validate_submission([path], recorded.store).passed
    report = repair_submission([path], recorded.store, out=tmp_path / "out")
    assert report.validation.passed, sentences(report.validation)
    names = {Path(file).name: zipfile.ZipFile(file).namelist() for file in report.files}
    assert names == {
        "submission_main.zip": [LIVE, FINAL],
        "submission_bonus_live.zip": [LIVE_BONUS],
        "submission_bonus_final.zip": [FINAL_BONUS],
    }
    assert f"submission.zip: upload/{LIVE}: taken out of its folder" in report.corrections


@pytest.mark.parametrize("compression", ["snappy", "gzip", "zstd"])
def test_other_codecs_and_types_become_brotli(recorded: Recorded, tmp_path: Path, compression: str) -> None:
    table = pa.Table.from_pandas(pd.DataFrame(recorded.rows(FINAL_BONUS)), preserve_index=False)
    table = table.set_column(2, "prediction", table["prediction"].cast(pa.list_(pa.list_(pa.float32()))))
    pq.write_table(table, tmp_path / FINAL_BONUS, compression=compression)
    report = repair_submission([tmp_path / FINAL_BONUS], recorded.store, out=tmp_path / "out")
    assert report.validation.passed
    assert any(f"compressed with brotli instead of {compression.upper()}" in line for line in report.corrections)
    found = read_member(Path(report.files[0]), FINAL_BONUS)
    assert found["prediction"][0][0].dtype == np.float32
    assert np.array_equal(np.stack(found["prediction"][0].tolist()), np.array(table["prediction"][0].as_py()))


def with_nan(rows: Rows) -> None:
    rows[0]["prediction"][1][3] = np.nan


# What only its author can put right: what is left out, and what the validator says of the copy.
NO_TRIAL = "session F has no trial {} in a test tier"
LEFT: list[tuple[str, Mutation, str, str]] = [
    ("nan", with_nan, "", "values that are not finite: found 1"),
    ("missing", lambda rows: rows.pop(1) and None, "", "trial 5, submission_main.zip: {file}: the trial has no row"),
    ("frames", each("prediction", lambda p: [x[:-2] for x in p]), "", "wrong shape of a prediction: found (4, 20)"),
    ("other-neurons", each("neuron_ids", lambda ids: [i + 1 for i in ids]), "", "neuron ids of other neurons"),
    (
        "twice-not-the-same",
        lambda rows: rows.append({**rows[1], "prediction": (np.array(rows[1]["prediction"]) + 1).tolist()}),
        "",
        "the trial is there twice",
    ),
    ("unknown-trial", lambda rows: rows[0].update(trial_indices=99), NO_TRIAL.format(99), "no row"),
    ("training-trial", lambda rows: rows[0].update(trial_indices=7), NO_TRIAL.format(7), "no row"),
    ("unknown-session", lambda rows: rows[0].update(mouse="Z"), "the store has no session 'Z'", "no row"),
    ("no-session", lambda rows: rows[0].update(mouse=None), "the store has no session None", "no row"),
    ("null", lambda rows: rows[0].update(prediction=None), "trial 2: a prediction is missing", "no row"),
    (
        "ragged",
        lambda rows: rows[0]["prediction"].__setitem__(0, [1.0]),
        "the neurons of a prediction have different numbers of frames",
        "no row",
    ),
    ("no-neurons", lambda rows: rows[0].update(neuron_ids=None), "neuron ids are missing", "no row"),
]  # fmt: skip


@pytest.mark.parametrize(("mutate", "left_out", "violation"), [c[1:] for c in LEFT], ids=[c[0] for c in LEFT])
def test_nothing_is_guessed(
    recorded: Recorded, tmp_path: Path, mutate: Mutation, left_out: str, violation: str
) -> None:
    report = repair_rows(recorded, tmp_path, mutate)
    assert not report.validation.passed
    assert any(violation.format(file=LIVE) in sentence for sentence in sentences(report.validation))
    assert len(report.left_out) == bool(left_out)
    assert all(left_out in reason and reason.endswith("(1 row)") for reason in report.left_out)


def test_what_cannot_be_read_is_named_beside_what_can(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing")
    damaged = write_as_the_readme(recorded.rows(LIVE_BONUS), tmp_path / LIVE_BONUS)
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"\x00" * 9)
    write_as_the_readme([{**row, "prediction": None} for row in recorded.rows(LIVE)], tmp_path / "nulls")
    pd.DataFrame(recorded.rows(LIVE)).drop(columns="neuron_ids").to_parquet(tmp_path / LIVE)
    good = write_as_the_readme(recorded.rows(FINAL_BONUS), tmp_path / FINAL_BONUS)
    paths = [tmp_path / "text", damaged, tmp_path / "nulls", tmp_path / LIVE, good]
    report = repair_submission(paths, recorded.store, out=tmp_path / "out")
    assert [Path(file).name for file in report.files] == ["submission_bonus_final.zip"]
    assert report.validation.passed
    # Nothing was put right in what is not in the copy.
    assert report.corrections == (f"{FINAL_BONUS}: packed into a zip",)
    told = "\n".join(report.left_out)
    for text in (
        "text: it is neither a zip nor a Parquet file",
        f"{LIVE_BONUS}: the file cannot be read as Parquet: found ",
        "nulls: session F, trial 2: ",
        f"{LIVE}: there is not one column neuron_ids",
    ):
        assert text in told, told


def test_damaged_zips_are_named(recorded: Recorded, tmp_path: Path) -> None:
    whole = make_zip(recorded, tmp_path, FINAL_BONUS)
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-30])
    report = repair_submission([tmp_path / "cut.zip", whole], recorded.store, out=tmp_path / "out")
    assert report.left_out[0].startswith("cut.zip: the zip is damaged")
    assert report.validation.passed


def test_zips_that_are_there_are_kept(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, FINAL_BONUS)
    out = tmp_path / "out"
    out.mkdir()
    (out / "submission_bonus_final.zip").write_bytes(b"mine")
    with pytest.raises(SubmissionError, match=r"submission_bonus_final\.zip: there is a zip already; name another"):
        repair_submission([path], recorded.store, out=out)
    assert {entry.name: entry.read_bytes() for entry in out.iterdir()} == {"submission_bonus_final.zip": b"mine"}


@pytest.mark.parametrize("name", [f".submission_main.zip.{'0' * 32}.tmp", "submission_fixed.json"])
def test_a_file_with_a_name_of_the_writer_is_not_replaced(recorded: Recorded, tmp_path: Path, name: str) -> None:
    path = make_zip(recorded, tmp_path, FINAL_BONUS).rename(tmp_path / name)
    before = path.read_bytes()
    with pytest.raises(SubmissionError, match=rf"{re.escape(name)}: the file has the name of one that is written"):
        repair_submission([path], recorded.store, out=tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(SubmissionError, match=r"nothing: cannot be opened|another file has the name of"):
        repair_submission([tmp_path / "nothing"], recorded.store, out=tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "folder"])
def test_another_file_in_the_place_of_the_digests_is_kept(recorded: Recorded, tmp_path: Path, kind: str) -> None:
    path, out = make_zip(recorded, tmp_path, FINAL_BONUS), tmp_path / "out"
    mine = out / "submission_fixed.sha256"
    if kind == "folder":
        mine.mkdir(parents=True)
    else:
        out.mkdir()
        mine.write_text("my own notes")
    with pytest.raises(SubmissionError, match=r"submission_fixed\.sha256: another file has the name of"):
        repair_submission([path], recorded.store, out=out)
    assert list(out.iterdir()) == [mine]


def test_a_changed_zip_of_a_copy_is_told(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, FINAL_BONUS)
    (made,) = repair_submission([path], recorded.store, out=tmp_path / "out").files
    assert verify_submission(str(tmp_path / "out")).passed
    record = tmp_path / "out" / "submission_fixed.json"
    before = record.read_bytes()
    record.write_bytes(before + b" ")
    assert verify_submission(str(tmp_path / "out")).problems == (
        "submission_fixed.json: the digest of its bytes differs",
    )
    record.write_bytes(before)
    manifest = tmp_path / "out" / "submission_fixed.sha256"
    digests = manifest.read_bytes()
    manifest.unlink()
    assert verify_submission(str(tmp_path / "out")).problems == ("submission_fixed.sha256: missing",)
    assert repair_submission([path], recorded.store, out=tmp_path / "out").status == "written"
    assert manifest.read_bytes() == digests
    Path(made).write_bytes(Path(made).read_bytes()[:-1])
    assert verify_submission(str(tmp_path / "out")).problems == (
        "submission_bonus_final.zip: the digest of its bytes differs",
    )
    Path(made).unlink()
    assert repair_submission([path], recorded.store, out=tmp_path / "out").status == "written"
    record.unlink()
    assert repair_submission([path], recorded.store, out=tmp_path / "out").status == "written"
    assert verify_submission(str(tmp_path / "out")).passed
    Path(made).write_bytes(Path(made).read_bytes()[:-1])
    with pytest.raises(SubmissionError, match=r"the zip of the corrected copy was changed; remove it"):
        repair_submission([path], recorded.store, out=tmp_path / "out")


def test_nothing_usable_is_an_error(recorded: Recorded, tmp_path: Path) -> None:
    path = write_as_the_readme([{**row, "mouse": "Z"} for row in recorded.rows(LIVE)], tmp_path / LIVE)
    with pytest.raises(SubmissionError, match=r"no row of a submission .*: found .*no session 'Z' \(4 rows"):
        repair_submission([path], recorded.store, out=tmp_path / "out")
    with pytest.raises(SubmissionError, match=r"nothing: cannot be opened: found No such file"):
        repair_submission([tmp_path / "nothing"], recorded.store, out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_told(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, FINAL_BONUS)
    with pytest.raises(SubmissionError, match="cannot be written: found a file, not a folder; name another folder"):
        repair_submission([path], recorded.store, out=path)


def test_session_names_and_values_of_both_precisions_meet(recorded: Recorded, tmp_path: Path) -> None:
    """A file in float32 for one session and one in float64 for another become one in float64."""
    first = [row for row in recorded.rows(FINAL_BONUS) if row["mouse"] == F]
    second = [row for row in recorded.rows(FINAL_BONUS) if row["mouse"] != F]
    table = pa.Table.from_pandas(pd.DataFrame(first), preserve_index=False)
    table = table.set_column(2, "prediction", table["prediction"].cast(pa.list_(pa.list_(pa.float32()))))
    pq.write_table(table, tmp_path / "one", compression="brotli")
    write_as_the_readme(second, tmp_path / "two")
    report = repair_submission([tmp_path / "one", tmp_path / "two"], recorded.store, out=tmp_path / "out")
    assert report.validation.passed
    first[0]["prediction"] = table["prediction"][0].as_py()
    assert_holds(Path(report.files[0]), FINAL_BONUS, [*first, *second])
