"""What the benchmarks share: an archive of real size, measured child processes, and results with the machine's name.

Every benchmark runs the usual way and this package's way in turn, in one run on one machine, and prints the ratio.
Besides wall time it reports CPU seconds, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sensorium_data.sessions import find_session
from sensorium_data.simulation import ZipMember, ZipWriter, simulate

__all__ = [
    "Usage",
    "describe_load",
    "format_table",
    "list_trials",
    "median_usage",
    "open_work_folder",
    "parse_arguments",
    "prepare_archive",
    "read_trial_arrays",
    "run_measured",
    "run_python",
    "store_size_bytes",
    "write_results",
]

RESULTS = Path(__file__).parent / "results"

#: The session whose shape is imitated, and its size as published.
SESSION = find_session("F")
N_TRIALS, N_NEURONS = 711, 7863

#: What zip tools use unless told otherwise.
_DEFLATE_LEVEL = 6
_RAW_DEFLATE = -15


@dataclass(frozen=True)
class Usage:
    """What a child process took.

    Attributes
    ----------
    wall_s : float
        Time from its start to its end.
    cpu_s : float
        User and system time of all its threads.
    peak_memory_bytes : int
        Largest resident size.
    """

    wall_s: float
    cpu_s: float
    peak_memory_bytes: int


def parse_arguments(
    description: str,
    *,
    n_trials: int = N_TRIALS,
    extend: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    arguments: Sequence[str] | None = None,
) -> argparse.Namespace:
    """Parse a benchmark's command line.

    Parameters
    ----------
    description : str
        For ``--help``.
    n_trials : int
        Trials unless told otherwise.
    extend : callable
        Adds the benchmark's own options.
    arguments : sequence of str, optional
        By default the command line's.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--trials", type=int, default=n_trials, help="trials in the archive (default: %(default)s)")
    parser.add_argument("--neurons", type=int, default=N_NEURONS, help="neurons in it (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="times everything is measured (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder that keeps the archive for the next run (default: none does)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results go (default: %(default)s)")
    extend(parser)
    return parser.parse_args(arguments)


@contextlib.contextmanager
def open_work_folder(kept: Path | None) -> Iterator[Path]:
    """Yield the folder to work in: ``kept`` if given, otherwise a temporary one that is deleted."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="sensorium-bench-") as folder:
        yield Path(folder)


def prepare_archive(work: Path, n_trials: int, n_neurons: int, *, jobs: int = 2) -> Path:
    """Return an archive with the shape and the statistics of session F's, made unless the folder has it.

    The simulated recording is packed once more, the way the published archives are: with mantissas that are
    noise to the last bit, which deflate hardly compresses, and by zlib at its usual level.

    Parameters
    ----------
    work : Path
        Where it is kept.
    n_trials, n_neurons : int
        Its size.
    jobs : int
        Trials made at once.
    """
    folder = work / f"archive-{n_trials}x{n_neurons}"
    finished = folder / f"{SESSION.name}.zip"
    if finished.exists():
        return finished
    print(f"making an archive of {n_trials} trials x {n_neurons} neurons in {folder}", file=sys.stderr)
    # In a process of its own: a child's peak memory is never less than that of the process which starts it.
    subprocess.run(
        [sys.executable, __file__, str(folder), str(n_trials), str(n_neurons), str(jobs)],
        check=True,
    )
    return finished


def make_archive(folder: Path, n_trials: int, n_neurons: int, jobs: int) -> None:
    """Make the archive that :func:`prepare_archive` returns."""
    folder.mkdir(parents=True, exist_ok=True)
    simulated = folder / "simulated"
    shutil.rmtree(simulated, ignore_errors=True)
    simulate(simulated, sessions=[SESSION], n_trials=n_trials, n_neurons=n_neurons, jobs=jobs)
    # The truth is larger than the archive and not needed.
    shutil.rmtree(simulated / "truth")
    _repack(simulated / f"{SESSION.name}.zip", folder / f"{SESSION.name}.zip", jobs)
    shutil.rmtree(simulated)


def _repack(source: Path, target: Path, jobs: int) -> None:
    with (
        zipfile.ZipFile(source) as archive,
        ZipWriter(target) as writer,
        ThreadPoolExecutor(jobs) as pool,
    ):
        members = archive.infolist()
        for start in range(0, len(members), 4 * jobs):
            group = [(member, archive.read(member)) for member in members[start : start + 4 * jobs]]
            for packed in pool.map(lambda item: _pack(*item), group):
                writer.write(packed)


def _pack(member: zipfile.ZipInfo, content: bytes) -> ZipMember:
    if member.filename.startswith(f"{SESSION.name}/data/responses/") and content:
        content = _fill_mantissas(content, seed=int(Path(member.filename).stem))
    is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
    packed = content
    if is_deflated:
        deflater = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        packed = deflater.compress(content) + deflater.flush()
    return ZipMember(member.filename, packed, len(content), zlib.crc32(content), is_deflated)


def _fill_mantissas(npy: bytes, seed: int) -> bytes:
    values = np.load(io.BytesIO(npy))
    # Below float32's precision, so that nothing else about the responses changes.
    values *= 1.0 + 1e-8 * np.random.default_rng(seed).random(values.shape)
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def list_trials(archive: Path) -> list[int]:
    """Return the ids of the trials in an archive, ascending."""
    folder = f"{SESSION.name}/data/videos/"
    with zipfile.ZipFile(archive) as content:
        names = [name for name in content.namelist() if name.startswith(folder) and name.endswith(".npy")]
    return sorted(int(Path(name).stem) for name in names)


def read_trial_arrays(archive: Path, variable: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each trial's id and array of a variable, in the trials' order, by numpy and the standard library alone."""
    trials = list_trials(archive)
    with zipfile.ZipFile(archive) as content:
        for trial in trials:
            yield trial, np.load(io.BytesIO(content.read(f"{SESSION.name}/data/{variable}/{trial}.npy")))


def run_measured(command: Sequence[str]) -> Usage:
    """Run a command to its end and return what it took.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.
    """
    started = time.perf_counter()
    # Unlike getrusage, wait4 tells of one child alone.
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, list(command))
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def run_python(code: str, *arguments: object) -> Usage:
    """Run Python code in a process of its own, with ``sys.argv[1:]`` as given; see :func:`run_measured`."""
    return run_measured([sys.executable, "-c", code, *map(str, arguments)])


def median_usage(runs: Sequence[Usage]) -> Usage:
    """Return the medians over runs."""
    return Usage(
        statistics.median(run.wall_s for run in runs),
        statistics.median(run.cpu_s for run in runs),
        int(statistics.median(run.peak_memory_bytes for run in runs)),
    )


def store_size_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def describe_load() -> list[float]:
    """Return the machine's load averages over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def describe_machine() -> dict[str, Any]:
    """Return what the results hang on: processor, memory, system, versions."""
    return {
        "processor": _find_processor(),
        "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "zarr", "numcodecs", "deflate", "isal")},
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _find_processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a Markdown table, its columns named by the first row's keys."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_format(row[column]) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_results(
    folder: Path,
    name: str,
    title: str,
    parameters: Mapping[str, object],
    measured: Mapping[str, object],
    tables: Iterable[tuple[str, Sequence[Mapping[str, object]]]],
) -> None:
    """Write ``<name>.json`` and ``<name>.md`` into a folder, and print the tables.

    Parameters
    ----------
    folder : Path
        Where they go.
    name, title : str
        The benchmark's.
    parameters : mapping
        What was asked for.
    measured : mapping
        Every single figure, JSON's types and :class:`Usage`.
    tables : iterable of (str, rows)
        A caption and rows each.
    """
    machine = describe_machine()
    tables = list(tables)
    folder.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "parameters": dict(parameters), "measured": measured, "tables": dict(tables)}
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1, default=_to_json) + "\n")
    versions = ", ".join(f"{package} {number}" for package, number in machine["versions"].items())
    text = [
        f"# {title}\n",
        f"{machine['processor']}, {machine['n_cores']} cores, {machine['memory_gb']:.0f} GB; {machine['system']}; "
        f"Python {machine['python']}, {versions}; {machine['time']} UTC.\n",
        ", ".join(f"{key} {_format(value)}" for key, value in parameters.items()) + ".\n",
    ]
    for caption, rows in tables:
        text += [f"{caption}\n", format_table(rows)]
    (folder / f"{name}.md").write_text("\n".join(text))
    print("\n".join(text))


def _to_json(value: object) -> object:
    return asdict(value) if isinstance(value, Usage) else str(value)


if __name__ == "__main__":
    make_archive(Path(sys.argv[1]), *map(int, sys.argv[2:]))
