from __future__ import annotations

import copy
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sensorium_data.validation as validation_module
from fixtures.session_stores import HandMadeSession, TrialFacts, write_session_store
from sensorium_data.errors import SubmissionError, UnknownNameError, UsageError
from sensorium_data.sessions import find_session
from sensorium_data.submission_findings import ValidationReport
from sensorium_data.validation import validate_submission

TRIALS = (
    TrialFacts(7, "oracle", 70, "m0"),
    TrialFacts(5, "live_test_main", 310, "m3"),
    TrialFacts(2, "live_test_main", 72, "m3"),
    TrialFacts(6, "final_test_main", 71, "m4"),
    TrialFacts(8, "live_test_bonus", 60, "m5", "GaussianDot"),
    TrialFacts(3, "live_test_bonus", 0, "", "GaussianDot", valid=False),
    TrialFacts(1, "final_test_bonus", 64, "m6", "RandomDots"),
)
LIVE = "predictions_live_main.parquet.brotli"
FINAL = "predictions_final_main.parquet.brotli"
LIVE_BONUS = "predictions_live_test_bonus_ood.parquet.brotli"
FINAL_BONUS = "predictions_final_test_bonus_ood.parquet.brotli"
TIER_OF = {
    LIVE: "live_test_main",
    FINAL: "final_test_main",
    LIVE_BONUS: "live_test_bonus",
    FINAL_BONUS: "final_test_bonus",
}
F, G = (find_session(alias).name for alias in "FG")

Rows = list[dict[str, Any]]
Mutation = Callable[[Rows], None]


class Recorded:
    """Sessions A, F and G, and what a submission of them has to hold."""

    def __init__(self, root: Path) -> None:
        self.store = str(root / "store")
        self.sessions: dict[str, HandMadeSession] = {
            find_session(alias).name: write_session_store(
                root / "store", alias, TRIALS, n_neurons=n, n_frames_padded=324
            )
            for alias, n in (("A", 3), ("F", 4), ("G", 5))
        }

    def rows(self, member: str, n_cut: int = 0) -> Rows:
        """A right file's rows in plain Python; ``n_cut`` drops last frames."""
        rng = np.random.default_rng(0)
        rows = []
        for name in (F, G):
            session = self.sessions[name]
            for facts in session.of_tier(TIER_OF[member]):
                if facts.valid:
                    shape = (session.neurons.size, facts.n_frames - 50 - n_cut)
                    rows.append(
                        {
                            "mouse": name,
                            "trial_indices": facts.trial,
                            "prediction": rng.random(shape).tolist(),
                            "neuron_ids": session.neurons.tolist(),
                        }
                    )
        return rows


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("validation"))


def write_as_the_readme(rows: Rows, path: Path, **options: Any) -> Path:
    """Write rows as the starter kit's README does: a DataFrame of lists."""
    pd.DataFrame(rows).to_parquet(path, **{"compression": "brotli", "engine": "pyarrow", "index": False} | options)
    return path


