"""Converting and scoring on a Dask cluster: two workers of one thread each against two threads of one process.

    python benchmarks/cluster.py
    python benchmarks/cluster.py --trials 60 --work /tmp/bench

Scheduler and workers are processes of their own, new for every measurement. A quarter of the trials shows whether a
worker's memory grows with what it has done.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import scoring
import workbench

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fixtures.clusters import run_cluster

_CONVERT = """
import sys
from pathlib import Path
from sensorium_data.ingest import ingest_sessions
from sensorium_data.sessions import find_session

archive, store, address = sys.argv[1:]
source = str(Path(archive).parent)
ingest_sessions([find_session("F")], store, sources=[source], jobs=2, dask=address or None).raise_failures()
"""

_SCORE = """
import sys
from pathlib import Path
from sensorium_data.scoring import score_predictions

work, address = Path(sys.argv[1]), sys.argv[2]
score_predictions(str(work / "predictions"), str(work / "store"), jobs=2, dask=address or None)
"""

#: One a worker, and one that waits for its turn.
_SCORED_ALIASES = "ABC"


@dataclass(frozen=True)
class Measurement:
    """What a piece of work took, in the calling process and in the workers.

    Attributes
    ----------
    wall_s : float
        Of the calling process, which starts when the workers are there.
    caller_peak_bytes : int
        The most memory it took.
    worker_peak_bytes : tuple of int
        The most memory that each worker took.
    """

    wall_s: float
    caller_peak_bytes: int
    worker_peak_bytes: tuple[int, ...]


def measure(run: Callable[[str], workbench.Usage], *, with_dask: bool) -> Measurement:
    """Run something with a cluster's address, or with none."""
    if not with_dask:
        usage = run("")
        return Measurement(usage.wall_s, usage.peak_memory_bytes, ())
    with tempfile.TemporaryDirectory() as folder, run_cluster(Path(folder)) as cluster:
        usage = run(cluster.address)
        peaks = tuple(read_peak_bytes(worker.pid) for worker in cluster.workers)
    return Measurement(usage.wall_s, usage.peak_memory_bytes, peaks)


def read_peak_bytes(pid: int) -> int:
    """Return the largest resident size that a running process has had."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--scored-trials", type=int, default=56, help="trials of each scored session")
        parser.set_defaults(repeats=1)

    options = workbench.parse_arguments(__doc__ or "", n_trials=240, extend=extend, arguments=arguments)
    measured: dict[str, list[Measurement]] = {}
    loads = []
    with workbench.open_work_folder(options.work) as work:
        sizes = [
            (max(2, options.trials // 4), max(2, options.scored_trials // 4)),
            (options.trials, options.scored_trials),
        ]
        for n_converted, n_scored in sizes:
            archive = workbench.prepare_archive(work, n_converted, options.neurons)
            scored = scoring.prepare(work, _SCORED_ALIASES, n_scored, options.neurons)

            def convert(address: str, archive: Path = archive) -> workbench.Usage:
                usage = workbench.run_python(_CONVERT, archive, work / "store", address)
                shutil.rmtree(work / "store")
                return usage

            def score(address: str, scored: Path = scored) -> workbench.Usage:
                return workbench.run_python(_SCORE, scored, address)

            for _ in range(options.repeats):
                loads.append(workbench.describe_load())
                for what, run in (
                    (f"convert {n_converted} trials", convert),
                    (f"score {len(_SCORED_ALIASES)} sessions of {n_scored} trials", score),
                ):
                    for with_dask in (False, True):
                        way = "two Dask workers" if with_dask else "one process, two threads"
                        measured.setdefault(f"{what}: {way}", []).append(measure(run, with_dask=with_dask))
                        # What was written is flushed on its own time.
                        time.sleep(1)
    workbench.write_results(
        options.results,
        "cluster",
        "Converting and scoring on a Dask cluster",
        {name: getattr(options, name) for name in ("trials", "scored_trials", "neurons", "repeats")},
        {"load": loads, "runs": {name: [asdict(one) for one in runs] for name, runs in measured.items()}},
        [("Fastest of each", [_row(name, runs) for name, runs in measured.items()])],
    )


def _row(name: str, runs: Sequence[Measurement]) -> dict[str, Any]:
    best = min(runs, key=lambda run: run.wall_s)
    return {
        "what": name,
        "wall, s": best.wall_s,
        "peak MB of the caller": best.caller_peak_bytes / 1e6,
        "peak MB of a worker": " ".join(f"{peak / 1e6:.0f}" for peak in best.worker_peak_bytes),
    }


if __name__ == "__main__":
    main()
