"""``sensorium import-checkpoint`` and ``export-checkpoint``: a file of the starter kit to a submission and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fixtures.command_line import Outcome
from fixtures.recorded_stores import record_session
from fixtures.starter_kit_files import SMALL, make_state, save_state

Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of session F, and a file of weights for its neurons."""
    folder = tmp_path_factory.mktemp("world")
    tiers = {"train": 2, "oracle": 2, "live_test_main": 1, "final_test_main": 1}
    one = record_session(folder / "store", "F", n_by_tier=tiers)
    state = make_state(SMALL["factorized3d"], {one.name: one.positions[:, :2]})
    return folder / "store", save_state(folder / "final.pth", {"epoch": 3, "state_dict": state})


def test_a_checkpoint_is_predicted_scored_and_submitted(
    sensorium: Command, world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = world
    monkeypatch.chdir(tmp_path)
    words = ["import-checkpoint", "starter-kit", file, "--store", store, "--out", "runs/imported"]
    done = sensorium(*words)
    assert done.status == 0, done.err
    assert done.out.splitlines()[0] == "runs/imported: imported, factorized3d, 1 session, 511 parameters"
    assert "pads_frames=false, spatial_strides=1,1" in done.out
    for words_of_step in (
        ["predict", "runs/imported", "--store", store, "--tier", "oracle", "test", "--out", "predictions"],
        ["score", "predictions", "--store", store, "--resamples", "100"],
        ["submit", "predictions", "--store", store, "--track", "main", "--out", "submission"],
        ["verify", "runs/imported"],
        ["export-checkpoint", "runs/imported", "back.pth", "--format", "starter-kit"],
    ):
        done = sensorium(*words_of_step)
        assert done.status == 0, (words_of_step, done.err)
    assert '"imported"' in Path("submission/submission_main.md").read_text()
    state, back = torch.load(file)["state_dict"], torch.load("back.pth")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    assert json.loads(sensorium(*words, "--json").out)["status"] == "already done"


def test_wrong_arguments(sensorium: Command, world: tuple[Path, Path], tmp_path: Path) -> None:
    store, file = world
    words = ["import-checkpoint", "starter-kit", file, "--store", store, "--out", tmp_path / "run"]
    sensorium(*words[:1], "starterkit", *words[2:]).assert_refused("starterkit", "did you mean starter-kit?")
    sensorium(*words[:2], *words[3:]).assert_refused("found 0 files")
    sensorium(*words[:3], *words[5:]).assert_refused("--store")
    sensorium(*words, "--set", "channels=3,3").assert_refused("as the weights tell")
    sensorium(*words, "--sessions", "A").assert_refused("the checkpoint lacks a session")
    sensorium(*words, "--sessions", "nonsense").assert_refused("nonsense")
    sensorium(*words, "--preset", "gru").assert_refused("the preset is of another model")
    sensorium(*words[:2], store / "zarr.json", *words[3:]).assert_refused("zarr.json", "not a file of weights")
    sensorium("export-checkpoint", store, tmp_path / "b.pth", "--format", "starter-kit").assert_refused("no run here")
    assert not (tmp_path / "run").exists()
