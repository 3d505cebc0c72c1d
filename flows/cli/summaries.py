"""Tables of trainings, scores, leaderboards, submissions and checks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from flows.cli.tables import print_table
from flows.reporting import describe_report, format_size, join_ends
from sensorium_data.counting import count_things
from sensorium_data.sessions import find_session

if TYPE_CHECKING:
    import pandas as pd

    from models.training import EnsembleReport, TrainingReport
    from sensorium_data.quality import QualityReport
    from sensorium_data.scoring import BenchmarkReport, Leaderboard, ScoreTable
    from sensorium_data.submission import SubmissionReport, ValidationReport

__all__ = [
    "print_benchmark",
    "print_checks",
    "print_depths",
    "print_ensemble",
    "print_findings",
    "print_leaderboard",
    "print_scores",
    "print_submission",
    "print_training",
]

# The least telling first.
_SPARED_SCORES = (
    "explainable_variance",
    "oracle_correlation",
    "ceiling_single_trial_correlation",
    "n_trials",
    "attainable_correlation_to_average",
)
_ALWAYS_SHOWN = ("alias", "tier", "stimulus", "n_trials", "single_trial_correlation")


def print_scores(console: Console, table: ScoreTable) -> None:
    """Print scores by session and tier, their intervals, and the ceilings where they are known."""
    frame = table.to_frame()
    for score in ("single_trial_correlation", "correlation_to_average"):
        frame[f"{score}_interval"] = join_ends(frame, score)
    confidence = f"{table.bootstrap.confidence:.0%}"
    columns = {
        "alias": "session",
        "tier": "tier",
        "stimulus": "stimulus",
        "n_trials": "trials",
        "single_trial_correlation": "single\ntrial",
        "single_trial_correlation_interval": confidence,
        "oracle_correlation": "oracle",
        "correlation_to_average": "to\naverage",
        "correlation_to_average_interval": confidence,
    }
    # What a simulation knows says more than what its repeats tell.
    if frame["ceiling_single_trial_correlation"].notna().any():
        columns |= {"ceiling_single_trial_correlation": "ceiling", "fraction_of_ceiling": "share of\nceiling"}
    else:
        columns |= {"attainable_correlation_to_average": "attainable", "explainable_variance": "explainable"}
    shown = {name: heading for name, heading in columns.items() if frame[name].notna().any() or name in _ALWAYS_SHOWN}
    title = f"Correlations of {table.predictions}, frames {table.frames}"
    print_table(
        console,
        title,
        frame,
        columns=shown,
        n_keys=3 if "stimulus" in shown else 2,
        joined=_intervals(shown),
        optional=_SPARED_SCORES,
        note=table.describe_simulated(),
    )
    _print_further_scores(console, frame)


def _print_further_scores(console: Console, frame: pd.DataFrame) -> None:
    """Print the other readings in a table of their own: beside the two scores they would not fit on a terminal.

    Their intervals would not either; JSON has them.
    """
    columns = {
        "alias": "session",
        "tier": "tier",
        "stimulus": "stimulus",
        "frame_difference_correlation": "frame\ndiffer-\nences",
        "correlation_to_average_per_movie": "to av.,\nper\nmovie",
        "normalized_correlation": "normal-\nized",
    }
    known = {name: heading for name, heading in columns.items() if frame[name].notna().any()}
    if len(known) > len(columns.keys() & {"alias", "tier", "stimulus"}):
        print_table(console, "Other readings of the correlation", frame, columns=known, n_keys=3)


def print_depths(console: Console, table: ScoreTable) -> None:
    """Print both correlations by cortical depth, of all stimuli together."""
    depths = table.by_depth()
    columns = {
        "alias": "session",
        "tier": "tier",
        "depth": "depth,\nµm",
        "n_neurons": "neurons",
        "single_trial_correlation": "single\ntrial",
        "correlation_to_average": "to\naverage",
    }
    whole = depths[depths["stimulus"] == "all"]
    print_table(console, f"Scores of {table.predictions} by depth", whole, columns=columns, n_keys=3)


def print_leaderboard(console: Console, board: Leaderboard) -> None:
    """Print entries side by side, a table for each tier, with their differences to the reference."""
    rows = board.rows
    several = rows["aggregation"].isin(("mean over neurons", "mean over mice"))
    confidence = f"{next(iter(board.entries.values())).bootstrap.confidence:.0%}"
    for (tier, stimulus), group in rows.groupby(["tier", "stimulus"], sort=False):
        shown = group.copy()
        # Sessions one by one are for programs; of one alone they are all there is.
        if several[group.index].any():
            shown = shown[several[group.index]]
        for name in ("single_trial_correlation", "single_trial_correlation_difference", "correlation_to_average"):
            shown[f"{name}_interval"] = join_ends(shown, name)
        columns = {
            "aggregation": "aggregation",
            "entry": "entry",
            "rank": "rank",
            "single_trial_correlation": "single\ntrial",
            "single_trial_correlation_interval": confidence,
            "single_trial_correlation_difference": f"difference\nto the {board.reference}",
            "single_trial_correlation_difference_interval": confidence,
            "correlation_to_average": "to\naverage",
            "correlation_to_average_interval": confidence,
        }
        if shown["correlation_to_average"].isna().all():
            columns = {name: heading for name, heading in columns.items() if "to_average" not in name}
        n_sessions, n_trials = int(shown["n_sessions"].max()), int(shown["n_trials"].max())
        what = tier if stimulus == "all" else f"{tier}, {stimulus}"
        print_table(
            console,
            f"{what}: {count_things(n_sessions, 'session')}, {count_things(n_trials, 'trial')}",
            shown,
            columns=columns,
            n_keys=2,
            joined=_intervals(columns),
        )


def print_benchmark(console: Console, report: BenchmarkReport) -> None:
    """Print the open benchmark, a table for each tier, by the mean over the neurons of all sessions."""
    confidence = f"{report.bootstrap.confidence:.0%}"
    columns = {
        "entry": "entry",
        "n_trials": "trials",
        "leaked": "leaked",
        "single_trial_correlation": "single-trial\ncorrelation",
        "single_trial_correlation_interval": confidence,
        "correlation_to_average": "correlation\nto average",
    }
    by_tier: dict[str, list[dict[str, object]]] = {}
    for entry in report.entries:
        summary = entry.table.summary.query("aggregation == 'mean over neurons' and stimulus == 'all'").copy()
        summary["single_trial_correlation_interval"] = join_ends(summary, "single_trial_correlation")
        for row in summary.to_dict(orient="records"):
            _, n_leaked = entry.count_leaks(row["tier"])
            known = f"at least {n_leaked}" if n_leaked else "unknown"
            leaked = known if entry.unknown else str(n_leaked)
            named = {str(name): value for name, value in row.items()}
            by_tier.setdefault(row["tier"], []).append(named | {"entry": entry.name, "leaked": leaked})
    for tier, rows in by_tier.items():
        print_table(console, f"{tier}, frames {report.frames}", rows, columns=columns, joined=_intervals(columns))


def _intervals(columns: Iterable[str]) -> list[str]:
    return [name for name in columns if name.endswith("_interval")]


def print_submission(console: Console, report: SubmissionReport) -> None:
    """Print a track's zips, every check they passed, and where the model card is."""
    print_table(
        console,
        f"Submission, track {report.track}, frames {report.frames}: {report.status}",
        [
            {"zip": file.path, "size": format_size(file.size_bytes), "holds": ", ".join(file.members)}
            for file in report.files
        ],
        below=("holds",),
    )
    print_findings(console, f"Checks of the validator, track {report.track}", report.validation)
    console.print(f"Model card: {report.card}", soft_wrap=True)


