"""How well a model predicts whole trials while it is trained.

Shape suffixes: B trials of a batch, N neurons, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.config import TrainingConfig
from models.inputs import ModelInputs
from models.response_model import ResponseModel
from models.training.batches import TrainingBatches
from models.training.objective import poisson_loss
from models.training.ranks import Ranks
from models.training.scores import SCORES, ScoreRule, score_names
from models.whole_trials import predict_trials
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError, UsageError
from sensorium_data.scoring import CorrelationAccumulator
from sensorium_data.statistics import Normalizer

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's scores on whole trials.

    Attributes
    ----------
    correlations : mapping of str to ndarray, shape (neuron,)
        Single-trial correlation of every neuron in the competition's units, by session.
    loss : float
        Poisson loss per neuron and frame on the scale of the recipe, over all sessions.
    scores : mapping of str to float
        By the names of :mod:`models.training.scores`.
    """

    correlations: Mapping[str, np.ndarray]
    loss: float
    scores: Mapping[str, float]

    @property
    def pooled(self) -> float:
        """Mean over the neurons of all sessions together."""
        return float(np.concatenate(list(self.correlations.values())).mean())

    @property
    def by_session(self) -> dict[str, float]:
        """Mean over the neurons of each session."""
        return {session: float(correlation.mean()) for session, correlation in self.correlations.items()}


@torch.no_grad()
def evaluate(
    model: ResponseModel,
    batches: TrainingBatches,
    config: TrainingConfig,
    *,
    ranks: Ranks | None = None,
    before_trial: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Predict the validation trials whole, and compare them with the responses.

    Nothing is drawn at random: the starter kit evaluates on one random window a trial, which makes the same weights
    score differently each time. The first frames are left out, as the competition does. The model computes in 32 bits,
    as it will when it predicts.

    Parameters
    ----------
    model : ResponseModel
        Put into evaluation mode, and back into the mode it was in.
    batches : TrainingBatches
        Gives the trials of all its sessions.
    config : TrainingConfig
        Says how many frames are skipped, which frames a window takes, and which reference's score there is.
    ranks : Ranks, optional
        Each evaluates its share of the trials, and all get the same result.
    before_trial : callable
        Called before each trial; what it raises ends the evaluation.

    Raises
    ------
    UsageError
        If a trial has no frame that can be scored.
    """
    ranks = ranks or Ranks()
    rules = {name: SCORES[name] for name in score_names(config.normalization)}
    was_training = model.training
    model.eval()
    results: dict[str, _SessionResult] = {}
    try:
        for session in batches.sessions:
            result = _SessionResult(rules)
            own = batches.validation_trials(session)[ranks.rank :: ranks.n_ranks]
            for inputs in batches.iter_validation(session, only=own):
                before_trial()
                predictions_BNT = predict_trials(model, inputs, session, config, validates=True).float()
                result.add(inputs, predictions_BNT, batches.normalizers[session], config)
            results[session] = result.merge(ranks.gather(result.moments()))
    finally:
        model.train(was_training)
    return Evaluation(
        correlations={name: result.correlations("single_trial_correlation") for name, result in results.items()},
        loss=sum(result.loss for result in results.values()) / sum(result.n_values for result in results.values()),
        scores={
            name: rule.aggregate([result.correlations(name) for result in results.values()])
            for name, rule in rules.items()
        },
    )


class _SessionResult:
    """One session's correlations while its trials arrive."""

    def __init__(self, rules: Mapping[str, ScoreRule]) -> None:
        self._rules = rules
        # Rules that differ in their aggregation alone share an accumulator.
        self._accumulators: dict[Any, CorrelationAccumulator] = {}
        self.loss = 0.0
        self.n_values = 0

    def add(
        self,
        inputs: ModelInputs,
        predictions_BNT: torch.Tensor,
        normalizer: Normalizer,
        config: TrainingConfig,
    ) -> None:
        responses_BNT = inputs.responses
        n_frames, n_predicted = inputs.n_frames, predictions_BNT.shape[-1]
        first_frame = max(config.skip_frames, n_frames - n_predicted)
        n_scored = n_frames - first_frame
        if n_scored < 1 or not n_predicted:
            raise UsageError(
                "no frame is left to score",
                session=inputs.session,
                trial=inputs.trials[0],
                found=count_things(n_frames, "frame"),
                expected=f"more than {first_frame}",
            )
        if not torch.isfinite(predictions_BNT[..., -n_scored:]).all():
            raise RunError(
                "the model predicts what is no number",
                session=inputs.session,
                trial=inputs.trials[0],
                remedy="lower the learning rate, or bound the gradients with max_gradient_norm",
            )
        self.loss += float(poisson_loss(predictions_BNT[..., -n_scored:], responses_BNT[..., -n_scored:]))
        self.n_values += predictions_BNT.shape[0] * predictions_BNT.shape[1] * n_scored
        pairs = zip(predictions_BNT.cpu().numpy(), responses_BNT[..., -n_predicted:].cpu().numpy(), strict=True)
        for prediction_NT, response_NT in pairs:
            for key, rule in {rule.key: rule for rule in self._rules.values()}.items():
                frames = rule.choose_frames(n_frames - n_predicted, n_frames, config.skip_frames)
                columns = frames - (n_frames - n_predicted)
                accumulator = self._accumulators.setdefault(key, CorrelationAccumulator(len(prediction_NT)))
                accumulator.update(
                    rule.convert(normalizer, prediction_NT[:, columns], frames),
                    rule.convert(normalizer, response_NT[:, columns], frames),
                )

    def moments(self) -> tuple[dict[Any, CorrelationAccumulator], float, int]:
        """Return what other ranks need."""
        return self._accumulators, self.loss, self.n_values

    def merge(self, parts: list[tuple[dict[Any, CorrelationAccumulator], float, int]]) -> _SessionResult:
        """Return the result of all ranks together, in their order, so that it is the same on each."""
        merged = _SessionResult(self._rules)
        for accumulators, loss, n_values in parts:
            for key, accumulator in accumulators.items():
                own = merged._accumulators.setdefault(key, CorrelationAccumulator(accumulator.n_neurons))
                own.merge(accumulator)
            merged.loss += loss
            merged.n_values += n_values
        return merged

    def correlations(self, name: str) -> np.ndarray:
        """Return a rule's correlation of each neuron."""
        return self._accumulators[self._rules[name].key].correlation()
