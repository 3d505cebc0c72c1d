"""How a command begins and ends: its interrupts, its errors and its exit status.

What takes long to import is imported where Ctrl-C is taken already.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sensorium_data.errors import SensoriumError, describe_os_error
from sensorium_data.files import HAS_LOCKS
from sensorium_data.interrupts import (
    EXIT_INTERRUPTED,
    INTERRUPTED,
    end_at_next_interrupt,
    is_interrupted,
    take_interrupts,
)

if TYPE_CHECKING:
    from cyclopts import CycloptsError

__all__ = ["main"]

# What a value is that should have been converted to one of Python's types.
_KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}

_UNSUPPORTED = (
    "sensorium: this system lacks what the commands need; they run on Linux and macOS, on Windows under WSL\n"
)


# With less address space libraries do not load, and some then wait for ever.
_LEAST_ADDRESS_SPACE_BYTES = 1_000_000_000
_OUT_OF_MEMORY = "there is not enough memory"
_MORE_MEMORY = "lower --jobs, or give it more (see `ulimit -v`)"
# What the system's loader says when it gets no memory for a library.
_UNLOADABLE = ("failed to map segment", "annot allocate memory")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    0, done; 1, the thing checked is wrong; 2, usage or an unreadable input, with one line on standard
    error; 130, interrupted.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the command's name; by default this process's own arguments. Only then the process is the
        command's, Ctrl-C is taken as :func:`sensorium_data.interrupts.take_interrupts` does, and what standard output
        cannot encode is escaped.
    """
    if not (HAS_LOCKS and hasattr(os, "pread")):
        sys.stderr.write(_UNSUPPORTED)
        sys.exit(2)
    if arguments is None:
        take_interrupts()
        for stream in (sys.stdout, sys.stderr):
            # A terminal that lacks a character, and a file's name that is no text, are no reason to end.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    _heed_address_space()
    # OpenMP's threads wait for each other by spinning. Beside other work on the machine that made training on two
    # cores four times slower. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # cyclopts reads a bare call as a request for help, which is what a newcomer needs.
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from flows.cli.commands import app

        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        # A reader of the pipe that has gone is noticed here, and not at the interpreter's exit.
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 (raised again where it is not known)
        # What else is raised after Ctrl-C comes of it: an import or a flow that was cut short says so in many ways.
        interrupted = is_interrupted() or isinstance(error, KeyboardInterrupt)
        end_at_next_interrupt(is_told=interrupted)
        if interrupted:
            sys.stderr.write(INTERRUPTED)
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(_explain(error))
    end_at_next_interrupt(is_told=False)
    sys.exit(result if isinstance(result, int) else 0)


def _heed_address_space() -> None:
    """Exit where the address space is limited to less than the libraries need, and let them take little of it."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    # OpenBLAS ends the process where it gets no memory for a thread.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if limit < _LEAST_ADDRESS_SPACE_BYTES:
        sys.stderr.write(
            f"sensorium: {_OUT_OF_MEMORY}: found a limit of {limit / 1e9:.1f} GB of address space, expected "
            f"{_LEAST_ADDRESS_SPACE_BYTES / 1e9:.0f} GB or more; raise it (see `ulimit -v`)\n"
        )
        sys.exit(2)


def _explain(error: BaseException) -> int:
    """Say in a line why a command failed, and return its exit status; raise again what nobody has thought of."""
    from cyclopts import CycloptsError

    from flows.cli.options import EXIT_DONE, EXIT_UNUSABLE, complain

    match error:
        case CycloptsError():
            command = " ".join(["sensorium", *(error.command_chain or ()), "--help"])
            complain(_describe(error), f"; see `{command}`")
        case SensoriumError():
            if os.environ.get("SENSORIUM_TRACEBACK"):
                traceback.print_exception(error)
            complain(str(error))
            return error.exit_status
        case BrokenPipeError():
            # The reader of a pipe (`| head`) has gone: nothing is left to say, not even at interpreter exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_DONE
        case OSError():
            where = f"{error.filename}: " if error.filename is not None else ""
            complain(f"{where}{describe_os_error(error)}; check the path, its permissions and the space there")
        case MemoryError():
            complain(f"{_OUT_OF_MEMORY}{f': found {error}' if str(error) else ''}; {_MORE_MEMORY}")
        case ImportError() if any(words in str(error) for words in _UNLOADABLE):
            complain(f"{_OUT_OF_MEMORY}: found {error}; {_MORE_MEMORY}")
        case RuntimeError() if "can't start new thread" in str(error):
            complain(
                "the system refuses another thread; lower --jobs, or raise the limit (see `ulimit -u`, `ulimit -v`)"
            )
        case _ if _is_canceled(error):
            complain(str(error))
            return EXIT_INTERRUPTED
        case _:
            raise error
    return EXIT_UNUSABLE


def _is_canceled(error: BaseException) -> bool:
    """Whether somebody canceled the command's flow on the server."""
    # Nothing else raises that, and Prefect takes long to import.
    if "prefect" not in sys.modules:
        return False
    from flows.watching import RunCanceled

    return isinstance(error, RunCanceled)


def _describe(error: CycloptsError) -> str:
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        several = "s" if len(error.unused_tokens) > 1 else ""
        return f"unexpected argument{several} {shlex.join(error.unused_tokens)}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.required:
        name = error.argument.name
        # cyclopts names positional arguments like options, which is not how help and documentation show them.
        return f"{name if error.argument.index is None else name.lstrip('-').upper()} is missing"
    said = re.sub(r"(?<!\.)\.$", "", " ".join(str(error).split()))
    unfit = re.search(r"unable to convert (\".*\") into (\S.*)$", said)
    return said.replace(unfit[0], f"{unfit[1]} is not {_name_kinds(unfit[2])}") if unfit else said


def _name_kinds(types: str) -> str:
    """Return in words what a value may be, of how cyclopts writes its type: ``int|Literal[all]|None``."""
    kinds = [kind for kind in types.split("|") if kind != "None"]
    return " or ".join(_KINDS.get(kind, re.sub(r"^Literal\[(.*)\]$", r"\1", kind)) for kind in kinds)
