"""Training at full size: windows a second and the share of time spent waiting for data, by precision and cache.

    python benchmarks/training.py --sessions all --trials 40 --work /tmp/bench
    python benchmarks/training.py --model dwiseneuro vivit factorized3d --gpu    # one table
    python benchmarks/training.py --model dwiseneuro                             # on two cores

With ``--model``, training steps are compared with those of the same models written straightforwardly.

Meant for a machine with a GPU, where it also says which share of the device's peak the model's own arithmetic comes to.
A CPU needs minutes for what a GPU does in a second: there, ``--preset factorized3d-debug --sessions F --neurons 300``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import workbench

#: Dense peak of the numbers that matrix products are computed in, in 1e12 operations a second, by the device's name.
_PEAKS = {"H100": {"32-true": 67.0, "bf16-mixed": 989.0}, "H200": {"32-true": 67.0, "bf16-mixed": 989.0}}


def main() -> None:
    """Measure, and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sessions", nargs="+", default=["all"], help="sessions to simulate (default: all ten)")
        parser.add_argument("--preset", default="factorized3d", help="what to train (default: %(default)s)")
        parser.add_argument("--epochs", type=int, default=3, help="epochs of each run (default: %(default)s)")
        parser.add_argument(
            "--windows", type=int, default=8, help="windows of a trial in an epoch (default: %(default)s)"
        )
        parser.add_argument("--model", nargs="+", help="compare steps of these presets with the straightforward way")
        parser.add_argument("--gpu", action="store_true", help="compare them on a GPU, with data from a store too")
        parser.add_argument("--batch", type=int, help="windows of a batch (default: the preset's; 2 on a CPU)")
        parser.add_argument("--frames", type=int, help="frames of a window (default: the preset's), with --model")
        parser.add_argument("--one", help=argparse.SUPPRESS)

    options = workbench.parse_arguments(__doc__ or "", n_trials=40, extend=extend)
    if options.one:
        measure_one(json.loads(options.one))
        return
    if options.model:
        compare_models(options)
        return
    with workbench.open_work_folder(options.work) as work:
        store = _prepare_store(work, options)
        runs = []
        for job in _list_jobs(store, options):
            done = subprocess.run(
                [sys.executable, __file__, "--one", json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True
            )
            runs.append({**job, **json.loads(done.stdout.splitlines()[-1])})
    rows = [
        {
            "precision": run["precision"],
            "compiled": "yes" if run["compile"] else "no",
            "cache": run["cache"],
            "windows/s": run["windows_per_s"],
            "waiting for data": f"{100 * run['data_wait_share']:.2f} %",
            "operations/s, 1e12": run["operations_per_s"] / 1e12,
            "share of peak": f"{100 * run['share_of_peak']:.1f} %" if run["share_of_peak"] else "unknown",
            "GPU memory, GB": run["memory_bytes"] / 1e9,
        }
        for run in runs
    ]
    parameters = {
        "sessions": " ".join(options.sessions),
        "trials": options.trials,
        "neurons": options.neurons or "as published",
        "device": runs[0]["device"],
    }
    name = "training" if runs[0]["device"] != "cpu" else "training_cpu"
    workbench.write_results(
        options.results,
        name,
        f"Training {options.preset}",
        parameters,
        {"runs": runs},
        [("One session after the other; the last epoch counts", rows)],
    )


def compare_models(options: argparse.Namespace) -> None:
    """Compare steps with the straightforward way, and on a GPU measure how long training waits for data."""
    import model_speed

    options.neurons = None if options.neurons == workbench.N_NEURONS else options.neurons
    load_before = workbench.describe_load()
    rows = model_speed.compare(options, _PEAKS)
    if options.gpu:
        with workbench.open_work_folder(options.work) as work:
            store = _prepare_store(work, options)
            for preset in options.model:
                job = {
                    "store": str(store),
                    "preset": preset,
                    "epochs": options.epochs,
                    "windows": options.windows,
                    "precision": "bf16-mixed",
                    "compile": True,
                    "cache": "device",
                }
                done = subprocess.run(
                    [sys.executable, __file__, "--one", json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True
                )
                run = json.loads(done.stdout.splitlines()[-1])
                usual, *_ = own = [row for row in rows if row["preset"] == f"`{preset}`"]
                rows.append(
                    {
                        **own[-1],
                        "way": "ours, bf16, compiled, from a store",
                        "windows/s": run["windows_per_s"],
                        "against the usual way": f"{run['windows_per_s'] / usual['windows/s']:.2f} ×",
                        # Readouts that a batch does not need take no part in it: another arithmetic than above.
                        "share of bf16 peak": "",
                        "peak memory, GB": run["memory_bytes"] / 1e9,
                        "hours for 1.5 million windows": model_speed.N_SAMPLES / run["windows_per_s"] / 3600,
                        "waiting for data": f"{100 * run['data_wait_share']:.2f} %",
                    }
                )
        rows = [{**row, "waiting for data": row.get("waiting for data", "no data read")} for row in rows]
    workbench.write_results(
        options.results,
        "model_speed_gpu" if options.gpu else "model_speed",
        "Training steps against the straightforward way",
        {"neurons": options.neurons or "as published", "repeats": options.repeats},
        {"load_before": load_before, "load_after": workbench.describe_load()},
        [("Medians; both ways in turn in one process", rows)],
    )


def _list_jobs(store: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    import torch

    has_gpu = torch.cuda.is_available()
    common = {"store": str(store), "preset": options.preset, "epochs": options.epochs, "windows": options.windows}
    jobs = [{**common, "precision": "32-true", "compile": False, "cache": "none"}]
    jobs.append({**common, "precision": "32-true", "compile": False, "cache": "memory"})
    if has_gpu:
        for precision in ("32-true", "bf16-mixed"):
            for compiled in (False, True):
                jobs.append({**common, "precision": precision, "compile": compiled, "cache": "device"})
    return jobs


def measure_one(job: dict[str, Any]) -> None:
    """Train one run in a process of its own, and print what its last epoch came to as JSON."""
    import tempfile

    import torch

    from models.config import override
    from models.devices import choose_device
    from models.registry import get_preset
    from models.training import train

    preset = get_preset(job["preset"])
    settings = {
        "max_epochs": str(job["epochs"]),
        "warmup_epochs": "0",
        **(
            {"n_windows_per_session": str(40 * job["windows"])}
            if preset.session_balance == "mixed"
            else {"n_windows_per_trial": str(job["windows"])}
        ),
        "precision": job["precision"],
        "compile": str(job["compile"]),
        "cache": job["cache"],
        "checkpoint_every_steps": "1000000",
    }
    config = override(preset, settings)
    epochs = []
    with tempfile.TemporaryDirectory() as runs:
        train(config, job["store"], None, runs, on_epoch=epochs.append)
    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    operations = _count_operations(config, job["store"])
    last = epochs[-1]
    per_s = operations * last.windows_per_s
    peak = next((peaks[job["precision"]] for known, peaks in _PEAKS.items() if known in name), 0.0) * 1e12
    print(
        json.dumps(
            {
                "device": name,
                "windows_per_s": last.windows_per_s,
                "data_wait_share": last.data_wait_share,
                "operations_per_s": per_s,
                "share_of_peak": per_s / peak if peak else None,
                "memory_bytes": last.gpu_memory_bytes,
                "epochs": [[epoch.windows_per_s, epoch.data_wait_share] for epoch in epochs],
            }
        )
    )


def _count_operations(config: Any, store: str) -> float:
    """Return the floating point operations of forward and backward passes for one window of the first session."""
    import torch
    from operations import count_operations

    from models.layouts import find_layout
    from models.registry import build_model
    from models.runs import describe_data
    from sensorium_data.store import stored_sessions

    data = describe_data(store, stored_sessions(store)[:1])
    model = build_model(config, data.neurons)
    layout = find_layout(config.input_layout)
    videos = torch.randn(2, len(layout.channels), config.n_frames_window, *layout.frame_size)
    pupil_center, session = torch.zeros(2, 2, config.n_frames_window), data.sessions[0].name
    return count_operations(lambda: model(videos, pupil_center, session).sum().backward()) / 2


def _prepare_store(work: Path, options: argparse.Namespace) -> Path:
    from sensorium_data.ingest import convert_session
    from sensorium_data.sessions import find_sessions
    from sensorium_data.simulation import simulate
    from sensorium_data.store import Precision

    sessions = find_sessions(options.sessions)
    folder = work / f"training-{len(sessions)}x{options.trials}x{options.neurons or 'all'}"
    n_neurons = None if options.neurons == workbench.N_NEURONS else options.neurons
    simulate(folder / "archives", sessions=sessions, n_trials=options.trials, n_neurons=n_neurons, jobs=2)
    for session in sessions:
        convert_session(session, str(folder / "store"), source=str(folder / "archives"), precision=Precision.COMPACT)
    return folder / "store"


if __name__ == "__main__":
    main()
