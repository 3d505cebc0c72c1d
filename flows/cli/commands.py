"""The ``sensorium`` command: what belongs to it.

Prefect, torch and matplotlib are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli.benchmark import benchmark
from flows.cli.checkpoints import export_checkpoint, import_checkpoint
from flows.cli.cleaning import clean
from flows.cli.completion import install_completion
from flows.cli.data import ingest, inspect, sample, simulate, verify
from flows.cli.examples import format_examples
from flows.cli.lab import deploy, ui, watch
from flows.cli.options import EXIT_DONE, LOCAL_ONLY
from flows.cli.prediction import leaderboard, predict, score
from flows.cli.presets import models, settings
from flows.cli.server import server
from flows.cli.submission import from_arrays, submit, validate
from flows.cli.training import train

__all__ = ["app"]

app = App(
    name="sensorium",
    help="SENSORIUM 2023: archives → Zarr session stores → trained models → validated submissions.",
    version=lambda: version("sensorium-pipeline"),
    # It would exit without a word.
    suppress_keyboard_interrupt=False,
)


@app.command(help_epilogue=format_examples("demo"))
def demo(
    *,
    dir: Annotated[Path, LOCAL_ONLY, Parameter(name="--dir", help="Where everything of the demo goes.")] = Path("demo"),
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
    sample,
    ingest,
    inspect,
    verify,
    clean,
    models,
    settings,
    train,
    import_checkpoint,
    export_checkpoint,
    predict,
    score,
    leaderboard,
    benchmark,
    from_arrays,
    submit,
    validate,
    deploy,
    watch,
    ui,
    server,
):
    name = command.__name__.replace("_", "-")
    app.command(command, help_epilogue=format_examples(name))
app.command(install_completion, name="--install-completion", group=app["--help"].group)
