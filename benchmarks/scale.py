"""How long a lab takes to ingest 10, 100 and 333 sessions on 1, 10 and 50 workers, what bounds it, and what it costs.

    python benchmarks/scale.py --work /tmp/bench
    python benchmarks/scale.py --sessions 333 --workers 20 --source-mbit-s 300 --cores 8 --price-per-hour 0.4

Costs are measured on this machine (`scale_costs.py`): the phases of an ingest, publication in stores of many sessions,
and the requests that an S3 server on loopback gets. What linking takes comes from the results of `linking.py`. A fleet
of workers, each running one `ingest` after the other, is then simulated with them (`fleet.py`). The links' rates, the
latency and the cores are parameters; nothing of them is measured. Sessions have the published trials, neurons and
frames of the ten, in turn.

The same simulation predicts the ingest of a few small sessions, which is then done: prediction and measurement stand
side by side. What an epoch of training reads is worked out from the results of `loader.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import workbench
from fleet import LINKS, Command, Fleet, Outcome, Plan, Stage, run_fleet
from measured_ingest import PHASES, Line, fit_phases, name_session, run_ingest
from scale_costs import Costs, measure_costs, read_costs
from scale_plan import MBIT, list_sessions, make_fleet, peak_memory_bytes, plan_ingest, simulate_all, store_size_bytes

from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Tier
from sensorium_data.testing.recordings import make_recording

#: The small sessions that are predicted and ingested: sessions, trials, neurons at most, frames.
_CHECKED_N_SESSIONS, _CHECKED_N_TRIALS, _CHECKED_N_NEURONS, _CHECKED_N_FRAMES = 4, 16, 1000, 100
_CHECKED = ((1, 1), (1, 2), (2, 1))


def tabulate_plan(
    found: Sequence[Mapping[str, Any]], costs: Costs, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Return a row for each number of sessions and of workers."""
    rows = []
    for one in found:
        if one["source_mbit_s"] != options.source_mbit_s:
            continue
        outcome: Outcome = one["outcome"]
        row: dict[str, object] = {
            "sessions": one["sessions"],
            "workers": one["workers"],
            "hours": outcome.duration_s / 3600,
            "CPU used": f"{outcome.cpu_share:.0%}",
            "held back by": _describe_limit(outcome),
            "waiting for a turn": f"{outcome.limit_share('turn'):.0%}",
            "most attempts": outcome.most_attempts,
            "peak memory of a worker, GB": peak_memory_bytes(costs, options, one["sessions"]) / 1e9,
            "store, GB": store_size_bytes(costs, options, one["sessions"]) / 1e9,
            "machine hours": outcome.worker_s / 3600,
        }
        if options.price_per_hour is not None:
            row["price"] = outcome.worker_s / 3600 * options.price_per_hour
        rows.append(row)
    return rows


def _describe_limit(outcome: Outcome) -> str:
    names = {"source": "link to the archives", "store": "link to the store", "turn": "one at a time"}
    return f"{names.get(outcome.limit, outcome.limit)} ({outcome.limit_share(outcome.limit):.0%})"


