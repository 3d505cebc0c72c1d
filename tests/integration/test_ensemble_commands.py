"""``sensorium train --seeds`` and ``predict --ensemble`` on a tiny store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.command_line import Outcome
from fixtures.places import CHECKOUT
from fixtures.recorded_stores import record_links, record_session
from models.runs import load_run
from sensorium_data.files import read_sealed
from sensorium_data.predictions import open_predictions

pytestmark = pytest.mark.usefixtures("no_curves")

Command = Callable[..., Outcome]
TINY = [
    "model.channels=2,2",
    "model.spatial_kernels=5,3",
    "model.temporal_kernels=3,2",
    "model.spatial_strides=4,1",
    "n_frames_window=30",
    "n_windows_per_trial=1",
    "batch_size=3",
    "skip_frames=10",
    "max_epochs=1",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    record_session(root, "F", n_frames=50, n_by_tier={"train": 3, "oracle": 2})
    return root


@pytest.fixture
def train(sensorium: Command, store: Path, tmp_path: Path) -> Command:
    """Train two seeds, or what is asked for otherwise, into ``runs``."""
    settings = [word for one in TINY for word in ("--set", one)]
    words = ["train", "factorized3d-debug", "--store", store, "--runs", tmp_path / "runs", "--device", "cpu", *settings]
    return lambda *more: sensorium(*words, *(more or ("--seeds", 2, "--ensemble", "mine")))


@pytest.fixture
def predict(sensorium: Command, store: Path, tmp_path: Path) -> Command:
    words = ["predict", "--store", store, "--tier", "oracle", "--out", tmp_path / "p", "--device", "cpu"]
    return lambda *more: sensorium(*words, *more)


def test_seeds_make_an_ensemble_that_predicts_its_mean(
    train: Command, predict: Command, sensorium: Command, store: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    assert "mine.ensemble.json: trained" in train().out
    record, _ = read_sealed((runs / "mine.ensemble.json").read_bytes())
    members = [runs / member["run"] for member in record["members"]]
    assert [load_run(member).config.seed for member in members] == [0, 1]
    assert [member["weights_sha256"] for member in record["members"]] == [load_run(m).digest for m in members]

    done = predict("--ensemble", "mine", "--runs", runs)
    assert done.status == 0, done.err
    parts = []
    for number, member in enumerate(members):
        out = tmp_path / f"p{number}"
        words = [member, "--store", store, "--tier", "oracle", "--out", out, "--device", "cpu"]
        assert sensorium("predict", *words).status == 0
        parts.append(open_predictions(str(out), "F")["predictions"].values)
    mean = open_predictions(str(tmp_path / "p"), "F")["predictions"].values
    np.testing.assert_allclose(mean, (parts[0] + parts[1]) / 2, rtol=1e-5)
    assert np.nanmax(np.abs(parts[0] - parts[1])) > 0.01

    # Again: nothing is trained. One more seed: the finished runs are left alone, and another ensemble is made.
    assert json.loads(train("--seeds", 2, "--ensemble", "mine", "--json").out)["status"] == "already done"
    more = json.loads(train("--seeds", 2, "--seed", 1, "--json").out)
    assert more["name"] == "factorized3d-debug-2-seeds"
    assert [one["status"] for one in more["runs"]] == ["already done", "trained"]
    train("--seeds", 3, "--ensemble", "mine").assert_refused("another ensemble has this name", "2 members")

    predict("--ensemble", "mime", "--runs", runs).assert_refused("unknown ensemble", "did you mean mine?")
    shutil.rmtree(members[1])
    predict("--ensemble", "mine", "--runs", runs).assert_refused("not complete", f"{members[1].name}: removed")
    sealed = (runs / "mine.ensemble.json").read_text()
    for text in ('{"members": 3}', sealed.replace('"seed": 1', '"seed": 2'), json.dumps(record)):
        (runs / "mine.ensemble.json").write_text(text)
        refused = predict("--ensemble", "mine", "--runs", runs)
        refused.assert_refused("record of the ensemble is damaged", "its finished runs stay")


def test_an_interrupted_ensemble_names_what_is_missing_and_goes_on(
    train: Command, predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.training import training

    runs, train_into = tmp_path / "runs", training._train_into

    def interrupt_the_second(folder, trainer, *rest):
        if trainer._config.seed:
            raise KeyboardInterrupt
        return train_into(folder, trainer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_train_into", interrupt_the_second)
        assert train().status == 130
    members = [member["run"] for member in json.loads((runs / "mine.ensemble.json").read_text())["members"]]
    predict("--ensemble", "mine", "--runs", runs).assert_refused("not complete", f"{members[1]}: unfinished")
    shutil.rmtree(runs / f"{members[1]}.partial")
    predict("--ensemble", "mine", "--runs", runs).assert_refused("not complete", f"{members[1]}: not begun")
    done = json.loads(train("--seeds", 2, "--ensemble", "mine", "--json").out)
    assert [one["status"] for one in done["runs"]] == ["already done", "trained"]
    assert predict("--ensemble", "mine", "--runs", runs).status == 0


def test_wrong_arguments(train: Command, predict: Command, tmp_path: Path) -> None:
    train("--seeds", 0).assert_refused("number of seeds", "found 0")
    train("--seeds", 10**9).assert_refused("number of seeds", "1 to 1000")
    train("--seeds", 2, "--seed", 2**63 - 1).assert_refused("no such seeds")
    train("--seeds", 2, "--seed", -1).assert_refused("setting seed")
    train("--seeds", 2, "--ensemble", "a/b").assert_refused("cannot be called so")
    train("--seeds", 2, "--resume").assert_refused("resume")
    # Before a server is started.
    train("--seeds", 2, "--ensemble", "..", "--flow").assert_refused("cannot be called so")
    train("--ensemble", "mine").assert_refused("--seeds")
    train("--seed", 1, "--set", "seed=2").assert_refused("given twice")
    assert not (tmp_path / "runs").exists()
    predict().assert_refused("no run named", "--ensemble")
    predict("run", "--runs", tmp_path).assert_refused("add --ensemble")
    predict("--ensemble", "mine", "--runs", tmp_path).assert_refused("unknown ensemble", "there is none in")
    predict(tmp_path / "run", "--ensemble", "mine").assert_refused("exclude each other")


@pytest.fixture(scope="module")
def two_sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough movies for two folds, and two sessions, so that a teacher has something to teach."""
    root = tmp_path_factory.mktemp("two")
    for name in ("F", "G"):
        record_session(root, name, n_frames=50, n_by_tier={"train": 4, "oracle": 2})
    record_links(root)
    return root


