"""A preset and session stores → a training run, trained in a process of its own."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows.parameters import Fold, Folds, MinReliability, NTrials, Seeds, TrustCode
from flows.reporting import describe_epoch, describe_report, log_line, quiet_known_errors, run_progress
from flows.settings import Settings
from flows.training import (
    Cache,
    Device,
    TrainingArtifacts,
    TrainingJob,
    find_finished,
    merge_settings,
    plan_members,
    publish_summary,
    slot_for,
    supervise_training,
    train_members,
    with_teacher,
)
from flows.watching import watched
from models.runs import EpochMetrics
from models.training import EnsembleReport, TrainingReport
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError

__all__ = ["train", "train_ensemble"]


# The run's folder says what is done; a cached task result would outlive it.
@task(name="train model", task_run_name="train {job.preset}", tags=["gpu"], cache_policy=NO_CACHE)
def train_task(job: TrainingJob) -> TrainingReport:
    """Train one run. Called directly, never submitted: another thread could not be interrupted."""
    quiet_known_errors()
    config = job.config()
    artifacts = TrainingArtifacts(config.name, get_run_logger().warning)

    def take_epoch(metrics: EpochMetrics) -> None:
        log_line(describe_epoch(metrics))
        artifacts.take_epoch(metrics)

    with slot_for(config.device):
        report = supervise_training(job, progress=run_progress(), on_epoch=take_epoch, write_line=log_line)
    for line in describe_report(report):
        log_line(line)
    artifacts.finish(report)
    publish_summary(report, config.name)
    return report


@watched
@flow(name="train", flow_run_name="train {preset}")
def train(
    preset: str,
    store: str,
    sessions: list[str] | None = None,
    runs: str | None = None,
    overrides: dict[str, Any] | None = None,
    folds: Folds = None,
    fold: Fold = None,
    cache: Cache | None = None,
    device: Device | None = None,
    resume: bool = False,
    restart: bool = False,
    exclude: list[str] | None = None,
    nan: str | None = None,
    n_trials: NTrials = None,
    neurons: str | None = None,
    min_reliability: MinReliability = None,
    teacher: str | None = None,
    trust_code: TrustCode = False,
    no_lock: bool = False,
) -> TrainingReport:
    """Train a model; a run of the same configuration on the same data that is finished is left alone.

    Args:
        preset: A preset of `sensorium models`, e.g. factorized3d, or a class: FILE.py:CLASS or MODULE:CLASS.
        store: Root of the session stores: a folder or any fsspec URL.
        sessions: Sessions to train on. Unset: all sessions in the store.
        runs: Folder of training runs, or any fsspec URL. Unset: SENSORIUM_RUNS, or runs.
        overrides: Settings of the preset to change, by dotted name: text, numbers, true, false, null or lists of these.
        folds: In how many folds the movies are dealt for cross-validation; fold says which of them. Unset: none.
        fold: The fold to validate on, from 0; the others are trained on. Unset: the oracle tier.
        cache: Where decoded trials are kept for the next epoch. Unset: as the preset has it.
        device: Where to train; auto takes a GPU if there is one. Unset: as the preset has it.
        resume: Never begin anew: fail without an unfinished run, unless it is finished, which is left alone.
        restart: Throw away what an unfinished run has done.
        exclude: Trials to leave out, each as SESSION:TRIAL, e.g. F:17. Unset: none.
        nan: Trials with NaN in behavior or pupil center: refuse, interpolate:N or drop-trial. Unset: as the preset.
        n_trials: Train on so many trials of each session. Unset: all.
        neurons: Neurons of each session: how many, or unit ids such as 1-50,73. Unset: all.
        min_reliability: Leave out neurons whose oracle correlation is below this. Unset: none.
        teacher: Finished run that the model learns from, or an ensemble in the folder of runs with one of its fold.
        trust_code: Run code that a teacher keeps, if nobody here has trained it: true, or digests of such code.
        no_lock: Do not lock the run in an object store, for stores that cannot be locked.
    """
    quiet_known_errors()
    job = TrainingJob(
        preset=preset,
        settings=merge_settings(
            overrides or {},
            folds=folds,
            fold=fold,
            cache=cache,
            device=device,
            exclude=exclude,
            nan=nan,
            n_trials=n_trials,
            neurons=neurons,
            min_reliability=min_reliability,
        ),
        store=store,
        sessions=None if sessions is None else tuple(sessions),
        runs=runs or Settings().runs,
        resume=resume,
        restart=restart,
        trust_code=trust_code,
        lock=not no_lock,
    )
    return _train(with_teacher(job, [] if teacher is None else [teacher]))


@watched
@flow(name="train-ensemble", flow_run_name="train an ensemble of {preset}")
def train_ensemble(
    preset: str,
    store: str,
    seeds: Seeds = None,
    ensemble: str | None = None,
    sessions: list[str] | None = None,
    runs: str | None = None,
    overrides: dict[str, Any] | None = None,
    folds: Folds = None,
    fold: Fold = None,
    cache: Cache | None = None,
    device: Device | None = None,
    restart: bool = False,
    exclude: list[str] | None = None,
    nan: str | None = None,
    n_trials: NTrials = None,
    neurons: str | None = None,
    min_reliability: MinReliability = None,
    all_folds: bool = False,
    teachers: list[str] | None = None,
    trust_code: TrustCode = False,
    no_lock: bool = False,
) -> EnsembleReport:
    """Train a run for each of several seeds or folds, one after the other; finished runs are left alone.

    Args:
        preset: A preset of `sensorium models`, e.g. factorized3d, or a class: FILE.py:CLASS or MODULE:CLASS.
        store: Root of the session stores: a folder or any fsspec URL.
        seeds: How many seeds. The first one is the one that overrides sets, or 0. Unset: the preset's own alone.
        ensemble: What to call them for `predict --ensemble`. Unset: by the preset and the number of folds and seeds.
        sessions: Sessions to train on. Unset: all sessions in the store.
        runs: Folder of training runs, or any fsspec URL. Unset: SENSORIUM_RUNS, or runs.
        overrides: Settings of the preset to change, by dotted name: text, numbers, true, false, null or lists of these.
        folds: In how many folds the movies are dealt for cross-validation; fold says which of them. Unset: none.
        fold: The fold to validate on, from 0; the others are trained on. Unset: the oracle tier.
        cache: Where decoded trials are kept for the next epoch. Unset: as the preset has it.
        device: Where to train; auto takes a GPU if there is one. Unset: as the preset has it.
        restart: Throw away what unfinished runs have done.
        exclude: Trials to leave out, each as SESSION:TRIAL, e.g. F:17. Unset: none.
        nan: Trials with NaN in behavior or pupil center: refuse, interpolate:N or drop-trial. Unset: as the preset.
        n_trials: Train on so many trials of each session. Unset: all.
        neurons: Neurons of each session: how many, or unit ids such as 1-50,73. Unset: all.
        min_reliability: Leave out neurons whose oracle correlation is below this. Unset: none.
        all_folds: Train a run for each fold that folds or the preset says, and not the one of fold.
        teachers: Finished runs that the models learn from, one of each fold, or an ensemble in the folder of runs.
        trust_code: Run code that a teacher keeps, if nobody here has trained it: true, or digests of such code.
        no_lock: Do not lock runs in an object store, for stores that cannot be locked.
    """
    quiet_known_errors()
    job = TrainingJob(
        preset=preset,
        settings=merge_settings(
            overrides or {},
            folds=folds,
            fold=0 if all_folds and folds is not None else fold,
            cache=cache,
            device=device,
            exclude=exclude,
            nan=nan,
            n_trials=n_trials,
            neurons=neurons,
            min_reliability=min_reliability,
        ),
        store=store,
        sessions=None if sessions is None else tuple(sessions),
        runs=runs or Settings().runs,
        restart=restart,
        trust_code=trust_code,
        lock=not no_lock,
    )
    variations = plan_members(job, seeds=seeds, all_folds=all_folds, teachers=teachers or [], name=ensemble)
    if variations is None:
        raise UsageError("one run is no ensemble", found="neither seeds nor all_folds", remedy="set one of them")
    report = train_members(job, variations, ensemble, lambda jobs: [_train(one) for one in jobs])
    log_line(f"ensemble {report.name}: {report.status}, {count_things(len(report.runs), 'run')}")
    return report


def _train(job: TrainingJob) -> TrainingReport:
    # Before the task: it would wait for its turn with the GPU, to do nothing.
    finished = find_finished(job)
    if finished is None:
        return train_task(job)
    log_line(f"{finished.run}: already done, nothing is trained")
    publish_summary(finished, job.config().name)
    return finished
