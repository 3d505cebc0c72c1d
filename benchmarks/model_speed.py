"""Training steps of models at full size, against the same models written straightforwardly; run by ``training.py``.

A step is forward and backward pass of a batch with the recipe's Poisson loss, and one of AdamW. Its numbers are random;
nothing is read from a disk. Both ways take turns in one process, from the same weights. On a CPU a batch is small,
since a step of the preset's own takes minutes there.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from operations import count_operations
from torch import nn

__all__ = ["N_SAMPLES", "REFERENCES", "compare", "make_reference", "measure_model"]

#: Modules of :mod:`straightforward`, by the kind of model.
REFERENCES = {
    "dwiseneuro": "dwiseneuro",
    "dynamic-v1fm": "dynamic_v1fm",
    "factorized3d": "factorized3d",
    "vivit": "vivit",
}
#: Windows that the reference of DwiseNeuro trains a fold with.
N_SAMPLES = 1_500_000


def make_reference(model: Any) -> nn.Module:
    """Return a model written straightforwardly, with the weights of one of ours.

    Raises
    ------
    SystemExit
        If there is none of its kind.
    """
    kind = model.config.kind
    if kind not in REFERENCES:
        raise SystemExit(f"no straightforward way of {kind} is written: choose {', '.join(REFERENCES)}")
    made: nn.Module = importlib.import_module(f"straightforward.{REFERENCES[kind]}").make_reference(model)
    return made


def compare(options: argparse.Namespace, peaks: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Measure each model in a process of its own, and return a row for each way.

    Parameters
    ----------
    options : Namespace
        ``model``: presets; ``gpu``; ``neurons`` of a session, or None as published; ``batch``, ``frames``, ``repeats``.
    peaks : dict
        The devices' dense peak, 1e12 operations a second, by their names and precisions.
    """
    rows = []
    for preset in options.model:
        job = {
            "preset": preset,
            "gpu": options.gpu,
            "neurons": options.neurons,
            "windows": options.batch,
            "frames": options.frames,
            "repeats": options.repeats,
        }
        # In a process of its own: memory that was once taken counts as peak ever after.
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(job)], stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        usual = found["ways"][0]
        for way in found["ways"]:
            per_s = found["operations_per_window"] * way["windows_per_s"]
            peak = next((known["bf16-mixed"] for name, known in peaks.items() if name in found["device"]), None)
            row = {
                "preset": f"`{preset}`",
                "way": way["name"],
                "windows a batch": found["n_windows"],
                "frames of a window": found["n_frames"],
                "windows/s": way["windows_per_s"],
                "CPU s a window": way["cpu_s_per_window"],
                "against the usual way": f"{way['windows_per_s'] / usual['windows_per_s']:.2f} ×",
            }
            if options.gpu:
                del row["CPU s a window"]
                row |= {
                    "share of bf16 peak": f"{100 * per_s / (peak * 1e12):.1f} %" if peak else "unknown",
                    "peak memory, GB": way["memory_bytes"] / 1e9,
                    "hours for 1.5 million windows": N_SAMPLES / way["windows_per_s"] / 3600,
                }
            rows.append(row)
        print(f"{preset}: {rows[-1]['against the usual way']}", file=sys.stderr)
    return rows


