"""Two processes of torchrun train what one does, and agree with each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import fixtures.ranked_training
from fixtures.places import CHECKOUT, TESTS
from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.runs import load_run
from models.training import train
from models.training.ranks import Ranks
from sensorium_data.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_curves")

STARTS_PROCESSES = pytest.mark.slow  # torchrun and two processes train four runs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    record_session(path, "F", n_frames=40)
    record_session(path, "G", n_frames=40, n_neurons=4, n_by_tier={"train": 5, "oracle": 2})
    return str(path)


@pytest.fixture(scope="module")
def out(store, tmp_path_factory):
    """The folder with what one and two processes came to."""
    out = tmp_path_factory.mktemp("out")
    fixtures.ranked_training.train_quietly(store, out, 1)
    environment = os.environ | {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, fixtures.ranked_training.__file__, store, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-5000:]
    return out


def read(out, scenario):
    return [json.loads((out / f"{scenario}-{rank}.json").read_text()) for rank in (0, 1)]


@STARTS_PROCESSES
def test_two_ranks_end_with_the_weights_of_one(out):
    weights = [load_file(next((out / f"quiet-{n}").iterdir()) / "model.safetensors") for n in (1, 2)]
    for name, expected in weights[0].items():
        np.testing.assert_allclose(weights[1][name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
    metrics = [load_run(next((out / f"quiet-{n}").iterdir())).metrics() for n in (1, 2)]
    for one, two in zip(*metrics, strict=True):
        for name in ("train_loss", "validation_loss", "correlation", "regularizer"):
            assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-3, abs=1e-4), name


@STARTS_PROCESSES
@pytest.mark.parametrize("scenario", ["quiet", "noisy", "resumed"])
def test_ranks_end_with_the_same_weights_and_know_the_same_score(out, scenario):
    first, second = read(out, scenario)
    assert first == second


@STARTS_PROCESSES
def test_ranks_stop_together_and_go_on_to_the_same_end(out):
    assert all((out / f"stopped-{rank}.txt").exists() for rank in (0, 1))
    (resumed, _), (undisturbed, _) = read(out, "resumed"), read(out, "noisy")
    # One rank was asked to stop after its fourth step.
    assert resumed["resumed_step"] == 4
    assert resumed["digest"] == undisturbed["digest"]


def test_another_number_of_processes_is_refused(store, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="n_devices 2, processes 1; start it by `torchrun --nproc-per-node 2"):
        train(tiny_config(n_devices=2), store, None, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="found n_devices 1, processes 4; set n_devices to 4"):
        train(tiny_config(), store, None, tmp_path)


def test_every_row_belongs_to_one_rank():
    rows = np.arange(7)
    for n_ranks in (1, 2, 3, 9):
        taken = [rows[Ranks(rank, n_ranks).own_rows(7)] for rank in range(n_ranks)]
        np.testing.assert_array_equal(np.sort(np.concatenate(taken)), rows)
    assert torch.equal(Ranks().sum(torch.ones(2)), torch.ones(2))