def tabulate_floors(costs: Costs, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return for each number of sessions what no number of workers can fall short of."""
    rows = []
    for n_sessions in options.sessions:
        alone = run_fleet(
            plan_ingest(costs, options, list_sessions(n_sessions)),
            dataclasses.replace(make_fleet(options, 1, math.inf), bytes_per_s=dict.fromkeys(LINKS, math.inf)),
        )
        source, store = (alone.n_bytes[link] for link in LINKS)
        rows.append(
            {
                "sessions": n_sessions,
                "archives, TB": source / 1e12,
                "hours on their link": source / (options.source_mbit_s * MBIT) / 3600,
                "to and from the store, TB": store / 1e12,
                "hours on its link ": store / (options.store_mbit_s * MBIT) / 3600,
                "core hours": alone.cpu_s / 3600,
                "hours one at a time, linking each session": (alone.stage_s["publish"] + alone.stage_s["link"]) / 3600,
            }
        )
    return rows


def tabulate_rates(found: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> list[dict[str, object]]:
    """Return for the largest number of sessions the hours by the rate of the link to the archives."""
    chosen = [one for one in found if one["sessions"] == max(options.sessions)]
    rates = sorted({one["source_mbit_s"] for one in chosen})
    return [
        {"workers": n_workers}
        | {
            f"{one['source_mbit_s']:,g} Mbit/s": f"{one['outcome'].duration_s / 3600:.3g} h, "
            f"{_describe_limit(one['outcome']).partition(' (')[0]}"
            for rate in rates
            for one in chosen
            if (one["workers"], one["source_mbit_s"]) == (n_workers, rate)
        }
        for n_workers in options.workers
    ]


def tabulate_turns(costs: Costs, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return for the largest number of sessions what larger commands and a faster store would change."""
    sessions = list_sessions(max(options.sessions))
    rates = sorted({options.store_mbit_s, 10 * options.store_mbit_s})
    rows = []
    for n_workers, rate in itertools.product(options.workers, rates):
        fleet = make_fleet(options, n_workers, options.source_mbit_s)
        fleet = dataclasses.replace(fleet, bytes_per_s={**fleet.bytes_per_s, "store": rate * MBIT})
        a_worker = math.ceil(len(sessions) / n_workers)
        row: dict[str, object] = {"workers": n_workers, "link to the store, Mbit/s": rate}
        for name, size in (("a command a session", 1), ("a command a worker", a_worker)):
            outcome = run_fleet(plan_ingest(costs, options, sessions, size), fleet)
            turn = f"{outcome.limit_share('turn'):.0%}"
            row[name] = f"{outcome.duration_s / 3600:.3g} h, {turn} one at a time"
        rows.append(row)
    return rows


def check_prediction(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict the ingest of a few small sessions, do it, and return both for each fleet."""
    n_neurons = min(options.neurons, _CHECKED_N_NEURONS)
    numbers = (_CHECKED_N_TRIALS // 4, _CHECKED_N_TRIALS)
    names = [name_session(number) for number in range(_CHECKED_N_SESSIONS)]
    rows = []
    with tempfile.TemporaryDirectory(dir=work) as folder:
        archives = {n: Path(folder, f"archives-{n}") for n in numbers}
        for n, place in archives.items():
            for number, name in enumerate(names[: None if n == max(numbers) else 1]):
                make_recording(
                    name,
                    ["train"] * n,
                    n_neurons=n_neurons,
                    n_frames=_CHECKED_N_FRAMES,
                    n_padded=_CHECKED_N_FRAMES,
                    movies={trial: 1000 * number + trial for trial in range(n)},
                    seed=number,
                ).write(place, method=8)
        runs = {
            n: [
                run_ingest(place, Path(folder, f"once-{n}-{repeat}"), 1, names[:1], options.precision)
                for repeat in range(options.repeats)
            ]
            for n, place in archives.items()
        }
        idle, busy = (fit_phases(runs, what) for what in ("cpu_s", "wall_s"))
        for n_workers, jobs in _CHECKED:
            predicted = {
                how: run_fleet(_plan_small(lines, len(names), jobs), Fleet(n_workers, jobs))
                for how, lines in (("idle", idle), ("busy", busy))
            }
            store = Path(folder, f"store-{n_workers}-{jobs}")
            measured = _ingest_with(n_workers, jobs, names, archives[max(numbers)], store, options.precision)
            rows.append(
                {
                    "workers": n_workers,
                    "jobs of each": jobs,
                    "predicted CPU s": predicted["idle"].cpu_s,
                    "CPU s": measured["cpu_s"],
                    "predicted s, idle machine": predicted["idle"].duration_s,
                    "predicted s, as busy as when measured": predicted["busy"].duration_s,
                    "s": measured["wall_s"],
                    "cores that it got": measured["cpu_s"] / measured["wall_s"],
                }
            )
    return rows


def _plan_small(lines: Mapping[str, Line], n_sessions: int, jobs: int) -> Plan:
    def stage(phase: str) -> Stage:
        return _stage(lines, phase, _CHECKED_N_TRIALS, jobs)

    own = Command([stage(phase) for phase in PHASES if phase != "publish"])
    return Plan(
        [own] * n_sessions,
        lambda n_listed: [stage("publish")],
        lambda n_linked, n_new: [stage("link" if n_new else "link again")],
    )


def _stage(lines: Mapping[str, Line], phase: str, n_trials: int, jobs: int) -> Stage:
    return Stage(phase, cpu_s=lines[phase].at(n_trials), most_cores=jobs if phase in ("convert", "verify") else 1)


def _ingest_with(
    n_workers: int, jobs: int, names: Sequence[str], archives: Path, store: Path, precision: str
) -> dict[str, float]:
    """Have processes ingest sessions, one each at a time; return the time that it took and theirs."""
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        left.put(name)
    cpu_s: list[float] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not left.empty():
                (phases,) = run_ingest(archives, store, jobs, [left.get()], precision)["sessions"]
                # The last one is no part of an ingest.
                cpu_s.append(sum(took["cpu_s"] for phase, took in phases.items() if phase != "link again"))
        except BaseException as failure:  # noqa: BLE001 - raised below, in the thread that waits
            failures.append(failure)

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(n_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return {"wall_s": time.perf_counter() - started, "cpu_s": sum(cpu_s)}


def compare_real_size(costs: Costs, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return what one session of real size takes on a local disk by these costs, and by the results of `ingest.py`."""
    measured = json.loads(options.ingest.read_text())
    n_trials, jobs = measured["parameters"]["trials"], measured["parameters"]["jobs"]
    runs = measured["measured"]["ingest"]["exact"]
    predicted = run_fleet(
        Plan([Command([_stage(costs.phases, phase, n_trials, jobs) for phase in PHASES])]), Fleet(1, jobs)
    )
    cpu_s, wall_s = (statistics.median(run[key] for run in runs) for key in ("cpu_s", "wall_s"))
    return [
        {
            "trials": n_trials,
            "jobs": jobs,
            "predicted CPU s": predicted.cpu_s,
            "CPU s": cpu_s,
            "predicted s": predicted.duration_s,
            "s": wall_s,
        }
    ]


def tabulate_epochs(options: argparse.Namespace) -> list[dict[str, object]]:
    """Return what an epoch reads and how long reading takes, from the results of `loader.py`."""
    runs = json.loads(options.loader.read_text())["measured"]["runs"]
    rows = []
    for n_sessions in options.sessions:
        n_trials = sum(session.n_trials_by_tier[Tier.TRAIN] for session in list_sessions(n_sessions))
        for precision in ("exact", "compact"):
            measured = runs[f"80: ours, {precision}, 8 windows a trial, nothing kept, cold"]
            n_windows, wall_s, n_bytes = (
                statistics.median(run[key] for run in measured) for key in ("n_windows", "wall_s", "bytes_read")
            )
            # Eight windows of each trial, which is read once for all.
            of_trial = 8 / n_windows
            read_bytes = n_trials * of_trial * n_bytes
            rows.append(
                {
                    "sessions": n_sessions,
                    "precision": precision,
                    "trials": n_trials,
                    "TB an epoch": read_bytes / 1e12,
                    "hours, local disk": n_trials * of_trial * wall_s / 3600,
                    "hours on the link to the store": read_bytes / (options.store_mbit_s * MBIT) / 3600,
                    "TB to keep all trials in memory": n_trials
                    * 4
                    * workbench.SESSION.n_frames_padded
                    * (workbench.N_NEURONS + FRAME_HEIGHT * FRAME_WIDTH)
                    / 1e12,
                }
            )
    return rows


def tabulate_costs(costs: Costs) -> list[dict[str, object]]:
    """Return what a session and what each of its trials takes."""
    rows: list[dict[str, object]] = [
        {"what": f"{phase}, CPU s", "a session": line.fixed, "a trial": line.each}
        for phase, line in costs.phases.items()
    ]
    for what, line in (
        ("archive", costs.source_bytes),
        ("store", costs.store_bytes),
        ("videos in the store", costs.video_bytes),
        ("ledger", costs.ledger_bytes),
        ("screen of movies", costs.screen_bytes),
    ):
        rows.append({"what": f"{what}, MB", "a session": line.fixed / 1e6, "a trial": line.each / 1e6})
    stored = costs.store_requests.values()
    for what, line in (
        ("requests for the archive", costs.source_requests),
        ("requests to an S3 store", Line(sum(one.fixed for one in stored), sum(one.each for one in stored))),
    ):
        rows.append({"what": what, "a session": line.fixed, "a trial": line.each})
    memory = costs.memory
    rows.append({"what": "memory, MB", "a session": memory["fixed"] / 1e6, "a trial": memory["trial"] / 1e6})
    rows.append({"what": "memory of each trial at a time, MB", "a session": memory["job"] / 1e6, "a trial": ""})
    rows.append({"what": "request to an S3 store, CPU ms", "a session": 1e3 * costs.request_s, "a trial": ""})
    return rows


def tabulate_shared(costs: Costs) -> list[dict[str, object]]:
    """Return what is done by one worker at a time, and how it grows with the sessions in the store."""
    linking = costs.linking
    return [
        {"what": "listing a session, CPU s", "once": costs.root_s.fixed, "each session there": costs.root_s.each},
        {"what": "reading the list, CPU s", "once": costs.listing_s.fixed, "each session there": costs.listing_s.each},
        {
            "what": "the list, MB",
            "once": costs.root_bytes.fixed / 1e6,
            "each session there": costs.root_bytes.each / 1e6,
        },
        {
            "what": "linking a session, CPU s",
            "once": linking.fixed_s + linking.new_s,
            "each session there": linking.known_s,
        },
        {"what": "linking a session, requests", "once": linking.n_fixed, "each session there": linking.n_known},
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, simulate and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--sessions", type=int, nargs="+", default=[10, 100, 333], help="sessions (default: 10 100 333)")
        add("--workers", type=int, nargs="+", default=[1, 10, 50], help="machines (default: 1 10 50)")
        add("--cores", type=int, default=2, help="cores of each (default: %(default)s)")
        of_all = "all workers together (default: %(default)g)"
        add("--source-mbit-s", type=float, default=1000.0, help=f"link to the archives, {of_all}")
        add("--store-mbit-s", type=float, default=1000.0, help=f"link to the store, {of_all}")
        add("--latency-ms", type=float, default=30.0, help="of a request (default: %(default)g)")
        places = "an S3 bucket, or a folder that all workers have (default: %(default)s)"
        add("--store", choices=["object", "folder"], default="object", help=places)
        add("--precision", default="exact", help="of the store (default: %(default)s)")
        add("--price-per-hour", type=float, help="of a machine (default: machine hours alone)")
        listed = "sessions in the stores in which listing is measured (default: 10 100 333)"
        add("--listed", type=int, nargs="+", default=[10, 100, 333], help=listed)
        for name in ("linking", "loader", "ingest"):
            add(f"--{name}", type=Path, default=workbench.RESULTS / f"{name}.json", help=f"results of {name}.py")
        add("--per-command", type=int, default=1, help="sessions that one command ingests (default: %(default)s)")
        add("--costs", type=Path, help="a scale.json: simulate with its costs (default: measure them)")
        add("--no-vary", dest="vary", action="store_false", help="one rate of the link to the archives")
        add("--json", action="store_true", help="print the JSON document, too")

    options = workbench.parse_arguments(__doc__ or "", n_trials=32, extend=extend, arguments=arguments)
    if options.costs is None:
        with workbench.open_work_folder(options.work) as work:
            costs, figures = measure_costs(work, options)
            figures["checked"] = check_prediction(work, options)
            figures["time"] = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    else:
        document = json.loads(options.costs.read_text())
        # They are those of one size of archive.
        options.trials, options.neurons = (document["parameters"][name] for name in ("trials", "neurons"))
        costs, figures = read_costs(document), document["measured"]
    found = simulate_all(costs, options)
    names = "trials neurons repeats cores source_mbit_s store_mbit_s latency_ms store precision per_command"
    epochs = "Reading an epoch of eight windows of each training trial, from the results of loader.py"
    tables = [
        ("Simulated: an ingest of all sessions", tabulate_plan(found, costs, options)),
        ("Simulated: what no number of workers falls short of", tabulate_floors(costs, options)),
        (
            "Simulated: the largest number of sessions, by the rate of the link to the archives",
            tabulate_rates(found, options),
        ),
        ("Simulated: the largest number of sessions, by how they are linked", tabulate_turns(costs, options)),
        ("Measured: what a session costs, and each of its trials", tabulate_costs(costs)),
        ("Measured: what one worker at a time does", tabulate_shared(costs)),
        ("Small sessions, predicted and ingested", figures["checked"]),
        (
            "One session of real size on a local disk, predicted and as ingest.py measured it",
            compare_real_size(costs, options),
        ),
        (epochs, tabulate_epochs(options)),
    ]
    workbench.write_results(
        options.results,
        "scale",
        "Many sessions on many workers",
        {name: getattr(options, name) for name in names.split()}
        | {"costs of": figures["time"], "load then": max(load[0] for load in figures["load"])},
        {
            **figures,
            "costs": dataclasses.asdict(costs),
            "outcomes": [{**one, "outcome": dataclasses.asdict(one["outcome"])} for one in found],
        },
        tables,
    )
    if options.json:
        print((options.results / "scale.json").read_text())


if __name__ == "__main__":
    main()
