"""An interrupted run goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fixtures.killed_training
from fixtures.places import CHECKOUT, TESTS
from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.runs import load_run
from models.training import train
from sensorium_data.errors import RunError, TerminatedError, UsageError
from sensorium_data.files import read_sealed, seal
from sensorium_data.sessions import find_session

pytestmark = pytest.mark.usefixtures("no_curves")

#: Everything that has a state: moments, running means, the norms of gradients, a schedule, random numbers.
STATEFUL = {
    "n_frames_window": 20,
    "max_epochs": 3,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "min_learning_rate": 0.0001,
    "ema_decay": 0.9,
    "gradient_norm_percentile": 60.0,
    "cutmix_probability": 0.5,
    "checkpoint_every_steps": 2,
}
#: Three steps an epoch; 5 validation trials for each evaluation; a checkpoint is two or three files.
ONE_KILL = ["file:9"]
ALL_KILLS = [
    *(f"step:{n}" for n in range(1, 10)),
    *(f"file:{n}" for n in range(1, 20)),
    *(f"trial:{n}" for n in range(1, 21, 3)),
]


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
    record_session(path, "F", n_frames=40)
    record_session(path, "G", n_frames=40, n_neurons=4, n_by_tier={"train": 5, "oracle": 2, "live_test_main": 2})
    return str(path)


def train_and_kill(store, runs, config, kills):
    """Return what ``killed_training.py`` printed of each kill."""
    environment = os.environ | {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, fixtures.killed_training.__file__, store, str(runs), config.model_dump_json(), *kills],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def finished_run(runs):
    (path,) = Path(runs).iterdir()
    return path


def weights_digest(path):
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def assert_killed_runs_end_alike(store, runs, config, kills):
    (undisturbed, *killed), errors = train_and_kill(store, runs, config, ["none", *kills])
    assert undisturbed["first"] == 0, errors
    expected = finished_run(undisturbed["runs"])
    measured = ("epoch", "train_loss", "validation_loss", "regularizer", "correlations", "learning_rate", "improved")
    for one in killed:
        assert (one["first"], one["second"]) == (-signal.SIGKILL, 0), (one, errors)
        found = finished_run(one["runs"])
        assert weights_digest(found) == weights_digest(expected), one
        assert not (found / "checkpoints").exists()
        pairs = zip(load_run(found).metrics(), load_run(expected).metrics(), strict=True)
        for epoch, epoch_expected in pairs:
            assert [getattr(epoch, name) for name in measured] == [getattr(epoch_expected, name) for name in measured]


def test_a_run_that_was_killed_ends_with_the_same_bytes(store, tmp_path):
    assert_killed_runs_end_alike(store, tmp_path, tiny_config(**STATEFUL), ONE_KILL)


@pytest.mark.slow  # trains runs of three rounds
def test_a_run_that_restores_its_best_weights_does_so_after_a_kill(store, tmp_path):
    # The untrained model's score is the one to beat, and by 2 no correlation does: rounds end, weights come back.
    config = tiny_config(
        n_frames_window=20,
        max_epochs=4,
        early_stopping_patience=1,
        n_rounds=3,
        tolerance=2.0,
        checkpoint_every_steps=1,
    )
    assert_killed_runs_end_alike(store, tmp_path, config, ["step:8"])


@pytest.mark.slow  # trains and kills 35 runs
def test_a_run_that_was_killed_anywhere_ends_with_the_same_bytes(store, tmp_path):
    assert_killed_runs_end_alike(store, tmp_path, tiny_config(**STATEFUL), ALL_KILLS)


def interrupt_in_epoch(number):
    def interrupt(metrics):
        if metrics.epoch == number:
            raise KeyboardInterrupt

    return interrupt


def leave_unfinished(store, runs, **changes):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(**STATEFUL | changes), store, ["F"], runs, on_epoch=interrupt_in_epoch(2))
    (partial,) = Path(runs).glob("*.partial")
    return partial


def read_tree(root):
    return {
        path.relative_to(root).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def put_notes(partial):
    """Put files of somebody else among a run's."""
    notes = {f"{folder}notes.json": b"mine" for folder in ("", "checkpoints/", "tensorboard/", "mine/")}
    notes |= {"checkpoints/epoch-00001-step-000000001.json.partial": b"mine", ".config.json.tmp": b"mine"}
    for name, data in notes.items():
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_bytes(data)
    return notes


