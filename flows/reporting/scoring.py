"""Predictions → scores, as every flow does it that has predictions."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.reporting.run_logging import quiet_known_errors, run_progress
from flows.reporting.score_artifacts import publish_scores
from flows.watching import report
from sensorium_data.frames import FramesProfile
from sensorium_data.scoring import Bootstrap, ScoreTable, score_predictions

__all__ = ["score_task"]


@task(name="score", cache_policy=NO_CACHE)
def score_task(
    predictions: str,
    store: str,
    truth: str | None,
    tiers: list[str] | None = None,
    frames: FramesProfile = "official",
    resamples: int = 1000,
    seed: int = 0,
    jobs: int = 2,
    dask: str | None = None,
    exclude: list[str] | None = None,
) -> ScoreTable:
    """Score predictions against the recorded responses, and publish the table."""
    quiet_known_errors()
    table = score_predictions(
        predictions,
        store,
        truth=truth,
        frames=frames,
        tiers=tiers,
        bootstrap=Bootstrap(resamples, seed),
        jobs=jobs,
        dask=dask,
        progress=run_progress(),
        exclude=exclude or (),
    )
    report(lambda: publish_scores(table, store))
    return table