def print_findings(console: Console, title: str, report: ValidationReport) -> None:
    """Print how many checks each submission file passed, and the names of those that it did not pass."""
    rows: dict[str, dict[str, Any]] = {}
    for check in report.checks:
        file, _, member = check.file.partition(": ")
        row = rows.setdefault(
            check.file, {"file": file, "member": member or None, "checks": 0, "passed": 0, "failed": ""}
        )
        row["checks"] += 1
        row["passed"] += check.passed
        if not check.passed:
            row["failed"] = ", ".join(filter(None, (row["failed"], check.name)))
    columns = {name: name for name in ("file", "member", "checks", "passed", "failed")}
    if all(check.passed for check in report.checks):
        del columns["failed"]
    print_table(console, title, list(rows.values()), columns=columns, n_keys=2)


def print_checks(console: Console, quality: QualityReport) -> None:
    """Print a session's checks: as a table those that did not pass, then what they are about, then the others.

    What a check is about is said once for all tiers and modalities that it is made of; JSON and the report say it of
    every check.
    """
    checks = quality.to_table()
    passed = checks["outcome"] == "passed"
    columns = {name: name for name in ("check", "outcome", "found", "expected")}
    if not passed.all():
        print_table(console, "Quality", checks[~passed], columns=columns)
        _print_heading(console, "What these checks are about")
        for sentence, group in checks[~passed].groupby("sentence", sort=False):
            console.print(f"{', '.join(group['check'])}: {sentence}")
    if passed.any():
        _print_heading(console, f"{count_things(int(passed.sum()), 'check')} passed")
        rows = checks[passed].itertuples()
        console.print(", ".join(f"{row.check}{'' if row.found == 'none' else f' ({row.found})'}" for row in rows))


def _print_heading(console: Console, heading: str) -> None:
    console.print()
    console.print(heading, style="bold")


def print_ensemble(console: Console, report: EnsembleReport) -> None:
    """Print what the training of an ensemble came to: a row for each run, and its name."""
    for trained in report.runs:
        for line in describe_report(trained):
            console.print(line, soft_wrap=True)
    rows = [
        {
            "run": trained.run.rpartition("/")[2],
            "fold": fold,
            "seed": seed,
            "epochs": trained.n_epochs,
            "best": trained.best_epoch,
            "validation\ncorrelation": trained.best_correlation,
        }
        for trained, fold, seed in zip(report.runs, report.folds, report.seeds, strict=True)
    ]
    print_table(console, f"Runs of the ensemble {report.name}", rows)
    console.print(f"{report.record}: {report.status}", soft_wrap=True)


def print_training(console: Console, report: TrainingReport) -> None:
    """Print what a training came to: its epochs, and where its curves and its summary are."""
    from models.runs import load_run

    for line in describe_report(report):
        console.print(line, soft_wrap=True)
    rows = [
        {
            "epoch": epoch.epoch,
            "weights": "kept" if epoch.epoch == report.best_epoch else None,
            "loss": epoch.train_loss,
            "validation\nloss": epoch.validation_loss,
            "validation\ncorrelation": epoch.correlation,
            **{find_session(name).alias: value for name, value in epoch.correlations.items()},
            "learning\nrate": f"{epoch.learning_rate:.2g}",
        }
        for epoch in load_run(report.run).metrics()
    ]
    aliases = [find_session(name).alias for name in report.sessions]
    print_table(console, f"Epochs of {report.run}", rows, optional=(*aliases[::-1], "validation\nloss"))
    console.print()
    for what, name in (("Curves", "curves.png"), ("Summary", "summary.md")):
        console.print(f"{what}: {report.run}/{name}", soft_wrap=True)
