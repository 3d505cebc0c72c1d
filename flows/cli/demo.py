"""The main job on simulated recordings, from archives served over HTTP to validated zips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.cli.summaries import print_scores, print_submission
from flows.cli.tables import error_console, print_next, print_table, table_console
from flows.lab import LocalServer
from flows.pipeline import PipelineReport, pipeline
from flows.reporting import format_size, show_progress
from sensorium_data.movies import report_leakage
from sensorium_data.sessions import find_sessions
from sensorium_data.simulation import simulate
from sensorium_data.testing import serve_directory

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["run_demo"]

#: A pair: they saw the same movies. A, of the old release, publishes the responses of every tier; the competition
#: scores F.
SESSIONS = ("A", "F")
PRESET = "factorized3d-debug"
N_TRIALS = 140
N_NEURONS = 400


def run_demo(directory: Path, prefect_server: LocalServer) -> PipelineReport:
    """Simulate two sessions that share movies, serve them on loopback, and run the whole pipeline on them.

    Every step finds by itself what an earlier demo in the same directory has done.

    Parameters
    ----------
    directory : Path
        Gets ``archives``, ``store``, ``runs`` and ``out``.
    prefect_server : LocalServer
        It may be starting still.
    """
    console = error_console()
    sessions = find_sessions(SESSIONS)
    archives = directory / "archives"
    with show_progress(console) as progress:
        with _timed(console, "simulate two recordings"):
            simulate(
                archives, sessions=sessions, n_trials=N_TRIALS, n_neurons=N_NEURONS, seed=0, jobs=2, progress=progress
            )
        with (
            serve_directory(archives) as server,
            _timed(console, f"run the flow `pipeline` on Prefect's embedded server, archives at {server.url}"),
        ):
            prefect_server.wait_until_healthy()
            report = pipeline(
                sessions=[session.name for session in sessions],
                store=str(directory / "store"),
                out=str(directory / "out"),
                preset=PRESET,
                source=server.url,
                runs=str(directory / "runs"),
                truth=str(archives / "truth"),
                jobs=2,
            )
    _print_report(report, directory)
    return report


@contextmanager
def _timed(console: Console, step: str) -> Iterator[None]:
    console.print(f"→ {step}", soft_wrap=True)
    began = time.monotonic()
    yield
    console.print(f"  done in {time.monotonic() - began:.0f} s")


def _print_report(report: PipelineReport, directory: Path) -> None:
    console = table_console()
    print_table(
        console,
        "Session stores",
        [
            {
                "session": one.alias,
                "status": one.status,
                "trials": one.n_trials,
                "size": format_size(one.store_size_bytes),
                "path": one.path,
            }
            for one in report.ingested
        ],
        below=("path",),
    )
    shared = report_leakage(str(directory / "store")).count_by_tiers()
    print_table(
        console,
        "Movies that F is scored on and A saw",
        _name_shared_movies(shared),
    )
    print_scores(console, report.scores)
    for submission in report.submissions:
        print_submission(console, submission)
        for note in submission.notes:
            console.print(f"Note: {note}", soft_wrap=True)
    run = report.trained
    console.print()
    console.print(f"Run: {run.run} ({run.status})", soft_wrap=True)
    programs = _programs_folder()
    show_stores = f"from sensorium_data import open_sessions; print(open_sessions('{directory / 'store'}'))"
    print_next(
        console,
        [
            ("open the stores in xarray", f'{programs}/python -c "{show_stores}"'),
            (
                "look at the flow runs and artifacts, and start more of them",
                f"{programs}/sensorium ui --home {directory / 'prefect'}",
            ),
            ("run on the real data, about 10 GB a session", f"{programs}/sensorium ingest F --store store"),
        ],
    )


def _name_shared_movies(shared: pd.DataFrame) -> list[dict[str, object]]:
    """Return a row for each tier of F and of A that have movies in common."""
    old, new = find_sessions(SESSIONS)
    rows = shared[(shared["scored_session"] == new.name) & (shared["trained_session"] == old.name)]
    return [
        {"tier of F": row.scored_tier, "tier of A": row.trained_tier, "movies": row.n_movies}
        for row in rows.itertuples()
    ]


def _programs_folder() -> str:
    """Return the folder of this environment's programs, as short as it can be named from here."""
    folder = Path(sys.executable).parent
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
