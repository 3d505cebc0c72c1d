"""The page on models of one's own: its example is trained, predicted, scored and submitted by its own commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Outcome
from fixtures.documents import Document
from fixtures.own_models import no_trust
from fixtures.places import CHECKOUT
from fixtures.recorded_stores import record_session

pytestmark = pytest.mark.usefixtures("no_curves")

Command = Callable[..., Outcome]

PAGE = Document(CHECKOUT / "docs/your-own-model.md")


def test_the_examples_are_short() -> None:
    examples = [block.text for block in PAGE.blocks if block.language == "python"]
    assert len(examples) == 5
    assert max(len(text.splitlines()) for text in examples) <= 40


def test_the_example_with_a_readout_of_its_own_is_trained(
    sensorium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (example,) = (block.text for block in PAGE.blocks if "class Shared" in block.text)
    Path("shared.py").write_text(example)
    for alias in "FG":
        record_session(Path("store"), alias, n_by_tier={"train": 2, "oracle": 1})
    settings = ("max_epochs=1", "device=cpu", "n_windows_per_trial=1")
    done = sensorium("train", "shared.py:Shared", "--store", "store", *(w for one in settings for w in ("--set", one)))
    assert done.status == 0, done.err
    (run,) = Path("runs").iterdir()
    done = sensorium("predict", run, "--store", "store", "--tier", "oracle", "--out", "predictions")
    assert done.status == 0, done.err


def test_the_example_is_trained_and_submitted(
    sensorium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("my_model.py").write_text(next(block.text for block in PAGE.blocks if block.language == "python"))
    record_session(Path("store"), "F", n_by_tier={"train": 4, "oracle": 2, "live_test_main": 1, "final_test_main": 1})
    settings = ["channels=4", "kernel=5", "max_epochs=1", "device=cpu"]
    arguments = ["train", "my_model.py:MyModel", "--store", "store"]
    done = sensorium(*arguments, "--json", *(word for one in settings for word in ("--set", one)))
    assert done.status == 0, done.err
    run = json.loads(done.out)["run"]
    assert Path(run).name.startswith("MyModel-")
    assert Path(run, "code/my_model.py").read_text() == Path("my_model.py").read_text()
    for words in (
        ["predict", run, "--store", "store", "--tier", "oracle", "test", "--out", "predictions"],
        ["score", "predictions", "--store", "store", "--resamples", "100"],
        ["submit", "predictions", "--store", "store", "--track", "main", "--out", "submission"],
        ["verify", run],
    ):
        done = sensorium(*words)
        assert done.status == 0, done.err
    assert sorted(path.name for path in Path("submission").glob("*.zip"))
    again = sensorium(*arguments, "--json", *(word for one in settings for word in ("--set", one)))
    assert json.loads(again.out)["status"] == "already done"

    no_trust(monkeypatch, tmp_path / "elsewhere")
    predict = ["predict", run, "--store", "store", "--tier", "oracle", "--out", "others"]
    sensorium(*predict).assert_refused("brings code of its own", "--trust-code")
    assert sensorium(*predict, "--trust-code").status == 0
