"""Exploring a session of real size: one neuron, one movie's repeats, receptive fields, against the plain ways.

    python benchmarks/explore.py --trials 700

The plain way loops over the archive's unpacked .npy files, float64, in NumPy: whole files, and for one neuron mapped
into memory too, of which the system reads what is needed. Beside it stands what one writes first with xarray on the
store. The accessor `.sensorium` is this package's way. All have to find the same numbers. Seconds are those from the
opening of the files to the result, without the start of Python and its imports; files are in the page cache as far as
they fit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import workbench

N_TRIALS, N_FRAMES, N_REPEATS, N_LAGS, N_FIELDS = 700, 300, 10, 10, 100
#: An old session: the responses of all tiers are there.
ALIAS = "A"

_START = """
import json, sys, time
from pathlib import Path
import numpy as np
work, out, row, n_fields, n_lags = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
trials = sorted(int(path.stem) for path in (work / "plain" / "responses").glob("*.npy"))
"""
_END = """
seconds = time.perf_counter() - started

np.save(out.with_suffix(".npy"), np.asarray(result, np.float64))
out.write_text(json.dumps({"seconds": seconds}))
"""
_XARRAY = """
import warnings
import xarray as xr
warnings.simplefilter("ignore")
session = xr.open_zarr(next((work / "store").glob("dynamic*")))
"""
_OURS = """
import sensorium_data as sd
session = sd.open_session(work / "store", "A")
"""

#: Task, way, imports that are not measured, and what is.
_WAYS: tuple[tuple[str, str, str, str], ...] = (
    (
        "one neuron over all trials",
        "NumPy, whole files",
        "",
        'result = np.stack([np.load(work / f"plain/responses/{t}.npy")[row, :300].copy() for t in trials])',
    ),
    (
        "one neuron over all trials",
        "NumPy, mapped files",
        "",
        'result = np.stack([np.load(work / f"plain/responses/{t}.npy", mmap_mode="r")[row, :300] for t in trials])',
    ),
    (
        "one neuron over all trials",
        "xarray, as one writes it first",
        "import xarray, zarr, dask.array",
        f"{_XARRAY}result = session.responses.isel(neuron=row, time=slice(300)).values",
    ),
    (
        "one neuron over all trials",
        "session.sensorium",
        "import zarr, dask.array, sensorium_data as sd; sd.open_session",
        f"{_OURS}result = session.sensorium.traces(int(session.neuron[row])).isel(time=slice(300)).values",
    ),
    (
        "one movie's repeats",
        "NumPy, whole files",
        "",
        'shown = json.loads((work / "movie.json").read_text())\n'
        'result = np.mean([np.load(work / f"plain/responses/{t}.npy")[:, :300] for t in shown], axis=0)',
    ),
    (
        "one movie's repeats",
        "xarray, as one writes it first",
        "import xarray, zarr, dask.array",
        f"{_XARRAY}movie = session.movie.load()\n"
        'result = session.responses.isel(trial=(movie == "m0").values, time=slice(300)).mean("trial").values',
    ),
    (
        "one movie's repeats",
        "session.sensorium",
        "import zarr, dask.array, sensorium_data as sd; sd.open_session",
        f'{_OURS}result = session.sensorium.repeats("m0").responses.mean("trial").values',
    ),
    (
        "receptive fields",
        "NumPy, whole files",
        "",
        """
products, frames, total, n = 0, 0, 0, 0
for t in trials:
    responses = np.load(work / f"plain/responses/{t}.npy")[:n_fields, n_lags - 1:300]
    video = np.load(work / f"plain/videos/{t}.npy")[..., :300].reshape(-1, 300).T
    last = n_lags - 1
    moved = [video[last - lag : 300 - lag] for lag in range(n_lags)]
    products = products + np.stack([responses @ one for one in moved], axis=1)
    frames = frames + np.stack([one.sum(axis=0) for one in moved])
    total, n = total + responses.sum(axis=1), n + responses.shape[1]
