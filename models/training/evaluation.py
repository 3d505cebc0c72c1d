"""How well a model predicts whole trials while it is trained.

Shape suffixes: B trials of a batch, N neurons, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models.inputs import to_tensors
from models.training.objective import poisson_loss
from sensorium_data.correlation import CorrelationAccumulator
from sensorium_data.errors import UsageError
from sensorium_data.loader import WindowLoader
from sensorium_data.sessions import Tier

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's scores on whole trials.

    Attributes
    ----------
    correlations : mapping of str to ndarray, shape (neuron,)
        Single-trial correlation of every neuron, by session.
    loss : float
        Poisson loss per neuron and frame, over all sessions.
    """

    correlations: Mapping[str, np.ndarray]
    loss: float

    @property
    def pooled(self) -> float:
        """Mean over the neurons of all sessions together: what the starter kit stops by."""
        return float(np.concatenate(list(self.correlations.values())).mean())

    @property
    def by_session(self) -> dict[str, float]:
        """Mean over the neurons of each session."""
        return {session: float(correlation.mean()) for session, correlation in self.correlations.items()}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: WindowLoader, tiers: Sequence[Tier], *, n_frames_skipped: int, device: torch.device
) -> Evaluation:
    """Predict the labelled trials of some tiers whole, and compare them with the responses.

    Nothing is drawn at random: the starter kit evaluates on one random window a trial, which makes the same weights
    score differently each time. The first frames are left out, as the competition does, and both sides
    are in the competition's units.

    Parameters
    ----------
    model : Module
        Put into evaluation mode, and back into the mode it was in.
    loader : WindowLoader
        Gives the trials of all its sessions.
    tiers : sequence of Tier
        Which trials to score.
    n_frames_skipped : int
        Frames at a trial's start that do not count; the competition's 50.
    device : torch.device
        Where the model is.
    """
    was_training = model.training
    model.eval()
    correlations: dict[str, np.ndarray] = {}
    total_loss = 0.0
    n_values = 0
    try:
        for session in loader.reader.sessions:
            accumulator: CorrelationAccumulator | None = None
            for batch in loader.iter_trials(session.name, tiers, labelled=True):
                inputs = to_tensors(batch, device)
                predictions_BNT = model(inputs.videos, inputs.pupil_center, session.name).float()
                n_lost = batch.n_frames - predictions_BNT.shape[-1]
                n_cut = max(0, n_frames_skipped - n_lost)
                predictions_BNT = predictions_BNT[..., n_cut:]
                if not predictions_BNT.shape[-1]:
                    raise UsageError(
                        "no frame is left to score",
                        session=session.name,
                        trial=batch.trials[0],
                        found=f"{batch.n_frames} frames",
                        expected=f"more than {max(n_frames_skipped, n_lost)}",
                    )
                responses_BNT = inputs.responses[..., -predictions_BNT.shape[-1] :]
                if accumulator is None:
                    accumulator = CorrelationAccumulator(responses_BNT.shape[1])
                for prediction_NT, response_NT in zip(predictions_BNT, responses_BNT, strict=True):
                    accumulator.update(prediction_NT.cpu().numpy(), response_NT.cpu().numpy())
                total_loss += float(poisson_loss(predictions_BNT, responses_BNT))
                n_values += responses_BNT.numel()
            assert accumulator is not None  # noqa: S101 - iter_trials yields a trial or raises
            correlations[session.name] = accumulator.correlation()
    finally:
        model.train(was_training)
    return Evaluation(correlations=correlations, loss=total_loss / n_values)
