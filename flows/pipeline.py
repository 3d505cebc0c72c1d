"""All of it in one flow: archives → session stores → run → predictions, scores → validated zips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow

from flows.evaluate import evaluate, find_predicted, predict, score
from flows.ingest import ingest
from flows.parameters import Jobs, Names
from flows.reporting import Recipe, log_line, publish_result, quiet_known_errors
from flows.settings import Settings
from flows.submit import submit
from flows.train import train
from flows.training import TrainingJob, find_finished, merge_settings, ready_process
from flows.watching import finish_deployed, is_deployed, watched
from models.runs import describe_given
from models.sources import digest_code
from models.training import TrainingReport
from sensorium_data.errors import RunError, SensoriumError
from sensorium_data.frames import FramesProfile
from sensorium_data.ingest import ConversionReport
from sensorium_data.scoring import ScoreTable
from sensorium_data.sessions import Tier, Track, find_sessions
from sensorium_data.store import stored_sessions
from sensorium_data.submission import SubmissionReport

__all__ = ["PipelineReport", "pipeline", "will_convert"]


@dataclass(frozen=True)
class PipelineReport:
    """What every step of the pipeline reported."""

    ingested: list[ConversionReport]
    trained: TrainingReport
    scores: ScoreTable
    submissions: list[SubmissionReport]


@watched
@flow(name="pipeline", flow_run_name="pipeline {preset}")
def pipeline(
    sessions: Names,
    store: str,
    out: str,
    preset: str = "factorized3d",
    source: list[str] | str | None = None,
    runs: str | None = None,
    overrides: dict[str, Any] | None = None,
    truth: str | None = None,
    frames: FramesProfile = "official",
    jobs: Jobs = None,
    exclude: list[str] | None = None,
    nan: str | None = None,
    in_one_process: bool = False,
    no_lock: bool = False,
) -> PipelineReport:
    """Run every step; each finds by itself what is done already.

    As a deployment, it has the deployments of train and predict run by a worker with a GPU, and does the rest itself.

    Args:
        sessions: Aliases A to J, full names, or one of new, old, all.
        store: Root of the session stores: a folder or any fsspec URL.
        out: Folder for predictions and submission zips, or any fsspec URL.
        preset: A preset of `sensorium models`, e.g. factorized3d, or a class: FILE.py:CLASS or MODULE:CLASS.
        source: Where archives or unpacked folders are: folders or URLs, tried in this order. Unset: GIN.
        runs: Folder of training runs, or any fsspec URL. Unset: SENSORIUM_RUNS, or runs.
        overrides: Settings of the preset to change, by dotted name: text, numbers, true, false, null or lists of these.
        truth: Truth of simulated sessions: scores withheld tiers, and the best possible score beside each.
        frames: Which frames of a trial the submission holds; official is all but the first 50.
        jobs: Trials converted at the same time. Unset: one a CPU core, or 8 where archives come by network.
        exclude: Trials to leave out, each as SESSION:TRIAL, e.g. F:17; a submission needs all test trials. Unset: none.
        nan: Trials with NaN in behavior or pupil center: refuse, interpolate:N or drop-trial. Unset: as the preset.
        in_one_process: Train and predict in this process too, when run as a deployment.
        no_lock: Lock nothing in an object store, for stores that cannot be locked.
    """
    quiet_known_errors()
    is_elsewhere = is_deployed() and not in_one_process
    job = TrainingJob(
        preset=preset,
        settings=merge_settings(overrides or {}, exclude=exclude, nan=nan),
        store=store,
        runs=runs or Settings().runs,
        lock=not no_lock,
    )
    # A preset or a setting that does not exist is told before the hours that converting takes.
    config = job.config()
    # Who names a class has its code run, wherever that predicts.
    trusted = [digest_code(config.model.code)] if config.model.code else []
    with ready_process() if not is_elsewhere and will_convert(sessions, store) else nullcontext():
        ingested = ingest(sessions, store, source, jobs, no_lock=no_lock)
        job = job.model_copy(update={"sessions": tuple(report.session for report in ingested)})
        trained = _train_elsewhere(job) if is_elsewhere else _train_here(job)
    tiers = [str(tier) for tier in Tier if tier is not Tier.TRAIN]
    # A predictions store belongs to one run: another run's predictions get another name.
    predictions = f"{out.rstrip('/')}/predictions-{Path(trained.run).name}"
    if is_elsewhere:
        parameters = {"runs": [trained.run], "store": store, "tiers": tiers, "predictions": predictions}
        _predict_elsewhere({**parameters, "exclude": exclude}, {"trust_code": trusted, "no_lock": no_lock})
        scores = score(predictions, store, truth)
    else:
        scores = evaluate([trained.run], store, tiers, predictions, truth, exclude, trust_code=trusted, no_lock=no_lock)
    submissions = submit(
        predictions,
        store,
        f"{out.rstrip('/')}/submission-{Path(trained.run).name}",
        [Track.MAIN, Track.BONUS],
        frames,
        runs=runs,
        score=False,
        no_lock=no_lock,
    )
    publish_result(
        store=store,
        predictions=predictions,
        recipe=Recipe(**describe_given(config)),
        ingested=ingested,
        trained=trained,
        scores=scores,
        submissions=submissions,
    )
    return PipelineReport(ingested, trained, scores, submissions)


def will_convert(sessions: Sequence[str], store: str) -> bool:
    """Whether there are sessions to convert for certain, so that it takes a while until there is something to train."""
    try:
        stored = {session.name for session in stored_sessions(store)}
        wanted = find_sessions(name for name in sessions if name.lower() != "all")
    except SensoriumError:
        # There is no store, or the flow is about to say what is wrong.
        return True
    return not stored.issuperset(session.name for session in wanted)


def _train_here(job: TrainingJob) -> TrainingReport:
    report: TrainingReport = train(**_to_parameters(job))
    return report


def _train_elsewhere(job: TrainingJob) -> TrainingReport:
    """Have a worker with a GPU train, unless that is done, and return the report of the run."""
    finished = find_finished(job)
    if finished is not None:
        log_line(f"{finished.run}: already done, nothing is trained")
        return finished
    finish_deployed(train, _to_parameters(job))
    trained = find_finished(job)
    if trained is None:
        raise RunError(
            "the run that a worker has trained is not to be found here",
            path=job.runs,
            expected="a folder that all workers share, or a URL",
            remedy="name one in the parameter runs of the pipeline",
        )
    return replace(trained, status="trained")


def _predict_elsewhere(what: Mapping[str, Any], how: Mapping[str, Any]) -> None:
    """Have a worker with a GPU predict, unless that is done.

    Parameters
    ----------
    what : mapping
        The parameters of `predict` that say what is predicted.
    how : mapping
        Its others.
    """
    if find_predicted(**what) is None:
        finish_deployed(predict, {**what, **how})


def _to_parameters(job: TrainingJob) -> dict[str, Any]:
    """Return a job as parameters of the flow that trains it."""
    return {
        "preset": job.preset,
        "store": job.store,
        "sessions": None if job.sessions is None else list(job.sessions),
        "runs": job.runs,
        "overrides": dict(job.settings),
        "no_lock": not job.lock,
    }
