"""Completion of commands, options and choices by the shell."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.cli.options import EXIT_DONE, say
from sensorium_data.errors import UsageError

__all__ = ["install_completion"]


def install_completion(
    *,
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None, Parameter(help="Which shell. Default: the one that runs the command.")
    ] = None,
) -> int:
    """Install completion of commands, options and choices for bash, zsh or fish.

    The script goes where the shell looks for such scripts in your home; bash and zsh get a line in their start-up file
    that loads it. Run again after an upgrade, the script is written anew.
    """
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    from flows.cli.commands import app

    try:
        found = shell or detect_shell()
    except ShellDetectionError:
        found = None
    if found not in ("bash", "zsh", "fish"):
        raise UsageError(
            "the shell to complete for is not known",
            found=found or os.environ.get("SHELL"),
            expected="bash, zsh or fish",
            remedy="name it with --shell",
        )
    path = app.install_completion(shell=found)
    say(f"{path}: completion for {found}; it works in shells that you start from now on")
    if found == "zsh":
        say("zsh completes once `autoload -Uz compinit && compinit` stands in ~/.zshrc, below the line that sets fpath")
    return EXIT_DONE
