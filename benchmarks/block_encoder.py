"""Encoding a trial's responses and video for the store: by Zarr, against the direct way.

    python benchmarks/block_encoder.py

Both make the same bytes, which is checked. Trials are encoded by as many threads as an ingest has.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import workbench
import zarr
import zarr.storage

from sensorium_data.schema import VARIABLES
from sensorium_data.store import Precision, SessionTemplate, cast_values

_N_FRAMES = 324
_FRAME = (36, 64)
#: Share of the responses that lie above the numerical floor.
_ACTIVE = 0.25

Encode = Callable[[str, int, np.ndarray], bytes]


def draw_trial(n_neurons: int, precision: Precision, seed: int) -> dict[str, np.ndarray]:
    """Return responses that are mostly at the floor, and a smooth video, rounded as the store rounds them."""
    rng = np.random.default_rng(seed)
    responses = rng.gamma(0.5, 4.0, (n_neurons, _N_FRAMES))
    responses[rng.random(responses.shape) > _ACTIVE] *= 1e-9
    video = np.cumsum(rng.normal(0, 2.0, (_N_FRAMES, *_FRAME)), axis=2).clip(-127, 127) + 128
    trial = {"responses": responses, "videos": video}
    stored = {name: np.empty(values.shape, precision.dtype) for name, values in trial.items()}
    for name, values in trial.items():
        cast_values(values, stored[name], precision.rounding_of(name))
    return stored


def by_zarr(sizes: dict[str, int], precision: Precision) -> Encode:
    """Return the usual way: values are assigned to an array in memory, and its object is taken out."""
    objects: dict[str, Any] = {}
    group = zarr.create_group(zarr.storage.MemoryStore(objects))
    arrays = {
        name: group.create_array(name, **VARIABLES[name].layout(sizes, compact=precision is Precision.COMPACT))
        for name in ("responses", "videos")
    }

    def encode(name: str, position: int, values: np.ndarray) -> bytes:
        arrays[name][position] = values
        return bytes(objects.pop(f"{name}/c/{position}{'/0' * values.ndim}").to_bytes())

    return encode


def directly(sizes: dict[str, int], precision: Precision) -> Encode:
    """Return this package's way."""
    template = SessionTemplate(sizes, precision)
    for name in ("responses", "videos"):
        template.declare_variable(name)
    return lambda name, position, values: template.encode_block(name, position, values)[1]


def measure(encode: Encode, trials: Sequence[dict[str, np.ndarray]], jobs: int) -> tuple[float, float, list[bytes]]:
    """Return wall and CPU milliseconds a trial, and the objects."""
    tasks = [(name, position, values) for position, trial in enumerate(trials) for name, values in trial.items()]
    with ThreadPoolExecutor(jobs) as pool:
        wall, cpu = time.perf_counter(), time.process_time()
        encoded = list(pool.map(lambda task: encode(*task), tasks))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return 1e3 * wall / len(trials), 1e3 * cpu / len(trials), encoded


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both ways and write the results."""

    def extend(parser: Any) -> None:
        parser.add_argument("--jobs", type=int, default=2, help="threads (default: %(default)s)")

    options = workbench.parse_arguments(__doc__ or "", n_trials=24, extend=extend, arguments=arguments)
    sizes = {"trial": options.trials, "neuron": options.neurons, "time": _N_FRAMES}
    sizes |= dict(zip(("height", "width"), _FRAME, strict=True))
    rows, measured = [], {}
    for precision in (Precision.EXACT, Precision.COMPACT):
        trials = [draw_trial(options.neurons, precision, seed) for seed in range(options.trials)]
        ways = {"Zarr": by_zarr(sizes, precision), "directly": directly(sizes, precision)}
        runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            objects = {}
            for way, encode in ways.items():
                wall, cpu, objects[way] = measure(encode, trials, options.jobs)
                runs[way].append((wall, cpu))
            if objects["Zarr"] != objects["directly"]:
                raise SystemExit("both ways do not make the same bytes")
        medians = {
            way: [statistics.median(column) for column in zip(*times, strict=True)] for way, times in runs.items()
        }
        measured[str(precision)] = runs
        rows += [
            {
                "precision": str(precision),
                "way": way,
                "ms a trial": wall,
                "CPU ms a trial": cpu,
                "faster than Zarr": medians["Zarr"][0] / wall,
            }
            for way, (wall, cpu) in medians.items()
        ]
    workbench.write_results(
        options.results,
        "block_encoder",
        "Encoding trials",
        {"trials": options.trials, "neurons": options.neurons, "jobs": options.jobs, "repeats": options.repeats},
        {"load": workbench.describe_load(), "milliseconds, wall and CPU": measured},
        [("Responses and video, medians", rows)],
    )


if __name__ == "__main__":
    main()
