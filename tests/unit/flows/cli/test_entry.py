from __future__ import annotations

import os
from typing import get_args

import pytest
from cyclopts import Token

import flows.cli.commands
from flows.cli.commands import app
from flows.cli.entry import main
from flows.watching import RunCanceled


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("inspect", "STORE is missing; see `sensorium inspect --help`"),
        ("from-arrays", "FOLDER is missing; see `sensorium from-arrays --help`"),
        ("train x", "--store is missing; see `sensorium train --help`"),
        ("train x --store s --runs", "--runs requires an argument; see `sensorium train --help`"),
        ("nonsense", "...; see `sensorium --help`"),
        ("inspect s F G", "unexpected argument G; see `sensorium inspect --help`"),
        ("inspect s F G H", "unexpected arguments G H; see `sensorium inspect --help`"),
        ("score p --store s --seed x", '--seed: "x" is not a whole number; see `sensorium score --help`'),
        ("train x --store s --folds two", '--folds: "two" is not a whole number or all; see `sensorium train --help`'),
        ("train x --store s --seeds 1.5", '--seeds: "1.5" is not a whole number; see `sensorium train --help`'),
        (
            "train x --store s --min-reliability high",
            '--min-reliability: "high" is not a number; see `sensorium train --help`',
        ),
    ],
)
def test_usage_errors_use_the_names_of_the_help(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(command.split())
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.endswith(said + "\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("JOBS", "many", "a whole number from 1 up"),
        ("SERVER_WAIT_S", "0", "a whole number from 1 up"),
        ("KEEP_SERVER_MINUTES", "-1", "a number from 0 up"),
    ],
)
def test_a_wrong_setting_of_the_environment_is_told_in_a_line(
    name: str, found: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"SENSORIUM_{name}", found)
    with pytest.raises(SystemExit) as exit_:
        main(["ingest", "F", "--store", "s"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == (
        f"sensorium: the environment's SENSORIUM_{name} cannot be used: found '{found}', expected {expected}; "
        "set it to that, or unset it\n"
    )


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


def test_a_flow_that_was_canceled_on_the_server_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cancel(*_: object, **__: object) -> None:
        raise RunCanceled("the run was canceled on the server; run it again to go on")

    monkeypatch.setattr(flows.cli.commands, "app", cancel)
    with pytest.raises(SystemExit) as exit_:
        main(["train", "x", "--store", "s"])
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "sensorium: the run was canceled on the server; run it again to go on\n"


def test_no_option_that_is_a_whole_number_is_rounded() -> None:
    commands = [app[name] for name in app if not name.startswith("-")]
    whole = [one for command in commands for one in command.assemble_argument_collection() if int in _kinds(one.hint)]
    assert len(whole) > 20
    for option in whole:
        with pytest.raises(ValueError, match="is not a whole number"):
            option.parameter.converter(int, [Token(value="1.5")])


def _kinds(hint: object) -> tuple[object, ...]:
    return get_args(hint) or (hint,)
