"""Where nothing can be written, a step says so before it has worked, and names what is in the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.submissions import Predicted, submit
from models.runs.location import open_runs
from models.sources.target import parse_target
from sensorium_data.errors import SensoriumError, UsageError, describe_broken_link, describe_os_error
from sensorium_data.predictions import create_predictions
from sensorium_data.sessions import find_session
from sensorium_data.simulation import simulate
from sensorium_data.submission import repair_submission


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    predicted = Predicted(tmp_path_factory.mktemp("predicted"))
    submit(predicted, predicted.root / "sound")
    return predicted


def predict(predicted: Predicted, out: Path) -> None:
    with create_predictions(str(out), store=predicted.store, sessions=["F"], tiers=["oracle"], response_units="raw"):
        raise AssertionError("it began")


def repair(predicted: Predicted, out: Path) -> None:
    repair_submission([predicted.root / "sound" / "submission_main.zip"], predicted.store, out=str(out))


def simulate_one(_predicted: Predicted, out: Path) -> None:
    simulate(out, sessions=[find_session("F")], n_trials=8, n_neurons=2)


def hold_run(_predicted: Predicted, out: Path) -> None:
    open_runs(str(out)).hold("a-run", lock=True)


STEPS: dict[str, Callable[[Predicted, Path], object]] = {
    "predict": predict,
    "submit": submit,
    "validate --fix": repair,
    "simulate": simulate_one,
}


@pytest.mark.parametrize("end", ["itself", "nothing"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_link_that_leads_nowhere_is_named(
    step: Callable[[Predicted, Path], object], end: str, predicted: Predicted, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to("link" if end == "itself" else "gone")
    with pytest.raises(SensoriumError, match=rf"a link that leads to {end}|something lies there already"):
        step(predicted, link)
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.parametrize("step", [*STEPS.values(), hold_run], ids=[*STEPS, "train"])
def test_nothing_is_written_into_predictions(step: Callable[[Predicted, Path], object], predicted: Predicted) -> None:
    owner = Path(predicted.path)
    before = sorted(owner.rglob("*"))
    with pytest.raises(UsageError, match=r"cannot be written into a stored session, predictions or a run"):
        step(predicted, owner / "below")
    assert sorted(owner.rglob("*")) == before


def test_what_is_on_the_way_is_found(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    (tmp_path / "way").symlink_to(tmp_path)
    assert describe_broken_link(tmp_path / "loop") == "a link that leads to itself"
    assert describe_broken_link(tmp_path / "gone" / "a") == f"a link that leads to nothing ({tmp_path / 'gone'})"
    assert describe_broken_link(tmp_path / "way" / "file") is None
    found = {}
    for name in ("loop", "gone", "file"):
        with pytest.raises(OSError, match=str(tmp_path)) as raised:
            (tmp_path / name / "a").mkdir(parents=True)
        found[name] = describe_os_error(raised.value)
    assert found["loop"] == f"a link that leads to itself ({tmp_path / 'loop'}) where a folder is expected"
    assert found["gone"] == "a link that leads to nothing where a folder is expected"
    assert found["file"] == f"the file {tmp_path / 'file'} where a folder is expected"


def test_a_models_file_in_a_loop_is_not_suggested(tmp_path: Path) -> None:
    (tmp_path / "net.py").symlink_to("net.py")
    with pytest.raises(UsageError, match=r"this is no file: found a link that leads to itself") as raised:
        parse_target(f"{tmp_path / 'net.py'}:Net")
    assert "did you mean" not in str(raised.value)
