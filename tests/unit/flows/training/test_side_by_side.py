"""Several trainings at once: what one that fails does to the others, and what is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from flows.training import TrainingJob, side_by_side, train_side_by_side
from sensorium_data.errors import RunError

SEEDS = range(6)


def make_job(seed: int) -> TrainingJob:
    return TrainingJob(
        preset="static2d-debug",
        settings={"seed": str(seed), "device": "cpu"},
        store="store",
        sessions=None,
        runs="runs",
    )


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Train six seeds, two at once, with a function of a seed in the place of each training."""

    def train_seeds(act: Callable[[int], object], lines: list[str]) -> list[Any]:
        def supervise(job: TrainingJob, **_options: object) -> object:
            return act(int(str(job.settings["seed"])))

        monkeypatch.setattr(side_by_side, "supervise_training", supervise)
        return train_side_by_side(
            [make_job(seed) for seed in SEEDS],
            2,
            describe=lambda job: f"seed {job.settings['seed']}",
            progress=lambda *_numbers, **_more: None,
            on_epoch=lambda _name, _epoch: None,
            write_line=lines.append,
        )

    return train_seeds


def test_after_a_failure_those_under_way_are_finished_and_no_other_is_begun(train: Callable[..., list[Any]]) -> None:
    begun, finished, lines = [], [], []
    has_failed, both_begun = threading.Event(), threading.Barrier(2)

    def act(seed: int) -> int:
        begun.append(seed)
        both_begun.wait(10)
        if seed == 1:
            has_failed.set()
            raise RunError("the disk is full", path="runs/one")
        assert has_failed.wait(10)
        finished.append(seed)
        return seed

    with pytest.raises(RunError, match="the disk is full"):
        train(act, lines)
    assert sorted(begun) == [0, 1]
    assert finished == [0]
    assert lines == [
        "seed 1: failed: runs/one: the disk is full",
        "not begun: seed 2; seed 3; seed 4; seed 5",
    ]


def test_every_failure_is_told_and_the_first_one_is_raised(train: Callable[..., list[Any]]) -> None:
    lines: list[str] = []
    both_begun, has_failed = threading.Barrier(2), threading.Event()

    def act(seed: int) -> int:
        both_begun.wait(10)
        if seed == 0:
            assert has_failed.wait(10)
            raise RunError("the second failure")
        has_failed.set()
        raise RunError("the first failure")

    with pytest.raises(RunError, match=r"failure"):
        train(act, lines)
    assert sorted(lines[:2]) == ["seed 0: failed: the second failure", "seed 1: failed: the first failure"]


def test_reports_come_in_the_order_of_the_jobs(train: Callable[..., list[Any]]) -> None:
    lines: list[str] = []
    assert train(lambda seed: seed, lines) == list(SEEDS)
    assert lines == []
