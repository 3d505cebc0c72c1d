"""What trained models predict for whole trials.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from models.config import TrainingConfig
from models.devices import bound_threads, choose_device
from models.inputs import InputPreparer
from models.layouts import find_layout
from models.response_model import ResponseModel
from models.runs import Run, load_run, require_model_inputs
from models.whole_trials import predict_whole
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError, UsageError
from sensorium_data.predictions import choose_weights, create_predictions, find_predictions
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, Tier, find_sessions
from sensorium_data.store import Store, StoreLike, expand_tiers, format_exclusions, open_store, parse_exclusions
from sensorium_data.windows import Batch, NanPolicy, TrialReader, WindowLoader

__all__ = ["PredictionReport", "predict", "predict_trial"]

#: What decides a run's normalization: its name, and which trials do not count for its statistics.
_Scale: TypeAlias = tuple[str, tuple[str, ...], str]


@dataclass(frozen=True)
class PredictionReport:
    """What :func:`predict` did.

    Attributes
    ----------
    predictions : str
        Path or URL of the predictions store.
    status : str
        ``"predicted"``, or ``"already done"`` if these predictions existed.
    runs : tuple of str
        Paths of the runs; several are an ensemble.
    sessions : tuple of str
        Full names.
    tiers : tuple of str
    n_trials : int
        Trials predicted now; fewer than the tiers hold if an interrupted store was continued.
    duration_s : float
    notes : tuple of str
        Which sessions and trials were left out, which trials were filled, and of which sessions some neurons are
        predicted, a sentence each.
    """

    predictions: str
    status: str
    runs: tuple[str, ...]
    sessions: tuple[str, ...]
    tiers: tuple[str, ...]
    n_trials: int
    duration_s: float
    notes: tuple[str, ...] = ()


@torch.inference_mode()
def predict_trial(
    model: ResponseModel,
    trial: Batch,
    device: str | torch.device = "cpu",
    *,
    layout: str = "starter-kit",
    stride: int = 1,
) -> np.ndarray:
    """Return a model's prediction of one whole trial, on the scale that it was trained on.

    Parameters
    ----------
    model : ResponseModel
        In evaluation mode, on ``device``.
    trial : Batch
        One window, as :meth:`sensorium_data.windows.WindowLoader.iter_trials` yields it.
    device : str or torch.device
        Where the model is.
    layout : str
        The recipe's ``input_layout``.
    stride : int
        The recipe's ``window_stride``.

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
    inputs = InputPreparer(find_layout(layout), torch.device(device)).prepare(trial)
    predictions_1NT = predict_whole(model, inputs, trial.session, stride=stride)
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

    A run of some of a session's neurons predicts these alone, and so does the predictions store.

    Raises
    ------
    RunError
        If a run is missing, unfinished or damaged, was not trained on a session, or on other neurons, or if the runs of
        an ensemble predict different neurons.
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
    started = time.perf_counter()
    loaded = _load_runs(runs)
    given = choose_weights(weights, len(loaded), of="runs")
    shares = [weight / sum(given) for weight in given]
    chosen = loaded[0].sessions if sessions is None else find_sessions(sessions)
    opened = open_store(store)
    chosen_tiers = expand_tiers(tiers, opened, chosen)
    if not chosen or not chosen_tiers:
        raise UsageError("no session or no tier to predict", path=out, remedy="name at least one of each")
    notes: list[str] = []
    if set(tiers) <= {"all", "test"}:
        # A tier that is named is expected of every session, and those of a group are not.
        chosen, lacking = _separate_sessions(opened, chosen, chosen_tiers)
        notes += [f"Session {session} has no trial of these tiers and is not predicted." for session in lacking]
    torch_device = choose_device(device)
    bound_threads()
    names = [session.name for session in chosen]
    for session in chosen:
        require_model_inputs(opened[session], session, opened.url)
    # The stimuli alone are read; the responses are what is to be predicted.
    for run in loaded:
        for name in names:
            run.require_session(opened[name], name)
    excluded = format_exclusions(parse_exclusions(exclude))
    reader = TrialReader(
        opened,
        names,
        reads_responses=False,
        cache_bytes=0,
        exclude=excluded,
        nan_policy=_choose_policy(loaded, nan_policy),
        neurons={name: _find_neurons(loaded, name) for name in names},
    )
    n_trials_by_session = {name: len(reader.select_trials(name, chosen_tiers)) for name in names}

    left_out = {name: sorted(_of_tiers(reader, name, chosen_tiers) & reader.left_out(name)) for name in names}
    identity = _identify(loaded, shares, reader.store, chosen, chosen_tiers, left_out, str(reader.nan_policy))
    notes += [note for name in names for note in reader.describe_left_out(name, chosen_tiers)]
    for session in chosen:
        n_neurons, n_predicted_neurons = opened[session].sizes["neuron"], len(reader.unit_ids(session.name))
        if n_predicted_neurons < n_neurons:
            notes.append(f"Session {session}: {n_predicted_neurons} of {n_neurons} neurons are predicted.")

    def report(status: str, n_trials: int) -> PredictionReport:
        return PredictionReport(
            predictions=out,
            status=status,
            runs=tuple(run.location for run in loaded),
            sessions=tuple(names),
            tiers=tuple(str(tier) for tier in chosen_tiers),
            n_trials=n_trials,
            duration_s=time.perf_counter() - started,
            notes=tuple(notes),
        )

    shares_by_run = {run.digest: share for run, share in zip(loaded, shares, strict=True)}
    if find_predictions(
        out, identity, tiers=[str(tier) for tier in chosen_tiers], sessions=names, shares=shares_by_run
    ):
        return report("already done", 0)

    ensemble = _Ensemble(loaded, shares, reader, names, torch_device)
    n_total = sum(n_trials_by_session.values())
    n_done = n_predicted = 0
    with create_predictions(
        out,
        store=reader.store,
        sessions=names,
        tiers=[str(tier) for tier in chosen_tiers],
        response_units="standardized",
        runs=[run.digest for run in loaded],
        identity=identity,
        attributes={} if weights is None else {"weights": list(given)},
        left_out=left_out,
        neurons={name: reader.unit_ids(name).tolist() for name in names},
    ) as writer:
        for name in names:
            missing = writer.missing_trials(name)
            n_done += n_trials_by_session[name] - len(missing)
            for trial, n_frames, prediction_NT in ensemble.iter_trials(name, chosen_tiers, missing):
                writer.write_trial(name, trial, prediction_NT, first_frame=n_frames - prediction_NT.shape[1])
                n_done += 1
                n_predicted += 1
                progress("predict", n_done, n_total)
    return report("predicted", n_predicted)


