"""Runs and tiers → predictions and scores."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.parameters import Count, Names, PredictionPrecision, Resamples, Seed, SeveralNames, TrustCode
from flows.reporting import log_line, order_columns, publish_table, quiet_known_errors, run_progress, score_task
from flows.settings import Settings
from flows.training import Device, slot_for
from flows.watching import watched
from models.prediction import PredictionReport, find_finished_predictions
from models.prediction import predict as predict_tiers
from models.runs import expand_ensembles
from sensorium_data.counting import count_things
from sensorium_data.frames import FramesProfile
from sensorium_data.scoring import SCORES, Bootstrap, Leaderboard, Reference, ScoreTable, compare_predictions

__all__ = ["evaluate", "find_predicted", "leaderboard", "predict", "score"]


@task(name="predict", cache_policy=NO_CACHE, tags=["gpu"])
def predict_task(
    runs: list[str],
    store: str,
    tiers: list[str],
    predictions: str,
    sessions: list[str] | None = None,
    weights: list[float] | None = None,
    device: Device = "auto",
    exclude: list[str] | None = None,
    nan: str | None = None,
    trust_code: TrustCode = False,
    no_lock: bool = False,
    members: str | None = None,
    precision: PredictionPrecision = "32-true",
) -> PredictionReport:
    """Predict tiers into a predictions store, or find that it is finished already."""
    quiet_known_errors()
    with slot_for(device):
        report = predict_tiers(
            runs,
            store,
            tiers,
            predictions,
            sessions=sessions,
            weights=weights,
            device=device,
            progress=run_progress(),
            exclude=exclude or (),
            nan_policy=nan,
            trust_code=trust_code,
            lock=not no_lock,
            precision=precision,
            members=members,
        )
    for note in report.notes:
        log_line(note)
    log_line(f"predictions {report.predictions}: {report.status}, {count_things(report.n_trials, 'trial')}")
    return report


def find_predicted(
    runs: list[str],
    store: str,
    tiers: list[str],
    predictions: str,
    sessions: list[str] | None = None,
    weights: list[float] | None = None,
    exclude: list[str] | None = None,
    nan: str | None = None,
    precision: PredictionPrecision = "32-true",
) -> PredictionReport | None:
    """Return the report of predictions that are finished, and log that they are; None if there is something to do.

    Parameters as those of the flow `predict`. To be asked before anything that waits for its turn with a GPU.
    """
    finished = find_finished_predictions(
        runs,
        store,
        tiers,
        predictions,
        sessions=sessions,
        weights=weights,
        exclude=exclude or (),
        nan_policy=nan,
        precision=precision,
    )
    if finished is not None:
        log_line(f"predictions {predictions}: already done, nothing is predicted")
    return finished


@task(name="leaderboard", cache_policy=NO_CACHE)
def leaderboard_task(
    predictions: list[str],
    store: str,
    truth: str | None,
    tiers: list[str] | None,
    frames: FramesProfile,
    against: Reference,
    resamples: int,
    seed: int,
    jobs: int,
) -> Leaderboard:
    """Compare predictions on the same trials, and publish the table."""
    quiet_known_errors()
    board = compare_predictions(
        predictions,
        store,
        truth=truth,
        frames=frames,
        tiers=tiers,
        reference=against,
        bootstrap=Bootstrap(resamples, seed),
        jobs=jobs,
        progress=run_progress(),
    )
    rows = order_columns(board.rows, ("rank", "entry", "tier", "stimulus", "aggregation", *SCORES))
    publish_table("leaderboard", rows, f"Differences are to the {against} entry, on the same resampled trials")
    return board


@watched
@flow(name="predict", flow_run_name="predict {predictions}")
def predict(
    runs: Names,
    store: str,
    tiers: Names,
    predictions: str,
    sessions: Names | None = None,
    weights: list[float] | None = None,
    device: Device = "auto",
    exclude: list[str] | None = None,
    nan: str | None = None,
    trust_code: TrustCode = False,
    no_lock: bool = False,
    members: str | None = None,
    precision: PredictionPrecision = "32-true",
    runs_folder: str | None = None,
) -> PredictionReport:
    """Predict whole trials of some tiers.

    Args:
        runs: Training runs, or names of ensembles in runs_folder; several predict by their mean.
        store: Root of the session stores.
        tiers: Tiers to predict, e.g. oracle, live_test_main.
        predictions: The predictions store to write.
        sessions: Aliases or names; by default, the sessions of the first run.
        weights: How much each run counts. Unset: all the same.
        device: Where to predict; auto takes a GPU if there is one.
        exclude: Trials to leave out, each as SESSION:TRIAL, e.g. F:17. Unset: none.
        nan: Trials with NaN in behavior or pupil center: refuse, interpolate:N or drop-trial. Unset: as the runs.
        trust_code: Run code that runs keep, of models that nobody here has trained: true, or digests of such code.
        no_lock: Do not lock the predictions in an object store, for stores that cannot be locked.
        members: Folder to keep each run's own predictions in, for an ensemble. Unset: none are kept.
        precision: Numbers that models compute with. bf16-mixed is refused where it changes the correlation by 0.001.
        runs_folder: Folder or URL of training runs that has the ensembles. Unset: SENSORIUM_RUNS, or runs.
    """
    quiet_known_errors()
    runs = list(expand_ensembles(runs_folder or Settings().runs, runs))
    finished = find_predicted(runs, store, tiers, predictions, sessions, weights, exclude, nan, precision)
    return finished or predict_task(
        runs,
        store,
        tiers,
        predictions,
        sessions,
        weights,
        device,
        exclude,
        nan,
        trust_code,
        no_lock,
        members,
        precision,
    )


@watched
@flow(name="score", flow_run_name="score {predictions}")
def score(
    predictions: str,
    store: str,
    truth: str | None = None,
    tiers: Names | None = None,
    frames: FramesProfile = "official",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    jobs: Count = 2,
    dask: str | None = None,
    exclude: list[str] | None = None,
) -> ScoreTable:
    """Score predictions by session and tier.

    Args:
        predictions: The predictions store.
        store: Root of the session stores.
        truth: Truth of simulated sessions: scores withheld tiers, and the best possible score beside each.
        tiers: Tiers to score; by default all that were predicted.
        frames: Which frames of a trial are scored; official: all but the first 50.
        resamples: Bootstrap resamples behind each interval.
        seed: Seed of the resamples.
        jobs: Trials read at once.
        dask: Address of a Dask scheduler whose workers score, a session each. Unset: this process does.
        exclude: Trials that are not scored, each as SESSION:TRIAL, e.g. F:17. Unset: none.
    """
    quiet_known_errors()
    return score_task(predictions, store, truth, tiers, frames, resamples, seed, jobs, dask, exclude)


@watched
@flow(name="leaderboard")
def leaderboard(
    predictions: SeveralNames,
    store: str,
    truth: str | None = None,
    tiers: Names | None = None,
    frames: FramesProfile = "official",
    against: Reference = "best",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    jobs: Count = 2,
) -> Leaderboard:
    """Compare several predictions on the same trials, with paired intervals of their differences.

    Args:
        predictions: Two or more predictions stores.
        store: Root of the session stores.
        truth: Truth of simulated sessions: scores withheld tiers.
        tiers: Tiers to compare on; by default all that were predicted.
        frames: Which frames of a trial are scored; official: all but the first 50.
        against: What differences are taken to: the best entry of each tier, or the one named first.
        resamples: Bootstrap resamples behind each interval.
        seed: Seed of the resamples.
        jobs: Trials read at once.
    """
    quiet_known_errors()
    return leaderboard_task(predictions, store, truth, tiers, frames, against, resamples, seed, jobs)


@watched
@flow(name="evaluate", flow_run_name="evaluate {predictions}")
def evaluate(
    runs: Names,
    store: str,
    tiers: Names,
    predictions: str,
    truth: str | None = None,
    exclude: list[str] | None = None,
    nan: str | None = None,
    trust_code: TrustCode = False,
    no_lock: bool = False,
    runs_folder: str | None = None,
) -> ScoreTable:
    """Predict some tiers with trained runs, and score the predictions.

    Args:
        runs: Training runs, or names of ensembles in runs_folder; several predict by their mean.
        store: Root of the session stores.
        tiers: Tiers to predict, e.g. oracle, live_test_main.
        predictions: The predictions store to write.
        truth: Truth of simulated sessions: scores withheld tiers, and the best possible score beside each.
        exclude: Trials that are neither predicted nor scored, each as SESSION:TRIAL, e.g. F:17. Unset: none.
        nan: Trials with NaN in behavior or pupil center: refuse, interpolate:N or drop-trial. Unset: as the runs.
        trust_code: Run code that runs keep, of models that nobody here has trained: true, or digests of such code.
        no_lock: Do not lock the predictions in an object store, for stores that cannot be locked.
        runs_folder: Folder or URL of training runs that has the ensembles. Unset: SENSORIUM_RUNS, or runs.
    """
    quiet_known_errors()
    runs = list(expand_ensembles(runs_folder or Settings().runs, runs))
    if find_predicted(runs, store, tiers, predictions, exclude=exclude, nan=nan) is None:
        predict_task(runs, store, tiers, predictions, exclude=exclude, nan=nan, trust_code=trust_code, no_lock=no_lock)
    return score_task(predictions, store, truth)
