"""One stage's file of a submission, written and validated, against the starter kit's way of writing it.

    python benchmarks/submission.py                    # real size: 5 sessions, needs about 12 GB of space
    python benchmarks/submission.py --trials 6 --readme-trials 3 --work /tmp/bench

The starter kit's README puts the predictions into a DataFrame of lists and writes that with `to_parquet`. All of it
is in memory, so that it gets as many trials as that allows, and is compared per trial, the start of Python included.
The README's way begins with arrays in memory; `submit` begins with a predictions store, and also estimates sizes,
validates what it wrote and digests it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import workbench

from sensorium_data.ingest import convert_session
from sensorium_data.predictions import from_arrays
from sensorium_data.sessions import Release, Session, Tier, find_sessions
from sensorium_data.testing import Recording, Trial, make_movie

_SESSIONS = [session for session in find_sessions(["new"]) if session.release is Release.NEW]
# A stage that has a zip of its own, so that one stage's file can be written alone.
_TIER = Tier.LIVE_TEST_BONUS
_N_FRAMES, _N_SKIPPED = 300, 50
_TITLES = {"readme": "README: DataFrame of lists, to_parquet", "arrays": "rows of arrays, into a zip"}

_PREPARE = """
import sys
sys.path.insert(0, sys.argv[1])
import submission
submission.prepare(submission.Path(sys.argv[2]), *map(int, sys.argv[3:]))
"""

# As the starter kit's README writes it; only the names are ours.
_README_WAY = """
import sys
import numpy as np
import pandas as pd

arrays, unit_ids, n_trials, out = sys.argv[1:]
arrays, unit_ids = np.load(arrays, mmap_mode="r"), np.load(unit_ids)
frame = pd.DataFrame(
    {
        "mouse": ["dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"] * int(n_trials),
        "trial_indices": list(range(int(n_trials))),
        "prediction": [np.array(arrays[trial]).tolist() for trial in range(int(n_trials))],
        "neuron_ids": [unit_ids.tolist()] * int(n_trials),
    }
)
frame.to_parquet(out, compression="brotli", engine="pyarrow", index=False)
"""

_WRITE_ARRAYS = """
import sys
from pathlib import Path
import numpy as np
from sensorium_data.frames import MEMBER_NAMES
from sensorium_data.submission import PredictionsTable, SubmissionRow, write_zip

arrays, unit_ids, n_trials, out = sys.argv[1:]
arrays, unit_ids = np.load(arrays, mmap_mode="r"), np.load(unit_ids)
name = "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"
rows = lambda: (SubmissionRow(name, i, np.array(arrays[i % len(arrays)]), unit_ids) for i in range(int(n_trials)))
table = PredictionsTable(MEMBER_NAMES["live_test_bonus"], "float32", int(n_trials) * arrays[0].size, rows)
write_zip(Path(out), out, [table], lambda: None)
"""

_SUBMIT = """
import sys
from flows.cli import main

predictions, store, out = sys.argv[1:]
main(["submit", predictions, "--store", store, "--track", "bonus", "--out", out, "--json"])
"""

_VALIDATE = """
import json, sys
from sensorium_data.submission import validate_submission

