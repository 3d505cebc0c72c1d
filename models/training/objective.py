"""What training minimizes.

Shape suffixes: B trials of a batch, N neurons, T frames.
"""

from __future__ import annotations

import math

import torch

from sensorium_data.errors import UsageError

__all__ = ["poisson_loss", "scale_for_batch"]


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
        Keeps the logarithm finite where a prediction is 0; the starter kit's 1e-8.

    Raises
    ------
    UsageError
        If the predictions are longer than the responses.

    Notes
    -----
    The starter kit's ``PoissonLoss`` of neuralpredictors with ``avg_loss=False``.
    """
    n_frames = predictions_BNT.shape[-1]
    if n_frames > responses_BNT.shape[-1]:
        raise UsageError(
            "the model predicts more frames than were recorded", found=n_frames, expected=responses_BNT.shape[-1]
        )
    responses_BNT = responses_BNT[..., responses_BNT.shape[-1] - n_frames :]
    return (predictions_BNT - responses_BNT * torch.log(predictions_BNT + epsilon)).sum()


def scale_for_batch(n_trials: int, batch_size: int) -> float:
    """Return the factor a batch's summed loss is multiplied with: ``sqrt(n_trials / batch_size)``.

    It weighs the loss against the regularizers, which do not grow with the data. The starter kit counts every trial of
    the session here, those of the test tiers too; the recipe's regularizer weights were chosen with that number.

    Parameters
    ----------
    n_trials : int
        Trials of the session, of all tiers.
    batch_size : int
        Trials in this batch.
    """
    return math.sqrt(n_trials / batch_size)
