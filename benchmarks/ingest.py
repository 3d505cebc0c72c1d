"""An archive on the local disk into a finished, verified store, against `unzip` of the same archive.

    python benchmarks/ingest.py                        # real size: 711 trials, needs about 40 GB of space
    python benchmarks/ingest.py --trials 60 --work /tmp/bench

`unzip` writes the archive's files and does no more. Ingesting decodes, checks, rounds and compresses them, and reads
back what it wrote. Each repeat runs everything in turn; medians are compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workbench

_CONVERT = """
import sys
from sensorium_data.ingest import convert_session
from sensorium_data.store import Precision
from sensorium_data.sessions import find_session

archive, store, jobs, precision = sys.argv[1:]
convert_session(find_session("F"), store, source=archive, jobs=int(jobs), precision=Precision(precision))
"""


def unzip(archive: Path, folder: Path) -> workbench.Usage:
    """Unpack the archive the usual way, and delete what came out."""
    usage = workbench.run_measured(["unzip", "-q", "-o", str(archive), "-d", str(folder)])
    shutil.rmtree(folder)
    return usage


def ingest(archive: Path, store: Path, *, jobs: int, precision: str) -> tuple[workbench.Usage, int]:
    """Ingest the archive into a new store in a process of its own; return what it took and the store's size."""
    usage = workbench.run_python(_CONVERT, archive, store, jobs, precision)
    size_bytes = workbench.store_size_bytes(store)
    shutil.rmtree(store)
    return usage, size_bytes


def settle(archive: Path) -> None:
    """Bring the disk and the page cache into the same state before each measurement.

    What the one before wrote is flushed on its own time, and what it pushed out of the cache is read again: without
    this, whoever comes after `unzip` reads the archive from the disk, and the others from memory.
    """
    os.sync()
    with archive.open("rb") as file:
        while file.read(1 << 24):
            pass


def measure_few_trials(work: Path, options: argparse.Namespace) -> tuple[int, dict[str, workbench.Usage]]:
    """Ingest an eighth of the trials: a number, and what it took by precision."""
    n_trials = max(2, options.trials // 8)
    archive = workbench.prepare_archive(work, n_trials, options.neurons)
    return n_trials, {
        precision: ingest(archive, work / "store", jobs=options.jobs, precision=precision)[0]
        for precision in options.precision
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--precision", nargs="+", default=["exact", "compact"], help="profiles (default: both)")
        parser.add_argument("--jobs", type=int, default=2, help="trials converted at once (default: %(default)s)")

    options = workbench.parse_arguments(__doc__ or "", extend=extend, arguments=arguments)
    unzipped: list[workbench.Usage] = []
    ingested: dict[str, list[workbench.Usage]] = {precision: [] for precision in options.precision}
    sizes: dict[str, int] = {}
    loads = []
    with workbench.open_work_folder(options.work) as work:
        archive = workbench.prepare_archive(work, options.trials, options.neurons)
        with zipfile.ZipFile(archive) as content:
            unpacked = sum(member.file_size for member in content.infolist())
        archive_size_bytes = archive.stat().st_size
        for _ in range(options.repeats):
            settle(archive)
            loads.append(workbench.describe_load())
            unzipped.append(unzip(archive, work / "unzipped"))
            for precision, runs in ingested.items():
                settle(archive)
                usage, sizes[precision] = ingest(archive, work / "store", jobs=options.jobs, precision=precision)
                runs.append(usage)
        n_few, of_few = measure_few_trials(work, options)
    usual = workbench.median_usage(unzipped)
    memory = [
        {"precision": precision, "trials": n_trials, "peak MB": usage.peak_memory_bytes / 1e6}
        for precision, runs in ingested.items()
        for n_trials, usage in ((n_few, of_few[precision]), (options.trials, workbench.median_usage(runs)))
    ]
    rows: list[dict[str, Any]] = [_row("unzip", usual, usual)]
    rows += [
        _row(f"ingest --precision {precision}", workbench.median_usage(runs), usual)
        for precision, runs in ingested.items()
    ]
    stored = [
        {
            "what": name,
            "GB": size_bytes / 1e9,
            "of the zip": size_bytes / archive_size_bytes,
            "of the files unpacked": size_bytes / unpacked,
        }
        for name, size_bytes in (
            ("files unpacked", unpacked),
            ("zip", archive_size_bytes),
            *((f"store, {precision}", size) for precision, size in sizes.items()),
        )
    ]
    workbench.write_results(
        options.results,
        "ingest",
        "Archive to finished, verified store",
        {
            "trials": options.trials,
            "neurons": options.neurons,
            "jobs": options.jobs,
            "repeats": options.repeats,
        },
        {"load_before_each_repeat": loads, "unzip": unzipped, "ingest": ingested, "store_size_bytes": sizes},
        [
            ("Time, medians; the load of other work on the machine is in the JSON file", rows),
            ("Size", stored),
            ("Peak memory by the number of trials", memory),
        ],
    )


def _row(name: str, usage: workbench.Usage, usual: workbench.Usage) -> dict[str, Any]:
    return {
        "what": name,
        "wall s": usage.wall_s,
        "CPU s": usage.cpu_s,
        "peak MB": usage.peak_memory_bytes / 1e6,
        "faster than unzip": usual.wall_s / usage.wall_s,
    }


if __name__ == "__main__":
    main()
