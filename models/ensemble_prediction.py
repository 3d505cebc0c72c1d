"""Trials of the stimuli into the mean of several runs' predictions, in the competition's units.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import torch

from models.config import TrainingConfig
from models.inputs import InputPreparer
from models.layouts import find_layout
from models.response_model import ResponseModel
from models.runs import Run
from models.settings import Precision
from models.sources import explain_failures
from models.whole_trials import predict_trials
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.predictions import open_predictions
from sensorium_data.sessions import Tier
from sensorium_data.windows import Batch, TrialReader, WindowLoader

__all__ = ["AveragedPredictions", "AveragedRuns", "PredictedTrials", "predict_batch"]

#: What decides a run's normalization: its name, and which trials do not count for its statistics.
_Scale: TypeAlias = tuple[str, tuple[str, ...], str]

#: Frames of all trials that go through a model at once. A CPU gains nothing by several trials.
_FRAMES_AT_ONCE = {"cpu": 0, "cuda": 2400}
_AUTOCAST: Mapping[Precision, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class PredictedTrials(Protocol):
    """Where predictions come from."""

    def iter_trials(
        self, session: str, tiers: Sequence[Tier], trials: Sequence[int]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield some trials of a session: each one's id, its number of frames, and the prediction of the last ones.

        Predictions are float arrays, (neuron, frame), in the competition's units.
        """


@torch.inference_mode()
def predict_batch(
    model: ResponseModel,
    trials: Batch,
    config: TrainingConfig,
    device: str | torch.device = "cpu",
    *,
    precision: Precision = "32-true",
) -> np.ndarray:
    """Return a model's predictions of whole trials of equal length, on the scale that it was trained on.

    Parameters
    ----------
    model : ResponseModel
        In evaluation mode, on ``device``.
    trials : Batch
        Windows as long as their trials.
    config : TrainingConfig
        The recipe that the model was trained with.
    device : str or torch.device
        Where it is.
    precision : str
        The numbers that it computes with.

    Returns
    -------
    ndarray of float32, shape (batch, neuron, time)
        Of the trials' last frames: models lose some at the start.

    Raises
    ------
    UsageError
        If the model would draw random numbers.
    """
    if model.training:
        raise UsageError("the model is in training mode", remedy="call its eval() first")
    device = torch.device(device)
    inputs = InputPreparer(find_layout(config.input_layout), device).prepare(trials)
    with torch.autocast(device.type, dtype=_AUTOCAST.get(precision), enabled=precision in _AUTOCAST):
        predictions_BNT = predict_trials(model, inputs, trials.session, config)
    found_BNT: np.ndarray = predictions_BNT.float().cpu().numpy()
    return found_BNT


class AveragedRuns:
    """Runs that predict together.

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
        As in :func:`models.prediction.predict`.
    precision : str
        The numbers that the models compute with.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        shares: Sequence[float],
        reader: TrialReader,
        sessions: Sequence[str],
        device: torch.device,
        trust_code: bool | Collection[str],
        precision: Precision = "32-true",
    ) -> None:
        self._device = device
        self._shares = shares
        self._precision = precision
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

    def with_precision(self, precision: Precision) -> AveragedRuns:
        """Return the same models, which compute with other numbers."""
        other = copy.copy(self)
        other._precision = precision
        return other

    def iter_trials(
        self, session: str, tiers: Sequence[Tier], trials: Sequence[int]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield some trials of a session: each one's id, its number of frames, and the prediction of the last ones."""
        iterators = [loader.iter_trials(session, tiers, only=trials) for loader in self._loaders.values()]
        at_once = _FRAMES_AT_ONCE.get(self._device.type, 0)
        for group in _group_by_length(zip(*iterators, strict=True), at_once):
            stacked = [_stack(batches) for batches in zip(*group, strict=True)]
            predictions_BNT = self._predict(dict(zip(self._loaders, stacked, strict=True)))
            for trial, prediction_NT in zip(stacked[0].trials, predictions_BNT, strict=True):
                yield trial, stacked[0].n_frames, prediction_NT

    def _predict(self, trials: Mapping[_Scale, Batch]) -> np.ndarray:
        predictions = []
        for model, config in self._models:
            batch = trials[_scale_of(config)]
            with explain_failures(type(model).__name__, config.model.code):
                predictions_BNT = predict_batch(model, batch, config, self._device, precision=self._precision)
            if not predictions_BNT.shape[2]:
                raise UsageError(
                    "the trial is too short for the model",
                    session=batch.session,
                    trial=batch.trials[0],
                    found=count_things(batch.n_frames, "frame"),
                )
            frames = slice(batch.n_frames - predictions_BNT.shape[2], batch.n_frames)
            normalizer = self._normalizers[_scale_of(config)][batch.session]
            predictions.append([normalizer.responses_to_competition(one_NT, frames) for one_NT in predictions_BNT])
        return np.stack([_average(of_trial, self._shares) for of_trial in zip(*predictions, strict=True)])


