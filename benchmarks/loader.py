"""Training windows a second: the two usual loaders against this package's, on one recording, in one run.

    python benchmarks/loader.py --trials 60

Everything runs in processes of its own, in turn, ``--repeats`` times; medians count. *Warm* means that the files lie in
the page cache, *cold* that they were dropped from it before each epoch. A process' first epoch tells the time to the
first batch, those after it how many windows a second; but for the row that is the usual way's first epoch itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import workbench

from sensorium_data.ingest import convert_session

#: Windows of 80 frames from one trial of 300.
_PER_TRIAL_80 = 3
_PER_TRIAL_16 = 9
#: Windows that overlap, where the disk or the decoding is what limits.
_PER_TRIAL_MANY = 8
#: Of a process; all but the first count.
_N_EPOCHS = 3


def main() -> None:
    """Measure, and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--one", help=argparse.SUPPRESS)

    options = workbench.parse_arguments(__doc__ or "", n_trials=60, extend=extend)
    if options.one:
        measure_one(json.loads(options.one))
        return
    with workbench.open_work_folder(options.work) as work:
        archive = workbench.prepare_archive(work, options.trials, options.neurons)
        unpacked = _unpack(archive)
        stores = {precision: _convert(archive, precision) for precision in ("exact", "compact")}
        jobs = _list_jobs(unpacked, stores)
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
        load = []
        for _ in range(options.repeats):
            for name, job in jobs.items():
                load.append(workbench.describe_load()[0])
                measured[name].append(_run(job))
    parameters = {"trials": options.trials, "neurons": options.neurons, "repeats": options.repeats}
    tables = [
        ("Windows of 80 frames, normalized, batches of 8", _tabulate(measured, "80", "file tree, later epochs")),
        ("Windows of 16 frames with stride 2, batches of 32", _tabulate(measured, "16", "four files, 2 workers")),
    ]
    workbench.write_results(
        options.results,
        "loader",
        "Training windows a second",
        parameters,
        {"runs": measured, "load": load},
        tables,
    )


