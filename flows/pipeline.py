"""All of it in one flow: archives → session stores → run → predictions, scores → validated zips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field
from sensorium_data.submission import SubmissionReport

from flows.evaluate import TruthUrl, evaluate
from flows.ingest import Jobs, SessionNames, Source, StoreUrl, ingest
from flows.run_logging import quiet_known_errors
from flows.submit import Frames, submit
from flows.train import Overrides, Preset, train
from models.training import TrainingReport
from sensorium_data.convert import ConversionReport
from sensorium_data.scoring import ScoreTable
from sensorium_data.sessions import Tier, Track

__all__ = ["PipelineReport", "pipeline"]


@dataclass(frozen=True)
class PipelineReport:
    """What every step of the pipeline reported."""

    ingested: list[ConversionReport]
    trained: TrainingReport
    scores: ScoreTable
    submissions: list[SubmissionReport]


@flow(name="pipeline", flow_run_name="pipeline {preset}")
def pipeline(
    sessions: SessionNames,
    store: StoreUrl,
    out: Annotated[str, Field(description="Folder for predictions and submission zips.", min_length=1)],
    preset: Preset = "factorized3d",
    source: Source = None,
    runs: Annotated[str | None, Field(description="Folder of training runs.")] = None,
    overrides: Overrides = None,
    truth: TruthUrl = None,
    frames: Frames = "official",
    jobs: Jobs = None,
) -> PipelineReport:
    """Run every step; each finds by itself what is done already."""
    quiet_known_errors()
    ingested = ingest(sessions, store, source, jobs)
    trained = train(preset, store, [report.session for report in ingested], runs, overrides)
    tiers = [str(tier) for tier in Tier if tier is not Tier.TRAIN]
    # A predictions store belongs to one run: another run's predictions get another name.
    predictions = f"{out.rstrip('/')}/predictions-{Path(trained.run).name}"
    scores = evaluate([trained.run], store, tiers, predictions, truth)
    submissions = submit(
        predictions, store, f"{out.rstrip('/')}/submission-{Path(trained.run).name}", [Track.MAIN, Track.BONUS], frames
    )
    return PipelineReport(ingested, trained, scores, submissions)
