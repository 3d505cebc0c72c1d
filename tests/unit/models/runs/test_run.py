"""A run's folder: what is in it, and what is said when it is not as it was left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image
from safetensors.numpy import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.config import override
from models.registry import get_preset
from models.runs import EpochMetrics, describe_data, identify_run, load_run
from models.runs.folder import describe_given
from models.training import draw_curves, train
from models.training.curves import write_summary
from sensorium_data.errors import RunError
from sensorium_data.predictions import find_runs, verify_run
from sensorium_data.sessions import find_sessions
from sensorium_data.store import open_session, open_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, what its store was made of, and the epochs reported while it was trained."""
    store = tmp_path_factory.mktemp("store")
    made = record_session(store, "F", n_by_tier={"train": 4, "oracle": 2, "live_test_main": 1})
    epochs = []
    report = train(tiny_config(), str(store), ["F"], tmp_path_factory.mktemp("runs"), on_epoch=epochs.append)
    return report.run, store, made, epochs


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture
def without_ledger(copied):
    """The run as an earlier version left it, which knows no more than the digests in its own files."""
    (copied / "ledger.json").unlink()
    edit_json(copied / "model.json", format_version=1)
    return copied


def load_run_digest(path):
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_folder_says_what_was_trained_on_what_and_how_it_went(finished):
    path, store, made, epochs = finished
    run = load_run(path)

    assert run.name.startswith("tiny-")
    assert run.name.endswith(run.identity[:8])
    assert run.config == tiny_config()
    assert [session.alias for session in run.sessions] == ["F"]
    (session,) = run.data.sessions
    assert run.data.store == str(store)
    assert session.digest == open_store(str(store)).digest("F")
    assert session.n_trials == 7
    np.testing.assert_array_equal(session.unit_ids, made.unit_ids)
    np.testing.assert_array_equal(session.positions_um, made.positions[:, :2])
    assert run.metrics() == epochs
    given = json.loads((run.path / "config-given.json").read_text())
    assert given["preset"] == "tiny"
    assert given["settings"]["batch_size"] == 3
    assert not (run.path / "checkpoints").exists()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["n_ranks"] == 1
    assert environment["resumed_step"] == 0
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"] == torch.__version__
    assert run.n_parameters == sum(parameter.numel() for parameter in run.model().parameters())
    assert run.n_frames_lost == run.model().n_frames_lost


def test_a_notebook_shows_the_run_and_no_markup_of_it(finished):
    run = load_run(finished[0])
    page = replace(run, location="<b>runs</b>", best_correlation=0.25)._repr_html_()
    assert f"<caption>Run {run.name}</caption>" in page
    assert "0.25" in page
    assert "&lt;b&gt;runs&lt;/b&gt;" in page
    assert "<b>" not in page


def test_tensorboard_shows_every_epoch(finished):
    path, _, made, epochs = finished
    events = EventAccumulator(f"{path}/tensorboard")
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("correlation/all neurons")]
    assert shown == [(epoch.epoch, pytest.approx(epoch.correlation)) for epoch in epochs]
    assert f"correlation/{made.name}" in events.Tags()["scalars"]


def test_the_picture_and_the_page_are_there(finished):
    path, _, _, epochs = finished
    picture = image.imread(f"{path}/curves.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 1000
    page = Path(path, "summary.md").read_text()
    assert "curves.png" in page
    assert f"{len(epochs)} epochs" in page


def test_the_model_is_rebuilt_without_the_store(finished):
    run = load_run(finished[0])
    model = run.model()
    weights = load_file(run.path / "model.safetensors")
    assert not model.training
    assert model.state_dict().keys() == weights.keys()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name])


def test_recipe_and_data_decide_a_runs_identity_and_nothing_else(finished, tmp_path):
    _, store, _, _ = finished
    data = describe_data(str(store), find_sessions(["F"]))
    identity = identify_run(tiny_config(), data)

    assert identify_run(tiny_config(device="auto", cache_bytes=0), data) == identity
    assert identify_run(tiny_config(seed=7), data) != identity
    moved = shutil.copytree(store, tmp_path / "moved")
    assert identify_run(tiny_config(), describe_data(str(moved), find_sessions(["F"]))) == identity
    other = tmp_path / "other"
    other.mkdir()
    record_session(other, "F", n_by_tier={"train": 4, "oracle": 2, "live_test_main": 1}, seed=1)
    assert identify_run(tiny_config(), describe_data(str(other), find_sessions(["F"]))) != identity


