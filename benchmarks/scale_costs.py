"""What one session costs a worker, measured here: processor time, bytes, requests and memory of each phase.

`scale.py` plans with these costs. An ingest is measured phase by phase (`measured_ingest.py`) at two numbers of trials:
what grows is a trial's cost, and the rest is a session's. What linking takes comes from the results of `linking.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workbench
from measured_ingest import PHASES, Line, count_requests, fit_phases, name_session, run_ingest

from sensorium_data.store import METADATA_KEY

__all__ = ["Costs", "Linking", "measure_costs", "read_costs"]

_PUBLISH = """
import json, sys, time
from pathlib import Path
from sensorium_data.files import open_objects
from sensorium_data.store import METADATA_KEY, Store, publish_root

root = sys.argv[1]
objects = open_objects(root)
publish_root(objects)
began = time.process_time()
publish_root(objects)
published = time.process_time()
n_sessions = len(Store.at(root).listed)
listed = time.process_time()
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({
    "n_sessions": n_sessions, "publish_cpu_s": published - began, "list_cpu_s": listed - published,
    "root_bytes": len(objects.read(METADATA_KEY)), "peak_memory_bytes": 1024 * int(peak.split()[1]),
}))
"""


@dataclass(frozen=True)
class Linking:
    """What linking movies takes.

    Attributes
    ----------
    fixed_s, known_s, new_s : float
        Processor time: of each run, of each session that is linked already, of each that is not.
    n_fixed, n_known, n_movie : float
        Requests: of each run, of each session linked already, of each movie that others show, too.
    n_again : Line
        Requests by the number of sessions where nothing is new.
    again_s : float
        Processor time for each trial in the store where nothing is new.
    peak_memory_bytes : int
        The largest measured.
    """

    fixed_s: float
    known_s: float
    new_s: float
    n_fixed: float
    n_known: float
    n_movie: float
    n_again: Line
    again_s: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Costs:
    """What an ingest takes; every :class:`Line` grows with the trials unless it says otherwise.

    Attributes
    ----------
    phases : mapping of str to Line
        Processor time of each phase of :data:`PHASES`.
    source_bytes, store_bytes, video_bytes, ledger_bytes, screen_bytes : Line
        Sizes: of the archive, of the session's objects, of its videos in the store, of its ledger and its screen.
    source_requests : Line
        Requests to the server of archives.
    store_requests : mapping of str to Line
        Requests to an S3 store, by phase.
    root_transfers : mapping of str to float
        Of these, those for the metadata of the store's root, by phase.
    request_s : float
        Processor time of a request to an S3 store.
    root_s, root_bytes, listing_s, root_peak_bytes : Line
        By the number of sessions: processor time of writing the root's metadata, their size, processor time of reading
        them, and the peak memory of doing so.
    linking : Linking
        What linking takes.
    memory : mapping of str to float
        Bytes of peak memory: ``fixed``, for each ``job``, and for each ``trial``.
    """

    phases: Mapping[str, Line]
    source_bytes: Line
    store_bytes: Line
    video_bytes: Line
    ledger_bytes: Line
    screen_bytes: Line
    source_requests: Line
    store_requests: Mapping[str, Line]
    root_transfers: Mapping[str, float]
    request_s: float
    root_s: Line
    root_bytes: Line
    listing_s: Line
    root_peak_bytes: Line
    linking: Linking
    memory: Mapping[str, float]


def read_costs(document: Mapping[str, Any]) -> Costs:
    """Return the costs in a document that `scale.py` wrote."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return (
                Line(**value) if value.keys() == {"fixed", "each"} else {key: read(one) for key, one in value.items()}
            )
        return value

    found = read(document["measured"]["costs"])
    return Costs(**{**found, "linking": Linking(**found["linking"])})


