from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.command_line import Outcome
from fixtures.submissions import FINAL, LIVE, Predicted

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return Predicted(tmp_path_factory.mktemp("commands"))


@pytest.fixture
def folder(predicted: Predicted, tmp_path: Path) -> Path:
    """Another model's arrays of both main tiers."""
    for alias in "FG":
        (tmp_path / "arrays" / alias).mkdir(parents=True)
        for facts in predicted.sessions[alias].trials:
            if facts.tier.endswith("main"):
                values = predicted.value(alias, facts.trial)[:, : facts.n_frames]
                np.save(tmp_path / "arrays" / alias / f"{facts.trial}.npy", values)
    return tmp_path / "arrays"


def test_folder_of_arrays_to_zips(sensorium: Command, predicted: Predicted, folder: Path, tmp_path: Path) -> None:
    base = ["--store", predicted.store]
    done = sensorium(
        "from-arrays", folder, *base, "--units", "standardized", "--out", tmp_path / "p", "--title", "Mine"
    )
    assert (done.status, done.out) == (0, f"{tmp_path / 'p'}: written, 6 trials\n")
    done = sensorium("submit", tmp_path / "p", *base, "--track", "main", "--out", tmp_path / "out", "--json")
    assert done.status == 0
    document = json.loads(done.out)
    assert document["status"] == "written"
    assert document["files"][0]["members"] == [LIVE, FINAL]
    assert document["violations"] == []
    assert '"title": "Mine"' in Path(document["card"]).read_text()
    assert sensorium("validate", document["files"][0]["path"], *base).status == 0


def test_mean_of_several(sensorium: Command, predicted: Predicted, tmp_path: Path) -> None:
    other = predicted.write("other", first=17)
    arguments = [predicted.path, other, "--store", predicted.store, "--track", "main", "--out", tmp_path]
    outcome = sensorium("submit", *arguments, "--weights", "1,3", "--dtype", "float64")
    assert outcome.status == 0
    assert [line for line in outcome.err.splitlines() if "2023 held 50-298" in line]
    assert "submission_main.md" in outcome.out
    assert "--weights 1,3" in (tmp_path / "submission_main.md").read_text()
    sensorium("submit", *arguments, "--weights", "1").assert_refused("2 positive numbers", "--weights 1,2")
    sensorium("submit", *arguments, "--weights", "one,2").assert_refused("one,2", "e.g. --weights 1,2")
    alone = ["submit", predicted.path, *arguments[2:]]
    sensorium(*alone, "--weights", "one").assert_refused("found 'one', expected a number; e.g. --weights 1")
    sensorium("submit", "--store", predicted.store, "--track", "main").assert_refused("no predictions named")
    sensorium("submit", *arguments, "--dtype", "float16").assert_refused("float16")


def test_fix_writes_a_copy_that_passes(sensorium: Command, predicted: Predicted, tmp_path: Path) -> None:
    base = ["--store", predicted.store]
    sensorium("submit", predicted.path, *base, "--track", "main", "--out", tmp_path / "right")
    wrong = tmp_path / "wrong.zip"
    with zipfile.ZipFile(tmp_path / "right" / "submission_main.zip") as right, zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("upload/predictions_file_live_main_track.parquet.brotli", right.read(LIVE))
        archive.writestr(f"upload/{FINAL}", right.read(FINAL))
    outcome = sensorium("validate", wrong, *base)
    assert outcome.status == 1
    assert f"rename it to {LIVE}" in outcome.err
    assert "a member lies in a folder" in outcome.err
    outcome = sensorium("validate", wrong, *base, "--fix", tmp_path / "copy")
    assert outcome.status == 0
    assert "named as the server wants it" in outcome.out
    # What was right all along comes out to the last bit.
    for member in (LIVE, FINAL):
        contents = [zipfile.ZipFile(tmp_path / name / "submission_main.zip").read(member) for name in ("right", "copy")]
        assert contents[0] == contents[1]
    shutil.rmtree(tmp_path / "copy")
    document = json.loads(sensorium("validate", wrong, *base, "--fix", tmp_path / "copy", "--json").out)
    assert (document["passed"], document["copy"]["passed"]) == (False, True)
    assert document["copy"]["files"] == [str(tmp_path / "copy" / "submission_main.zip")]
    outcome = sensorium("validate", wrong, *base, "--fix", tmp_path / "copy")
    assert outcome.status == 0
    assert f"{tmp_path / 'copy'}: already done" in outcome.out
    outcome = sensorium("validate", wrong, *base, "--fix", tmp_path / "copy", "--frames", "official")
    assert outcome.status == 2
    assert "there is a zip already; name another folder" in outcome.err


def test_copy_that_still_fails_exits_with_1(sensorium: Command, predicted: Predicted, tmp_path: Path) -> None:
    base = ["--store", predicted.store]
    sensorium("submit", predicted.path, *base, "--track", "main", "--out", tmp_path)
    with zipfile.ZipFile(tmp_path / "submission_main.zip") as archive:
        archive.extract(LIVE, tmp_path)
    outcome = sensorium("validate", tmp_path / LIVE, *base, "--fix", tmp_path / "copy")
    assert outcome.status == 1
    assert f"a main file is missing: found {LIVE}, expected also {FINAL}" in outcome.err
    outcome = sensorium("validate", tmp_path / "submission_main.zip", *base, "--frames", "51-299")
    assert outcome.status == 1
    assert "not those of profile 51-299" in outcome.err


def test_what_is_no_folder_of_arrays_is_refused_in_one_line(
    sensorium: Command, predicted: Predicted, folder: Path, tmp_path: Path
) -> None:
    base = ["--store", predicted.store, "--units", "raw", "--out", tmp_path / "p"]
    sensorium("from-arrays", tmp_path / "nothing", *base).assert_refused("nothing", "cannot be read")
    (folder / "notes.txt").write_text("x")
    sensorium("from-arrays", folder, *base).assert_refused("notes.txt", "a file beside the folders")
    sensorium("from-arrays", folder, "--store", predicted.store, "--out", "x").assert_refused("--units")
    assert not (tmp_path / "p").exists()
