"""A running mean of the weights, which generalizes better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from models.runs import copy_weights

__all__ = ["WeightAverage"]


class WeightAverage:
    """An exponential moving average of a model's parameters and buffers, one update a step.

    ``average = decay * average + (1 - decay) * weights``, from the initial weights on, batch norm's statistics too.
    Counters are those of the last step.

    Parameters
    ----------
    model : Module
        Whose weights are averaged.
    decay : float
        Between 0 and 1; DwiseNeuro's is 0.999.

    Attributes
    ----------
    weights : dict of str to Tensor
        The average, as a ``state_dict``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.weights = copy_weights(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        for name, value in model.state_dict().items():
            average = self.weights[name]
            if average.is_floating_point():
                average.mul_(self._decay).add_(value, alpha=1 - self._decay)
            else:
                average.copy_(value)

    def reset(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Go on from other weights."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Give a model the average while the block runs, and its own weights back afterwards."""
        own = copy_weights(model)
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)
