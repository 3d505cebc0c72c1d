"""Every preset's small size trains, goes on bit by bit where it was stopped, and has the losses that it had before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from fixtures.recorded_stores import record_session
from models.config import override
from models.registry import get_preset, preset_names
from models.runs import load_run
from models.training import train

pytestmark = pytest.mark.usefixtures("no_curves")

SMALL = [name for name in preset_names() if name.endswith("-debug")]
#: By preset, the training loss and the regularizer of each epoch. Validation is left out: biases of convolutions count
#: there, which batch norm undoes in training, so that they move by rounding alone.
GOLDEN = Path(__file__).with_name("golden_losses.json")
#: Two steps an epoch.
FEW = {
    "n_frames_window": "20",
    "n_windows_per_trial": "2",
    "skip_frames": "12",
    "max_epochs": "2",
    "checkpoint_every_steps": "1",
    "cache_bytes": "10000000",
    "device": "cpu",
}
#: Of presets that mix sessions, or whose windows slide: of other lengths, in two sessions of longer trials.
FEW_MIXED = {"n_frames_window": "10", "n_windows_per_trial": "1", "batch_size": "4", "n_windows_per_session": "4"}
MEASURED = ("epoch", "train_loss", "regularizer", "validation_loss", "correlations", "learning_rate", "improved")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Models this small are slower with more."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    record_session(path, "F", n_frames=24, n_neurons=4, n_by_tier={"train": 4, "oracle": 2})
    return str(path)


@pytest.fixture(scope="module")
def long_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    for alias in "FG":
        record_session(path, alias, n_frames=36, n_neurons=4, n_by_tier={"train": 4, "oracle": 2})
    return str(path)


@pytest.fixture
def recipe(request, store, long_store, tmp_path):
    """A small preset's config, its store and its sessions; a preset that learns from a teacher has one."""
    config = get_preset(request.param)
    if config.session_balance == "in_turn":
        return override(config, FEW), store, ["F"]
    config = override(config, FEW | FEW_MIXED)
    if config.distillation_ratio is not None:
        untaught = override(config, {"distillation_ratio": "none", "max_epochs": "1", "warmup_epochs": "0"})
        config = override(config, {"teacher": train(untaught, long_store, None, tmp_path / "teacher").run})
    return config, long_store, ["F", "G"]


def read_result(report):
    """What a run came to: a digest of its weights, and its epochs."""
    weights = Path(report.run, "model.safetensors").read_bytes()
    epochs = [
        {name: value for name, value in dataclasses.asdict(epoch).items() if name in MEASURED}
        for epoch in load_run(report.run).metrics()
    ]
    return hashlib.sha256(weights).hexdigest(), epochs


@pytest.mark.parametrize("recipe", SMALL, indirect=True)
def test_a_small_preset_has_its_losses_and_goes_on_after_an_interruption(recipe, tmp_path):
    config, store, sessions = recipe
    name = config.name
    digest, epochs = read_result(train(config, store, sessions, tmp_path / "whole"))

    def interrupt(label, n_done, n_total):
        # At the second epoch's second step; there is a checkpoint of the first.
        if n_done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, store, sessions, tmp_path / "interrupted", progress=interrupt)
    resumed = train(config, store, sessions, tmp_path / "interrupted", resume=True)
    assert resumed.resumed_step == 3
    assert read_result(resumed) == (digest, epochs)

    losses = [[epoch["train_loss"], epoch["regularizer"]] for epoch in epochs]
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, f"add to {GOLDEN.name}: {json.dumps({name: losses})}"
    for found, expected in zip(losses, golden[name], strict=True):
        # Processors round differently.
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), f"{name}: {losses}"


def test_no_losses_are_kept_of_presets_that_are_gone():
    assert set(json.loads(GOLDEN.read_text())) == set(SMALL)
