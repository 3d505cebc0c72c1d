"""What a training was asked for, and what is told of it."""

from __future__ import annotations

import os

import pytest

import sensorium_data.errors
from fixtures.tiny_training import tiny_config
from flows.training import TrainingJob, merge_settings
from flows.training.messages import Listener, Messages
from flows.training.progress import TrainingProgress
from models.runs import EpochMetrics
from models.training import TrainingReport
from sensorium_data.errors import SensoriumError, StoreError, UnknownNameError, UsageError

EPOCH = EpochMetrics(
    epoch=3,
    train_loss=0.5,
    regularizer=1.5,
    validation_loss=float("nan"),
    correlation=0.25,
    correlations={"F": 0.25},
    learning_rate=0.01,
    improved=True,
    duration_s=2.0,
    windows_per_s=30.0,
    data_wait_share=0.125,
)


def test_options_become_settings_beside_those_given_by_name() -> None:
    assert merge_settings({"seed": "1"}, folds=7, fold=0, cache="none", device="cpu") == {
        "seed": "1",
        "n_folds": "7",
        "fold": "0",
        "cache": "none",
        "device": "cpu",
    }
    assert merge_settings({"device": "cpu"}) == {"device": "cpu"}


def test_settings_may_be_numbers_booleans_and_lists_as_json_has_them() -> None:
    given = {
        "max_epochs": 3,
        "learning_rate": 1e-3,
        "model.channels": [8, 16, 16],
        "exclude": ["F:17", "F:23"],
        "n_trials": None,
        "use_ema": True,
        "device": "cpu",
    }
    typed = {
        "max_epochs": "3",
        "learning_rate": "0.001",
        "model.channels": "8,16,16",
        "exclude": "F:17,F:23",
        "n_trials": "none",
        "use_ema": "true",
        "device": "cpu",
    }
    assert merge_settings(given) == typed
    assert merge_settings(typed) == typed


@pytest.mark.parametrize("value", [{"channels": [8]}, [[8, 16]], [{"a": 1}]])
def test_settings_of_another_type_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"setting model: found .*; name settings within others with a dot"):
        merge_settings({"model": value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 7}, ["folds 7", "expected both"]),
        ({"folds": 7, "fold": 7}, ["fold 7", "0 to 6"]),
        ({"folds": 7, "fold": -1}, ["fold -1", "0 to 6"]),
        ({"folds": 1, "fold": 0}, ["found 1", "at least 2"]),
        ({"device": "cpu"}, ["device is given twice", "'cuda'", "'cpu'"]),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        merge_settings({"device": "cuda"}, **options)
    assert all(word in str(refusal.value) for word in words)


def test_a_job_is_the_same_in_another_process() -> None:
    job = TrainingJob(preset="factorized3d-debug", settings={"max_epochs": "2"}, store="s", sessions=("F",), runs="r")
    assert TrainingJob.model_validate_json(job.model_dump_json()) == job
    assert job.config().max_epochs == 2


def test_a_job_names_the_settings_near_a_wrong_one() -> None:
    with pytest.raises(UnknownNameError, match="max_epochs"):
        TrainingJob(preset="factorized3d", settings={"max_epoch": "2"}, store="s", runs="r").config()
    with pytest.raises(UsageError, match="not both"):
        TrainingJob(preset="factorized3d", store="s", runs="r", resume=True, restart=True).config()


# Messages


class Heard:
    """What arrives at the other end of a pipe."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.listener = Listener(self._progress, self.heard.append, self.heard.append)
        self._reading, writing = os.pipe()
        self.messages = Messages(writing)
        self._writing = writing

    def _progress(self, *numbers: object, **others: object) -> None:
        self.heard.append((*numbers, others))

    def listen(self) -> Listener:
        os.close(self._writing)
        with os.fdopen(self._reading) as lines:
            for line in lines:
                self.listener.take(line.rstrip("\n"))
        return self.listener


def test_what_is_told_arrives() -> None:
    pipe = Heard()
    report = TrainingReport("runs/x", "trained", ("F", "G"), 3, 2, 0.25, 12.5)
    pipe.messages.tell_progress("training windows", 8, 80, note="epoch 1 of 2")
    pipe.messages.tell_epoch(EPOCH)
    pipe.messages.tell_line("waiting")
    pipe.messages.tell_report(report)
    assert pipe.listen().report == report
    progress, epoch, line = pipe.heard
    assert progress == ("training windows", 8, 80, {"n_bytes": None, "note": "epoch 1 of 2"})
    assert line == "waiting"
    # As text: NaN is not equal to itself.
    assert repr(epoch) == repr(EPOCH)


@pytest.mark.parametrize(
    "kind", [name for name in sensorium_data.errors.__all__ if name.endswith("Error") and name != "UnknownNameError"]
)
def test_every_known_error_arrives_as_it_was_raised(kind: str) -> None:
    error = getattr(sensorium_data.errors, kind)(
        "wrong", session="F", trial=7, path="a/b", found=(1, 2), expected=[3], remedy="repair it"
    )
    pipe = Heard()
    pipe.messages.tell_error(error)
    arrived = pipe.listen().error
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)


def test_the_first_of_several_errors_counts() -> None:
    pipe = Heard()
    pipe.messages.tell_error(StoreError("first"))
    pipe.messages.tell_error(SensoriumError("second"))
    assert str(pipe.listen().error) == "first"


@pytest.mark.parametrize("line", ["NCCL version 2.1", "[1, 2]", "3", '{"kind": "other", "line": "NCCL"}'])
def test_a_foreign_line_goes_to_the_log(line: str) -> None:
    pipe = Heard()
    pipe.listener.take(line)
    assert pipe.heard == ["NCCL" if "kind" in line else line]


def test_nobody_listening_does_not_end_the_training() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    # Without Messages, writing there is an error; Python ignores the signal.
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    messages = Messages(writing)
    told = [messages.tell_line("x"), messages.tell_error(StoreError("y")), messages.tell_epoch(EPOCH)]
    assert told == [None, None, None]
    os.close(writing)


# Progress


def test_batches_become_windows_of_an_epoch() -> None:
    told: list[tuple[object, ...]] = []
    config = tiny_config(batch_size=4, max_epochs=3)

    def listen(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        told.append((label, n_done, n_total, note))

    progress = TrainingProgress(config, listen)
    progress("open", 1, 2)
    for n_done in (1, 5, 6):
        progress("train", n_done, 15)
    progress.take_epoch(EPOCH)
    progress("train", 15, 15)
    assert told == [
        ("open", 1, 2, ""),
        ("training windows", 4, 60, "epoch 1 of 3"),
        ("training windows", 20, 60, "epoch 1 of 3"),
        ("training windows", 24, 60, "epoch 2 of 3"),
        ("training windows", 60, 60, "epoch 3 of 3, 12% waiting for data"),
    ]


def test_training_that_stops_early_is_told_to_be_over() -> None:
    told: list[tuple[object, ...]] = []
    progress = TrainingProgress(tiny_config(batch_size=4, max_epochs=9), lambda *all, **rest: told.append((*all, rest)))
    progress("train", 5, 45)
    progress.take_epoch(EPOCH)
    progress.finish()
    assert told[-1] == ("training windows", 20, 20, {"note": "over after epoch 3 of 9"})
