from __future__ import annotations

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
