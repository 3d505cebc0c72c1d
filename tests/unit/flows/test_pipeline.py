"""When a pipeline has a process ready for training, and what it hands to the deployments of other pools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.recorded_stores import record_session


@pytest.mark.parametrize(
    ("sessions", "converts"),
    [(["F"], False), (["all"], False), (["F", "G"], True), (["new"], True), (["nobody's"], True)],
)
def test_it_is_ready_only_if_something_is_certain_to_be_converted(
    tmp_path: Path, sessions: list[str], converts: bool
) -> None:
    from flows.pipeline import will_convert

    assert will_convert(sessions, str(tmp_path))
    record_session(tmp_path, "F", n_by_tier={"train": 1})
    assert will_convert(sessions, str(tmp_path)) == converts


@dataclass(frozen=True)
class Trained:
    """As much of a training's report as the pipeline reads."""

    run: str
    status: str = "already done"


def test_what_other_pools_do_is_asked_for_in_the_words_of_their_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools import validate

    from flows import pipeline as module
    from flows.evaluate import predict
    from flows.train import train

    asked: dict[str, dict[str, Any]] = {}
    found = [None, Trained(str(tmp_path / "runs" / "run"))]
    monkeypatch.setattr(module, "is_deployed", lambda: True)
    monkeypatch.setattr(module, "find_finished", lambda _: found.pop(0))
    monkeypatch.setattr(module, "find_predicted", lambda **_: None)
    monkeypatch.setattr(module, "finish_deployed", lambda flow, parameters: asked.update({flow.name: parameters}))
    for step in ("ingest", "score", "submit"):
        monkeypatch.setattr(module, step, lambda *_, **__: [])
    monkeypatch.setattr(module, "publish_result", lambda **_: None)
    overrides = {"max_epochs": 1, "model.channels": [2, 2]}
    module.pipeline.fn(["F"], str(tmp_path), str(tmp_path), "factorized3d-debug", overrides=overrides, exclude=["F:17"])
    assert asked["train"]["overrides"] == {"max_epochs": "1", "model.channels": "2,2", "exclude": "F:17"}
    assert asked["predict"]["runs"] == [str(tmp_path / "runs" / "run")]
    for flow in (train, predict):
        form = parameter_schema(flow).model_dump()
        assert asked[flow.name].keys() <= form["properties"].keys()
        validate(asked[flow.name], form, raise_on_error=True)


def test_ensembles_are_looked_for_in_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import evaluate as module

    asked: list[tuple[str, ...]] = []

    def expand(folder: str, names: list[str]) -> tuple[str, ...]:
        asked.append((folder, *names))
        return (f"{folder}/member",)

    monkeypatch.setenv("SENSORIUM_RUNS", str(tmp_path / "workers"))
    monkeypatch.setattr(module, "expand_ensembles", expand)
    monkeypatch.setattr(module, "find_predicted", lambda runs, *_, **__: runs)
    monkeypatch.setattr(module, "score_task", lambda *_: None)
    lab = str(tmp_path / "lab")
    assert module.predict.fn(["ours"], "store", ["oracle"], "out", runs_folder=lab) == [f"{lab}/member"]
    module.evaluate.fn(["ours"], "store", ["oracle"], "out", runs_folder=lab)
    module.predict.fn(["ours"], "store", ["oracle"], "out")
    assert asked == [(lab, "ours"), (lab, "ours"), (str(tmp_path / "workers"), "ours")]