store, out, path = sys.argv[1:]
report = validate_submission([path], store)
json.dump(report.to_dict(), open(out, "w"))
"""


class Predictions(Mapping[int, np.ndarray]):
    """A session's predictions, made up trial by trial as they are asked for: smooth, positive, as a network's."""

    def __init__(self, seed: int, n_trials: int, n_neurons: int) -> None:
        self._seed, self._n_trials, self._n_neurons = seed, n_trials, n_neurons

    def __getitem__(self, trial: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, trial])
        steps = rng.standard_normal((self._n_neurons, _N_FRAMES + 8), np.float32)
        smooth = np.cumsum(steps, axis=1, dtype=np.float32)
        latent = (smooth[:, 8:] - smooth[:, :-8]) / 3 - 2
        return np.logaddexp(latent, 0).astype(np.float32)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._n_trials))

    def __len__(self) -> int:
        return self._n_trials


def prepare(work: Path, n_trials: int, n_neurons: int, n_arrays: int) -> None:
    """Make session stores with one stage's trials, predictions of them, and the first session's again as one array."""
    archives = work / "archives"
    for session in _SESSIONS:
        make_recording(session, n_trials, n_neurons).write(archives, method=zipfile.ZIP_DEFLATED)
        convert_session(session, str(work / "store"), source=str(archives))
    shutil.rmtree(archives)
    arrays = {session.name: Predictions(i, n_trials, n_neurons) for i, session in enumerate(_SESSIONS)}
    from_arrays(str(work / "predictions"), str(work / "store"), arrays, response_units="standardized")
    shape = (n_arrays, n_neurons, _N_FRAMES - _N_SKIPPED)
    stacked = np.lib.format.open_memmap(work / "arrays.npy", "w+", np.float32, shape)
    everything = Predictions(0, n_arrays, n_neurons)
    for trial in range(n_arrays):
        stacked[trial] = everything[trial][:, _N_SKIPPED:]
    stacked.flush()
    np.save(work / "unit_ids.npy", np.arange(1, n_neurons + 1))


def make_recording(session: Session, n_trials: int, n_neurons: int) -> Recording:
    """Return a session whose responses are withheld, as the archive holds it: zeros, which take no time to convert."""
    n_padded = session.n_frames_padded
    rng = np.random.default_rng(0)
    withheld = np.zeros((n_neurons, n_padded))
    pupil = np.full((2, n_padded), np.nan)
    pupil[:, :_N_FRAMES] = rng.normal(150, 5, (2, _N_FRAMES))
    trials = {}
    for trial in range(n_trials):
        videos = np.full((36, 64, n_padded), np.nan)
        videos[..., :_N_FRAMES] = make_movie(_N_FRAMES, trial)
        trials[trial] = Trial(str(_TIER), videos, withheld, rng.gamma(2.0, 10.0, (2, n_padded)), pupil)
    shapes = {name: array.shape for name, array in trials[0].arrays().items()}
    statistics = {
        (name, statistic): np.ones(shape)
        for name, shape in shapes.items()
        for statistic in ("mean", "std", "median", "min", "max")
    }
    return Recording(
        session=session,
        trials=trials,
        tiers=[str(_TIER)] * n_trials,
        unit_ids=np.arange(1, n_neurons + 1),
        positions=rng.integers(-700, 400, (n_neurons, 3)).astype(float),
        statistics=statistics,
    )


def describe(what: str, usage: workbench.Usage, n_trials: int, size_bytes: int) -> dict[str, Any]:
    """Return a row of what writing took."""
    return {
        "what": what,
        "trials": n_trials,
        "wall s": usage.wall_s,
        "ms a trial": 1e3 * usage.wall_s / n_trials,
        "CPU ms a trial": 1e3 * usage.cpu_s / n_trials,
        "peak memory, MB": usage.peak_memory_bytes / 1e6,
        "MB a trial": size_bytes / n_trials / 1e6,
    }


def validate(work: Path, path: Path, n_trials: int, what: str) -> dict[str, Any]:
    """Validate a file in a process of its own, and return a row of what it took and found."""
    usage = workbench.run_python(_VALIDATE, work / "store", work / "report.json", path)
    report = json.loads((work / "report.json").read_text())
    return {
        "what": what,
        "trials": n_trials,
        "GB": path.stat().st_size / 1e9,
        "violations": len(report["violations"]),
        "wall s": usage.wall_s,
        "ms a trial": 1e3 * usage.wall_s / n_trials,
        "CPU ms a trial": 1e3 * usage.cpu_s / n_trials,
        "peak memory, MB": usage.peak_memory_bytes / 1e6,
    }


def measure(work: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of writing and of validating."""
    n_all = len(_SESSIONS) * options.trials
    writing, validating = [], []
    usage = workbench.run_python(_SUBMIT, work / "predictions", work / "store", work / "out")
    ours = work / "out" / "submission_bonus_live.zip"
    writing.append(describe("submit: read, write, validate", usage, n_all, ours.stat().st_size))
    validating.append(validate(work, ours, n_all, "of submit, a row group a trial"))
    few = {max(1, options.readme_trials // 3), options.readme_trials}
    for way, code, numbers in (("arrays", _WRITE_ARRAYS, {options.readme_trials, n_all}), ("readme", _README_WAY, few)):
        for n_trials in sorted(numbers):
            path = work / f"{way}-{n_trials}" / "predictions_live_test_bonus_ood.parquet.brotli"
            path.parent.mkdir(exist_ok=True)
            usage = workbench.run_python(code, work / "arrays.npy", work / "unit_ids.npy", n_trials, path)
            writing.append(describe(_TITLES[way], usage, n_trials, path.stat().st_size))
            if way == "readme":
                validating.append(validate(work, path, n_trials, "README's, one row group of all trials"))
    slowest = writing[-1]
    return [
        {**row, "faster than README, a trial": slowest["ms a trial"] / row["ms a trial"]} for row in writing
    ], validating


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--readme-trials", type=int, default=30, help="trials that the README's way gets (default: %(default)s)"
        )

    options = workbench.parse_arguments(__doc__ or "", n_trials=57, extend=extend, arguments=arguments)
    with workbench.open_work_folder(options.work) as kept:
        work = kept / f"submission-{options.trials}x{options.neurons}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        # In a process of its own: a child's peak memory is never less than that of the process which starts it.
        here = Path(__file__).parent
        workbench.run_python(_PREPARE, here, work, options.trials, options.neurons, options.readme_trials)
        load = workbench.describe_load()
        writing, validating = measure(work, options)
        shutil.rmtree(work)
    workbench.write_results(
        options.results,
        "submission",
        "One stage's file of a submission",
        {
            "sessions": len(_SESSIONS),
            "trials": options.trials,
            "neurons": options.neurons,
            "frames": _N_FRAMES - _N_SKIPPED,
            **{name: version(name) for name in ("pyarrow", "pandas")},
        },
        {"load": load},
        [("Writing, one run each", writing), ("Validating, one run each", validating)],
    )


if __name__ == "__main__":
    main()