def measure_model(
    preset: str, *, gpu: bool, n_neurons: int | None, n_windows: int | None, repeats: int, n_frames: int | None = None
) -> dict[str, Any]:
    """Measure one preset's ways in this process.

    Parameters
    ----------
    preset : str
        Its name.
    gpu : bool
        Whether to measure on a GPU: the usual way in fp16, ours in bf16, and compiled.
    n_neurons : int, optional
        Of each session; as published by default.
    n_windows : int, optional
        Of a batch; the preset's on a GPU and 2 on a CPU by default.
    repeats : int
        Steps of each way that are measured, after one that is not.
    n_frames : int, optional
        Of a window; the preset's by default.
    """
    from model_steps import _make_neurons

    from models.devices import bound_threads
    from models.registry import build_model, get_preset

    bound_threads()
    torch.manual_seed(0)
    config, device = get_preset(preset), torch.device("cuda" if gpu else "cpu")
    config = config.model_copy(update={"n_frames_window": n_frames or config.n_frames_window})
    is_mixed = config.session_balance == "mixed"
    neurons = _make_neurons(["all"] if gpu else ["F", "G"] if is_mixed else ["F"], n_neurons)
    model = build_model(config, neurons).to(device).train()
    n_windows = n_windows or (config.batch_size if gpu else 2)
    batch = _Batch(config, {name: info.n_neurons for name, info in neurons.items()}, n_windows, device)
    reference = make_reference(model)
    if gpu:
        compiled = build_model(config, neurons).to(device).train()
        compiled.core.compile()
        ways = [
            ("straightforward, fp16", reference, torch.float16),
            ("ours, bf16", model, torch.bfloat16),
            ("ours, bf16, compiled", compiled, torch.bfloat16),
        ]
    else:
        ways = [("straightforward", reference, None), ("ours", model, None)]
    steps = [(name, _make_step(one, batch, dtype, config.learning_rate)) for name, one, dtype in ways]
    operations = count_operations(steps[0][1])
    found: list[dict[str, Any]] = [{"name": name, "times": [], "memory_bytes": 0} for name, _ in steps]
    for repeat, ((_, step), result) in itertools.product(range(repeats + 1), zip(steps, found, strict=True)):
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter(), time.process_time()
        step()
        took = time.perf_counter() - started[0], time.process_time() - started[1]
        if gpu:
            result["memory_bytes"] = torch.cuda.max_memory_allocated()
        if repeat:
            result["times"].append(took)
    for result in found:
        result["windows_per_s"] = n_windows / statistics.median(wall for wall, _ in result["times"])
        result["cpu_s_per_window"] = statistics.median(cpu for _, cpu in result["times"]) / n_windows
    return {
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "n_windows": n_windows,
        "n_frames": config.n_frames_window,
        "operations_per_window": operations / n_windows,
        "ways": found,
    }


class _Batch:
    """Random windows of the sessions that a batch of a recipe mixes, or of one."""

    def __init__(self, config: Any, n_neurons: dict[str, int], n_windows: int, device: torch.device) -> None:
        from models.layouts import find_layout
        from models.training.objective import Objective, SessionCount

        layout, n_frames = find_layout(config.input_layout), config.n_frames_window
        self.videos = torch.randn(n_windows, len(layout.channels), n_frames, *layout.frame_size, device=device)
        self.pupil_center = torch.randn(n_windows, 2, n_frames, device=device)
        sessions = list(n_neurons) if config.session_balance == "mixed" else list(n_neurons)[:1]
        sessions = sessions[:n_windows]
        ends = [round(index * n_windows / len(sessions)) for index in range(len(sessions) + 1)]
        self.wanted = [(name, slice(*pair)) for name, pair in zip(sessions, itertools.pairwise(ends), strict=True)]
        self.responses = [
            torch.rand(rows.stop - rows.start, n_neurons[name], n_frames, device=device) for name, rows in self.wanted
        ]
        self.objective = Objective(config, {name: SessionCount(700, 350) for name in n_neurons})
        self.weights = self.objective.weigh({name: rows.stop - rows.start for name, rows in self.wanted})


def _make_step(model: Any, batch: _Batch, dtype: torch.dtype | None, learning_rate: float) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    device = batch.videos.device
    # Halves of 16 bits vanish without it.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            predictions = model.predict_rows(batch.videos, batch.pupil_center, batch.wanted)
        losses = [
            batch.weights[name] * batch.objective.poisson(one.float(), responses)
            for (name, _), one, responses in zip(batch.wanted, predictions, batch.responses, strict=True)
        ]
        scaler.scale(torch.stack(losses).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _main(arguments: Sequence[str]) -> None:
    job = json.loads(arguments[0])
    found = measure_model(
        job["preset"],
        gpu=job["gpu"],
        n_neurons=job["neurons"],
        n_windows=job["windows"],
        repeats=job["repeats"],
        n_frames=job["frames"],
    )
    print(json.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1:])
