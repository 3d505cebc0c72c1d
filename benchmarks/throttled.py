"""Ingesting from a server that gives 1 MB/s to each connection: many connections against one.

    python benchmarks/throttled.py --trials 12

The server counts requests and bytes: each member's bytes travel once, and the index takes three requests at most.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workbench

from sensorium_data.testing import Throttle, serve_directory

_CONVERT = """
import sys
from sensorium_data.ingest import convert_session
from sensorium_data.sessions import find_session

url, store, jobs = sys.argv[1:]
convert_session(find_session("F"), store, source=url, jobs=int(jobs))
"""


def ingest_throttled(archive: Path, store: Path, *, jobs: int, bytes_per_s: float) -> dict[str, Any]:
    """Ingest the archive through a slow server, and return a row of what it took."""
    with serve_directory(archive.parent, faults=[Throttle(bytes_per_s)]) as server:
        usage = workbench.run_python(_CONVERT, server.url, store, jobs)
        n_bytes, n_requests = server.n_bytes_sent, len(server.requests)
    shutil.rmtree(store)
    return {
        "jobs": jobs,
        "wall s": usage.wall_s,
        "CPU s": usage.cpu_s,
        "MB/s": n_bytes / usage.wall_s / 1e6,
        "requests": n_requests,
        "MB": n_bytes / 1e6,
        "of the members' size": n_bytes / _packed_size_bytes(archive),
    }


def _packed_size_bytes(archive: Path) -> int:
    with zipfile.ZipFile(archive) as content:
        return sum(member.compress_size for member in content.infolist())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--jobs", type=int, nargs="+", default=[1, 4, 16], help="numbers of connections to try")
        parser.add_argument("--rate", type=float, default=1e6, help="bytes/s a connection (default: %(default)g)")

    options = workbench.parse_arguments(__doc__ or "", n_trials=12, extend=extend, arguments=arguments)
    with workbench.open_work_folder(options.work) as work:
        archive = workbench.prepare_archive(work, options.trials, options.neurons)
        rows = [ingest_throttled(archive, work / "store", jobs=jobs, bytes_per_s=options.rate) for jobs in options.jobs]
    slowest = rows[0]["wall s"]
    rows = [{**row, "faster than the first": slowest / row["wall s"]} for row in rows]
    workbench.write_results(
        options.results,
        "throttled",
        "Ingesting from a server that limits each connection",
        {"trials": options.trials, "neurons": options.neurons, "bytes per second and connection": options.rate},
        {"load": workbench.describe_load()},
        [("One run each", rows)],
    )


if __name__ == "__main__":
    main()