def test_what_somebody_else_has_in_a_runs_folder_is_kept(store, tmp_path):
    runs, config = tmp_path / "runs", tiny_config(**STATEFUL)
    partial = leave_unfinished(store, runs)
    ours = partial.rename(tmp_path / "ours")
    strangers = [
        {"notes.txt": b"mine"},
        {"config.json": b"{}", "checkpoints/epoch-00001-step-000000001.json": b"{}"},
        {"config-given.json": b'{"mine": 1}'},
        {"mine/notes.txt": b"mine"},
    ]
    for files in strangers:
        for name, data in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(data)
        for restart in (False, True):
            with pytest.raises(
                RunError, match=r"something else has the name of the folder .*; move it to another place"
            ):
                train(config, store, ["F"], runs, restart=restart)
        assert read_tree(partial) == files
        shutil.rmtree(partial)
    # A link in the place of one of the run's own files would be written through, or replaced.
    shutil.copytree(ours, partial)
    (partial / "summary.md").symlink_to(tmp_path / "thesis")
    with pytest.raises(RunError, match=r"summary\.md: a link, not a file"):
        train(config, store, ["F"], runs)
    assert (partial / "summary.md").is_symlink()
    (partial / "summary.md").unlink()
    notes = put_notes(partial)
    partial.joinpath(f".config.json.{'0' * 32}.tmp").write_text("of a killed writer")
    partial.joinpath("checkpoints", f".best-epoch-00001.safetensors.{'0' * 32}.tmp").write_text("of a killed writer")
    assert train(config, store, ["F"], runs).resumed_step > 0
    for restarts in (False, True):
        run = finished_run(runs)
        assert read_tree(run).items() >= notes.items()
        assert not list(run.rglob("*.tmp")) or [*run.rglob("*.tmp")] == [run / ".config.json.tmp"]
        assert not set(json.loads((run / "ledger.json").read_text())["objects"]) & set(notes)
        assert {path.name for path in (run / "checkpoints").iterdir()} == {
            "notes.json", "epoch-00001-step-000000001.json.partial",
        }  # fmt: skip
        load_run(run).require_whole()
        if not restarts:
            shutil.rmtree(run)
            shutil.copytree(ours, partial)
            put_notes(partial)
            assert train(config, store, ["F"], runs, restart=True).resumed_step == 0


def test_epochs_that_were_reported_are_not_trained_again(store, tmp_path):
    leave_unfinished(store, tmp_path)
    epochs = []
    report = train(tiny_config(**STATEFUL), store, ["F"], tmp_path, on_epoch=epochs.append)
    assert [epoch.epoch for epoch in epochs] == [3]
    assert report.resumed_step == 6
    assert [epoch.epoch for epoch in load_run(report.run).metrics()] == [1, 2, 3]


def test_lines_that_were_written_after_the_checkpoint_are_not_written_twice(store, tmp_path):
    partial = leave_unfinished(store, tmp_path)
    # As if killed between the second epoch's line and its checkpoint.
    newest = max((partial / "checkpoints").glob("*.json"))
    newest.unlink()
    report = train(tiny_config(**STATEFUL), store, ["F"], tmp_path)
    assert [epoch.epoch for epoch in load_run(report.run).metrics()] == [1, 2, 3]


def test_a_damaged_checkpoint_is_passed_over_and_named(store, tmp_path):
    partial = leave_unfinished(store, tmp_path / "damaged")
    newest = max((partial / "checkpoints").glob("*.json")).with_suffix(".safetensors")
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    report = train(tiny_config(**STATEFUL), store, ["F"], tmp_path / "damaged")
    assert any(newest.stem in note and "is not what was saved" in note for note in report.notes)
    assert newest.stem in Path(report.run, "summary.md").read_text()
    undisturbed = train(tiny_config(**STATEFUL), store, ["F"], tmp_path / "undisturbed")
    assert weights_digest(Path(report.run)) == weights_digest(Path(undisturbed.run))


def test_only_damaged_checkpoints_are_an_error_and_a_restart_throws_them_away(store, tmp_path):
    partial = leave_unfinished(store, tmp_path)
    for path in (partial / "checkpoints").glob("*.json"):
        path.write_text("{")
    with pytest.raises(RunError, match=r"every checkpoint is damaged: .*restart"):
        train(tiny_config(**STATEFUL), store, ["F"], tmp_path)
    report = train(tiny_config(**STATEFUL), store, ["F"], tmp_path, restart=True)
    assert report.resumed_step == 0


@pytest.mark.parametrize("change", [("false", "true"), ('"n_steps": 6', '"n_steps": 5'), ('"digest": "', '"other": "')])
def test_an_edited_checkpoint_is_passed_over_and_named(store, tmp_path, change):
    newest = max((leave_unfinished(store, tmp_path) / "checkpoints").glob("*.json"))
    edited = newest.read_text().replace(*change)
    assert edited != newest.read_text()
    newest.write_text(edited)
    report = train(tiny_config(**STATEFUL), store, ["F"], tmp_path)
    assert any(newest.stem in note and "is damaged" in note for note in report.notes)
    assert any(note.startswith("Went on from epoch-") and newest.stem not in note for note in report.notes)


