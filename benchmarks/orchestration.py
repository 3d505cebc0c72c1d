"""What Prefect adds: the pipeline as a flow on the embedded server against plain functions; reruns of finished work.

    python benchmarks/orchestration.py

Both ways do the same work on the same simulated archives, each in a process of its own: convert, link movies, check
quality, train, predict, score, submit. Afterwards both run again, on finished work. The flow has a database of its own,
copied from the template that a first server has left; what that first start takes is a row of its own. Reruns of an
ingest are measured with a server that ends with the command, and with one that stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workbench

from flows.lab import stop_lasting_server

_PARTS = ("imports", "server", "work")

_PLAIN = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from models.config import override
from models.prediction import predict
from models.registry import get_preset
from models.training import train
from sensorium_data.ingest import ingest_sessions
from sensorium_data.movies import report_leakage
from sensorium_data.movies import link_movies
from sensorium_data.quality import check_session
from sensorium_data.scoring import score_predictions
from sensorium_data.sessions import Tier, Track, find_sessions
from sensorium_data.submission import write_submission

archives, out, names, overrides = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
imported = time.perf_counter()
store = str(out / "store")
done = ingest_sessions(find_sessions(names), store, sources=[archives])
done.raise_failures()
link_movies(store)
report_leakage(store)
for one in done.sessions:
    if one.status != "already done":
        check_session(store, one.session)
config = override(get_preset("factorized3d-debug"), overrides)
run = train(config, store, [one.session for one in done.sessions], out / "runs").run
predictions = str(out / "predictions")
predict([run], store, [str(tier) for tier in Tier if tier is not Tier.TRAIN], predictions)
score_predictions(predictions, store, truth=f"{archives}/truth")
for track in Track:
    write_submission(predictions, store, track=track, out=str(out / "submission"), runs=str(out / "runs"))
print(json.dumps({"imports": imported - began, "server": 0.0, "work": time.perf_counter() - imported}))
"""

_FLOW = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from flows.lab import start_embedded_server

archives, out, names, overrides = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
server = start_embedded_server(out / "prefect", log_level="WARNING")
from flows.pipeline import pipeline

imported = time.perf_counter()
server.wait_until_healthy()
served = time.perf_counter()
pipeline(
    sessions=names, store=str(out / "store"), out=str(out / "out"), preset="factorized3d-debug", source=archives,
    runs=str(out / "runs"), overrides=overrides, truth=f"{archives}/truth",
)
ended = time.perf_counter()
print(json.dumps({"imports": imported - began, "server": served - imported, "work": ended - served}))
"""

_START = """
import json, sys, time
began = time.perf_counter()
from pathlib import Path
from flows.lab import start_embedded_server

imported = time.perf_counter()
start_embedded_server(Path(sys.argv[1])).wait_until_healthy()
print(json.dumps({"imports": imported - began, "server": time.perf_counter() - imported, "work": 0.0}))
"""

_NOTHING_NEW = """
import json, os, sys, time
began = time.perf_counter()
from pathlib import Path
from flows.lab import start_embedded_server, use_lasting_server

archives, out = sys.argv[1], Path(sys.argv[2])
os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
stays = sys.argv[4] == "stays"
server = use_lasting_server(out / "prefect", idle_s=60) if stays else start_embedded_server(out / "prefect")
from flows.ingest import ingest

imported = time.perf_counter()
server.wait_until_healthy()
served = time.perf_counter()
reports = ingest(sessions=["all"], store=str(out / "store"), source=archives)
ended = time.perf_counter()
assert sys.argv[3] == "first" or all(report.status == "already done" for report in reports)
print(json.dumps({"imports": imported - began, "server": served - imported, "work": ended - served}))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--epochs", type=int, default=3, help="epochs to train (default: %(default)s)")
        parser.add_argument(
            "--rerun-trials", type=int, default=24, help="trials of each of the ten sessions of a rerun"
        )
        parser.set_defaults(neurons=400)

    options = workbench.parse_arguments(__doc__ or "", n_trials=140, extend=extend, arguments=arguments)
    with workbench.open_work_folder(options.work) as work:
        measured = measure(work.absolute(), options)
    rows = [_sum_up(what, measured) for what in measured]
    plain, flow = (rows[number]["whole, s"] for number in (0, 1))
    added = [{"added by Prefect, s": flow - plain, "added, share of the plain functions": f"{flow / plain - 1:.1%}"}]
    workbench.write_results(
        options.results,
        "orchestration",
        "The pipeline with Prefect and without",
        {name: getattr(options, name) for name in ("trials", "neurons", "epochs", "rerun_trials", "repeats")},
        {"runs": measured},
        [("Two sessions, from archives to zips", rows), ("Whole processes, finished work left aside", added)],
    )


def measure(work: Path, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Return the seconds of each part of each run."""
    two = _simulate(work / f"two-{options.trials}x{options.neurons}", ["F", "G"], options.trials, options.neurons)
    ten = _simulate(work / f"ten-{options.rerun_trials}x24", ["all"], options.rerun_trials, 24)
    settings = [json.dumps(["F", "G"]), json.dumps({"max_epochs": str(options.epochs)})]
    measured: dict[str, list[dict[str, float]]] = {}
    scratch = work / "orchestration"

    def note(what: str, code: str, *arguments: str) -> None:
        taken = _time(code, scratch / "cache", *arguments)
        print(f"{what}: {taken}", file=sys.stderr)
        measured.setdefault(what, []).append(taken)

    for _ in range(options.repeats):
        shutil.rmtree(scratch, ignore_errors=True)
        note("the first server of a Prefect version", _START, str(scratch / "first"))
        for suffix in ("", ", again"):
            for what, code in (("plain functions", _PLAIN), ("flow", _FLOW)):
                note(f"{what}{suffix}", code, str(two), str(scratch / what.split()[0]), *settings)
        places = (str(ten), str(scratch / "ten"))
        _time(_NOTHING_NEW, scratch / "cache", *places, "first", "ends")
        note("ingest of ten sessions, nothing new", _NOTHING_NEW, *places, "again", "ends")
        try:
            _time(_NOTHING_NEW, scratch / "cache", *places, "again", "stays")
            note("the same with a server that stays", _NOTHING_NEW, *places, "again", "stays")
        finally:
            stop_lasting_server(scratch / "ten" / "prefect")
        shutil.rmtree(scratch)
    order = ["plain functions", "flow", "plain functions, again", "flow, again"]
    return {what: measured[what] for what in [*order, *(name for name in measured if name not in order)]}


def _simulate(folder: Path, sessions: Sequence[str], n_trials: int, n_neurons: int) -> Path:
    from sensorium_data.sessions import find_sessions
    from sensorium_data.simulation import simulate

    simulate(folder, sessions=find_sessions(sessions), n_trials=n_trials, n_neurons=n_neurons, jobs=2)
    return folder


def _time(code: str, cache: Path, *arguments: str) -> dict[str, float]:
    """Run code in a process of its own, and return the seconds that it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SENSORIUM_"))}
    command = [sys.executable, "-c", code, *arguments]
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return taken


def _sum_up(what: str, measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    parts = {part: statistics.median(run[part] for run in measured[what]) for part in _PARTS}
    whole = statistics.median(sum(run.values()) for run in measured[what])
    return {"what": what, **{f"{part}, s": seconds for part, seconds in parts.items()}, "whole, s": whole}


if __name__ == "__main__":
    main()
