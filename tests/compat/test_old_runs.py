"""Runs that earlier versions trained, whole and interrupted, are used as they were meant.

``run-1`` holds a store, a run that was trained on it to its end, and the folder of one of the same recipe and data that
was killed at its fifth step.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.config import TrainingConfig
from models.prediction import predict
from models.runs import load_run
from models.training import find_finished_run, train

HERE = Path(__file__).parent / "run-1"
NAME = "tiny-597fcfe7"


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig.model_validate_json((HERE / NAME / "config.json").read_bytes())


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    shutil.copytree(HERE / NAME, tmp_path / "runs" / NAME)
    return tmp_path / "runs"


def test_a_finished_run_counts_as_done(config: TrainingConfig, runs: Path) -> None:
    before = {path: path.read_bytes() for path in (runs / NAME).iterdir()}
    report = train(config, str(HERE / "store"), None, runs)
    assert (report.run, report.status, report.n_epochs) == (str(runs / NAME), "already done", 3)
    assert report == find_finished_run(config, str(HERE / "store"), ["F"], runs)
    assert {path: path.read_bytes() for path in (runs / NAME).iterdir()} == before


def test_a_finished_run_predicts(runs: Path, tmp_path: Path) -> None:
    run = load_run(runs / NAME)
    assert run.name == NAME
    report = predict([str(runs / NAME)], str(HERE / "store"), ["oracle"], str(tmp_path / "predictions"))
    assert (report.status, report.n_trials) == ("predicted", 2)


def test_an_interrupted_run_goes_on_from_its_checkpoint(config: TrainingConfig, tmp_path: Path) -> None:
    # An unfinished folder's name would be passed over by git.
    shutil.copytree(HERE / "unfinished", tmp_path / f"{NAME}.partial")
    report = train(config, str(HERE / "store"), None, tmp_path, resume=True)
    assert (report.run, report.status, report.resumed_step) == (str(tmp_path / NAME), "trained", 3)
    # What came before is kept. What comes after depends on how a processor rounds, so it is not compared.
    before, after = (
        (folder / "metrics.jsonl").read_text().splitlines() for folder in (HERE / "unfinished", tmp_path / NAME)
    )
    assert after[: len(before)] == before
    assert len(after) == report.n_epochs == 3
    assert load_run(tmp_path / NAME).identity == load_run(HERE / NAME).identity
