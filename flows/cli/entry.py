"""The ``sensorium`` command.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from flows.cli.benchmark import benchmark
from flows.cli.data import ingest, inspect, simulate, verify
from flows.cli.lab import deploy, ui
from flows.cli.model import leaderboard, predict, score, train
from flows.cli.options import EXIT_DONE, EXIT_INTERRUPTED, EXIT_UNUSABLE, complain
from flows.cli.submission import from_arrays, submit, validate
from sensorium_data.errors import SensoriumError
from sensorium_data.files import HAS_LOCKS

__all__ = ["app", "main"]

app = App(
    name="sensorium",
    help="SENSORIUM 2023: archives → Zarr session stores → trained models → validated submissions.",
    version=lambda: version("sensorium-pipeline"),
    # It would exit without a word.
    suppress_keyboard_interrupt=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    0, done; 1, the thing checked is wrong; 2, usage or an unreadable input, with one line on standard
    error; 130, interrupted.
    """
    if not (HAS_LOCKS and hasattr(os, "pread")):
        complain("this system lacks what the commands need; they run on Linux and macOS, on Windows under WSL")
        sys.exit(EXIT_UNUSABLE)
    # OpenMP's threads wait for each other by spinning. Beside other work on the machine that made training on two
    # cores four times slower. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # cyclopts reads a bare call as a request for help, which is what a newcomer needs.
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(["sensorium", *(error.command_chain or ()), "--help"])
        complain(_describe(error), f"; see `{command}`")
        sys.exit(EXIT_UNUSABLE)
    except SensoriumError as error:
        complain(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        complain("interrupted; run the same command again")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: nothing is left to say, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_DONE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(f"{where}{error.strerror or error}; check the path, its permissions and the space there")
        sys.exit(EXIT_UNUSABLE)
    sys.exit(status if isinstance(status, int) else EXIT_DONE)


def _describe(error: CycloptsError) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.argument.required:
        name = error.argument.name
        # cyclopts names positional arguments like options, which is not how help and documentation show them.
        return f"{name if error.argument.index is None else name.lstrip('-').upper()} is missing"
    return re.sub(r"(?<!\.)\.$", "", " ".join(str(error).split()))


@app.command
def demo(
    *,
    dir: Annotated[Path, Parameter(name="--dir", help="Where everything of the demo goes.")] = Path("demo"),
) -> int:
    """Run everything on simulated recordings: simulate, ingest, train, predict, score, submit."""
    from flows.lab import start_embedded_server

    log_level = os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING")
    server = start_embedded_server(dir.absolute() / "prefect", log_level=log_level)
    from flows.cli.demo import run_demo

    run_demo(dir, server)
    return EXIT_DONE


for command in (
    simulate,
    ingest,
    inspect,
    verify,
    train,
    predict,
    score,
    leaderboard,
    benchmark,
    from_arrays,
    submit,
    validate,
    deploy,
    ui,
):
    app.command(command)
