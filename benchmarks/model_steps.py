"""Every preset at full size: parameters, arithmetic, time and memory of a training step.

    python benchmarks/model_steps.py

A step is what training does with one batch of one session: forward and backward pass with loss and penalties, and a
step of AdamW. Its numbers are random; nothing is read from a disk. A GPU takes the preset's own batch; a CPU takes one
window unless told otherwise, since it needs minutes for what a GPU does in a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import workbench
from operations import count_operations


def main() -> None:
    """Measure, and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--presets", nargs="+", help="what to measure (default: all but the debug sizes)")
        parser.add_argument("--windows", type=int, help="windows of a batch (default: the preset's; 1 on a CPU)")
        parser.add_argument(
            "--precision", default="32-true", choices=["32-true", "bf16-mixed"], help="(default: %(default)s)"
        )
        parser.add_argument("--one", help=argparse.SUPPRESS)

    options = workbench.parse_arguments(__doc__ or "", extend=extend)
    if options.one:
        measure_one(json.loads(options.one))
        return
    from models.registry import preset_names

    names = options.presets or [name for name in preset_names() if not name.endswith("-debug")]
    load_before = workbench.describe_load()
    runs = []
    for name in names:
        job = {
            "preset": name,
            "windows": options.windows,
            "precision": options.precision,
            "repeats": options.repeats,
            # A number of its own is for a try of the benchmark.
            "neurons": None if options.neurons == workbench.N_NEURONS else options.neurons,
        }
        # In a process of its own: memory that was once taken counts as peak ever after.
        done = subprocess.run(
            [sys.executable, __file__, "--one", json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True
        )
        runs.append({**job, **json.loads(done.stdout.splitlines()[-1])})
        print(f"{name}: {runs[-1]['step_s']:.3g} s a step", file=sys.stderr)
    device = runs[0]["device"]
    workbench.write_results(
        options.results,
        "models",
        "Models at full size",
        {
            "device": device,
            "precision": options.precision,
            "repeats": options.repeats,
            "neurons": options.neurons if runs[0]["neurons"] else "as published",
        },
        {"runs": runs, "load_before": load_before, "load_after": workbench.describe_load()},
        [
            ("What the presets are", [_describe(run) for run in runs]),
            ("A training step: one batch of session F", [_summarize(run, on_gpu=device != "cpu") for run in runs]),
        ],
    )


def _describe(run: dict[str, Any]) -> dict[str, object]:
    return {
        "preset": f"`{run['preset']}`",
        "parameters, 5 new mice": run["parameters"]["new"],
        "all 10": run["parameters"]["all"],
        "core": run["parameters"]["core"],
        "window, frames": run["n_frames_window"],
        "frames lost": run["n_frames_lost"],
        "causal": "yes" if run["is_causal"] else "no",
        "GFLOP a window": round(run["operations_per_window"] / 1e9),
    }


def _summarize(run: dict[str, Any], *, on_gpu: bool) -> dict[str, object]:
    row: dict[str, object] = {
        "preset": f"`{run['preset']}`",
        "windows a batch": run["n_windows"],
        "step, s": run["step_s"],
        "windows/s": run["n_windows"] / run["step_s"],
    }
    if not on_gpu:
        row["CPU s a window"] = run["cpu_s"] / run["n_windows"]
    return {**row, "peak memory, GB": run["memory_bytes"] / 1e9}


def measure_one(job: dict[str, Any]) -> None:
    """Measure one preset in this process, and print the result as JSON."""
    import torch

    from models.devices import bound_threads, choose_device
    from models.layouts import find_layout
    from models.registry import build_model, get_preset
    from models.training.objective import Objective, SessionCount

    bound_threads()
    torch.manual_seed(0)
    config, device = get_preset(job["preset"]), choose_device("auto")
    parameters = {}
    for key, sessions in (("all", ["all"]), ("new", ["new"])):
        neurons = _make_neurons(sessions, job["neurons"])
        model = build_model(config, neurons)
        parameters[key] = sum(parameter.numel() for parameter in model.parameters())
    parameters["core"] = sum(parameter.numel() for parameter in model.core.parameters())
    model.to(device).train()

    session = workbench.SESSION.name
    n_windows = job["windows"] or (1 if device.type == "cpu" else config.batch_size)
    layout, n_frames = find_layout(config.input_layout), config.n_frames_window
    videos = torch.randn(n_windows, len(layout.channels), n_frames, *layout.frame_size, device=device)
    pupil_center = torch.randn(n_windows, 2, n_frames, device=device)
    responses = torch.rand(n_windows, neurons[session].n_neurons, n_frames, device=device)
    objective = Objective(config, {name: SessionCount(n_trials=700, n_training_trials=350) for name in neurons})
    (weight,) = objective.weigh({session: n_windows}).values()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=job["precision"] == "bf16-mixed"):
            predictions = model(videos, pupil_center, session)
        loss = weight * objective.poisson(predictions.float(), responses) + model.regularizer()
        penalty = model.session_regularizer(session)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    if device.type == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for repeat in range(job["repeats"]):
        started = time.perf_counter(), time.process_time()
        if repeat == 0:
            operations = count_operations(step)
        else:
            step()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    if device.type == "cuda":
        memory_bytes = torch.cuda.max_memory_allocated()
    else:
        memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                "parameters": parameters,
                "n_frames_window": n_frames,
                "n_frames_lost": model.n_frames_lost,
                "is_causal": model.is_causal,
                "n_windows": n_windows,
                "operations_per_window": operations / n_windows,
                "step_s": statistics.median(wall_s for wall_s, _ in times),
                "cpu_s": statistics.median(cpu_s for _, cpu_s in times),
                "memory_bytes": memory_bytes,
                "times": times,
                "torch": torch.__version__,
            }
        )
    )


def _make_neurons(sessions: list[str], n_neurons: int | None) -> dict[str, Any]:
    """Return neurons at made-up places, as many as published or told."""
    import numpy as np

    from models.neurons import NeuronInfo
    from sensorium_data.sessions import find_sessions

    generator = np.random.default_rng(0)
    made = {}
    for session in find_sessions(sessions):
        n = n_neurons or session.n_neurons
        made[session.name] = NeuronInfo(n, generator.normal(size=(n, 2)))
    return made


if __name__ == "__main__":
    main()