def measure_costs(work: Path, options: argparse.Namespace) -> tuple[Costs, dict[str, Any]]:
    """Measure everything, and return it with every single figure."""
    numbers = (max(2, options.trials // 4), options.trials)
    archives = {n: workbench.prepare_archive(work, n, options.neurons) for n in numbers}
    name = workbench.SESSION.name
    runs: dict[int, list[dict[str, Any]]] = {n: [] for n in numbers}
    of_two_jobs = []
    load = [workbench.describe_load()]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for _ in range(options.repeats):
            for n, archive in archives.items():
                runs[n].append(_ingest_anew(archive, f"{folder}/store-{n}", 1, name, options.precision))
            of_two_jobs.append(_ingest_anew(archives[max(numbers)], f"{folder}/two", 2, name, options.precision))
            load.append(workbench.describe_load())
        stores = {n: Path(folder, f"store-{n}") for n in numbers}
        sizes = {
            part: Line.through({n: _size(store, part) for n, store in stores.items()})
            for part in ("*/**/*", "*/videos/c/**/*", "*/ledger.json", "movies/*.screen")
        }
        published = measure_publication(stores[min(numbers)], Path(folder), options.listed)
    requests = count_requests(work, options.precision)
    linked = json.loads(options.linking.read_text())["measured"]["steps"]
    load.append(workbench.describe_load())
    cpu = fit_phases(runs, "cpu_s")
    by_listed = {key: {one["n_sessions"]: one[key] for one in published} for key in published[0]}
    costs = Costs(
        phases={phase: cpu[phase] for phase in PHASES},
        source_bytes=Line.through({n: archive.stat().st_size for n, archive in archives.items()}),
        store_bytes=sizes["*/**/*"],
        video_bytes=sizes["*/videos/c/**/*"],
        ledger_bytes=sizes["*/ledger.json"],
        screen_bytes=sizes["movies/*.screen"],
        source_requests=requests["source"],
        store_requests=requests["store"],
        root_transfers=requests["root"],
        request_s=requests["request_s"],
        root_s=Line.through(by_listed["publish_cpu_s"]),
        root_bytes=Line.through(by_listed["root_bytes"]),
        listing_s=Line.through(by_listed["list_cpu_s"]),
        root_peak_bytes=Line.through(by_listed["peak_memory_bytes"]),
        linking=Linking(**fit_linking(linked), **requests["linking"], again_s=cpu["link again"].each),
        memory=_fit_memory(runs, of_two_jobs),
    )
    figures = {
        "ingest": runs,
        "ingest_two_jobs": of_two_jobs,
        "publication": published,
        "counted": requests["runs"],
        "load": load,
    }
    return costs, figures


def _ingest_anew(archive: Path, store: str, jobs: int, name: str, precision: str) -> dict[str, Any]:
    shutil.rmtree(store, ignore_errors=True)
    return run_ingest(archive.parent, store, jobs, [name], precision)


def _size(store: Path, pattern: str) -> float:
    return float(
        sum(path.stat().st_size for path in store.glob(pattern) if path.is_file() and ".partial" not in str(path))
    )


def _fit_memory(runs: Mapping[int, Sequence[Mapping[str, Any]]], two: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    peaks = {n: statistics.median(run["peak_memory_bytes"] for run in several) for n, several in runs.items()}
    line = Line.through(peaks)
    job = max(0.0, statistics.median(run["peak_memory_bytes"] for run in two) - peaks[max(peaks)])
    return {"fixed": line.fixed - job, "job": job, "trial": line.each}


def measure_publication(store: Path, folder: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return what listing takes in stores of so many sessions: copies of one, of which only the metadata are read."""
    (group,) = [path for path in store.iterdir() if (path / "ledger.json").is_file()]
    measured = []
    for n_sessions in sorted(numbers):
        root = folder / f"listed-{n_sessions}"
        for number in range(n_sessions):
            copy = root / name_session(number)
            copy.mkdir(parents=True)
            for key in (METADATA_KEY, "ledger.json"):
                shutil.copyfile(group / key, copy / key)
        done = subprocess.run(
            [sys.executable, "-c", _PUBLISH, str(root)], stdout=subprocess.PIPE, text=True, check=True
        )
        measured.append(json.loads(done.stdout))
        if measured[-1]["n_sessions"] != n_sessions:
            raise AssertionError(f"{measured[-1]['n_sessions']} of {n_sessions} sessions were listed")
        shutil.rmtree(root)
    return measured


def fit_linking(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what one run of linking takes, what each session adds that is known, and each that is not.

    The first comes from the steps that link one more session, and the last from those that link many.
    """
    ours = [step for step in steps if step["way"] == "ours"]
    one_more = Line.through({step["n_known"]: step["cpu_s"] for step in ours if step["what"] == "one more"})
    many = [step for step in ours if step["what"] == "the others"]
    n_new = sum(step["n_sessions"] - step["n_known"] - 1 for step in many)
    new_s = sum(step["cpu_s"] - one_more.at(step["n_known"]) for step in many) / n_new
    return {
        "fixed_s": max(0.0, one_more.fixed - new_s),
        "known_s": one_more.each,
        "new_s": max(0.0, new_s),
        "peak_memory_bytes": max(step["peak_memory_bytes"] for step in ours),
    }
