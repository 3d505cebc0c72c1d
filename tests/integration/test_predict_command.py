"""``sensorium predict`` with runs that were trained on a tiny store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Outcome
from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.training import train
from sensorium_data.predictions import predicted_sessions, predictions_attributes

pytestmark = pytest.mark.usefixtures("no_curves")

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store of sessions F and G, and two runs on both."""
    store = tmp_path_factory.mktemp("store")
    for alias in "FG":
        record_session(store, alias, n_by_tier={"train": 3, "oracle": 2})
    runs = tmp_path_factory.mktemp("runs")
    return store, [train(tiny_config(max_epochs=1, seed=seed), str(store), None, runs).run for seed in (0, 1)]


def test_an_ensemble_with_weights(sensorium: Command, world: tuple[Path, list[str]], tmp_path: Path) -> None:
    store, runs = world
    arguments = ["predict", *runs, "--store", store, "--tier", "oracle", "--out", tmp_path / "p", "--weights", "1,3"]
    done = sensorium(*arguments, "--json")
    assert done.status == 0
    document = json.loads(done.out)
    assert (document["status"], document["n_trials"], document["runs"]) == ("predicted", 4, runs)
    assert predictions_attributes(str(tmp_path / "p"))["weights"] == [1, 3]
    assert sensorium(*arguments).out == f"{tmp_path / 'p'}: already done\n"


def test_chosen_sessions(sensorium: Command, world: tuple[Path, list[str]], tmp_path: Path) -> None:
    store, (run, _) = world
    arguments = ["predict", run, "--store", store, "--tier", "all", "--out", tmp_path / "p", "--device", "cpu"]
    assert sensorium(*arguments, "--sessions", "G").out == f"{tmp_path / 'p'}: predicted, 5 trials\n"
    assert [session.alias for session in predicted_sessions(str(tmp_path / "p"))] == ["G"]


def test_wrong_arguments(sensorium: Command, world: tuple[Path, list[str]], tmp_path: Path) -> None:
    store, runs = world
    arguments = ["predict", *runs, "--store", store, "--tier", "oracle", "--out", tmp_path / "p"]
    sensorium(*arguments, "--weights", "1").assert_refused("the weights do not fit the runs", "2 positive numbers")
    sensorium(*arguments, "--weights", "a,b").assert_refused("--weights", "a,b")
    sensorium(*arguments, "--sessions", "H").assert_refused("H")
    sensorium(*arguments, "--sessions", "nobody").assert_refused("nobody")
    assert not (tmp_path / "p").exists()
