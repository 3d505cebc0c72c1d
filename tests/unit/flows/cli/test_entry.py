from __future__ import annotations

import os

import pytest

from flows.cli.entry import main


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("inspect", "STORE is missing; see `sensorium inspect --help`"),
        ("from-arrays", "FOLDER is missing; see `sensorium from-arrays --help`"),
        ("train x", "--store is missing; see `sensorium train --help`"),
        ("train x --store s --runs", "--runs requires an argument; see `sensorium train --help`"),
        ("nonsense", "...; see `sensorium --help`"),
    ],
)
def test_usage_errors_use_the_names_of_the_help(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(command.split())
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.endswith(said + "\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["ingest", "F", "--store", "s"]])
def test_a_system_that_cannot_run_the_commands_is_told_at_once(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As Python on Windows.
    monkeypatch.delattr(os, "pread")
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "they run on Linux and macOS, on Windows under WSL" in capsys.readouterr().err
