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
from sensorium_data.errors import UsageError
from sensorium_data.loader import WindowLoader
from sensorium_data.sessions import Tier

__all__ = ["CorrelationAccumulator", "Evaluation", "evaluate"]

#: Added to a trace's standard deviation, as the competition does: a constant trace scores 0.
_EPSILON = 1e-8


class CorrelationAccumulator:
    """Each neuron's correlation between predictions and responses, trial by trial.

    The single-trial correlation joins the trials of a tier along time. Only sums are kept, in double
    precision, so that memory does not grow with the trials.

    Parameters
    ----------
    n_neurons : int
    device : torch.device
        Where predictions and responses are.
    """

    def __init__(self, n_neurons: int, device: torch.device) -> None:
        self._sums = torch.zeros(5, n_neurons, dtype=torch.float64, device=device)
        self._n_frames = 0

    def update(self, predictions_BNT: torch.Tensor, responses_BNT: torch.Tensor) -> None:
        """Add the frames of some trials; both have the same shape."""
        predictions_NT = predictions_BNT.double().transpose(0, 1).flatten(1)
        responses_NT = responses_BNT.double().transpose(0, 1).flatten(1)
        self._n_frames += predictions_NT.shape[1]
        self._sums[0] += predictions_NT.sum(1)
        self._sums[1] += responses_NT.sum(1)
        self._sums[2] += predictions_NT.square().sum(1)
        self._sums[3] += responses_NT.square().sum(1)
        self._sums[4] += (predictions_NT * responses_NT).sum(1)

    def compute(self) -> np.ndarray:
        """Return the correlation of each neuron; 0 where a trace is constant or not finite."""
        if not self._n_frames:
            raise UsageError("no frame to correlate")
        mean_p, mean_r, square_p, square_r, product = (self._sums / self._n_frames).cpu().numpy()
        std_p = np.sqrt(np.maximum(square_p - mean_p**2, 0))
        std_r = np.sqrt(np.maximum(square_r - mean_r**2, 0))
        correlation = (product - mean_p * mean_r) / ((std_p + _EPSILON) * (std_r + _EPSILON))
        finite: np.ndarray = np.nan_to_num(correlation, nan=0.0, posinf=0.0, neginf=0.0)
        return finite


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
                    accumulator = CorrelationAccumulator(responses_BNT.shape[1], device)
                accumulator.update(predictions_BNT, responses_BNT)
                total_loss += float(poisson_loss(predictions_BNT, responses_BNT))
                n_values += responses_BNT.numel()
            assert accumulator is not None  # noqa: S101 - iter_trials yields a trial or raises
            correlations[session.name] = accumulator.compute()
    finally:
        model.train(was_training)
    return Evaluation(correlations=correlations, loss=total_loss / n_values)