result = products / total[:, None, None] - frames / n
""",
    ),
    (
        "receptive fields",
        "session.sensorium",
        "import zarr, dask.array, sensorium_data as sd; sd.open_session",
        f"{_OURS}fields = session.sensorium.receptive_fields(session.neuron.values[:n_fields], range(n_lags))\n"
        "result = fields.values.reshape(n_fields, n_lags, -1)",
    ),
)

_PREPARE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import explore
explore.make_recording(sys.argv[3], *map(int, sys.argv[4:6]))
"""


def make_recording(work: str, n_trials: int, n_neurons: int) -> None:
    """Write one session as a store and as unpacked files, of values that only look like recorded ones."""
    import zarr

    from fixtures.session_stores import write_array, write_group, write_ledger
    from sensorium_data import schema
    from sensorium_data.sessions import find_session

    root, session, rng = Path(work), find_session(ALIAS), np.random.default_rng(0)
    n_time = N_FRAMES + 2
    folder = root / "store" / session.name
    n_oracle = min(6 * N_REPEATS, n_trials)
    movies = [f"m{i % 6}" if i < n_oracle else f"m{i}" for i in range(n_trials)]
    (root / "movie.json").write_text(json.dumps([i for i, movie in enumerate(movies) if movie == "m0"]))
    sizes = {
        "trial": n_trials, "neuron": n_neurons, "time": n_time, "height": schema.FRAME_HEIGHT,
        "width": schema.FRAME_WIDTH, "behavior_channel": 2, "eye_axis": 2, "statistic": len(schema.STATISTICS),
    }  # fmt: skip
    coordinates: dict[str, Any] = {
        "trial": range(n_trials), "tier": ["oracle" if i < n_oracle else "train" for i in range(n_trials)],
        "n_frames": [N_FRAMES] * n_trials, "movie": movies, "stimulus": ["NaturalVideo"] * n_trials,
        "responses_withheld": [False] * n_trials, "valid": [True] * n_trials, "presentation": range(n_trials),
        "onset": np.arange(n_trials) * 10.0109, "trial_idx": [""] * n_trials,
        "time": np.arange(n_time) / schema.FRAME_RATE_HZ, "neuron": 1 + np.arange(n_neurons),
        "x": np.zeros(n_neurons), "y": np.zeros(n_neurons), "z": np.full(n_neurons, 200.0),
        "behavior_channel": schema.BEHAVIOR_CHANNELS, "eye_axis": schema.EYE_AXES,
    }  # fmt: skip
    small = {
        name: rng.gamma(2.0, 10.0, (n_trials, 2, n_time)).astype(np.float32) for name in ("behavior", "pupil_center")
    }
    fields = {**schema.COORDINATES, **schema.VARIABLES}
    nodes = {
        name: write_array(folder, fields[name], sizes, values)
        for name, values in {**coordinates, **small, "responses": None, "videos": None}.items()
    }
    arrays = {name: zarr.open_array(folder / name, mode="r+") for name in ("responses", "videos")}
    for name in arrays:
        (root / "plain" / name).mkdir(parents=True)
    for trial in range(n_trials):
        # A tenth of the responses is above the noise of the deconvolution.
        responses = np.full((n_neurons, n_time), np.nan, np.float32)
        active = rng.standard_exponential((n_neurons, N_FRAMES), np.float32)
        responses[:, :N_FRAMES] = np.where(active > 2.3, 10 * active, 1e-9 * active)
        videos = np.full((n_time, schema.FRAME_HEIGHT, schema.FRAME_WIDTH), np.nan, np.float32)
        coarse = rng.uniform(0, 255, (N_FRAMES // 3, 6, 8)).astype(np.float32)
        videos[:N_FRAMES] = coarse.repeat(3, axis=0).repeat(6, axis=1).repeat(8, axis=2)
        videos[:N_FRAMES] += rng.standard_normal(videos[:N_FRAMES].shape, np.float32)
        arrays["responses"][trial], arrays["videos"][trial] = responses, videos
        np.save(root / "plain" / "responses" / f"{trial}.npy", responses.astype(np.float64))
        np.save(root / "plain" / "videos" / f"{trial}.npy", np.moveaxis(videos, 0, -1).astype(np.float64))
    (folder / "statistics").mkdir()
    write_group(folder / "statistics", {}, {})
    labels = " ".join(name for name in coordinates if name not in sizes)
    attributes = {"schema_version": schema.SCHEMA_VERSION, "session": session.name, "alias": ALIAS, "simulated": 1}
    write_group(folder, {**attributes, "coordinates": labels}, nodes)
    write_ledger(folder)
    write_group(root / "store", {"sessions": [session.name]}, {})


def prepare(work: Path, n_trials: int, n_neurons: int) -> Path:
    """Return a folder with a store and the same as unpacked files, made unless ``work`` has it."""
    folder = work / f"explored-{n_trials}x{n_neurons}"
    if (folder / "store" / "zarr.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"making a session of {n_trials} trials x {n_neurons} neurons", file=sys.stderr)
    here = Path(__file__).parent
    # In a process of its own: a child's peak memory is never less than that of the process which starts it.
    arguments = [here, here.parent / "tests", folder, n_trials, n_neurons]
    subprocess.run([sys.executable, "-c", _PREPARE, *map(str, arguments)], check=True)
    return folder


def require_same(task: str, results: Sequence[Path]) -> None:
    """Raise unless all ways of a task found the same numbers."""
    first, *others = (np.load(path.with_suffix(".npy")) for path in results)
    for other in others:
        # Float32's precision, of products over a whole session.
        np.testing.assert_allclose(other, first, rtol=1e-3, atol=1e-3 * np.abs(first).max(), err_msg=task)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--fields", type=int, default=N_FIELDS, help="neurons with fields (default: %(default)s)")

    options = workbench.parse_arguments(__doc__ or "", n_trials=N_TRIALS, extend=extend, arguments=arguments)
    measured: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    with workbench.open_work_folder(options.work) as work:
        folder = prepare(work, options.trials, options.neurons)
        load = [workbench.describe_load()]
        for task in dict.fromkeys(task for task, *_ in _WAYS):
            results: list[Path] = []
            usual = None
            for number, (_, way, imports, code) in enumerate(way for way in _WAYS if way[0] == task):
                out = folder / f"result-{number}.json"
                results.append(out)
                script = f"{_START}\n{imports}\nstarted = time.perf_counter()\n{code}\n{_END}"
                taken = []
                # The longest of the three is measured once.
                for _ in range(1 if task == "receptive fields" else options.repeats):
                    usage = workbench.run_python(
                        script, folder, out, options.neurons // 2, min(options.fields, options.neurons), N_LAGS
                    )
                    taken.append({"usage": usage, **json.loads(out.read_text())})
                measured.append({"task": task, "way": way, "runs": taken})
                seconds = float(np.median([one["seconds"] for one in taken]))
                median = workbench.median_usage([one["usage"] for one in taken])
                usual = seconds if usual is None else usual
                rows.append(
                    {
                        "what": task,
                        "way": way,
                        "seconds": seconds,
                        "CPU s of the process": median.cpu_s,
                        "peak memory, MB": median.peak_memory_bytes / 1e6,
                        "times faster than whole files": usual / seconds,
                    }
                )
            require_same(task, results)
        load.append(workbench.describe_load())
    workbench.write_results(
        options.results,
        "explore",
        "Exploring a session: this package's accessor against plain NumPy and plain xarray",
        {
            "trials": options.trials,
            "neurons": options.neurons,
            "frames": N_FRAMES,
            "neurons with receptive fields": min(options.fields, options.neurons),
            "lags": N_LAGS,
            "repeats": options.repeats,
        },
        {"ways": measured, "load": load},
        [("Medians", rows)],
    )


if __name__ == "__main__":
    main()
