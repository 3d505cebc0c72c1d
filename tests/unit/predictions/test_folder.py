from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fixtures.submissions import FINAL, LIVE, Predicted, read_member
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.files import read_regular
from sensorium_data.predictions import folder as folder_module
from sensorium_data.predictions import from_arrays, from_folder, open_predictions
from sensorium_data.submission import write_submission


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return Predicted(tmp_path_factory.mktemp("folder"))


@pytest.fixture
def folder(predicted: Predicted, tmp_path: Path) -> Path:
    """What another model left: both main tiers of F and G, in float64, the first frames missing."""
    for alias, name in (("F", "F"), ("G", predicted.sessions["G"].session.name)):
        (tmp_path / "arrays" / name).mkdir(parents=True)
        for facts in predicted.sessions[alias].trials:
            if facts.tier.endswith("main"):
                values = predicted.value(alias, facts.trial)[:, 20 : facts.n_frames].astype(np.float64)
                np.save(tmp_path / "arrays" / name / f"{facts.trial}.npy", values)
    (tmp_path / "arrays" / "F" / ".DS_Store").write_bytes(b"")
    return tmp_path / "arrays"


def test_folder_becomes_a_submission(predicted: Predicted, folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    written = from_folder(
        str(tmp_path / "p"),
        predicted.store,
        folder,
        response_units="standardized",
        attributes={"title": "Mine"},
        progress=lambda *call: seen.append(call),
    )
    assert (written.status, written.n_trials) == ("written", 6)
    assert seen == [("write predictions", n, 6) for n in range(1, 7)]
    assert open_predictions(str(tmp_path / "p"), "F").attrs["title"] == "Mine"
    report = write_submission(str(tmp_path / "p"), predicted.store, track="main", out=str(tmp_path / "out"))
    assert report.validation.passed
    for member, trials in ((LIVE, {2: 72, 5: 310}), (FINAL, {6: 71})):
        table = read_member(Path(report.files[0].path), member)
        for alias in "FG":
            rows = table[table["mouse"] == predicted.sessions[alias].session.name]
            assert rows["trial_indices"].tolist() == list(trials)
            for trial, cell in zip(rows["trial_indices"], rows["prediction"], strict=True):
                assert np.array_equal(np.stack(cell.tolist()), predicted.value(alias, trial)[:, 50 : trials[trial]])


def test_arrays_are_loaded_one_at_a_time(
    predicted: Predicted, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(folder_module, "read_regular", lambda path: order.append(path.stem) or read_regular(path))
    from_folder(
        str(tmp_path / "p"),
        predicted.store,
        folder,
        response_units="raw",
        progress=lambda label, n_done, n_total: order.append("written"),
    )
    assert order == ["2", "written", "5", "written", "6", "written"] * 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "F/x.npy",
            r"F/x\.npy: no trial's array: expected the trial's number, .*as 12\.npy; rename it",
        ),
        ("F/02.npy", r"F/02\.npy: no trial's array"),
        ("F/-2.npy", "no trial's array"),
        ("F/2.npz", "no trial's array"),
        ("README.txt", r"README\.txt: a file beside the folders of sessions: expected folders .*; take it out of the"),
        ("F.npy", r"F\.npy: a file beside the folders of sessions"),
        ("dynamic29515/2.npy", "neither a session's alias nor its full name: found 'dynamic29515'"),
    ],
)
def test_what_does_not_belong_there_is_named(
    predicted: Predicted, folder: Path, tmp_path: Path, name: str, sentence: str
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(PredictionsError, match=sentence):
        from_folder(str(tmp_path / "p"), predicted.store, folder, response_units="raw")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "objects", "folder"])
def test_damaged_array_is_named_and_nothing_is_left(
    predicted: Predicted, folder: Path, tmp_path: Path, damage: str
) -> None:
    path = folder / "F" / "5.npy"
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "objects":
            np.save(path, np.array([{}, None], object))
        case _:
            path.unlink()
            path.mkdir()
    with pytest.raises(PredictionsError, match=r"session F .*, trial 5, .*F/5\.npy: an array cannot be read: found "):
        from_folder(str(tmp_path / "p"), predicted.store, folder, response_units="raw")
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / "p.partial").exists()


def test_missing_trials_and_wrong_shapes_are_named(predicted: Predicted, folder: Path, tmp_path: Path) -> None:
    np.save(folder / "F" / "2.npy", np.zeros((3, 22)))
    with pytest.raises(
        PredictionsError, match=r"session F .*trial 2, .*F/2\.npy: wrong shape of a prediction: found \(3, 22\)"
    ):
        from_folder(str(tmp_path / "p"), predicted.store, folder, response_units="raw")
    (folder / "F" / "2.npy").unlink()
    (folder / "F" / "6.npy").unlink()
    with pytest.raises(
        PredictionsError,
        match=r"trial 2, .*arrays/F/2\.npy: not every trial .* found 2 trials missing: 2, 6, expected 3 trials; "
        "save the trial's array in this file",
    ):
        from_folder(str(tmp_path / "p"), predicted.store, folder, response_units="raw")
    assert not (tmp_path / "p.partial").exists()


def test_folder_without_arrays_is_an_error(predicted: Predicted, tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"nothing: the folder of predictions cannot be read: found No such"):
        from_folder(str(tmp_path / "p"), predicted.store, tmp_path / "nothing", response_units="raw")
    (tmp_path / "empty" / "F").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"empty: no array to read: expected SESSION/TRIAL\.npy"):
        from_folder(str(tmp_path / "p"), predicted.store, tmp_path / "empty", response_units="raw")


def test_session_twice_is_an_error(predicted: Predicted, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "F", folder / predicted.sessions["F"].session.name)
    with pytest.raises(UsageError, match="a session is named twice"):
        from_folder(str(tmp_path / "p"), predicted.store, folder, response_units="raw")
    with pytest.raises(UsageError, match="no session or no tier"):
        from_arrays(str(tmp_path / "p"), predicted.store, {}, response_units="raw")
