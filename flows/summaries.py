"""What runs, scores and submissions come to, for people: the same words on a terminal and in a run's log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flows.tables import format_size, print_table
from sensorium_data.sessions import find_session

if TYPE_CHECKING:
    from models.training import EpochMetrics, TrainingReport
    from sensorium_data.scoring import ScoreTable
    from sensorium_data.submission import SubmissionReport

__all__ = [
    "describe_epoch",
    "describe_report",
    "describe_submission",
    "print_scores",
    "print_submission",
    "read_summary",
]


def describe_epoch(epoch: EpochMetrics) -> str:
    """Return one line on an epoch of training."""
    sessions = ", ".join(f"{find_session(name).alias} {value:.3f}" for name, value in epoch.correlations.items())
    memory = f", {format_size(epoch.gpu_memory_bytes)} GPU memory" if epoch.gpu_memory_bytes else ""
    return (
        f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, validation correlation {epoch.correlation:.3f} "
        f"({sessions}), learning rate {epoch.learning_rate:.2g}, "
        f"{epoch.windows_per_s:.0f} windows/s, "
        f"{epoch.data_wait_share:.0%} waiting for data{memory}{', best so far' if epoch.improved else ''}"
    )


def describe_report(report: TrainingReport) -> list[str]:
    """Return lines on what a training came to: where the run is, and what is to be known of it."""
    step = report.resumed_step
    return [f"{report.run}: {report.status}{f', continued at step {step}' if step else ''}", *report.notes]


def read_summary(report: TrainingReport) -> str:
    """Return the one-page summary of a run, in Markdown."""
    return (Path(report.run) / "summary.md").read_text(encoding="utf-8")


def print_scores(console: Console, table: ScoreTable) -> None:
    """Print scores by session and tier, beside the ceiling where it is known."""
    frame = table.to_frame()
    columns = {
        "alias": "session",
        "tier": "tier",
        "stimulus": "stimulus",
        "n_trials": "trials",
        "single_trial_correlation": "single-trial correlation",
        "correlation_to_average": "correlation to average",
    }
    if frame["ceiling_single_trial_correlation"].notna().any():
        columns |= {"ceiling_single_trial_correlation": "ceiling", "fraction_of_ceiling": "share of ceiling"}
    print_table(console, f"Scores of {table.predictions}", frame, columns=columns)


def describe_submission(report: SubmissionReport) -> dict[str, object]:
    """Return a track's zips, their digests and every check, as JSON values."""
    return {
        "track": str(report.track),
        "frames": report.frames,
        "dtype": report.float_type,
        "status": report.status,
        "card": report.card,
        "files": [asdict(file) for file in report.files],
        "notes": list(report.notes),
        **report.validation.to_dict(),
    }


def print_submission(console: Console, report: SubmissionReport) -> None:
    """Print a track's zips, every check they passed, and where the model card is."""
    print_table(
        console,
        f"Submission, track {report.track}, frames {report.frames}: {report.status}",
        [
            {"zip": file.path, "size": format_size(file.size_bytes), "holds": ", ".join(file.members)}
            for file in report.files
        ],
    )
    print_table(console, f"Checks of the validator, track {report.track}", report.validation.to_frame())
    console.print(f"Model card: {report.card}", markup=False, soft_wrap=True)
