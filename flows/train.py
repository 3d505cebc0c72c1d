"""A preset and session stores → a training run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import publish_markdown, publish_table
from flows.run_logging import log_line, quiet_known_errors, run_progress
from flows.settings import Settings
from flows.summaries import describe_epoch, read_summary
from models.training import EpochMetrics, TrainingReport
from models.training import train as train_model

__all__ = ["train"]


# Only one run of this tag at a time where the server has a limit for it.
@task(name="train model", task_run_name="train {preset}", tags=["gpu"], cache_policy=NO_CACHE)
def train_task(
    preset: str, store: str, sessions: list[str] | None, runs: str, overrides: dict[str, str] | None
) -> TrainingReport:
    """Train one run, or find that it is finished already."""
    from models.config import override
    from models.registry import get_preset

    quiet_known_errors()
    epochs: list[dict[str, Any]] = []

    def on_epoch(metrics: EpochMetrics) -> None:
        epochs.append(asdict(metrics))
        log_line(describe_epoch(metrics))

    config = override(get_preset(preset), overrides or {})
    report = train_model(config, store, sessions, runs, progress=run_progress(), on_epoch=on_epoch)
    log_line(f"run {report.run}: {report.status}")
    if epochs:
        publish_table(f"training-{preset}", epochs, f"Epochs of `{report.run}`")
    publish_markdown(f"run-{preset}", read_summary(report), f"Run `{report.run}`")
    return report


@flow(name="train", flow_run_name="train {preset}")
def train(
    preset: str,
    store: str,
    sessions: list[str] | None = None,
    runs: str | None = None,
    overrides: dict[str, str] | None = None,
) -> TrainingReport:
    """Train a model; a run of the same configuration on the same data that is finished is left alone.

    Args:
        preset: A model's name, e.g. factorized3d, or that with -debug for its small size.
        store: Root of the session stores: a folder or any fsspec URL.
        sessions: Sessions to train on. Unset: all sessions in the store.
        runs: Folder of training runs. Unset: SENSORIUM_RUNS, or runs.
        overrides: Settings of the preset to change, by dotted name, e.g. learning_rate: 0.001.
    """
    quiet_known_errors()
    return train_task(preset, store, sessions, runs or Settings().runs, overrides)
