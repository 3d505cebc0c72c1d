"""Scoring a tier of real size: everything `sensorium score` tells, against loading it all and correlating in NumPy.

    python benchmarks/scoring.py --sessions 5

The usual way reads the submission file with pandas and the responses into arrays, and correlates neuron by neuron: the
single-trial correlation and nothing else. The same from this package's blocks, one trial at a time in one thread,
stands beside it. `sensorium score` gives that, the correlation to average, ceilings, and the intervals of a
thousand resamples. All have to find the same score.
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

TIER = "final_test_main"
#: Old sessions, whose test responses are published.
ALIASES = "ABCDE"
N_MOVIES, N_FRAMES, N_SKIPPED = 6, 300, 50
N_TRIALS, N_NEURONS = 57, 8000

_PREPARE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import scoring
scoring.prepare_session(sys.argv[3], *sys.argv[4:5], *map(int, sys.argv[5:7]))
"""

_OURS = """
import json, sys
from pathlib import Path
from sensorium_data.scoring import score_predictions

work, out = map(Path, sys.argv[1:])
table = score_predictions(str(work / "predictions"), str(work / "store"))
out.write_text(json.dumps(table.rows.set_index("alias")["single_trial_correlation"].to_dict()))
"""

_STREAMED = """
import json, sys
from pathlib import Path
from sensorium_data.scoring import CorrelationAccumulator
from sensorium_data.predictions import predicted_sessions
from sensorium_data.scoring import ScoredSession
from sensorium_data.sessions import Tier
from sensorium_data.store import open_store

work, out = map(Path, sys.argv[1:])
predictions, store, tier = str(work / "predictions"), open_store(work / "store"), Tier("final_test_main")
scores = {}
for session in predicted_sessions(predictions):
    source = ScoredSession(predictions, store, None, session, [tier], "official")
    accumulator = CorrelationAccumulator(source.neurons.size)
    for trial in source.scorable[tier]:
        signals = source.read_trial(trial)
        accumulator.update(signals.response, signals.prediction)
    scores[session.alias] = float(accumulator.correlation().mean())
out.write_text(json.dumps(scores))
"""

_USUAL = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd, zarr

work, out = map(Path, sys.argv[1:])
frame = pd.concat([pd.read_parquet(path) for path in sorted((work / "parquet").glob("*.parquet"))])
scores = {}
for mouse, rows in frame.groupby("mouse"):
    group = zarr.open_group(work / "store" / mouse, mode="r")
    trials = group["trial"][...].tolist()
    std = zarr.open_group(work / "store" / mouse / "statistics", mode="r")["responses"][1]
    floor = 0.01 * np.nanmean(std)
    precision = 1 / np.where(std > floor, std, floor)
    responses, predictions = [], []
    for trial, prediction in zip(rows["trial_indices"], rows["prediction"]):
        prediction = np.stack(prediction)
        response = group["responses"][trials.index(trial)] * precision
        predictions.append(prediction)
        responses.append(response[:, 50 : 50 + prediction.shape[1]])
    a, b = np.concatenate(responses, axis=1), np.concatenate(predictions, axis=1)
    correlation = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)]
    scores[mouse] = float(np.mean(np.nan_to_num(correlation)))
out.write_text(json.dumps(scores))
"""


def prepare_session(work: str, alias: str, n_trials: int, n_neurons: int) -> None:
    """Write one session's store, and its predictions as a Parquet file and as arrays beside it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fixtures.session_stores import TrialFacts, write_session_store

    root = Path(work)
    trials = [TrialFacts(i, TIER, N_FRAMES, f"m{i % N_MOVIES}") for i in range(n_trials)]
    made = write_session_store(root / "store", alias, trials, n_neurons=n_neurons)
    std = made.std.astype(np.float32)
    floor = 0.01 * np.nanmean(std)
    precision = (1 / np.where(std > floor, std, floor))[:, :N_FRAMES]
    rng = np.random.default_rng(ord(alias))
    (root / "arrays" / alias).mkdir(parents=True)
    (root / "parquet").mkdir(exist_ok=True)
    schema = pa.schema(
        [("mouse", pa.string()), ("trial_indices", pa.int64()), ("prediction", pa.list_(pa.list_(pa.float32())))]
    )
    with pq.ParquetWriter(
        root / "parquet" / f"{alias}.parquet", schema, compression="zstd", compression_level=1, use_dictionary=False
    ) as writer:
        for i in range(n_trials):
            recorded = made.responses[i, :, :N_FRAMES] * precision
            predicted = (0.2 * recorded + rng.random(recorded.shape, np.float32)).astype(np.float32)
            np.save(root / "arrays" / alias / f"{i}.npy", predicted)
            scored = predicted[:, N_SKIPPED:]
            inner = pa.ListArray.from_arrays(
                np.arange(0, scored.size + 1, scored.shape[1], dtype=np.int32), pa.array(scored.ravel())
            )
            column = pa.ListArray.from_arrays(pa.array([0, n_neurons], pa.int32()), inner)
            writer.write_table(pa.table([[made.session.name], [i], column], schema=schema))