def _list_jobs(unpacked: Path, stores: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return what to measure, by name: its size of window first."""
    jobs: dict[str, dict[str, Any]] = {}
    for temperature in ("warm", "cold"):
        cold = temperature == "cold"
        suffix = ", cold" if cold else ""
        tree = {"way": "file tree", "root": str(unpacked), "cold": cold, "keeps": False}
        jobs[f"80: file tree, first epoch{suffix}"] = {**tree, "epochs": 1}
        jobs[f"80: file tree, nothing kept{suffix}"] = {**tree, "epochs": _N_EPOCHS}
        jobs[f"16: four files, 2 workers{suffix}"] = {"way": "four files", "root": str(unpacked), "cold": cold}
        for precision, store in stores.items():
            ours = {"way": "ours", "store": str(store), "cold": cold}
            for frames, stride, per_trial in ((80, 1, _PER_TRIAL_80), (16, 2, _PER_TRIAL_16)):
                name = f"{frames}: ours, {precision}, nothing kept{suffix}"
                jobs[name] = {**ours, "frames": frames, "stride": stride, "per_trial": per_trial, "cache": 0}
            many = f"80: ours, {precision}, {_PER_TRIAL_MANY} windows a trial, nothing kept{suffix}"
            jobs[many] = {**ours, "frames": 80, "stride": 1, "per_trial": _PER_TRIAL_MANY, "cache": 0}
    jobs["80: file tree, later epochs"] = {
        "way": "file tree",
        "root": str(unpacked),
        "cold": False,
        "keeps": True,
        "epochs": _N_EPOCHS,
    }
    for precision, store in stores.items():
        ours = {"way": "ours", "store": str(store), "cold": False, "cache": 1 << 40}
        for frames, stride, per_trial in ((80, 1, _PER_TRIAL_80), (16, 2, _PER_TRIAL_16)):
            name = f"{frames}: ours, {precision}, trials kept"
            jobs[name] = {**ours, "frames": frames, "stride": stride, "per_trial": per_trial}
    store = str(stores["exact"])
    jobs["80: ours, exact, one window a trial, nothing kept"] = {
        "way": "ours",
        "store": store,
        "cold": False,
        "cache": 0,
        "frames": 80,
        "stride": 1,
        "per_trial": 1,
    }
    jobs["80: ours, exact, trials kept, not normalized"] = {
        "way": "ours",
        "store": store,
        "cold": False,
        "cache": 1 << 40,
        "frames": 80,
        "stride": 1,
        "per_trial": _PER_TRIAL_80,
        "raw": True,
    }
    return jobs


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Measure in a process of its own, whose memory is that of one way only."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure_one(job: dict[str, Any]) -> None:
    """Measure one way and print it as JSON."""
    # Single windows must not be spread over threads by torch: the loaders have threads or processes of their own.
    import torch

    torch.set_num_threads(1)
    epochs, files, size = _our_epochs(job) if job["way"] == "ours" else _usual_epochs(job)
    if not job["cold"]:
        for path in files:
            path.read_bytes()
    results = []
    for epoch in epochs:
        if job["cold"]:
            _drop(files)
        read_before = _bytes_read()
        results.append(_time(epoch()) | {"bytes_read": _bytes_read() - read_before})
    # The first one starts threads or processes, and fills what is kept.
    first, later = results[0], results[1:] or results
    sums = {key: sum(result[key] for result in later) for key in ("n_windows", "wall_s", "cpu_s", "bytes_read")}
    if size is not None:
        sums["bytes_read"] = size * sums["n_windows"]
    rates = {"windows_per_s": sums["n_windows"] / sums["wall_s"], "first_batch_s": first["first_batch_s"]}
    print(json.dumps({**sums, **rates, "peak_memory_bytes": _peak_memory()}))


def _usual_epochs(job: dict[str, Any]) -> tuple[list[Callable[[], Iterable[int]]], list[Path], int | None]:
    from usual_loaders import VARIABLES, FileTree, FourFiles, iterate_file_tree, iterate_four_files

    root = Path(job["root"])
    chosen = json.loads((root / "chosen.json").read_text())
    trials, lengths = chosen["trials"], chosen["n_frames"]
    files = [root / "data" / variable / f"{trial}.npy" for trial in trials for variable in VARIABLES]
    per_trial = sum(path.stat().st_size for path in files) // len(trials)
    if job["way"] == "file tree":
        # A trial that was seen once is not read again.
        n_epochs = job["epochs"]
        if job["keeps"]:
            tree = FileTree(root, trials)
            return [lambda: iterate_file_tree(tree)] * n_epochs, files, 0
        return [lambda: iterate_file_tree(FileTree(root, trials))] * n_epochs, files, per_trial
    dataset = FourFiles(root / "data", trials, lengths, n_samples=max(256, 8 * len(trials)))
    return [lambda: iterate_four_files(dataset)] * 2, files, per_trial


def _our_epochs(job: dict[str, Any]) -> tuple[list[Callable[[], Iterable[int]]], list[Path], None]:
    from sensorium_data.sessions import Tier
    from sensorium_data.statistics import open_normalizer
    from sensorium_data.windows import TrialReader, WindowLoader, Windows, plan_in_turn

    store = Path(job["store"])
    reader = TrialReader(str(store), [workbench.SESSION.name], cache_bytes=job["cache"])
    # As each of the usual ways does: the starter kit's normalization, the winner's raw units.
    normalization = "competition" if job["frames"] == 80 else "dwiseneuro"
    name = workbench.SESSION.name
    normalizers = None if job.get("raw") else {name: open_normalizer(normalization, str(store), name)}
    loader = WindowLoader(reader, normalizers)
    trials = [reader.select_trials(name, list(Tier), labelled=True)]
    windows = Windows(job["frames"], job["stride"], n_per_trial=job["per_trial"])

    def run_epoch(epoch: int) -> Iterator[int]:
        plan = plan_in_turn(trials, windows, batch_size=8 if job["frames"] == 80 else 32, seed=0, epoch=epoch)
        for parts in loader.iter_batches(plan):
            yield sum(len(part) for part in parts)

    files = [path for variable in ("videos", "responses") for path in (store / name / variable / "c").rglob("*")]
    epochs = [lambda epoch=epoch: run_epoch(epoch) for epoch in range(_N_EPOCHS)]
    return epochs, [path for path in files if path.is_file()], None


def _time(batches: Iterable[int]) -> dict[str, float]:
    import time

    started, cpu_before = time.perf_counter(), time.process_time()
    first_s, n_windows = None, 0
    for size in batches:
        if first_s is None:
            first_s = time.perf_counter() - started
        n_windows += size
    wall_s = time.perf_counter() - started
    return {
        "n_windows": n_windows,
        "wall_s": wall_s,
        "cpu_s": time.process_time() - cpu_before,
        "windows_per_s": n_windows / wall_s,
        "first_batch_s": first_s or 0.0,
    }


def _tabulate(measured: dict[str, list[dict[str, Any]]], frames: str, usual: str) -> list[dict[str, object]]:
    def median(name: str, key: str) -> float:
        return float(statistics.median(run[key] for run in measured[name]))

    rows = []
    for name in measured:
        if name.startswith(f"{frames}: "):
            rate = median(name, "windows_per_s")
            is_cold = name.endswith(", cold")
            reference = f"{frames}: {usual}"
            if is_cold:
                reference = f"{frames}: " + ("file tree, nothing kept, cold" if frames == "80" else f"{usual}, cold")
            rows.append(
                {
                    "what": name.partition(": ")[2],
                    "windows/s": rate,
                    f"× {'file tree later, or nothing kept cold' if frames == '80' else 'four files'}": rate
                    / median(reference, "windows_per_s"),
                    "MB read a window": median(name, "bytes_read") / median(name, "n_windows") / 1e6,
                    "first batch, s": median(name, "first_batch_s"),
                    "peak memory, GB": median(name, "peak_memory_bytes") / 1e9,
                }
            )
    return rows


def _unpack(archive: Path) -> Path:
    """Return a folder with the archive's labelled trials and statistics unpacked."""
    import numpy as np

    folder = archive.parent / "unpacked"
    root = folder / workbench.SESSION.name
    if not (root / "chosen.json").exists():
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
        trials, lengths = [], []
        for trial in workbench.list_trials(archive):
            if np.load(root / "data" / "responses" / f"{trial}.npy", mmap_mode="r")[:, 0].any():
                video = np.load(root / "data" / "videos" / f"{trial}.npy", mmap_mode="r")
                trials.append(trial)
                lengths.append(int(np.isfinite(video[0, 0]).sum()))
        (root / "chosen.json").write_text(json.dumps({"trials": trials, "n_frames": lengths}))
    return root


def _convert(archive: Path, precision: str) -> Path:
    from sensorium_data.store import Precision

    store = archive.parent / f"store-{precision}"
    convert_session(workbench.SESSION, str(store), source=str(archive.parent), precision=Precision(precision))
    return store


def _drop(files: Iterable[Path]) -> None:
    """Have the system forget the files' pages."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _bytes_read() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    return 0


def _peak_memory() -> int:
    """Return the largest resident size of this process, and of its two workers, if it had any."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(unit * (own + 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))


if __name__ == "__main__":
    main()
