from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pyarrow
import pytest

from fixtures.submissions import Predicted, submit
from sensorium_data.errors import RunError
from sensorium_data.files import RemoteObjects, open_objects
from sensorium_data.predictions import find_runs, from_arrays, predictions_attributes
from sensorium_data.predictions.writer import PredictionsWriter

DIGEST, UNKNOWN = "ab" * 32, "cd" * 32


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return Predicted(tmp_path_factory.mktemp("card"))


@pytest.fixture
def runs(predicted: Predicted, tmp_path: Path) -> Path:
    """A folder of two runs, of which one is behind the predictions."""
    for name, digest in (("mine-1", DIGEST), ("other-2", "ef" * 32)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        session = {"name": predicted.sessions["F"].session.name, "digest": "0ld", "unit_ids": list(range(9000))}
        (folder / "model.json").write_text(json.dumps({"weights_sha256": digest, "best_epoch": 7}))
        (folder / "config.json").write_text(json.dumps({"learning_rate": 0.00321}))
        (folder / "environment.json").write_text(json.dumps({"packages": {"torch": "2.9.9"}}))
        (folder / "data.json").write_text(json.dumps({"sessions": [session]}))
    return tmp_path / "runs"


@pytest.fixture
def of_runs(predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Predictions that two runs have made, one of them unknown here."""
    begin = PredictionsWriter.__init__
    monkeypatch.setattr(
        PredictionsWriter, "__init__", lambda self, *args, **kw: begin(self, *args, **kw | {"runs": [DIGEST, UNKNOWN]})
    )
    return predicted.write(str(tmp_path / "of-runs"), "FG")


def test_card_holds_what_is_needed_to_do_it_again(
    predicted: Predicted, of_runs: str, runs: Path, tmp_path: Path
) -> None:
    report = submit(predicted, tmp_path / "out", predictions=of_runs, runs=runs, frames="50-298")
    assert Path(report.card) == tmp_path / "out" / "submission_main.md"
    card = Path(report.card).read_text()
    zip_digest = hashlib.sha256((tmp_path / "out" / "submission_main.zip").read_bytes()).hexdigest()
    attributes = predictions_attributes(of_runs)
    for text in (zip_digest, attributes["content_digest"], *attributes["stores"].values(), "`50-298`", DIGEST):
        assert text in card
    # The run at hand with its recipe, results and versions; the other by its digest; a run of nobody's not at all.
    for text in ("mine-1", "0.00321", '"best_epoch": 7', '"torch": "2.9.9"', f"### Weights {UNKNOWN}"):
        assert text in card
    assert "other-2" not in card
    assert "8999" not in card
    assert f"| pyarrow | {pyarrow.__version__} |" in card
    assert f"sensorium predict {runs / 'mine-1'} RUN_OF_cdcdcdcd --store STORE --tier" in card
    assert f"sensorium submit {of_runs} --store STORE --track main --frames 50-298 --dtype float32" in card


def test_card_tells_of_data_that_have_changed_since(
    predicted: Predicted, of_runs: str, runs: Path, tmp_path: Path
) -> None:
    card = Path(submit(predicted, tmp_path / "out", predictions=of_runs, runs=runs).card).read_text()
    assert "Note: run `mine-1` was made from another version of session F, 0ld." in card
    assert "Note: predictions" not in card


def test_zip_does_not_hold_the_card(predicted: Predicted, tmp_path: Path) -> None:
    report = submit(predicted, tmp_path)
    names = zipfile.ZipFile(report.files[0].path).namelist()
    assert all(name.endswith(".parquet.brotli") for name in names)


def test_card_of_a_mean_gives_the_weights(predicted: Predicted, tmp_path: Path) -> None:
    other = predicted.write("other", first=17)
    card = Path(submit(predicted, tmp_path, predictions=[predicted.path, other], weights=[1, 3]).card).read_text()
    assert f"The values are the mean 0.25 × `{predicted.path}` + 0.75 × `{other}`" in card
    assert f"sensorium submit {predicted.path} {other} --store STORE" in card
    assert "--weights 1,3" in card


def test_card_gives_the_weights_of_an_ensembles_runs(
    predicted: Predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = PredictionsWriter.__init__
    made = {"runs": [DIGEST, UNKNOWN], "attributes": {"weights": [0.5, 2.0]}}
    monkeypatch.setattr(PredictionsWriter, "__init__", lambda self, *args, **kw: begin(self, *args, **kw | made))
    url = predicted.write(str(tmp_path / "of-runs"), "FG")
    monkeypatch.undo()
    card = Path(submit(predicted, tmp_path / "out", predictions=url).card).read_text()
    assert f"--out {url} --weights 0.5,2\n" in card


def test_card_of_arrays_from_elsewhere_quotes_their_maker(predicted: Predicted, tmp_path: Path) -> None:
    arrays = {
        alias: {f.trial: predicted.value(alias, f.trial)[:, : f.n_frames] for f in session.trials if f.valid}
        for alias, session in predicted.sessions.items()
        if alias != "A"
    }
    from_arrays(
        str(tmp_path / "p"),
        predicted.store,
        arrays,
        response_units="standardized",
        attributes={"title": "Somebody's model", "code": "abc123"},
    )
    card = Path(submit(predicted, tmp_path / "out", predictions=tmp_path / "p").card).read_text()
    assert '"code": "abc123"' in card
    assert "the predictions come from outside this package" in card


def test_card_follows_the_runs_without_writing_the_zips_again(
    predicted: Predicted, of_runs: str, runs: Path, tmp_path: Path
) -> None:
    first = submit(predicted, tmp_path / "out", predictions=of_runs)
    assert "0.00321" not in Path(first.card).read_text()
    before = Path(first.files[0].path).stat().st_mtime_ns
    second = submit(predicted, tmp_path / "out", predictions=of_runs, runs=runs)
    assert second.status == "already done"
    assert "0.00321" in Path(second.card).read_text()
    assert Path(first.files[0].path).stat().st_mtime_ns == before
    # And a card that somebody lost comes back.
    Path(second.card).unlink()
    submit(predicted, tmp_path / "out", predictions=of_runs, runs=runs)
    assert Path(second.card).exists()


@pytest.mark.parametrize("name", ["config.json", "environment.json", "data.json"])
@pytest.mark.parametrize("damage", [None, "{", "[1]"])
def test_damaged_run_is_named(runs: Path, name: str, damage: str | None) -> None:
    path = runs / "mine-1" / name
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    with pytest.raises(RunError, match=rf"mine-1/{name}: the run is damaged: found "):
        find_runs(runs, [DIGEST])
    assert find_runs(runs, ["ef" * 32]).keys() == {"ef" * 32}


def test_folder_of_runs_need_not_exist(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "nothing", [DIGEST]) == {}


def test_card_quotes_runs_behind_a_url_without_its_login(
    predicted: Predicted, of_runs: str, runs: Path, tmp_path: Path
) -> None:
    url = "memory://lab:sesame@host/runs"
    memory = open_objects(url)
    assert isinstance(memory, RemoteObjects)
    for path in runs.rglob("*.json"):
        memory.upload(path, path.relative_to(runs).as_posix())
    card = Path(submit(predicted, tmp_path / "out", predictions=of_runs, runs=url).card).read_text()
    assert "0.00321" in card
    assert "memory://…@host/runs/mine-1" in card
    assert "sesame" not in card


def test_names_in_a_card_are_shown_in_their_line_and_are_no_commands(predicted: Predicted, tmp_path: Path) -> None:
    place = predicted.write(str(tmp_path / "mine\x1b[2J\n## Scores; touch x\u202e"), "FG")
    report = submit(predicted, tmp_path / "out", predictions=place)
    card = Path(report.card).read_text()
    shown = rf"{tmp_path}/mine\u001b[2J\n## Scores; touch x\u202e"
    assert f"### `{shown}`" in card
    assert f"sensorium submit '{shown}' --store STORE" in card
    assert not {"\x1b", "\u202e"} & set(card)
    assert "\n## Scores" not in card
