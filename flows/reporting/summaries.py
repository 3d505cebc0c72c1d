"""What runs and submissions come to, in words for logs, artifacts and the terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from flows.reporting.pace import format_size
from sensorium_data.sessions import find_session

if TYPE_CHECKING:
    import pandas as pd

    from models.runs import EpochMetrics
    from models.training import TrainingReport
    from sensorium_data.submission import SubmissionReport

__all__ = ["describe_epoch", "describe_report", "describe_submission", "join_ends", "read_summary"]


_USUAL_SCORES = ("single_trial_correlation", "single_trial_correlation_session_mean", "starter_kit_correlation")


def describe_epoch(epoch: EpochMetrics) -> str:
    """Return one line on an epoch of training."""
    sessions = ", ".join(f"{find_session(name).alias} {value:z.3f}" for name, value in epoch.correlations.items())
    memory = f", {format_size(epoch.gpu_memory_bytes)} GPU memory" if epoch.gpu_memory_bytes else ""
    # Of another reference than the starter kit's, which may decide what is best.
    other = "".join(f", {name} {value:z.3f}" for name, value in epoch.scores.items() if name not in _USUAL_SCORES)
    return (
        f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}, validation correlation {epoch.correlation:z.3f} "
        f"({sessions}){other}, learning rate {epoch.learning_rate:.2g}, "
        f"{epoch.windows_per_s:.0f} windows/s, "
        f"{epoch.data_wait_share:.0%} waiting for data{memory}{', best so far' if epoch.improved else ''}"
    )


def describe_report(report: TrainingReport) -> list[str]:
    """Return lines on what a training came to: where the run is, and what is to be known of it."""
    step = report.resumed_step
    continued = f", continued at step {step}" if step else ""
    kept = "" if report.best_epoch else "; no epoch beat the model as it was before training, whose weights are kept"
    return [f"{report.run}: {report.status}{continued}{kept}", *report.notes]


def read_summary(report: TrainingReport) -> str:
    """Return the one-page summary of a run, in Markdown."""
    from models.runs import load_run

    return (load_run(report.run).path / "summary.md").read_text(encoding="utf-8")


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


def join_ends(frame: pd.DataFrame, name: str) -> list[str | None]:
    """Return each interval's ends, the columns ``<name>_low`` and ``<name>_high``, in one text; None if unknown."""
    ends = zip(frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
    shown = [None if low != low else (f"{low:z.3f}", f"{high:z.3f}") for low, high in ends]
    return [None if pair is None else (" to " if pair[0].startswith("-") else "–").join(pair) for pair in shown]
