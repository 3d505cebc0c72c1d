"""Predicting one stage of the competition with an ensemble: trials a second, windows together and one at a time.

    python benchmarks/prediction.py --preset dwiseneuro                        # a GPU, as many neurons as published
    python benchmarks/prediction.py --preset dwiseneuro-debug --neurons 300    # two cores: small

A stage is 57 trials of 300 frames of each of five sessions. The trials are random numbers in memory, and the weights
are those at the beginning: neither changes the time. Each way predicts a few trials of one session; the rest is
multiplied.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np
import workbench

_N_FRAMES = 300
_N_TRIALS_OF_STAGE = 5 * 57


def main() -> None:
    """Measure, and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--preset", nargs="+", default=["dwiseneuro-debug"], help="(default: dwiseneuro-debug)")
        parser.add_argument("--runs", type=int, default=7, help="runs of the ensemble (default: %(default)s)")
        parser.add_argument("--n-trials", type=int, default=1, help="trials that are measured (default: %(default)s)")

    options = workbench.parse_arguments(__doc__ or "", extend=extend)
    n_neurons = None if options.neurons == workbench.N_NEURONS else options.neurons
    load_before = workbench.describe_load()
    rows: list[dict[str, object]] = []
    measured: dict[str, Any] = {}
    for preset in options.preset:
        found = measure(preset, n_neurons, options.n_trials, options.repeats)
        measured[preset] = found
        rows += _summarize(preset, found, options.runs)
        print(f"{preset}: {rows[-1]['against one at a time']}", file=sys.stderr)
    device = next(iter(measured.values()))["device"]
    workbench.write_results(
        options.results,
        "prediction" if device == "cpu" else "prediction_gpu",
        "Predicting a stage",
        {"device": device, "neurons": n_neurons or "as published", "runs": options.runs, "repeats": options.repeats},
        {"runs": measured, "load_before": load_before, "load_after": workbench.describe_load()},
        [("One session; hours of a stage for the whole ensemble", rows)],
    )


def measure(preset: str, n_neurons: int | None, n_trials: int, repeats: int) -> dict[str, Any]:
    """Measure one preset in this process; both ways in turn.

    Parameters
    ----------
    preset : str
        Its name.
    n_neurons : int, optional
        Of session F; as published by default.
    n_trials : int
        How many are predicted each time, together where they are whole.
    repeats : int
        How often.
    """
    import torch
    from model_steps import _make_neurons

    from models.devices import bound_threads, choose_device
    from models.ensemble_prediction import predict_batch
    from models.registry import build_model, get_preset
    from sensorium_data.windows import Batch

    bound_threads()
    torch.manual_seed(0)
    config, device = get_preset(preset), choose_device("auto")
    neurons = _make_neurons(["F"], n_neurons)
    model = build_model(config, neurons).to(device).eval()
    generator = np.random.default_rng(0)
    session = workbench.SESSION.name
    trials = Batch(
        session=session,
        trials=tuple(range(n_trials)),
        first_frames=(0,) * n_trials,
        stride=1,
        videos=generator.normal(size=(n_trials, _N_FRAMES, 36, 64)).astype(np.float32),
        responses=None,
        behavior=generator.normal(size=(n_trials, 2, _N_FRAMES)).astype(np.float32),
        pupil_center=generator.normal(size=(n_trials, 2, _N_FRAMES)).astype(np.float32),
        unit_ids=np.arange(neurons[session].n_neurons),
    )
    # A window at a time is the usual way where windows slide, and a trial at a time where they do not.
    ways: dict[str, dict[str, int]] = {"one at a time": {"cpu": 1, "cuda": 1}, "together": {}}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, bound in ways.items():
            started = time.perf_counter()
            if bound:
                _predict_one_by_one(model, trials, config, device, bound)
            else:
                predict_batch(model, trials, config, device)
            times[name].append(time.perf_counter() - started)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "n_trials": n_trials,
        "windows": config.prediction_windows,
        "times": times,
    }


def _predict_one_by_one(model: Any, trials: Any, config: Any, device: Any, bound: dict[str, int]) -> None:
    from dataclasses import replace

    from models import sliding_windows
    from models.ensemble_prediction import predict_batch

    known, sliding_windows._FRAMES_A_PASS = sliding_windows._FRAMES_A_PASS, bound
    try:
        for index in range(len(trials)):
            chosen = slice(index, index + 1)
            one = replace(
                trials,
                trials=trials.trials[chosen],
                first_frames=trials.first_frames[chosen],
                videos=trials.videos[chosen],
                behavior=trials.behavior[chosen],
                pupil_center=trials.pupil_center[chosen],
            )
            predict_batch(model, one, config, device)
    finally:
        sliding_windows._FRAMES_A_PASS = known


def _summarize(preset: str, found: dict[str, Any], n_runs: int) -> list[dict[str, object]]:
    per_s = {name: found["n_trials"] / statistics.median(times) for name, times in found["times"].items()}
    return [
        {
            "preset": f"`{preset}`",
            "windows": found["windows"],
            "way": name,
            "trials/s of one run": rate,
            "hours of a stage": _N_TRIALS_OF_STAGE * n_runs / rate / 3600,
            "against one at a time": f"{rate / per_s['one at a time']:.2f} ×",
        }
        for name, rate in per_s.items()
    ]


if __name__ == "__main__":
    main()
