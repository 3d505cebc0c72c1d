"""A training goes on without its Prefect server, and tells it the end when it is back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Crashed

from fixtures.lab import COMMAND, Lab, run_lab
from fixtures.recorded_stores import record_session
from fixtures.waiting import wait_until
from models.runs import load_run

pytestmark = [pytest.mark.flows, pytest.mark.slow]  # a server of their own, which is away for longer than Prefect waits

N_EPOCHS = 300
# Prefect's client asks for a minute.
LONGER_THAN_CLIENTS_S = 75.0
# Prefect's worker listens for cancellations for another half a minute.
LONGER_THAN_WORKERS_S = 45.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with run_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    record_session(root, "F", n_by_tier={"train": 4, "oracle": 2})
    return root


def training(store: Path, runs: Path, n_epochs: int) -> dict[str, Any]:
    small = {
        "model.channels": "2,2",
        "n_windows_per_trial": 1,
        "max_epochs": n_epochs,
        "early_stopping_patience": n_epochs,
    }
    return {
        "preset": "factorized3d-debug",
        "store": str(store),
        "sessions": ["F"],
        "runs": str(runs),
        "overrides": {name: str(value) for name, value in small.items()},
        "device": "cpu",
    }


def begin(lab: Lab, **parameters: Any) -> UUID:
    run = lab.start("train/train", **parameters)
    wait_until(lambda: "epoch 2:" in lab.log(run), "two epochs are trained", 600)
    return run


def training_process(lab: Lab, run: UUID) -> psutil.Process:
    (pid,) = re.findall(r"training in process (\d+)", lab.log(run))
    return psutil.Process(int(pid))


def read_artifacts(lab: Lab, run: UUID) -> dict[str, Any]:
    found = lab.client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])), limit=100
    )
    return {str(one.key): one.data for one in found}


def test_a_training_ends_while_the_server_is_away(lab: Lab, small_store: Path, tmp_path: Path) -> None:
    run = begin(lab, **training(small_store, tmp_path, N_EPOCHS))
    environment = os.environ | lab.server.environment
    watcher = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "watch", "train/train"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline()
    lab.stop_server()
    away_from_s = time.monotonic()
    # The run has its name once it is finished.
    wait_until(lambda: any(not path.suffix for path in tmp_path.iterdir()), "the run is finished", 600)
    time.sleep(max(0.0, away_from_s + LONGER_THAN_CLIENTS_S - time.monotonic()))
    lab.restart_server()
    # The server may take it for crashed for some seconds, until the run says that it is not.
    wait_until(lambda: lab.read(run).state_name == "Completed", "the end is reported", 600)
    (folder,) = tmp_path.iterdir()
    artifacts = read_artifacts(lab, run)
    rows = json.loads(artifacts["training-factorized3d-debug"])
    assert [row["epoch"] for row in rows] == [one.epoch for one in load_run(folder).metrics()]
    assert {"curves-factorized3d-debug", "run-factorized3d-debug"} <= artifacts.keys()
    # It goes when it is complete.
    assert "progress-training-windows" not in artifacts
    wait_until(lambda: lab.task_states(run) == ["Completed"], "the task is reported", 60)
    watched, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert "the Prefect server answers again after" in watched
    assert ": Completed" in watched
    assert watched.count("epoch 2:") == 1
    assert "the Prefect server does not answer, the work goes on" in lab.log(run)


def test_a_training_can_be_canceled_after_the_server_was_away(lab: Lab, small_store: Path, tmp_path: Path) -> None:
    run = begin(lab, **training(small_store, tmp_path, 1_000_000))
    process = training_process(lab, run)
    lab.stop_server()
    time.sleep(LONGER_THAN_WORKERS_S)
    lab.restart_server()
    n_lines = lab.log(run).count("epoch ")
    wait_until(lambda: lab.log(run).count("epoch ") > n_lines, "it trains on", 600)
    # As an automation does that has heard nothing.
    lab.client.set_flow_run_state(run, Crashed(message="Nothing was heard of this run."), force=True)
    wait_until(lambda: lab.read(run).state_name == "Running", "it reports that it is alive", 60)
    lab.cancel(run)
    state = lab.wait_for(run, timeout_s=120).state
    assert state is not None
    assert state.is_cancelled(), state
    wait_until(lambda: not process.is_running(), "the training has ended", 60)
    (unfinished,) = tmp_path.iterdir()
    assert unfinished.suffix == ".partial"
    wait_until(
        lambda: "took this run for crashed (Nothing was heard of this run.)" in lab.log(run), "a line says so", 600
    )
    assert "to leave a checkpoint" in lab.log(run)


def test_what_a_killed_run_left_is_closed_by_the_next(lab: Lab, small_store: Path, tmp_path: Path) -> None:
    parameters = training(small_store, tmp_path, 1_000_000)
    killed = begin(lab, **parameters)
    training_process(lab, killed).parent().kill()
    state = lab.wait_for(killed, timeout_s=120).state
    assert state is not None
    assert state.is_crashed(), state
    assert lab.task_states(killed) == ["Running"]
    again = lab.start("train/train", **parameters)
    wait_until(lambda: lab.task_states(killed) == ["Crashed"], "the task of the killed run is closed", 600)
    lab.cancel(again)
    assert lab.wait_for(again, timeout_s=120).state_name == "Cancelled"
