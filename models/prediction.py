"""What trained models predict for whole trials.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import torch

from models.config import TrainingConfig
from models.devices import bound_threads, choose_device
from models.ensemble_prediction import AveragedPredictions, AveragedRuns, PredictedTrials, predict_batch
from models.prediction_plan import PredictionReport, plan_prediction
from models.prediction_precision import measure_difference, require_small
from models.response_model import ResponseModel
from models.settings import Precision
from sensorium_data.errors import UsageError
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.store import StoreLike
from sensorium_data.windows import Batch

__all__ = ["PredictionReport", "find_finished_predictions", "predict", "predict_trial"]


def predict_trial(
    model: ResponseModel, trial: Batch, config: TrainingConfig, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Return a model's prediction of one whole trial, on the scale that it was trained on.

    Parameters
    ----------
    model : ResponseModel
        In evaluation mode, on ``device``.
    trial : Batch
        One window, as :meth:`sensorium_data.windows.WindowLoader.iter_trials` yields it.
    config : TrainingConfig
        The recipe that it was trained with.
    device : str or torch.device
        Where the model is.

    Returns
    -------
    ndarray of float32, shape (neuron, time)
        Of the trial's last frames: models lose some at the start.

    Raises
    ------
    UsageError
        If the model would draw random numbers, or the batch holds several trials.
    """
    if len(trial) != 1:
        raise UsageError("one trial at a time", session=trial.session, found=f"a batch of {len(trial)}", expected=1)
    prediction_NT: np.ndarray = predict_batch(model, trial, config, device)[0]
    return prediction_NT