def test_a_preset_is_given_by_its_name_and_what_was_changed():
    changed = override(get_preset("factorized3d-debug"), {"max_epochs": "3", "model.channels": "4,4"})
    assert describe_given(changed) == {
        "preset": "factorized3d-debug",
        "settings": {"max_epochs": 3, "model.channels": (4, 4)},
    }


def test_a_run_that_is_not_there_is_told_from_an_unfinished_one(copied, tmp_path):
    with pytest.raises(RunError, match="there is no run here"):
        load_run(tmp_path / "nothing")
    copied.rename(tmp_path / "run.partial")
    for path in (tmp_path / "run", tmp_path / "run.partial"):
        with pytest.raises(RunError, match=r"run\.partial: the run is unfinished"):
            load_run(path)


@pytest.mark.parametrize("name", ["config.json", "data.json", "metrics.jsonl", "model.json", "model.safetensors"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(RunError, match=rf"a file .* is missing: found no {name}; restore it, or remove the run and"):
        load_run(copied)


def test_missing_files_are_named_together(copied, tmp_path):
    for name in ("ledger.json", "config.json", "data.json"):
        (copied / name).unlink()
    with pytest.raises(RunError, match=r"files .* are missing: found no config.json, data.json; restore them, or"):
        load_run(copied)


def test_a_folder_of_something_else_is_no_run(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(RunError, match=r"there is no run here: found no config.json, .*; give the folder that"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["summary.md", "curves.png", "config-given.json"])
def test_a_run_lacks_nothing_when_it_is_called_done(finished, copied, name):
    (copied / name).unlink()
    again = copied.rename(copied.with_name(Path(finished[0]).name))
    with pytest.raises(RunError, match=rf"a file of the run is missing: found no {name}; restore it, or remove"):
        train(tiny_config(), str(finished[1]), ["F"], again.parent)
    # Nobody needs it to predict.
    assert load_run(again).n_parameters > 0


@pytest.mark.parametrize("name", ["config.json", "data.json", "model.json"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "no content"),
        (b"{}", "missing|config_sha256|neurons"),
        (b'{"name": 3', "invalid JSON in line 1"),
        (b'{"name": \xff}', "bytes that are not text in UTF-8"),
        (b"[1, 2]", "not an object with names and values"),
    ],
)
def test_a_damaged_file_is_named(copied, name, content, found):
    (copied / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name}: a file of the run is damaged: found .*({found})"):
        load_run(copied)


def test_damaged_metrics_name_the_line(without_ledger):
    lines = (without_ledger / "metrics.jsonl").read_text().splitlines()
    (without_ledger / "metrics.jsonl").write_text(lines[0] + "\n" + lines[1][:20] + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl:2"):
        load_run(without_ledger).metrics()


@pytest.mark.parametrize(("name", "change"), [("config.json", {"seed": 5}), ("data.json", {"store": "elsewhere"})])
def test_a_record_that_was_changed_after_training_is_refused(copied, name, change):
    edit_json(copied / name, **change)
    with pytest.raises(RunError, match=rf"{name}: changed after training"):
        load_run(copied)


@pytest.mark.parametrize("name", ["model.json", "metrics.jsonl", "environment.json"])
def test_a_changed_digit_of_what_is_reported_is_refused(copied, name):
    path = copied / name
    content = path.read_bytes()
    digit = next(place for place, byte in enumerate(content) if chr(byte) in "12345678" and place > 40)
    path.write_bytes(content[:digit] + bytes([content[digit] ^ 1]) + content[digit + 1 :])
    with pytest.raises(RunError, match=rf"{name}: changed after training|another version"):
        load_run(copied)
    assert [problem.partition(":")[0] for problem in verify_run(str(copied)).problems] == [name]
    with pytest.raises(RunError, match=name) if name != "metrics.jsonl" else contextlib.nullcontext():
        find_runs(copied.parent, [load_run_digest(copied)])


def test_every_flipped_byte_of_a_run_is_found(finished, copied):
    assert verify_run(finished[0]).passed
    generator = np.random.default_rng(0)
    files = sorted(path for path in copied.rglob("*") if path.is_file())
    for path in [*files, *generator.choice(np.array(files, object), 20)]:
        content = bytearray(path.read_bytes())
        content[int(generator.integers(len(content)))] ^= int(generator.integers(1, 256))
        sound = path.read_bytes()
        path.write_bytes(content)
        if path.name == "ledger.json":
            with pytest.raises(RunError, match=r"ledger\.json"):
                verify_run(str(copied))
        else:
            (problem,) = verify_run(str(copied)).problems
            assert problem == f"{path.relative_to(copied)}: the digest of its bytes differs"
        path.write_bytes(sound)


def test_a_run_of_an_earlier_version_is_compared_with_its_own_digests(without_ledger):
    assert verify_run(str(without_ledger)).passed
    edit_json(without_ledger / "data.json", store="elsewhere")
    (without_ledger / "model.safetensors").unlink()
    assert verify_run(str(without_ledger)).problems == (
        "model.safetensors: missing", "data.json: the digest of its bytes differs",
    )  # fmt: skip


def test_a_run_of_before_a_setting_existed_is_still_read(without_ledger):
    content = json.loads((without_ledger / "config.json").read_text())
    for name in ("n_windows_per_trial", "ema_decay", "tiers", "cache", "n_devices"):
        del content[name]
    (without_ledger / "config.json").write_text(json.dumps(content))
    digest = hashlib.sha256((without_ledger / "config.json").read_bytes()).hexdigest()
    edit_json(without_ledger / "model.json", config_sha256=digest)
    assert load_run(without_ledger).config.n_windows_per_trial == 1


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_of_the_run_is_refused(copied, tmp_path, name, kind):
    path = copied / name
    if kind == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(
        RunError,
        match=rf"{name}: a file of the run is a link out of it, or not a file: found .*; restore it",
    ):
        load_run(copied)


def test_a_run_that_lost_its_ledger_is_damaged(copied):
    (copied / "ledger.json").unlink()
    for use in (load_run, verify_run, lambda run: find_runs(run, [load_run_digest(copied)])):
        with pytest.raises(RunError, match=r"ledger\.json: the run is damaged: found no such file"):
            use(str(copied))


def test_another_versions_run_is_refused(copied):
    edit_json(copied / "model.json", format_version=99)
    with pytest.raises(RunError, match="another version: found format 99, expected 1 or 2"):
        load_run(copied)


def test_weights_that_were_changed_are_refused(copied):
    path = copied / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="not those that were saved"):
        load_run(copied).model()


def test_weights_of_another_model_are_refused_by_name(without_ledger):
    path = without_ledger / "model.safetensors"
    weights = load_file(path)
    weights["surplus"] = weights.pop(next(name for name in weights if name.endswith("sigma")))
    save_file(weights, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_json(without_ledger / "model.json", weights_sha256=digest)
    run = load_run(without_ledger)
    with pytest.raises(RunError, match=r"another model: found 1 missing \(.*sigma\); 1 unexpected \(surplus\)"):
        run.model()


def test_the_stores_neurons_must_be_the_runs(finished, tmp_path):
    path, store, made, _ = finished
    run = load_run(path)
    session = open_session(str(store), "F")
    run.require_session(session, made.name)

    with pytest.raises(RunError, match=rf"not those.*found {len(made.unit_ids) - 1} neurons"):
        run.require_session(session.isel(neuron=slice(1, None)), made.name)
    with pytest.raises(RunError, match="in their order"):
        run.require_session(session.isel(neuron=slice(None, None, -1)), made.name)
    with pytest.raises(RunError, match="not trained on this session"):
        run.require_session(session, find_sessions(["G"])[0].name)


def test_a_run_that_never_beat_the_untrained_model_says_so(tmp_path):
    epoch = EpochMetrics(1, 1.0, 0.1, 1.0, -0.1, {find_sessions(["F"])[0].name: -0.1}, 0.005, False, 1.0, 10.0, 0.0)
    draw_curves([epoch], tmp_path / "curves.png", title="run", best_epoch=0)
    write_summary(
        [epoch],
        tmp_path / "summary.md",
        title="run",
        best_epoch=0,
        n_parameters=5,
        device="cpu",
        n_trials=3,
    )
    said = "No epoch beat the untrained model on the validation trials: the weights are those from before training."
    assert said in (tmp_path / "summary.md").read_text()


def test_checkpoints_behind_a_link_are_somebody_elses(finished, tmp_path):
    run, store = Path(finished[0]), finished[1]
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / run.name)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    kept = {theirs / f"epoch-00001-step-000000004.{suffix}" for suffix in ("json", "safetensors")}
    for path in kept:
        path.write_bytes(b"days of training")
    (runs / run.name / "checkpoints").symlink_to(theirs)
    assert train(tiny_config(), str(store), ["F"], runs).status == "already done"
    assert {*theirs.iterdir()} == kept
    # Those of this run, which a kill left, are deleted.
    (runs / run.name / "checkpoints").unlink()
    theirs.rename(runs / run.name / "checkpoints")
    train(tiny_config(), str(store), ["F"], runs)
    assert not (runs / run.name / "checkpoints").exists()
