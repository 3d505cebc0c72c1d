"""What trained models predict for whole trials.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from models.config import TrainingConfig
from models.devices import bound_threads, choose_device
from models.inputs import InputPreparer
from models.layouts import find_layout
from models.prediction_plan import PredictionReport, plan_prediction
from models.response_model import ResponseModel
from models.runs import Run
from models.sources import explain_failures
from models.whole_trials import predict_trials
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Tier
from sensorium_data.store import StoreLike
from sensorium_data.windows import Batch, TrialReader, WindowLoader

__all__ = ["PredictionReport", "find_finished_predictions", "predict", "predict_trial"]

#: What decides a run's normalization: its name, and which trials do not count for its statistics.
_Scale: TypeAlias = tuple[str, tuple[str, ...], str]


@torch.inference_mode()
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
    if model.training:
        raise UsageError("the model is in training mode", remedy="call its eval() first")
    if len(trial) != 1:
        raise UsageError("one trial at a time", session=trial.session, found=f"a batch of {len(trial)}", expected=1)
    inputs = InputPreparer(find_layout(config.input_layout), torch.device(device)).prepare(trial)
    predictions_1NT = predict_trials(model, inputs, trial.session, config)
    prediction_NT: np.ndarray = predictions_1NT[0].float().cpu().numpy()
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
        runs, store, tiers, out, sessions=sessions, weights=weights, exclude=exclude, nan_policy=nan_policy
    )
    if plan.is_finished():
        return plan.report("already done", 0)
    ensemble = _Ensemble(plan.runs, plan.shares, plan.reader, plan.sessions, torch_device, trust_code)
    n_total = sum(plan.n_trials(name) for name in plan.sessions)
    n_done = n_predicted = 0
    with plan.create(lock=lock) as writer:
        for name in plan.sessions:
            missing = writer.missing_trials(name)
            n_done += plan.n_trials(name) - len(missing)
            for trial, n_frames, prediction_NT in ensemble.iter_trials(name, plan.tiers, missing):
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
) -> PredictionReport | None:
    """Return the report of the predictions that :func:`predict` would find finished, None if it would predict.

    Nothing is predicted or written, and no device is needed.

    Parameters
    ----------
    runs, store, tiers, out, sessions, weights, exclude, nan_policy
        As in :func:`predict`.

    Raises
    ------
    SensoriumError
        As in :func:`predict`.
    """
    plan = plan_prediction(
        runs, store, tiers, out, sessions=sessions, weights=weights, exclude=exclude, nan_policy=nan_policy
    )
    return plan.report("already done", 0) if plan.is_finished() else None


class _Ensemble:
    """Runs that predict together, in the competition's units.

    Parameters
    ----------
    runs : sequence of Run
        Each with its own normalization.
    shares : sequence of float
        How much each counts in the mean; they sum to 1.
    reader : TrialReader
        Where trials come from.
    sessions : sequence of str
        Full names.
    device : torch.device
        Where to predict.
    trust_code : bool or collection of str
        As in :func:`predict`.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        shares: Sequence[float],
        reader: TrialReader,
        sessions: Sequence[str],
        device: torch.device,
        trust_code: bool | Collection[str],
    ) -> None:
        self._device = device
        self._shares = shares
        self._models = [(run.model(device, trust_code=trust_code), run.config) for run in runs]
        self._normalizers = {
            _scale_of(config): {
                session: reader.open_normalizer(
                    config.normalization, session, exclude=config.exclude, nan_policy=config.nan_policy
                )
                for session in sessions
            }
            for _, config in self._models
        }
        self._loaders = {scale: WindowLoader(reader, by_session) for scale, by_session in self._normalizers.items()}

    def iter_trials(
        self, session: str, tiers: Sequence[Tier], trials: Sequence[int]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield some trials of a session: each one's id, its number of frames, and the prediction of the last ones."""
        iterators = [loader.iter_trials(session, tiers, only=trials) for loader in self._loaders.values()]
        for batches in zip(*iterators, strict=True):
            by_scale = dict(zip(self._loaders, batches, strict=True))
            yield batches[0].trials[0], batches[0].n_frames, self._predict(by_scale)

    def _predict(self, trial: Mapping[_Scale, Batch]) -> np.ndarray:
        predictions = []
        for model, config in self._models:
            batch = trial[_scale_of(config)]
            with explain_failures(type(model).__name__, config.model.code):
                prediction_NT = predict_trial(model, batch, config, self._device)
            if not prediction_NT.shape[1]:
                raise UsageError(
                    "the trial is too short for the model",
                    session=batch.session,
                    trial=batch.trials[0],
                    found=count_things(batch.n_frames, "frame"),
                )
            frames = slice(batch.n_frames - prediction_NT.shape[1], batch.n_frames)
            normalizer = self._normalizers[_scale_of(config)][batch.session]
            predictions.append(normalizer.responses_to_competition(prediction_NT, frames))
        n_frames = min(prediction.shape[1] for prediction in predictions)
        common = [prediction[:, prediction.shape[1] - n_frames :] for prediction in predictions]
        if len(common) == 1:
            return common[0]
        mean_NT = np.zeros(common[0].shape)
        for share, prediction_NT in zip(self._shares, common, strict=True):
            mean_NT += share * prediction_NT
        return mean_NT


def _scale_of(config: TrainingConfig) -> _Scale:
    return config.normalization, config.exclude, config.nan_policy