def fold_words(store: Path, runs: Path, *more: object) -> list[object]:
    settings = [word for one in TINY for word in ("--set", one)]
    return ["train", "factorized3d-debug", "--store", store, "--runs", runs, "--device", "cpu", *settings, *more]


def test_all_folds_are_an_ensemble_and_each_learns_from_its_own_teacher(
    sensorium: Command, two_sessions: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    first = json.loads(sensorium(*fold_words(two_sessions, runs, "--folds", 2, "--fold", "all", "--json")).out)
    assert (first["name"], first["status"]) == ("factorized3d-debug-2-folds", "trained")
    assert (first["folds"], first["seeds"]) == ([0, 1], [42, 42])
    teachers = [one["run"] for one in first["runs"]]
    assert [load_run(run).config.fold for run in teachers] == [0, 1]

    # The second stage, side by side, each from the first stage's run of its fold.
    learns = ("--set", "distillation_ratio=0.3", "--teacher", "factorized3d-debug-2-folds", "--ensemble", "second")
    words = fold_words(two_sessions, runs, "--folds", 2, "--fold", "all", *learns)
    done = sensorium(*words, "--at-once", 2, "--json")
    assert done.status == 0, done.err
    second = json.loads(done.out)
    students = [load_run(one["run"]) for one in second["runs"]]
    assert [Path(str(run.config.teacher)) for run in students] == [Path(teacher) for teacher in teachers]
    assert "fold 1: training in process" in done.err
    assert json.loads(sensorium(*words, "--json").out)["status"] == "already done"

    # Both stages predict together.
    predict = ["predict", "--store", two_sessions, "--tier", "oracle", "--device", "cpu", "--runs", runs]
    both = sensorium(*predict, "--ensemble", "factorized3d-debug-2-folds", "second", "--out", tmp_path / "p")
    assert both.status == 0, both.err
    assert len(json.loads(open_predictions(str(tmp_path / "p"), "F").attrs["runs"])) == 4

    # One run learns from the one of its fold.
    words = fold_words(two_sessions, tmp_path / "more", "--folds", 2, "--fold", 1, "--set", "distillation_ratio=0.3")
    single = json.loads(sensorium(*words, "--teacher", *teachers, "--json").out)
    assert load_run(single["run"]).config.teacher == teachers[1]
    sensorium(*words, "--teacher", teachers[0], "--restart").assert_refused(
        "there is no teacher of fold 1 of 2: found teachers of fold 0 of 2"
    )
    third = fold_words(two_sessions, runs, "--folds", 3, "--fold", "all", *learns[:-2])
    sensorium(*third).assert_refused("no teacher of fold 2 of 3: found teachers of fold 0 of 2, fold 1 of 2")
    mistyped = fold_words(two_sessions, runs, "--folds", 2, "--fold", "all", "--set", "distillation_ratio=0.3")
    sensorium(*mistyped, "--teacher", "factorized3d-debug-2-fold").assert_refused(
        "unknown run or ensemble: found 'factorized3d-debug-2-fold'; did you mean factorized3d-debug-2-folds?"
    )
    # A teacher that is not finished is told as one.
    teacher = Path(teachers[0])
    teacher.rename(f"{teacher}.partial")
    sensorium(*mistyped, "--teacher", *teachers).assert_refused(f"{teacher}.partial: the run is unfinished")
    sensorium(*mistyped, "--teacher", "factorized3d-debug-2-folds").assert_refused(
        "the ensemble factorized3d-debug-2-folds is not complete", f"{teacher.name}: unfinished"
    )
    sensorium(*words, "--teacher", *teachers, "--set", "teacher=x").assert_refused("given twice")


def test_folds_that_cannot_be_trained_are_refused(sensorium: Command, two_sessions: Path, tmp_path: Path) -> None:
    def train(*more: object) -> Outcome:
        return sensorium(*fold_words(two_sessions, tmp_path / "runs", *more))

    train("--folds", "all").assert_refused("factorized3d-debug has no folds", "--folds 7 --fold all")
    train("--folds", "some").assert_refused("--folds")
    train("--folds", "all", "--fold", 1).assert_refused("give one of both")
    train("--folds", 2).assert_refused("--fold all for each")
    train("--at-once", 2).assert_refused("one run alone is trained")
    train("--seeds", 2, "--at-once", 0).assert_refused("number of runs at once")
    train("--seeds", 2, "--at-once", 2, "--flow").assert_refused("one after the other")
    train("--teacher", tmp_path / "none").assert_refused("gives a teacher no weight", "distillation_ratio=0.36")
    train("--set", "distillation_ratio=0.3", "--teacher", tmp_path / "none").assert_refused("none")
    train("--set", "distillation_ratio=0.3").assert_refused("learns from a teacher", "--teacher")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # trains in processes of their own
def test_sigterm_ends_runs_that_train_at_once_with_checkpoints(two_sessions: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = fold_words(two_sessions, runs, "--seeds", 2, "--at-once", 2, "--ensemble", "pair")
    words[words.index("max_epochs=1")] = "max_epochs=1000"
    command = [sys.executable, "-c", "from flows.cli.entry import main; main()", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stderr is not None
        epochs = 0
        said = []
        for line in process.stderr:
            said.append(line)
            epochs += "epoch 1: " in line
            if epochs == 2:
                break
        process.send_signal(signal.SIGTERM)
        said += list(process.stderr)
    assert process.returncode == 143, "".join(said)
    assert "stopped by SIGTERM" in said[-1]
    unfinished = list(runs.glob("*.partial"))
    assert len(unfinished) == 2
    for one in unfinished:
        assert list((one / "checkpoints").glob("*.json")), sorted(path.name for path in one.rglob("*"))
    children = [line for line in said if "training in process" in line]
    for line in children:
        number = int(line.rpartition(" ")[2])
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