def predict(
    runs: Sequence[str],
    store: StoreLike,
    tiers: Sequence[str],
    out: str,
    *,
    sessions: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    device: str = "auto",
    progress: Progress = ignore_progress,
    exclude: str | Iterable[str] = (),
    nan_policy: str | None = None,
    trust_code: bool | Collection[str] = False,
    lock: bool = True,
    precision: Precision = "32-true",
    members: str | None = None,
) -> PredictionReport:
    """Predict every valid trial of some tiers, and write a predictions store.

    Several runs are an ensemble, of whatever folds, seeds and normalizations: the mean of their predictions, weighted
    if weights are given. They are in standardized units, those that the competition scores, into which each run's are
    brought first; the frames that a model loses at the start of a trial are NaN. Memory holds a few trials, whatever
    the number of trials and sessions.

    Parameters
    ----------
    runs : sequence of str
        Folders of finished runs.
    store : Store or path
        The session stores, or the path or URL of their root.
    tiers : sequence of str
        E.g. ``live_test_main``; ``test`` for the four test tiers; ``all``. Sessions without a trial of these groups
        are left out, if no tier is named beside them.
    out : str
        Path or URL of the predictions store to write.
    sessions : sequence of str, optional
        Aliases, full names, ``new``, ``old`` or ``all``; by default, the sessions of the first run.
    weights : sequence of float, optional
        How much each run counts, positive, of any sum; by default equal.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    progress : Progress
        Told after every trial.
    exclude : str or iterable of str
        Trials to leave out, ``SESSION:TRIAL`` each, for example ``F:17``. Those that a run left out of its training are
        predicted.
    nan_policy : str, optional
        What becomes of trials with missing behavior or pupil center: ``refuse``, ``interpolate:N`` or ``drop-trial``,
        see :class:`sensorium_data.windows.NanPolicy`; by default as the runs were trained.
    trust_code : bool or collection of str
        Whether code that runs keep may run although this user has not trained with it on this machine: any, or that of
        some digests.
    lock : bool
        As :func:`sensorium_data.predictions.create_predictions` takes it.
    precision : str
        Numbers that the models compute with. Fewer bits are taken only if they change the mean correlation of each
        session's neurons by less than :data:`models.prediction_precision.MAX_DIFFERENCE`, which is measured first and
        is written into the attributes of the predictions.
    members : str, optional
        Folder, or URL of one, in which the predictions of each of several runs are kept, by the run's name. What is
        finished there is not predicted again.

    A run of a model that is no part of this package predicts with the code that it keeps, also where the file has
    changed that it was read from. A run of some of a session's neurons predicts these alone, and so does the
    predictions store.

    Raises
    ------
    RunError
        If a run is missing, unfinished or damaged, was not trained on a session, or on other neurons, or if the runs of
        an ensemble predict different neurons; if a run's code may not run, or cannot be loaded.
    StoreError
        If the store or a session cannot be opened, or a trial lacks behavior or pupil center at some frames and the
        policy does not allow for that.
    TrialError
        If a trial to leave out does not exist.
    UsageError
        If a session has no valid trial of these tiers, the weights do not fit the runs, or the runs were trained with
        different policies and none is given.
    PredictionsError
        If something else lies at ``out``.
    """
    torch_device = choose_device(device)
    bound_threads()
    plan = plan_prediction(
        runs,
        store,
        tiers,
        out,
        sessions=sessions,
        weights=weights,
        exclude=exclude,
        nan_policy=nan_policy,
        precision=precision,
    )
    if plan.is_finished():
        return plan.report("already done", 0)
    if members is not None and len(plan.runs) == 1:
        raise UsageError(
            "one run is no ensemble, whose runs' predictions could be kept",
            found=f"members {members}",
            remedy="leave it out, or name several runs",
        )
    if members is not None:
        _require_apart(members, out)
    averaged: AveragedRuns | None = None
    if members is None:
        averaged = AveragedRuns(plan.runs, plan.shares, plan.reader, plan.sessions, torch_device, trust_code)
        if precision != "32-true":
            differences = measure_difference(averaged, plan.open_labelled_reader(exclude), precision)
            require_small(differences, precision)
            plan.attributes["correlation_differences"] = differences
            averaged = averaged.with_precision(precision)
    n_total = sum(plan.n_trials(name) for name in plan.sessions)
    n_done = n_predicted = 0
    # Before the members, which may take hours: something else may lie there.
    with plan.create(lock=lock) as writer:
        source: PredictedTrials
        if averaged is not None:
            source = averaged
        else:
            stores = [f"{str(members).rstrip('/')}/{name}" for name in plan.member_names()]
            for run, one in zip(plan.runs, stores, strict=True):
                predict(
                    [run.location],
                    store,
                    tiers,
                    one,
                    sessions=plan.sessions,
                    device=device,
                    progress=progress,
                    exclude=exclude,
                    nan_policy=str(plan.reader.nan_policy),
                    trust_code=trust_code,
                    lock=lock,
                    precision=precision,
                )
            source = AveragedPredictions(stores, plan.shares)
        for name in plan.sessions:
            missing = writer.missing_trials(name)
            n_done += plan.n_trials(name) - len(missing)
            for trial, n_frames, prediction_NT in source.iter_trials(name, plan.tiers, missing):
                writer.write_trial(name, trial, prediction_NT, first_frame=n_frames - prediction_NT.shape[1])
                n_done += 1
                n_predicted += 1
                progress("predict", n_done, n_total)
    return plan.report("predicted", n_predicted)


def find_finished_predictions(
    runs: Sequence[str],
    store: StoreLike,
    tiers: Sequence[str],
    out: str,
    *,
    sessions: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    exclude: str | Iterable[str] = (),
    nan_policy: str | None = None,
    precision: Precision = "32-true",
) -> PredictionReport | None:
    """Return the report of the predictions that :func:`predict` would find finished, None if it would predict.

    Nothing is predicted or written, and no device is needed.

    Parameters
    ----------
    runs, store, tiers, out, sessions, weights, exclude, nan_policy, precision
        As in :func:`predict`.

    Raises
    ------
    SensoriumError
        As in :func:`predict`.
    """
    plan = plan_prediction(
        runs,
        store,
        tiers,
        out,
        sessions=sessions,
        weights=weights,
        exclude=exclude,
        nan_policy=nan_policy,
        precision=precision,
    )
    return plan.report("already done", 0) if plan.is_finished() else None


def _require_apart(members: str, out: str) -> None:
    """Raise a :class:`UsageError` if the folder of the runs' predictions is that of the ensemble's, or in it."""
    kept, whole = (place.rstrip("/") if "://" in place else os.path.realpath(place) for place in (members, out))
    if f"{kept}/".startswith(f"{whole}/"):
        raise UsageError(
            "the runs' own predictions cannot be kept where the ensemble's are written",
            found=f"members {members}, out {out}",
            remedy="choose another folder for the members",
        )