def test_a_checkpoint_without_a_digest_that_holds_nonsense_is_refused(store, tmp_path):
    for path in (leave_unfinished(store, tmp_path) / "checkpoints").glob("*.json"):
        record, _ = read_sealed(path.read_bytes())
        state = {**record["state"], "sums": []}
        path.write_text(json.dumps({**record, "format_version": 1, "state": state}))
    with pytest.raises(RunError, match=r"the checkpoint was changed, or written by another version: .*restart the run"):
        train(tiny_config(**STATEFUL), store, ["F"], tmp_path)


def test_few_checkpoints_are_kept_and_the_best_weights(store, tmp_path):
    partial = leave_unfinished(store, tmp_path, keep_checkpoints=2)
    names = sorted(path.name for path in (partial / "checkpoints").iterdir())
    assert sum(name.endswith(".json") for name in names) == 2
    assert sum(name.startswith("epoch-") for name in names) == 4
    assert 1 <= sum(name.startswith("best-") for name in names) <= 2
    # Nothing that needs pickle.
    assert {Path(name).suffix for name in names} == {".json", ".safetensors"}


def edit_record(partial, **changes):
    """Change what the checkpoints say, as if it had been written so."""
    for path in (partial / "checkpoints").glob("*.json"):
        path.write_bytes(seal(read_sealed(path.read_bytes())[0] | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": "0" * 64}, "belongs to another recipe or other data: found run 000000000000, expected"),
        ({"format_version": 99}, "written by another version: found format 99, expected 2"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(store, tmp_path, changes, message):
    edit_record(leave_unfinished(store, tmp_path), **changes)
    with pytest.raises(RunError, match=message):
        train(tiny_config(**STATEFUL), store, ["F"], tmp_path)


def test_resuming_says_what_the_unfinished_runs_have_otherwise(store, tmp_path):
    partial = leave_unfinished(store, tmp_path / "runs")
    with pytest.raises(RunError, match=rf"{partial.name}: batch_size 3, not 2; seed 42, not 7; ask"):
        train(tiny_config(**STATEFUL, seed=7, batch_size=2), store, ["F"], tmp_path / "runs", resume=True)
    with pytest.raises(RunError, match=r"session dynamic29623\S+ is not among its"):
        train(tiny_config(**STATEFUL), store, ["F", "G"], tmp_path / "runs", resume=True)
    others = {
        "n_by_tier": ({"train": 7, "oracle": 2}, "has digest .*, not"),
        "n_neurons": (9, "has 6 neurons, not these 9"),
    }
    for name, (value, message) in others.items():
        other = tmp_path / f"other {name}"
        other.mkdir()
        record_session(other, "F", n_frames=40, **{name: value})
        with pytest.raises(RunError, match=message):
            train(tiny_config(**STATEFUL), str(other), ["F"], tmp_path / "runs", resume=True)
    with pytest.raises(RunError, match="no unfinished run of tiny"):
        train(tiny_config(**STATEFUL), store, ["F"], tmp_path / "empty", resume=True)
    with pytest.raises(UsageError, match="exclude each other"):
        train(tiny_config(**STATEFUL), store, ["F"], tmp_path / "runs", resume=True, restart=True)
    assert train(tiny_config(**STATEFUL), store, ["F"], tmp_path / "runs", resume=True).resumed_step == 6
    assert train(tiny_config(**STATEFUL), store, ["F"], tmp_path / "runs", resume=True).status == "already done"


def test_the_machine_may_be_another_one(store, tmp_path):
    leave_unfinished(store, tmp_path)
    report = train(
        tiny_config(**STATEFUL | {"checkpoint_every_steps": 100}, cache="none", cache_bytes=0),
        store,
        ["F"],
        tmp_path,
        resume=True,
    )
    assert report.resumed_step == 6


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [(signal.SIGTERM, TerminatedError, "stopped by SIGTERM"), (signal.SIGINT, KeyboardInterrupt, "^$")],
)
def test_a_signal_stops_training_after_the_step_with_a_checkpoint(store, tmp_path, number, kind, message):
    config = tiny_config(**STATEFUL | {"checkpoint_every_steps": 100})
    before = signal.getsignal(number)

    def send_at_second_step(label, n_done, n_total):
        if n_done == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(kind, match=message):
        train(config, store, ["F"], tmp_path, progress=send_at_second_step)
    assert signal.getsignal(number) == before
    assert train(config, store, ["F"], tmp_path, resume=True).resumed_step == 2


def test_a_store_that_changes_meanwhile_publishes_nothing(store, tmp_path):
    own = shutil.copytree(store, tmp_path / "store")

    def replace_session(metrics):
        if metrics.epoch == 2:
            shutil.rmtree(own / find_session("F").name)
            record_session(own, "F", n_frames=40, seed=5)

    with pytest.raises(RunError, match=r"session dynamic29515\S+, .*: the session changed in the store"):
        train(tiny_config(n_frames_window=20), str(own), ["F"], tmp_path / "runs", on_epoch=replace_session)
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".partial"]
