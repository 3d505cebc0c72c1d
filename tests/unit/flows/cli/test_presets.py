"""`sensorium models` and `sensorium settings`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import Outcome, run_command
from fixtures.own_models import FRAMES, write_files

Command = Callable[..., Outcome]


@pytest.fixture
def sensorium(capsys: pytest.CaptureFixture[str]) -> Command:
    return lambda *arguments: run_command(capsys, *arguments)


def test_presets_are_listed_with_their_size(sensorium: Command) -> None:
    done = sensorium("models", "--json")
    assert done.status == 0
    rows = {row["preset"]: row for row in json.loads(done.out)}
    # The published number of weights of the benchmark's model for the five new mice.
    assert rows["factorized3d"]["parameters"] == 5_707_743
    assert rows["factorized3d"]["frames_lost"] == 18
    assert all(row["description"] and row["error"] is None for row in rows.values())
    assert "5,707,743" in sensorium("models", "factorized3d").out


def test_a_class_is_listed_by_name(sensorium: Command, tmp_path: Path) -> None:
    write_files(tmp_path, {"net.py": FRAMES})
    (row,) = json.loads(sensorium("models", f"{tmp_path}/net.py:Frames", "--json").out)
    # 2 × 3 × 81 + 2 in the layer; for N neurons 2 N + 5 N and 152 a readout; 57 a shifter.
    assert row["parameters"] == 488 + 7 * 40_034 + 5 * (152 + 57)
    assert (row["model"], row["description"]) == ("net:Frames", "One layer on single frames.")
    sensorium("models", f"{tmp_path}/nit.py:Frames").assert_refused("there is no such file", "did you mean net.py?")


def test_a_package_that_cannot_be_imported_is_told_and_the_others_listed(
    sensorium: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    write_files(tmp_path, {"broken_models.py": "import nothing_there"})
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("broken", "broken_models:Net", "sensorium_pipeline.models")
    monkeypatch.setattr("models.own_models.entry_points", lambda group: [point])
    done = sensorium("models")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("broken of broken_models:Net: ")
    assert "No module named 'nothing_there'" in line
    assert "factorized3d-debug" in done.out


def test_a_deployment_names_a_class_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli.lab import _parameters

    monkeypatch.chdir(write_files(tmp_path, {"net.py": FRAMES}))
    given = _parameters(None, None, None, None, None, "net.py:Frames")
    assert given == {"preset": f"{tmp_path}/net.py:Frames"}
    assert _parameters(None, None, None, None, None, "net:Frames") == {"preset": "net:Frames"}


def test_settings_are_listed(sensorium: Command, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(sensorium("settings", "factorized3d", "--json").out)}
    assert rows["learning_rate"] == {
        "name": "learning_rate",
        "type": "number, above 0",
        "value": 0.005,
        "description": "Learning rate of AdamW at first.",
    }
    assert rows["model.channels"]["value"] == [32, 64, 128]
    out = sensorium("settings", "factorized3d", "lr", "channels").out
    assert "learning_rate" in out
    assert "32,64,128" in out
    assert "batch_size" not in out
    write_files(tmp_path, {"net.py": FRAMES})
    (row,) = json.loads(sensorium("settings", f"{tmp_path}/net.py:Frames", "hidden", "--json").out)
    assert (row["name"], row["value"]) == ("model.hidden", 2)
    sensorium("settings", "factorized3d", "xyzzy").assert_refused("unknown setting: found 'xyzzy'")
    sensorium("settings", "factorised3d").assert_refused("did you mean factorized3d")