class AveragedPredictions:
    """The mean of what several runs have predicted before.

    Parameters
    ----------
    members : sequence of str
        Predictions stores, of the same trials and neurons.
    shares : sequence of float
        How much each counts; they sum to 1.
    """

    def __init__(self, members: Sequence[str], shares: Sequence[float]) -> None:
        self._members = tuple(members)
        self._shares = shares

    def iter_trials(
        self, session: str, tiers: Sequence[Tier], trials: Sequence[int]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield some trials of a session: each one's id, its number of frames, and the prediction of the last ones."""
        opened = [open_predictions(member, session) for member in self._members]
        lengths = opened[0]["n_frames"]
        for trial in trials:
            n_frames = int(lengths.sel(trial=trial))
            predictions = []
            for predicted in opened:
                whole_NT = predicted["predictions"].sel(trial=trial).values[:, :n_frames]
                # Frames that the run does not predict.
                n_lost = int(np.isnan(whole_NT[0]).sum())
                predictions.append(whole_NT[:, n_lost:])
            yield trial, n_frames, _average(predictions, self._shares)


def _average(predictions: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    """Return the mean of predictions of a trial over the last frames, which all of them have."""
    n_frames = min(prediction.shape[1] for prediction in predictions)
    common = [prediction[:, prediction.shape[1] - n_frames :] for prediction in predictions]
    if len(common) == 1:
        return common[0]
    mean_NT = np.zeros(common[0].shape)
    for share, prediction_NT in zip(shares, common, strict=True):
        mean_NT += share * prediction_NT
    return mean_NT


def _group_by_length(trials: Iterable[tuple[Batch, ...]], at_once: int) -> Iterator[list[tuple[Batch, ...]]]:
    """Yield trials of equal length that follow each other together, as many as have so many frames; one at least."""
    group: list[tuple[Batch, ...]] = []
    for batches in trials:
        n_frames = batches[0].n_frames
        if group and (n_frames != group[0][0].n_frames or (len(group) + 1) * n_frames > at_once):
            yield group
            group = []
        group.append(batches)
    if group:
        yield group


def _stack(batches: Sequence[Batch]) -> Batch:
    """Return trials of equal length as one batch, without responses."""
    if len(batches) == 1:
        return batches[0]
    return dataclasses.replace(
        batches[0],
        trials=tuple(trial for batch in batches for trial in batch.trials),
        first_frames=tuple(frame for batch in batches for frame in batch.first_frames),
        videos=np.concatenate([batch.videos for batch in batches]),
        responses=None,
        behavior=np.concatenate([batch.behavior for batch in batches]),
        pupil_center=np.concatenate([batch.pupil_center for batch in batches]),
    )


def _scale_of(config: TrainingConfig) -> _Scale:
    return config.normalization, config.exclude, config.nan_policy