def _load_runs(runs: Sequence[str]) -> list[Run]:
    if not runs:
        raise UsageError("no run to predict with", remedy="give at least one run's folder")
    loaded = [load_run(path) for path in runs]
    by_digest: dict[str, Run] = {}
    for run in loaded:
        if run.digest in by_digest:
            raise UsageError(
                "the ensemble has the same run twice",
                path=run.location,
                found=f"the weights of {by_digest[run.digest].location}",
                remedy="name each run once",
            )
        by_digest[run.digest] = run
    return loaded


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
    """

    def __init__(
        self,
        runs: Sequence[Run],
        shares: Sequence[float],
        reader: TrialReader,
        sessions: Sequence[str],
        device: torch.device,
    ) -> None:
        self._device = device
        self._shares = shares
        self._models = [(run.model(device), run.config) for run in runs]
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
            prediction_NT = predict_trial(
                model, batch, self._device, layout=config.input_layout, stride=config.window_stride
            )
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


def _separate_sessions(
    store: Store, sessions: Sequence[Session], tiers: Sequence[Tier]
) -> tuple[tuple[Session, ...], tuple[Session, ...]]:
    """Return the sessions with a valid trial of some tiers, or all if there is none, and the others."""
    with_trials = []
    for session in sessions:
        recording = store[session]
        if (np.isin(recording["tier"].values, [str(tier) for tier in tiers]) & recording["valid"].values).any():
            with_trials.append(session)
    return (
        (tuple(with_trials), tuple(s for s in sessions if s not in with_trials))
        if with_trials
        else (tuple(sessions), ())
    )


def _choose_policy(runs: Sequence[Run], given: str | None) -> str:
    """Return the policy for missing behavior and pupil center: the one that is given, or that of all runs."""
    policies = dict.fromkeys(run.config.nan_policy for run in runs)
    if given is not None:
        return str(NanPolicy.parse(given))
    if len(policies) > 1:
        raise UsageError(
            "the runs were trained with different policies for NaN in behavior and pupil center",
            found=", ".join(f"{run.config.nan_policy} ({run.location})" for run in runs),
            expected="one policy for all",
            remedy="choose one with --nan",
        )
    return next(iter(policies))


def _find_neurons(runs: Sequence[Run], session: str) -> tuple[int, ...]:
    """Return the unit ids that all runs predict of a session."""
    by_run = [next(one.unit_ids for one in run.data.sessions if one.name == session) for run in runs]
    for run, unit_ids in zip(runs, by_run, strict=True):
        if unit_ids != by_run[0]:
            raise RunError(
                "the runs of the ensemble predict different neurons",
                session=session,
                path=run.location,
                found=count_things(len(unit_ids), "neuron"),
                expected=f"the {len(by_run[0])} of {runs[0].location}, {len(set(unit_ids) & set(by_run[0]))} of which "
                "it predicts",
                remedy="choose runs that were trained on the same neurons",
            )
    return by_run[0]


def _of_tiers(reader: TrialReader, session: str, tiers: Sequence[Tier]) -> frozenset[int]:
    """Return the ids of a session's valid trials of some tiers, also of those that are left out."""
    coordinates = reader.coordinates(session)
    chosen = np.isin(coordinates["tier"].values.astype(str), [str(tier) for tier in tiers])
    return frozenset(coordinates["trial"].values[chosen & coordinates["valid"].values].tolist())


def _scale_of(config: TrainingConfig) -> _Scale:
    return config.normalization, config.exclude, config.nan_policy


def _identify(
    runs: Sequence[Run],
    shares: Sequence[float],
    store: Store,
    sessions: Sequence[Session],
    tiers: Sequence[Tier],
    left_out: Mapping[str, Sequence[int]],
    nan_policy: str,
) -> str:
    parts = {
        "runs": sorted((run.digest, share) for run, share in zip(runs, shares, strict=True)),
        "tiers": sorted(tiers),
        "data": {session.name: store.digest(session) for session in sessions},
    }
    # Absent where nothing is asked for: what earlier versions predicted is recognized.
    if any(left_out.values()):
        parts["left_out"] = {name: list(trials) for name, trials in left_out.items() if trials}
    if nan_policy.startswith("interpolate"):
        parts["nan_policy"] = nan_policy
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
