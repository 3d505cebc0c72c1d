"""Whether the commands that messages name can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from flows.cli.commands import app
from sensorium_data.commands import quote_command

ROOT = Path(__file__).parents[2]
# Words on what a command has done, where no command is proposed: "give the folder that `sensorium train` printed".
DONE = ("made", "printed", "wrote", "or")
# Commands that need no argument.
BARE = ("models", "ui")


@pytest.mark.parametrize("package", ["sensorium_data", "models", "flows"])
def test_commands_that_messages_propose_are_whole(package: str) -> None:
    """A bare `sensorium verify`, or options without their values, cannot be typed as they are printed."""
    lines = [
        (f"{path.relative_to(ROOT)}:{number}", line)
        for path in (ROOT / package).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
    ]
    for where, line in lines:
        for name, arguments, after in re.findall(r'(?<![`:])`sensorium ([\w-]+)([^`"]*)`(?!`) ?(\w*)', line):
            is_whole = arguments == " --help" or "--store" in arguments or "{" in arguments
            assert is_whole or after in DONE or name in BARE, f"{where}: {line}"


def test_a_command_is_quoted_for_the_shell() -> None:
    words = ["verify", "my store/it's here"]
    quoted = quote_command(*words)
    assert shlex.split(quoted.strip("`")) == ["sensorium", *words]
    command, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__name__ == "verify"
