"""The presets in small on simulated recordings, whose withheld responses and noiseless rates are known.

    python benchmarks/model_comparison.py --work /tmp/comparison

Every preset is trained with several seeds, on the same sessions and for as many epochs. What is compared is the
single-trial correlation, the mean over neurons, tiers and sessions, as a share of what the noiseless rates reach:
the tier ``oracle``, the withheld tiers of natural videos, and the withheld tiers of other stimuli. Intervals of
differences are paired: equal trials are resampled, and runs of equal seeds are subtracted. With ``--work``, a run that
was interrupted goes on, and other presets can be added to a finished one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import workbench
from scipy import stats

from models.runs import load_run
from sensorium_data.machine import count_cores
from sensorium_data.scoring import Bootstrap, ScoreTable, score_predictions
from sensorium_data.scoring.bootstrap import Resampled
from sensorium_data.sessions import find_sessions

#: All but ``gru-equivariant-debug``, which takes as long as the baselines together.
PRESETS = ("static2d-debug", "factorized3d-debug", "factorized3d-demo-debug", "full3d-debug", "gru-debug")
#: Whose runs of the same seed others learn from.
TEACHERS = {"dwiseneuro-distilled-debug": "dwiseneuro-debug"}
SESSIONS = ("F", "G")
METRIC = "single_trial_correlation"
GROUPS = {
    "oracle": ("oracle",),
    "main": ("live_test_main", "final_test_main"),
    "other stimuli": ("live_test_bonus", "final_test_bonus"),
}
TIERS = tuple(tier for tiers in GROUPS.values() for tier in tiers)
#: The best of the published baselines.
REFERENCE = "factorized3d-debug"


def main() -> None:
    """Train, predict and score, and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(neurons=300)
        parser.add_argument(
            "--presets", nargs="+", default=PRESETS, help="presets, or models of a file (default: %(default)s)"
        )
        parser.add_argument("--seeds", type=int, default=3, help="runs of each preset (default: %(default)s)")
        parser.add_argument("--epochs", type=int, default=10, help="epochs of each run (default: %(default)s)")
        parser.add_argument("--name", default="model_comparison", help="of the results' files (default: %(default)s)")
        parser.add_argument("--reference", default=REFERENCE, help="preset to compare with (default: %(default)s)")
        parser.add_argument(
            "--jobs", type=int, default=count_cores(), help="runs at once, a core each (default: %(default)s)"
        )

    options = workbench.parse_arguments(__doc__ or "", n_trials=240, extend=extend)
    if options.reference not in options.presets or options.seeds < 1:
        raise SystemExit("the reference has to be among the presets, and at least one seed is needed")
    lacking = {TEACHERS[preset] for preset in options.presets if preset in TEACHERS} - set(options.presets)
    if lacking:
        raise SystemExit(f"what learns from others needs them among the presets: {', '.join(sorted(lacking))}")
    with workbench.open_work_folder(options.work) as work:
        compare(work, options)


def compare(work: Path, options: argparse.Namespace) -> None:
    """Do what is not yet done in a folder, and write the results."""
    archives = work / f"archives-{options.trials}x{options.neurons}"
    store = work / f"store-{options.trials}x{options.neurons}"
    size = ("--trials", options.trials, "--neurons", options.neurons)
    sensorium("simulate", archives, "--sessions", *SESSIONS, *size)
    sensorium("ingest", *SESSIONS, "--store", store, "--source", archives)

    def folder_of(preset: str, seed: int) -> Path:
        return work / f"{_name(preset)}-{options.trials}x{options.neurons}-{options.epochs}-{seed}"

    def find_run(preset: str, seed: int) -> Path:
        (trained,) = (path for path in folder_of(preset, seed).iterdir() if (path / "model.json").is_file())
        return trained

    def run(job: tuple[str, int]) -> ScoreTable:
        preset, seed = job
        place = folder_of(preset, seed)
        recipe = (f"seed={seed}", f"max_epochs={options.epochs}", f"early_stopping_patience={options.epochs}")
        teacher = ("--teacher", find_run(TEACHERS[preset], seed)) if preset in TEACHERS else ()
        sensorium("train", preset, "--store", store, "--runs", place, "--set", *recipe, *teacher)
        trained = find_run(preset, seed)
        predictions = place / "predictions"
        if not predictions.exists():
            sensorium("predict", trained, "--store", store, "--tier", *TIERS, "--out", predictions)
        table = score_predictions(str(predictions), str(store), truth=str(archives), bootstrap=Bootstrap(), jobs=1)
        print(f"{_name(preset)}, seed {seed}: {_estimate([table], GROUPS['main']):.4f} on main", file=sys.stderr)
        return table

    tables: dict[tuple[str, int], ScoreTable] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        # Teachers first.
        for learns in (False, True):
            chosen = [preset for preset in options.presets if (preset in TEACHERS) == learns]
            jobs = [(preset, seed) for seed in range(options.seeds) for preset in chosen]
            tables |= zip(jobs, pool.map(run, jobs), strict=True)
    by_preset = {preset: [tables[preset, seed] for seed in range(options.seeds)] for preset in options.presets}
    runs = [{"preset": preset, "seed": seed, **_measure(table)} for (preset, seed), table in tables.items()]
    captions = {group: f"{group}: {' and '.join(f'`{tier}`' for tier in tiers)}" for group, tiers in GROUPS.items()}
    workbench.write_results(
        options.results,
        options.name,
        "Models in small on simulated recordings",
        {
            "sessions": ", ".join(SESSIONS),
            "trials": options.trials,
            "neurons": options.neurons,
            "seeds": options.seeds,
            "epochs": options.epochs,
        },
        {"runs": runs},
        [(captions[group], _rank(by_preset, GROUPS[group], options.reference)) for group in GROUPS],
    )