def prepare(work: Path, aliases: str, n_trials: int, n_neurons: int) -> Path:
    """Return a folder with session stores and predictions of them, made unless ``work`` has it."""
    from sensorium_data.predictions import create_predictions

    folder = work / f"scored-{len(aliases)}x{n_trials}x{n_neurons}"
    if (folder / "predictions").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    here = Path(__file__).parent
    for alias in aliases:
        print(f"making session {alias}: {n_trials} trials x {n_neurons} neurons", file=sys.stderr)
        # In a process of its own: a child's peak memory is never less than that of the process which starts it.
        # The stores are made by the tests' own writer, which owes nothing to the code that is measured.
        arguments = [here, here.parent / "tests", folder, alias, n_trials, n_neurons]
        subprocess.run([sys.executable, "-c", _PREPARE, *map(str, arguments)], check=True)
    writer = create_predictions(
        str(folder / "predictions"),
        store=str(folder / "store"),
        sessions=list(aliases),
        tiers=[TIER],
        response_units="standardized",
    )
    with writer:
        for alias in aliases:
            for trial in writer.trials(alias):
                writer.write_trial(alias, trial, np.load(folder / "arrays" / alias / f"{trial}.npy"), first_frame=0)
    shutil.rmtree(folder / "arrays")
    return folder


def require_same_scores(results: Sequence[Path]) -> float:
    """Return the mean score, once all ways agree on the sessions'."""
    # By alias or by full name: both in the order of the scores.
    scores = np.array([sorted(json.loads(path.read_text()).values()) for path in results])
    if np.ptp(scores, axis=0).max() > 1e-5:
        raise AssertionError(f"the ways disagree: {scores.tolist()}")
    return float(scores.mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sessions", type=int, default=1, choices=range(1, 6), help="mice (default: %(default)s)")
        parser.set_defaults(neurons=N_NEURONS, repeats=1)

    options = workbench.parse_arguments(__doc__ or "", n_trials=N_TRIALS, extend=extend, arguments=arguments)
    with workbench.open_work_folder(options.work) as work:
        folder = prepare(work, ALIASES[: options.sessions], options.trials, options.neurons)
        ways = {
            "pandas and numpy.corrcoef: one correlation": (_USUAL, "usual.json"),
            "the same, trial by trial": (_STREAMED, "streamed.json"),
            "sensorium score: everything": (_OURS, "ours.json"),
        }
        runs: dict[str, list[workbench.Usage]] = {name: [] for name in ways}
        load = [workbench.describe_load()]
        for _ in range(options.repeats):
            for name, (code, result) in ways.items():
                runs[name].append(workbench.run_python(code, folder, folder / result))
        load.append(workbench.describe_load())
        score = require_same_scores([folder / result for _, result in ways.values()])
        sizes = [
            {"what": what, "GB": workbench.store_size_bytes(folder / name) / 1e9}
            for what, name in (("predictions store", "predictions"), ("predictions as Parquet", "parquet"))
        ]
    medians = {name: workbench.median_usage(usages) for name, usages in runs.items()}
    usual = next(iter(medians.values()))
    rows: list[dict[str, Any]] = [
        {
            "what": name,
            "wall s": usage.wall_s,
            "CPU s": usage.cpu_s,
            "peak memory, MB": usage.peak_memory_bytes / 1e6,
            "times faster": usual.wall_s / usage.wall_s,
            "times less memory": usual.peak_memory_bytes / usage.peak_memory_bytes,
        }
        for name, usage in medians.items()
    ]
    workbench.write_results(
        options.results,
        "scoring",
        "Scoring a tier: one correlation by the usual way, and two with ceilings and intervals by this package's",
        {
            "sessions": options.sessions,
            "trials": options.trials,
            "neurons": options.neurons,
            "frames": N_FRAMES - N_SKIPPED,
            "repeats": options.repeats,
        },
        {"runs": runs, "load": load, "score": score},
        [("Medians", rows), ("Sizes", sizes)],
    )


if __name__ == "__main__":
    main()
