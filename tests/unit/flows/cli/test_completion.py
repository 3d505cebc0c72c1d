"""The shell completes commands, options and choices once completion is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.command_line import run_command

#: Calls the function that bash would call for the words so far, and prints what it offers.
_COMPLETE = """
source "$1"; shift
function=$(complete -p sensorium | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BASH_VERSION", "ZSH_VERSION", "FISH_VERSION", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_choices(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".bashrc").write_text("# mine\n")
    for _ in range(2):
        done = run_command(capsys, "--install-completion", "--shell", "bash")
        assert (done.status, done.out) == (0, "")
    script = home / ".local/share/bash-completion/completions/sensorium"
    assert str(script) in done.err
    # What was there stays, and the script is loaded once.
    assert (home / ".bashrc").read_text().startswith("# mine\n")
    assert (home / ".bashrc").read_text().count("# Load sensorium completion") == 1

    def complete(*words: str) -> set[str]:
        command = ["bash", "-c", _COMPLETE, "bash", str(script), *words]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    assert complete("sensorium", "tr") == {"train"}
    assert complete("sensorium", "train", "--see") == {"--seed", "--seeds"}
    assert complete("sensorium", "submit", "--track", "") == {"main", "bonus"}


def test_a_shell_that_is_not_known_is_asked_for(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))  # no ps
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    run_command(capsys, "--install-completion").assert_refused("/bin/tcsh", "bash, zsh or fish", "--shell")
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    done = run_command(capsys, "--install-completion")
    assert done.status == 0
    assert "compinit" in done.err
    assert (home / ".zsh/completions/_cyclopts_sensorium").is_file()


def test_a_home_that_cannot_be_written_is_told(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".local").write_text("")
    run_command(capsys, "--install-completion", "--shell", "bash").assert_refused(str(home / ".local"))