def sensorium(*arguments: object) -> None:
    """Run a command on one core; what it says is shown if it fails."""
    one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [str(Path(sys.executable).with_name("sensorium")), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | one_core, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def _name(preset: str) -> str:
    """Return a preset's name, or that of a function or class in a file."""
    return preset.rpartition(":")[2]


def _rank(
    by_preset: Mapping[str, Sequence[ScoreTable]], tiers: Iterable[str], reference: str
) -> list[dict[str, object]]:
    """Return a row for each preset, the best first."""
    rows = []
    for preset, tables in by_preset.items():
        scores = [_estimate([table], tiers) for table in tables]
        row: dict[str, object] = {
            "preset": f"`{_name(preset)}`",
            "correlation": _show(np.mean(scores)),
            "sd over seeds": _show(np.std(scores, ddof=1)) if len(scores) > 1 else "",
            "share of ceiling": f"{np.mean(scores) / _ceiling(tables[0], tiers):.1%}",
            f"minus {reference}": "",
            "95 %": "",
        }
        if preset != reference:
            difference, low, high = _compare(tables, by_preset[reference], tiers)
            row[f"minus {reference}"], row["95 %"] = f"{difference:+.4f}", f"{low:+.4f} to {high:+.4f}"
        rows.append((np.mean(scores), row))
    return [row for _, row in sorted(rows, key=lambda one: -one[0])]


def _compare(
    tables: Sequence[ScoreTable], others: Sequence[ScoreTable], tiers: Iterable[str]
) -> tuple[float, float, float]:
    """Return a mean difference and its interval."""
    keys = _keys(tiers)
    signs = [sign / len(keys) for sign in (1, -1) for _ in keys]
    return combine_seeds(
        [
            Resampled.add([one.resampled[key][METRIC] for one in pair for key in keys], signs)
            for pair in zip(tables, others, strict=True)
        ]
    )


def combine_seeds(differences: Sequence[Resampled], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of differences and the ends of its interval, which holds for other trials and other seeds.

    Parameters
    ----------
    differences : sequence of Resampled
        One for each seed, all on the same trials.
    confidence : float
        How often the interval should hold the true difference.
    """
    n_seeds = len(differences)
    mean = Resampled.add(differences, [1 / n_seeds] * n_seeds)
    low, high = mean.interval(confidence)
    of_seeds = 0.0
    if n_seeds > 1:
        # Seeds are few: Student's t.
        scatter = np.std([one.estimate for one in differences], ddof=1) / np.sqrt(n_seeds)
        of_seeds = stats.t.ppf(0.5 + confidence / 2, n_seeds - 1) * scatter
    # Trials and seeds are drawn independently of each other.
    return (
        mean.estimate,
        mean.estimate - float(np.hypot(mean.estimate - low, of_seeds)),
        mean.estimate + float(np.hypot(high - mean.estimate, of_seeds)),
    )


def _estimate(tables: Sequence[ScoreTable], tiers: Iterable[str]) -> float:
    return float(np.mean([table.resampled[key][METRIC].estimate for table in tables for key in _keys(tiers)]))


def _ceiling(table: ScoreTable, tiers: Iterable[str]) -> float:
    rows = table.rows[(table.rows["stimulus"] == "all") & table.rows["tier"].isin([*tiers])]
    return float(rows[f"ceiling_{METRIC}"].mean())


def _keys(tiers: Iterable[str]) -> list[tuple[str, str, str]]:
    return [(session.name, tier, "all") for session in find_sessions(SESSIONS) for tier in tiers]


def _measure(table: ScoreTable) -> dict[str, Any]:
    run = load_run(next(path for path in Path(table.predictions).parent.iterdir() if (path / "model.json").is_file()))
    return {
        "n_parameters": run.n_parameters,
        "training_s": run.duration_s,
        "best_epoch": run.best_epoch,
        **{group: _estimate([table], tiers) for group, tiers in GROUPS.items()},
        **{f"ceiling, {group}": _ceiling(table, tiers) for group, tiers in GROUPS.items()},
    }


def _show(value: float) -> str:
    return f"{value:.4f}"


if __name__ == "__main__":
    main()
