"""Runs and tiers → predictions and scores."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.artifacts import publish_table
from flows.gpu_limit import slot_for
from flows.run_logging import log_line, quiet_known_errors, run_progress
from models.prediction import PredictionReport
from models.prediction import predict as predict_tiers
from sensorium_data.scoring import ScoreTable, score_predictions

__all__ = ["evaluate", "predict", "score"]

RunPaths = Annotated[list[str], Field(min_length=1)]
Tiers = Annotated[list[str], Field(min_length=1)]


@task(name="predict", cache_policy=NO_CACHE, tags=["gpu"])
def predict_task(runs: list[str], store: str, tiers: list[str], predictions: str) -> PredictionReport:
    """Predict tiers into a predictions store, or find that it is finished already."""
    quiet_known_errors()
    with slot_for("auto"):
        report = predict_tiers(runs, store, tiers, predictions, progress=run_progress())
    log_line(f"predictions {report.predictions}: {report.status}, {report.n_trials} trials")
    return report


@task(name="score", cache_policy=NO_CACHE)
def score_task(predictions: str, store: str, truth: str | None) -> ScoreTable:
    """Score predictions against the recorded responses, and publish the table."""
    quiet_known_errors()
    table = score_predictions(predictions, store, truth=truth, progress=run_progress())
    unscored = "".join(f"\n- not scored: {reason}" for reason in table.unscored)
    publish_table("scores", table.to_frame(), f"Scores of `{predictions}`{unscored}")
    return table


@flow(name="predict")
def predict(runs: RunPaths, store: str, tiers: Tiers, predictions: str) -> PredictionReport:
    """Predict whole trials of some tiers.

    Args:
        runs: Training runs; several make an ensemble by their mean.
        store: Root of the session stores.
        tiers: Tiers to predict, e.g. oracle, live_test_main.
        predictions: The predictions store to write.
    """
    quiet_known_errors()
    return predict_task(runs, store, tiers, predictions)


@flow(name="score")
def score(predictions: str, store: str, truth: str | None = None) -> ScoreTable:
    """Score predictions by session and tier.

    Args:
        predictions: The predictions store.
        store: Root of the session stores.
        truth: Truth of simulated sessions: scores withheld tiers, and the best possible score beside each.
    """
    quiet_known_errors()
    return score_task(predictions, store, truth)


@flow(name="evaluate")
def evaluate(
    runs: RunPaths,
    store: str,
    tiers: Tiers,
    predictions: str,
    truth: str | None = None,
) -> ScoreTable:
    """Predict some tiers with trained runs, and score the predictions.

    Args:
        runs: Training runs; several make an ensemble by their mean.
        store: Root of the session stores.
        tiers: Tiers to predict, e.g. oracle, live_test_main.
        predictions: The predictions store to write.
        truth: Truth of simulated sessions: scores withheld tiers, and the best possible score beside each.
    """
    quiet_known_errors()
    predict_task(runs, store, tiers, predictions)
    return score_task(predictions, store, truth)
