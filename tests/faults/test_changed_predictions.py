"""Predictions and truths that somebody changed: nobody reads them without being told."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.changed_stores import A, F, find_problems
from fixtures.predicted_sessions import PredictedSessions
from fixtures.stores import read_files
from flows.cli.verification import verify_path
from sensorium_data.errors import PredictionsError, StoreError
from sensorium_data.ingest import convert_session
from sensorium_data.predictions import (
    create_predictions,
    find_predictions,
    open_predictions,
    verify_predictions,
)
from sensorium_data.progress import ignore_progress
from sensorium_data.scoring import compare_predictions, score_predictions
from sensorium_data.store import open_store
from sensorium_data.submission import write_submission

# Places of two trials that are scored, given the truth, and submitted.
OF_BONUS = (11, 12)


def flip_a_bit_of_a_trial(path: Path) -> None:
    chunk = path / F.name / "predictions" / "c" / str(OF_BONUS[0]) / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 1
    chunk.write_bytes(data)


def flip_a_bit_of_a_unit_id(path: Path) -> None:
    chunk = path / F.name / "neuron" / "c" / "0"
    data = bytearray(chunk.read_bytes())
    data[-6] ^= 1
    chunk.write_bytes(data)


def swap_two_trials(path: Path) -> None:
    first, second = (path / F.name / "predictions" / "c" / str(index) for index in OF_BONUS)
    first.rename(path / "other")
    second.rename(first)
    (path / "other").rename(second)


def take_a_trial_of_other_predictions(path: Path) -> None:
    chunk = Path(F.name, "predictions", "c", str(OF_BONUS[0]), "0", "0")
    shutil.copy(path.parent / "others" / chunk, path / chunk)


def edit_the_units(path: Path) -> None:
    root = path / "zarr.json"
    root.write_text(root.read_text().replace('"response_units": "raw"', '"response_units": "standardized"'))


def edit_the_units_and_the_ledger(path: Path) -> None:
    edit_the_units(path)
    ledger = path / "ledger.json"
    content = json.loads(ledger.read_text())
    content["objects"]["zarr.json"][0] = (path / "zarr.json").stat().st_size
    ledger.write_text(json.dumps(content))


def lose_the_ledger(path: Path) -> None:
    (path / "ledger.json").unlink()


def use_for(path: Path, predicted: PredictedSessions, out: Path) -> dict[str, Callable[[], object]]:
    """Everything that a user does with predictions."""
    others, truth = str(predicted.root / "others"), str(predicted.root / "truth")
    return {
        "score": lambda: score_predictions(str(path), predicted.store, truth=truth),
        "leaderboard": lambda: compare_predictions([others, str(path)], predicted.store, truth=truth),
        "submit": lambda: write_submission(str(path), predicted.store, track="bonus", out=str(out)),
        "average": lambda: write_submission([others, str(path)], predicted.store, track="bonus", out=str(out)),
    }


TAMPERINGS = (
    flip_a_bit_of_a_trial,
    flip_a_bit_of_a_unit_id,
    swap_two_trials,
    take_a_trial_of_other_predictions,
    edit_the_units,
    edit_the_units_and_the_ledger,
    lose_the_ledger,
)


@pytest.mark.parametrize(
    ("tamper", "use"),
    [
        *((tamper, "submit") for tamper in TAMPERINGS),
        *((swap_two_trials, use) for use in ("score", "average")),
        (edit_the_units, "leaderboard"),
    ],
)
def test_predictions_that_were_changed_are_refused_by_whoever_reads_them(
    tamper: Callable[[Path], None], use: str, predicted: PredictedSessions, tmp_path: Path
) -> None:
    shutil.copytree(predicted.root / "others", tmp_path / "others")
    path = shutil.copytree(predicted.root / "sound", tmp_path / "sound")
    tamper(path)
    with pytest.raises(PredictionsError, match=rf"{path}.*damaged.*remove the predictions, and make"):
        use_for(path, predicted, tmp_path / "out")[use]()
    assert not list((tmp_path / "out").glob("*.zip"))
    assert find_problems(path)


@pytest.mark.parametrize("lose", [True, False])
def test_predictions_that_are_not_whole_are_not_found_finished(
    lose: bool, predicted: PredictedSessions, tmp_path: Path
) -> None:
    path = tmp_path / "p"
    session = predicted.sessions["F"]
    with create_predictions(
        str(path), store=predicted.store, sessions=["F"], tiers=["oracle"], response_units="raw", identity="i"
    ) as writer:
        for facts in session.of_tier("oracle"):
            writer.write_trial("F", facts.trial, np.ones((len(session.neurons), facts.n_frames)), 0)
    assert find_predictions(str(path), "i")
    chunk = path / F.name / "neuron" / "c" / "0"
    if lose:
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(
        PredictionsError,
        match=r"found (no \S+neuron/c/0|\S+neuron/c/0 of \d+ bytes?), expected an object of \d+ bytes; .*remove",
    ):
        find_predictions(str(path), "i")


@pytest.mark.parametrize("content", ["a file of mine", "nothing"])
def test_predictions_are_not_written_where_something_else_lies(
    content: str, predicted: PredictedSessions, tmp_path: Path
) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "notes").write_text(content)
    with pytest.raises(PredictionsError, match=r"something else lies where .*found no zarr\.json; choose another name"):
        find_predictions(str(path), "i")


def test_predictions_whose_session_is_a_link_out_are_refused(predicted: PredictedSessions, tmp_path: Path) -> None:
    path = shutil.copytree(predicted.root / "sound", tmp_path / "sound")
    (path / F.name).rename(tmp_path / "elsewhere")
    (path / F.name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="a link leads out of the folder"):
        open_predictions(str(path), "F")


def test_predictions_of_an_earlier_version_are_compared_with_the_digest_of_their_values(tmp_path: Path) -> None:
    path = shutil.copytree(Path(__file__).parents[1] / "compat" / "predictions-2", tmp_path / "p")
    report = verify_predictions(str(path))
    assert (report.passed, report.compared_with) == (True, "content digest")
    first, second = sorted(path.glob(f"{F.name}/predictions/c/*/0/0"))[:2]
    shutil.copy(first, second)
    assert not verify_predictions(str(path)).passed


@pytest.mark.parametrize("name", ["rates", "neuron"])
def test_a_truth_that_was_changed_is_refused(name: str, predicted: PredictedSessions, tmp_path: Path) -> None:
    truth = shutil.copytree(predicted.root / "truth", tmp_path / "truth")
    for chunk in sorted((truth / F.name / name / "c").rglob("0")):
        if chunk.is_file():
            data = bytearray(chunk.read_bytes())
            data[len(data) // 3] ^= 1
            chunk.write_bytes(data)
    with pytest.raises(StoreError, match=r"the truth of the simulation is damaged.*simulate again"):
        score_predictions(str(predicted.root / "sound"), predicted.store, truth=str(truth))


@pytest.mark.parametrize("how", ["flip", "swap", "cut", "replace"])
def test_an_interrupted_writer_takes_over_no_trial_that_was_changed(
    how: str, predicted: PredictedSessions, tmp_path: Path
) -> None:
    def begin(name: str = "p"):  # type: ignore[no-untyped-def]
        return create_predictions(
            str(tmp_path / name),
            store=predicted.store,
            sessions=["F"],
            tiers=["oracle"],
            response_units="raw",
            identity="i",
        )

    session = predicted.sessions["F"]
    n_frames = {facts.trial: facts.n_frames for facts in session.of_tier("oracle")}

    def predict(trial: int) -> np.ndarray:
        return np.full((len(session.neurons), n_frames[trial]), float(trial))

    with contextlib.suppress(InterruptedError), begin() as writer:
        for trial in writer.trials("F")[:3]:
            writer.write_trial("F", trial, predict(trial), 0)
        raise InterruptedError
    chunks = [tmp_path / "p.partial" / F.name / "predictions" / "c" / str(index) / "0" / "0" for index in range(3)]
    data = bytearray(chunks[0].read_bytes())
    match how:
        case "flip":
            data[20] ^= 4
            chunks[0].write_bytes(data)
        case "swap":
            chunks[0].write_bytes(chunks[1].read_bytes())
            chunks[1].write_bytes(data)
        case "cut":
            chunks[0].write_bytes(data[:-1])
        case "replace":
            chunks[0].write_bytes(chunks[1].read_bytes())
    with begin() as writer:
        missing = writer.missing_trials("F")
        assert len(missing) == len(n_frames) - (1 if how == "swap" else 2)
        for trial in missing:
            writer.write_trial("F", trial, predict(trial), 0)
    values = open_predictions(str(tmp_path / "p"), "F").predictions
    for trial, n in n_frames.items():
        assert (values.sel(trial=trial)[:, :n] == trial).all()


def test_foreign_files_are_to_be_moved_and_nothing_is_to_be_removed(
    predicted: PredictedSessions, tmp_path: Path
) -> None:
    place = shutil.copytree(predicted.root / "sound", tmp_path / "sound")
    (place / "notes.txt").write_text("mine")
    ((report,), failures) = verify_path(str(place), (), source=None, jobs=1, progress=ignore_progress)
    assert (report.problems, failures) == (("notes.txt: not in the ledger",), [])
    assert report.remedy == "move what is not in the ledger to another place"


def test_predictions_without_their_metadata_are_no_store(
    predicted: PredictedSessions, sound: Path, tmp_path: Path
) -> None:
    place, archives = shutil.copytree(predicted.root / "sound", tmp_path / "sound"), str(sound.parent / "archives")
    (place / "zarr.json").unlink()
    before = read_files(place)
    for use in (lambda: open_store(str(place)), lambda: convert_session(A, str(place), source=archives, repairs=True)):
        with pytest.raises(StoreError, match=r"this is no store of sessions: found a run or predictions"):
            use()
    assert read_files(place) == before
    assert any("no zarr.json" in problem for problem in find_problems(place))
