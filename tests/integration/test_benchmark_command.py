"""``sensorium benchmark`` with a run that was trained on a tiny store, and predictions of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.command_line import Outcome
from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.training import train
from sensorium_data.predictions import from_arrays

Command = Callable[..., Outcome]

N_BY_TIER = {"train": 3, "oracle": 2, "live_test_main": 2, "final_test_main": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A store of A and F, a run on both, and predictions of A by nobody's model."""
    root = tmp_path_factory.mktemp("world")
    made = {alias: record_session(root / "store", alias, n_by_tier=N_BY_TIER) for alias in "AF"}
    run = train(tiny_config(max_epochs=1), str(root / "store"), None, root / "runs").run
    a = made["A"]
    arrays = {
        trial: np.ones((len(a.unit_ids), n))
        for trial, tier, n in zip(a.trials, a.tiers, a.n_frames, strict=True)
        if tier.endswith("main")
    }
    from_arrays(str(root / "others"), str(root / "store"), {"A": arrays}, response_units="standardized")
    return root / "store", run, str(root / "others")


def test_runs_and_predictions_come_on_one_page(
    sensorium: Command, world: tuple[Path, str, str], tmp_path: Path
) -> None:
    store, run, others = world
    arguments = ["benchmark", run, others, "--store", store, "--out", tmp_path / "out", "--resamples", 100]
    done = sensorium(*arguments, "--device", "cpu")
    assert done.status == 0
    assert "live_test_main, frames official" in done.out
    assert f"Page: {tmp_path / 'out' / 'benchmark.html'}" in done.out
    # The store's movies were never compared, and nobody knows what the others were trained on.
    assert "not known: the store's movies cannot be compared" in done.err
    assert (
        "warning: others: whether it has seen what scores it is not known: the predictions store does not" in done.err
    )
    assert "live_test_bonus: it was not predicted" in done.err
    name = Path(run).name
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "benchmark.html",
        "benchmark.json",
        "predictions",
    ]
    assert name in (tmp_path / "out" / "benchmark.html").read_text()
    again = sensorium(*arguments, "--device", "cpu", "--json")
    document = json.loads(again.out)
    written = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert document | {"digest": written["digest"]} == written
    assert [entry["name"] for entry in document["entries"]] == [name, "others"]
    assert [session["alias"] for session in document["sessions"]] == ["A"]
    assert len(document["entries"][0]["trained_on"]["sessions"]) == 2
    assert document["command"].startswith(f"sensorium benchmark {run} {others} --store {store}")


def test_wrong_arguments(sensorium: Command, world: tuple[Path, str, str], tmp_path: Path) -> None:
    store, run, others = world
    base = ["--store", store, "--out", tmp_path / "out"]
    sensorium("benchmark", *base).assert_refused("no entry named")
    sensorium("benchmark", tmp_path, *base).assert_refused("neither a training run nor a predictions store")
    sensorium("benchmark", run, run, *base).assert_refused("an entry is named twice")
    sensorium("benchmark", others, *base, "--resamples", 3).assert_refused("too few resamples")
    record_session(tmp_path / "new", "F", n_by_tier=N_BY_TIER)
    sensorium("benchmark", run, "--store", tmp_path / "new").assert_refused("the store has none", "A to E")
    record_session(tmp_path / "b", "B", n_by_tier=N_BY_TIER)
    refused = sensorium("benchmark", run, "--store", tmp_path / "b", "--out", tmp_path / "out")
    refused.assert_refused("trained on none of the benchmark's sessions", "found A, F")
    assert not (tmp_path / "out").exists()
