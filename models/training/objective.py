"""What training minimizes, and how it weighs batches and sessions.

Five rules are known by the name of whose they are. For a batch of B windows that mixes sessions, of which session m has
n_m trials:

=====================  ============================================  =========================================
Rule                   A window of session m weighs                  Poisson loss
=====================  ============================================  =========================================
``starter-kit``        sqrt(n_m / B_m), trials of all tiers          p - r log(p + 1e-8)
``dwiseneuro``         1 / B: a mean over the windows of a batch     p - r log(p + 1e-8)
``dynamic-v1fm``       1: a sum over the windows of a batch          p' - r' log p', both with 1e-8 added
``vivit``              sqrt(n_m / B_m), training trials              the same with 1.19e-7
``vivit-closed-loop``  sum(n) / (n_m M) / (M B_m), training trials   the same with 1.19e-7
=====================  ============================================  =========================================

B_m are the batch's windows of session m, M is the number of sessions. Losses are summed over neurons and frames.

Shape suffixes: B trials of a batch, N neurons, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from models.config import TrainingConfig
from sensorium_data.errors import UsageError

__all__ = [
    "Objective",
    "SessionCount",
    "correlation_loss",
    "poisson_loss",
    "scale_for_batch",
    "shifted_poisson_loss",
]

#: Adds a tensor up over all ranks; the result has no gradient.
SumOverRanks = Callable[[torch.Tensor], torch.Tensor]

_FLOAT32_EPSILON = 1.1920929e-07


@dataclass(frozen=True)
class SessionCount:
    """How many trials a session has.

    Attributes
    ----------
    n_trials : int
        Of all tiers.
    n_training_trials : int
        Of those that are trained on.
    """

    n_trials: int
    n_training_trials: int


class Objective:
    """The loss of a recipe, and the weight of a window in it.

    Parameters
    ----------
    config : TrainingConfig
        Of which the group :class:`models.settings.LossSettings` counts.
    counts : mapping of str to SessionCount
        By full session name, of all sessions that are trained on.
    """

    def __init__(self, config: TrainingConfig, counts: Mapping[str, SessionCount]) -> None:
        self._rule = _RULES[config.loss_scale]
        self._counts = dict(counts)
        self._epsilon = config.loss_epsilon if config.loss_epsilon is not None else self._rule.epsilon
        self._correlation_weight = config.correlation_weight if config.loss == "poisson-correlation" else 0.0

    def weigh(self, rows: Mapping[str, int]) -> dict[str, float]:
        """Return what a window of each session weighs in a batch.

        Parameters
        ----------
        rows : mapping of str to int
            Windows of each session in the whole batch, over all ranks.
        """
        n_rows = sum(rows.values())
        return {session: self._rule.weigh(self._counts, session, n, n_rows) for session, n in rows.items()}

    def poisson(self, predictions_BNT: torch.Tensor, responses_BNT: torch.Tensor) -> torch.Tensor:
        """Return the reference's Poisson loss, summed over trials, neurons and frames."""
        return self._rule.poisson(predictions_BNT, responses_BNT, epsilon=self._epsilon)

    def correlation(
        self, predictions_BNT: torch.Tensor, responses_BNT: torch.Tensor, *, sum_over_ranks: SumOverRanks
    ) -> torch.Tensor | None:
        """Return the weighted correlation term of the windows of one session, None where the loss has none."""
        if not self._correlation_weight:
            return None
        return self._correlation_weight * correlation_loss(
            predictions_BNT, _last_frames(responses_BNT, predictions_BNT), sum_over_ranks=sum_over_ranks
        )


def poisson_loss(predictions_BNT: torch.Tensor, responses_BNT: torch.Tensor, *, epsilon: float = 1e-8) -> torch.Tensor:
    """Return the Poisson loss, summed over trials, neurons and frames.

    ``sum(prediction - response * log(prediction + epsilon))``: the negative log-likelihood of the responses
    if they were counts with the predictions as their means, without the terms that do not depend on the predictions.

    Parameters
    ----------
    predictions_BNT : Tensor, shape (batch, neuron, time)
        Not negative.
    responses_BNT : Tensor, shape (batch, neuron, time)
        A model that loses its first frames is compared with the last frames of the responses: they may be longer.
    epsilon : float
        Keeps the logarithm finite where a prediction is 0; the starter kit's and DwiseNeuro's 1e-8.

    Raises
    ------
    UsageError
        If the predictions are longer than the responses.

    Notes
    -----
    The starter kit's ``PoissonLoss`` of neuralpredictors with ``avg_loss=False``.
    """
    responses_BNT = _last_frames(responses_BNT, predictions_BNT)
    return (predictions_BNT - responses_BNT * torch.log(predictions_BNT + epsilon)).sum()


def shifted_poisson_loss(
    predictions_BNT: torch.Tensor, responses_BNT: torch.Tensor, *, epsilon: float = _FLOAT32_EPSILON
) -> torch.Tensor:
    """Return the Poisson loss of predictions and responses that ``epsilon`` was added to.

    Both ViV1T and Dynamic-V1FM compute it so.

    Parameters
    ----------
    predictions_BNT, responses_BNT : Tensor
        As in :func:`poisson_loss`.
    epsilon : float
        By default ViV1T's, the distance of 1 to the next number in 32 bits.
    """
    responses_BNT = _last_frames(responses_BNT, predictions_BNT)
    shifted_BNT = predictions_BNT + epsilon
    return (shifted_BNT - (responses_BNT + epsilon) * torch.log(shifted_BNT)).sum()


