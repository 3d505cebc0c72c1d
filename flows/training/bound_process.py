"""A program that ends with whoever started it: ``-m flows.training.bound_process PARENT PROGRAM [ARGUMENT…]``.

PARENT is the process id of the starter. Linux alone can promise that; elsewhere the program is only started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

__all__ = ["bind_to_parent", "bound_command", "package_environment"]

_CHECKOUT = Path(__file__).parents[2]

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def bind_to_parent(parent: int) -> bool:
    """Have the kernel send SIGTERM to this process when its parent ends, and return whether it will.

    What this process becomes by ``exec`` is told too; what it starts is not.
    """
    is_told: bool = sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) == 0
    # It may have died before the kernel was asked to tell.
    if os.getppid() != parent:
        sys.exit(1)
    return is_told


def bound_command(*command: str) -> list[str]:
    """Return the command that runs another one bound to this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def package_environment() -> dict[str, str]:
    """Return an environment in which Python finds this very package, wherever the caller was started."""
    paths = [str(_CHECKOUT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        # The working folder may be a project of the user's with a `flows` of its own.
        "PYTHONSAFEPATH": "1",
    }


if __name__ == "__main__":
    bind_to_parent(int(sys.argv[1]))
    # What runs in a shell's background ignores Ctrl-C, and so does what it starts.
    # Prefect's workers send it to themselves to end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 (a list of arguments, without a shell)