def zip_files(path: Path, members: dict[str, Path], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, source in members.items():
            # Written by its name as it is: archive.write() would take a leading slash away.
            archive.writestr(zipfile.ZipInfo(name), source.read_bytes(), compression)
    return path


def make_zip(recorded: Recorded, folder: Path, *names: str, compression: int = zipfile.ZIP_STORED) -> Path:
    """Zip right files under names that may be wrong: ``content as name``."""
    members = {}
    for index, name in enumerate(names or (LIVE, FINAL)):
        content, _, member = name.partition(" as ")
        members[member or content] = write_as_the_readme(recorded.rows(content), folder / f"{index}.bin")
    return zip_files(folder / "submission.zip", members, compression)


def validate_rows(recorded: Recorded, folder: Path, mutate: Mutation, member: str = LIVE) -> ValidationReport:
    rows = copy.deepcopy(recorded.rows(member))
    mutate(rows)
    return validate_submission([write_as_the_readme(rows, folder / member)], recorded.store)


def sentences(report: ValidationReport) -> list[str]:
    return [str(violation) for violation in report.violations]


def assert_only(report: ValidationReport, check: str, *expected: str) -> None:
    """The report's only violations are of one check, and say so in their own words."""
    found = sentences(report)
    assert {violation.check for violation in report.violations} == {check}, found
    for text in expected:
        assert any(text in sentence for sentence in found), (text, found)
    assert all("\n" not in sentence for sentence in found)
    failed = {row.check for row in report.to_frame().itertuples() if not row.passed}
    assert failed == {check}


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


def test_one_profile_may_be_insisted_on(recorded: Recorded, tmp_path: Path) -> None:
    path = write_as_the_readme(recorded.rows(FINAL_BONUS), tmp_path / FINAL_BONUS)
    assert validate_submission([path], recorded.store, frames="official").passed
    report = validate_submission([path], recorded.store, frames="51-299")
    assert_only(report, "frames", "the frames are not those of profile 51-299: found (4, 14), which is official")
    with pytest.raises(UnknownNameError, match="unknown frames profile"):
        validate_submission([path], recorded.store, frames="all")


# What can be wrong with the rows


def set_cell(column: str, value: Any, row: int = 0) -> Mutation:
    def mutate(rows: Rows) -> None:
        rows[row][column] = value(rows[row][column]) if callable(value) else value

    return mutate


def transpose(prediction: list[list[float]]) -> list[list[float]]:
    return np.array(prediction).T.tolist()


def with_value(value: float | None) -> Callable[[list[list[float]]], list[list[float]]]:
    def change(prediction: list[list[float]]) -> list[list[float]]:
        prediction[1][3] = value  # type: ignore[call-overload]
        return prediction

    return change


# Rows of the live main file: F 2, F 5, G 2, G 5.
MUTATIONS: list[tuple[str, Mutation, str, str]] = [
    ("missing-row", lambda rows: rows.pop(1) and None, "trials", "trial 5, {file}: the trial has no row"),
    (
        "missing-session",
        lambda rows: rows.__delitem__(slice(2, 4)),
        "trials",
        f"session G ({G}), {{file}}: the session has no row of this tier: expected 2 trials of live_test_main",
    ),
    (
        "duplicate-row",
        lambda rows: rows.append(copy.deepcopy(rows[1])),
        "trials",
        "trial 5, {file}, row 4: the trial is there twice: found rows 1 and 4; keep one",
    ),
    (
        "wrong-tier",
        lambda rows: rows.append(
            {**rows[0], "trial_indices": 6, "prediction": [p[:21] for p in rows[0]["prediction"]]}
        ),
        "trials",
        "trial 6, {file}, row 4: the trial is of another tier: found final_test_main, expected live_test_main",
    ),
    (
        "unknown-trial",
        lambda rows: rows.append({**rows[0], "trial_indices": 99}),
        "trials",
        "{file}, row 4: the session has no such trial: found 99",
    ),
    (
        "negative-trial",
        lambda rows: rows.append({**rows[0], "trial_indices": -2}),
        "trials",
        "row 4: the session has no such trial: found -2",
    ),
    (
        "unknown-session",
        lambda rows: rows.append({**rows[0], "mouse": F[:-1] + "1"}),
        "sessions",
        f"{{file}}, row 4: unknown session: found '{F[:-1]}1'; did you mean {F}",
    ),
    (
        "alias",
        lambda rows: [row.update(mouse="F") for row in rows[:2]],
        "sessions",
        f"row 0: the session's name is not whole: found 'F', in 2 rows, expected {F}; write it whole",
    ),
    (
        "old-session",
        lambda rows: rows.append({**rows[0], "mouse": find_session("A").name}),
        "sessions",
        "row 4: a session that the competition does not score",
    ),
    (
        "session-not-in-store",
        lambda rows: rows.append({**rows[0], "mouse": find_session("J").name}),
        "sessions",
        "row 4: the session is not in the store",
    ),
    (
        "null-session",
        lambda rows: rows.append({**rows[0], "mouse": None}),
        "sessions",
        "row 4: unknown session: found 'None'",
    ),
    (
        "too-few-frames",
        set_cell("prediction", lambda p: [x[:-2] for x in p]),
        "frames",
        f"session F ({F}), trial 2, {{file}}, row 0: wrong shape of a prediction: found (4, 20), "
        "expected (4, 22), or (4, 21) in the profiles 50-298 and 51-299",
    ),
    ("too-many-frames", set_cell("prediction", lambda p: [[0.0] * 50 + x for x in p]), "frames", "found (4, 72)"),
    ("too-few-neurons", set_cell("prediction", lambda p: p[:-1]), "frames", "found (3, 22)"),
    ("no-neurons", set_cell("prediction", lambda p: []), "frames", "found (0, 0)"),
    ("transposed", set_cell("prediction", transpose), "frames", "found (22, 4), expected (4, 22), or"),
    ("transposed-remedy", set_cell("prediction", transpose), "frames", "transpose it: neurons first"),
    (
        "ragged",
        set_cell("prediction", lambda p: [p[0][:-1], *p[1:]]),
        "frames",
        "row 0: the neurons of a prediction have different numbers of frames: found 21 to 22",
    ),
    (
        "mixed-profiles",
        set_cell("prediction", lambda p: [x[:-1] for x in p], row=2),
        "frames",
        f"session G ({G}), trial 2, {{file}}, row 2: the frames are of another profile than those of the other trials: "
        "found (5, 21), which is 50-298 or 51-299, expected official; use one profile for all trials",
    ),
    ("null-prediction", set_cell("prediction", None), "frames", "row 0: a prediction is missing: found null"),
    ("null-trace", set_cell("prediction", lambda p: [None, *p[1:]]), "frames", "row 0: a prediction is missing"),
    (
        "nan",
        set_cell("prediction", with_value(np.nan), row=1),
        "values",
        f"session F ({F}), trial 5, {{file}}, row 1: values that are not finite: found 1, the first for unit",
    ),
    ("inf", set_cell("prediction", with_value(-np.inf)), "values", "values that are not finite: found 1"),
    ("null-value", set_cell("prediction", with_value(None)), "values", "values that are not finite: found 1"),
    (
        "neurons-reordered",
        set_cell("neuron_ids", lambda ids: [ids[1], ids[0], *ids[2:]]),
        "neurons",
        "row 0: neuron ids in another order than the store's: found unit",
    ),
    ("neurons-sorted", set_cell("neuron_ids", sorted), "neurons", "row 0: neuron ids in another order"),
    (
        "neurons-of-others",
        set_cell("neuron_ids", lambda ids: [i + 1 for i in ids]),
        "neurons",
        "row 0: neuron ids of other neurons",
    ),
    (
        "neuron-missing",
        set_cell("neuron_ids", lambda ids: ids[:-1]),
        "neurons",
        "row 0: wrong number of neuron ids: found 3, expected 4",
    ),
    ("neurons-null", set_cell("neuron_ids", None), "neurons", "row 0: neuron ids are missing: found null"),
]


@pytest.mark.parametrize(("mutate", "check", "expected"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_every_mutation_of_the_rows_is_refused_in_its_own_words(
    recorded: Recorded, tmp_path: Path, mutate: Mutation, check: str, expected: str
) -> None:
    assert_only(validate_rows(recorded, tmp_path, mutate), check, expected.format(file=LIVE))


def test_the_rows_are_right_without_a_mutation(recorded: Recorded, tmp_path: Path) -> None:
    assert validate_rows(recorded, tmp_path, lambda rows: None).passed


def test_every_violation_is_reported_at_once(recorded: Recorded, tmp_path: Path) -> None:
    def mutate(rows: Rows) -> None:
        rows[0]["prediction"] = with_value(np.nan)(rows[0]["prediction"])
        rows[1]["neuron_ids"] = sorted(rows[1]["neuron_ids"])
        rows[2]["mouse"] = "G"
        rows.pop(3)
        for row in rows:
            row["animal"] = 1

    report = validate_rows(recorded, tmp_path, mutate)
    assert {v.check for v in report.violations} == {"values", "neurons", "sessions", "trials", "columns"}
    by_check = {v.check: v for v in report.violations}
    assert (by_check["values"].row, by_check["values"].trial) == (0, 2)
    assert by_check["values"].session == f"F ({F})"
    assert by_check["trials"].trial == 5


def test_many_violations_of_one_kind_are_counted(recorded: Recorded, tmp_path: Path) -> None:
    report = validate_rows(
        recorded, tmp_path, lambda rows: rows.extend({**rows[0], "trial_indices": 1000 + i} for i in range(50))
    )
    assert len(report.violations) == 21
    assert sentences(report)[-1] == f"{LIVE}: the session has no such trial: 30 more of this kind"
    assert report.to_frame().set_index("check").loc["trials", "finding"] == "50 violations"


# What can be wrong with the columns


def drop(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(columns=column)


COLUMNS: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    ("no-mouse", drop("mouse"), "a column is missing: expected 'mouse'"),
    ("no-prediction", drop("prediction"), "a column is missing: expected 'prediction'"),
    ("renamed", lambda f: f.rename(columns={"neuron_ids": "unit_ids"}), "a column too many: found 'unit_ids'"),
    (
        "index",
        lambda f: f.set_index("mouse", drop=False).rename_axis(None),
        "a column too many: found '__index_level_0__', expected mouse, trial_indices, prediction, neuron_ids; "
        "write it with index=False",
    ),
    (
        "float-trials",
        lambda f: f.astype({"trial_indices": float}),
        "column 'trial_indices' is of the wrong type: found double, expected integer, or string like '1.npy'",
    ),
    (
        "integer-predictions",
        lambda f: f.assign(prediction=[[[1] * len(x) for x in p] for p in f["prediction"]]),
        "column 'prediction' is of the wrong type: found list<list<int64>>, expected list of lists of floats",
    ),
    (
        "flat-predictions",
        lambda f: f.assign(prediction=[np.array(p).ravel().tolist() for p in f["prediction"]]),
        "column 'prediction' is of the wrong type: found list<double>",
    ),
    (
        "text-neurons",
        lambda f: f.assign(neuron_ids=[[str(i) for i in ids] for ids in f["neuron_ids"]]),
        "column 'neuron_ids' is of the wrong type",
    ),
    ("integer-mice", lambda f: f.assign(mouse=range(len(f))), "column 'mouse' is of the wrong type: found int64"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [c[1:] for c in COLUMNS], ids=[c[0] for c in COLUMNS])
def test_wrong_columns_are_refused(
    recorded: Recorded, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], expected: str
) -> None:
    index = None if "index_level" in expected else False
    frame = change(pd.DataFrame(recorded.rows(LIVE)))
    frame.to_parquet(tmp_path / LIVE, compression="brotli", engine="pyarrow", index=index)
    assert_only(validate_submission([tmp_path / LIVE], recorded.store), "columns", f"{LIVE}: {expected}")


def test_half_precision_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(pd.DataFrame(recorded.rows(LIVE)), preserve_index=False)
    halves = [[np.asarray(x, np.float16) for x in p] for p in table["prediction"].to_pylist()]
    column = pa.array(halves, pa.list_(pa.list_(pa.float16())))
    pq.write_table(table.set_column(2, "prediction", column), tmp_path / LIVE, compression="brotli")
    assert_only(validate_submission([tmp_path / LIVE], recorded.store), "columns", "found list<list<halffloat>>")


@pytest.mark.parametrize("kind", ["large", "fixed", "dictionary"])
def test_other_kinds_of_lists_and_strings_pass(recorded: Recorded, tmp_path: Path, kind: str) -> None:
    rows = [row for row in recorded.rows(LIVE) if row["mouse"] == F and row["trial_indices"] == 2]
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    if kind == "large":
        table = table.set_column(2, "prediction", table["prediction"].cast(pa.large_list(pa.large_list(pa.float32()))))
        table = table.set_column(0, "mouse", table["mouse"].cast(pa.large_string()))
    elif kind == "fixed":
        table = table.set_column(2, "prediction", table["prediction"].cast(pa.list_(pa.list_(pa.float32(), 22), 4)))
    else:
        table = table.set_column(0, "mouse", table["mouse"].combine_chunks().dictionary_encode())
    pq.write_table(table, tmp_path / LIVE, compression="brotli")
    report = validate_submission([tmp_path / LIVE], recorded.store)
    assert_only(report, "trials", "the session has no row", "trial 5")


# What can be wrong with the zip


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


# Damaged and hostile files


def test_damaged_files_are_violations_beside_the_others(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "cut.zip").write_bytes(make_zip(recorded, tmp_path).read_bytes()[:-30])
    whole = (tmp_path / "0.bin").read_bytes()
    (tmp_path / LIVE).write_bytes(whole[:-9] + b"\x00" * 9)
    (tmp_path / FINAL).write_bytes(b"")
    paths = [tmp_path / name for name in ("text.zip", "cut.zip", LIVE, FINAL)]
    report = validate_submission(paths, recorded.store)
    assert_only(
        report,
        "readable",
        "text.zip: the file is neither a zip nor a Parquet file: found b'no z' at its start",
        "cut.zip: the zip is damaged",
        f"{LIVE}: the file cannot be read as Parquet",
        f"{FINAL}: the file is neither a zip nor a Parquet file",
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
    assert_only(report, "readable", "it claims 1,000,000,000,000,000 bytes")


def test_names_do_not_reach_the_terminal_raw(recorded: Recorded, tmp_path: Path) -> None:
    path = make_zip(recorded, tmp_path, f"{LIVE_BONUS} as \x1b[31m{LIVE_BONUS}")
    report = validate_submission([path], recorded.store)
    text = "".join(sentences(report)) + report.to_frame().to_string() + "".join(report.warnings)
    assert "\x1b" not in text


def test_paths_that_cannot_be_opened_are_errors(recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"nothing\.zip: cannot be opened: found No such file"):
        validate_submission([tmp_path / "nothing.zip"], recorded.store)
    with pytest.raises(SubmissionError, match="cannot be opened: found Is a directory"):
        validate_submission([tmp_path], recorded.store)
    with pytest.raises(UsageError, match="no file to validate"):
        validate_submission([], recorded.store)


def test_store_without_scored_sessions_is_an_error(recorded: Recorded, tmp_path: Path) -> None:
    write_session_store(tmp_path / "store", "A", TRIALS, n_neurons=2)
    with pytest.raises(SubmissionError, match="holds no session that the competition scores"):
        validate_submission([make_zip(recorded, tmp_path)], str(tmp_path / "store"))


# What is taken, and was hardly meant


def test_constant_and_negative_predictions_are_warnings(recorded: Recorded, tmp_path: Path) -> None:
    def mutate(rows: Rows) -> None:
        for row in rows[:2]:
            row["prediction"][2] = [0.5] * len(row["prediction"][2])
        rows[3]["prediction"][0][0] = -1.0

    report = validate_rows(recorded, tmp_path, mutate)
    assert report.passed
    assert any("session F" in w and "1 of 4 neurons are constant over all trials" in w for w in report.warnings)
    assert any("session G" in w and "1 predicted values are negative" in w for w in report.warnings)


def test_row_of_a_broken_trial_is_a_warning(recorded: Recorded, tmp_path: Path) -> None:
    report = validate_rows(
        recorded, tmp_path, lambda rows: rows.append({**rows[0], "trial_indices": 3, "prediction": [[]]}), LIVE_BONUS
    )
    assert report.passed, sentences(report)
    assert any("1 rows of trials whose stimulus is broken" in warning for warning in report.warnings)


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