def correlation_loss(
    predictions_BNT: torch.Tensor,
    responses_BNT: torch.Tensor,
    *,
    sum_over_ranks: SumOverRanks = lambda tensor: tensor,
) -> torch.Tensor:
    """Return the sum over neurons of 1 - correlation, each over all windows and frames of a batch.

    Parameters
    ----------
    predictions_BNT, responses_BNT : Tensor, shape (batch, neuron, time)
        Of the same frames. With several ranks, the rows of this one.
    sum_over_ranks : callable
        Adds up over ranks. Each rank gets the loss of the whole batch, and as its gradient the part of its own rows:
        added up, they are the whole gradient.

    Notes
    -----
    Standard deviations are those of the population plus float32's epsilon, as in ViV1T, so that a constant trace has
    correlation 0; its gradient is 0. (The competition's correlation adds 1e-8.)
    """

    def add_up(local: torch.Tensor) -> torch.Tensor:
        # The other ranks' part is a constant here.
        return local + (sum_over_ranks(local.detach()) - local.detach())

    n_values = sum_over_ranks(predictions_BNT.new_tensor(predictions_BNT.shape[0] * predictions_BNT.shape[2]))
    # The means' own gradients cancel in the sums of squared deviations below, over all ranks together.
    mean_p_N1 = (sum_over_ranks(predictions_BNT.detach().sum(dim=(0, 2))) / n_values)[:, None]
    mean_r_N1 = (sum_over_ranks(responses_BNT.sum(dim=(0, 2))) / n_values)[:, None]
    p_BNT, r_BNT = predictions_BNT - mean_p_N1, responses_BNT - mean_r_N1
    covariance_N = add_up((p_BNT * r_BNT).sum(dim=(0, 2))) / n_values
    variance_p_N = add_up(p_BNT.square().sum(dim=(0, 2))) / n_values
    variance_r_N = add_up(r_BNT.square().sum(dim=(0, 2))) / n_values
    varies_N = (variance_p_N > 0) & (variance_r_N > 0)
    # In the references, a trace that is constant has a gradient of the order of 1 / 1e-7.
    std_p_N, std_r_N = (torch.where(varies_N, v, 1.0).sqrt() + _FLOAT32_EPSILON for v in (variance_p_N, variance_r_N))
    correlation_N = torch.where(varies_N, covariance_N / (std_p_N * std_r_N), 0.0)
    return (1 - correlation_N).sum()


def scale_for_batch(n_trials: int, batch_size: int) -> float:
    """Return the factor a batch's summed loss is multiplied with: ``sqrt(n_trials / batch_size)``.

    It weighs the loss against the regularizers, which do not grow with the data. The starter kit counts every trial of
    the session here, those of the test tiers too; the recipe's regularizer weights were chosen with that number. ViV1T
    of 2023 counts the training trials.

    Parameters
    ----------
    n_trials : int
        Trials of the session.
    batch_size : int
        Its trials in this batch.
    """
    return math.sqrt(n_trials / batch_size)


@dataclass(frozen=True)
class _Rule:
    """How a reference weighs a window: from all sessions' counts, the session, its rows and the batch's rows."""

    weigh: Callable[[Mapping[str, SessionCount], str, int, int], float]
    poisson: Callable[..., torch.Tensor]
    epsilon: float


def _weigh_as_closed_loop(counts: Mapping[str, SessionCount], session: str, n_rows: int, _: int) -> float:
    total = sum(count.n_training_trials for count in counts.values())
    n_sessions = len(counts)
    return total / (counts[session].n_training_trials * n_sessions) / (n_sessions * n_rows)


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        "starter-kit": _Rule(
            lambda counts, session, n, _: scale_for_batch(counts[session].n_trials, n), poisson_loss, 1e-8
        ),
        "dwiseneuro": _Rule(lambda _counts, _session, _n, n_batch: 1 / n_batch, poisson_loss, 1e-8),
        "dynamic-v1fm": _Rule(lambda _counts, _session, _n, _n_batch: 1.0, shifted_poisson_loss, 1e-8),
        "vivit": _Rule(
            lambda counts, session, n, _: scale_for_batch(counts[session].n_training_trials, n),
            shifted_poisson_loss,
            _FLOAT32_EPSILON,
        ),
        "vivit-closed-loop": _Rule(_weigh_as_closed_loop, shifted_poisson_loss, _FLOAT32_EPSILON),
    }
)


def _last_frames(responses_BNT: torch.Tensor, predictions_BNT: torch.Tensor) -> torch.Tensor:
    n_frames, n_recorded = predictions_BNT.shape[-1], responses_BNT.shape[-1]
    if n_frames > n_recorded:
        raise UsageError("the model predicts more frames than were recorded", found=n_frames, expected=n_recorded)
    return responses_BNT[..., n_recorded - n_frames :]
