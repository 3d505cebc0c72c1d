"""The average of the weights that schedule-free optimizers are made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.runs import copy_weights

if TYPE_CHECKING:
    from schedulefree import AdamWScheduleFree

__all__ = ["ScheduleFreeAverage"]

#: What the optimizer counts for each group of parameters.
_COUNTED = ("k", "weight_sum", "lr_max", "scheduled_lr")


class ScheduleFreeAverage:
    """The average that schedule-free AdamW keeps: what is validated and saved, while training goes on beside it.

    Gradients are taken at ``y = (1 - beta) z + beta x``, z being where plain steps lead, and x their average (Defazio
    et al. 2024, "The road less scheduled", arXiv:2405.15682). The model holds y, and the optimizer z; x follows.

    The library goes from y to x and back by its ``eval()`` and ``train()``, each of which rounds: weights would depend
    on how often that was done. Here x is computed beside y, which stays as it is, so that an interrupted run ends with
    the same bits.

    Parameters
    ----------
    model : Module
        Whose weights are averaged.
    optimizer : AdamWScheduleFree
        Of all its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: AdamWScheduleFree) -> None:
        self._model = model
        self._optimizer = optimizer
        # It refuses steps otherwise. No weight has moved yet.
        optimizer.train()

    @property
    @torch.no_grad()
    def weights(self) -> dict[str, torch.Tensor]:
        """The average, as a ``state_dict``; buffers as they are."""
        weights = copy_weights(self._model)
        for name, parameter, group in self._list_parameters():
            state = self._optimizer.state.get(parameter, {})
            if "z" in state:
                weights[name] = parameter.detach().lerp(state["z"], 1 - 1 / group["betas"][0])
        return weights

    def update(self, model: nn.Module) -> None:
        """Do nothing: the optimizer's step has taken in the weights."""

    @torch.no_grad()
    def reset(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Go on from other weights, which the model has already."""
        for name, parameter, _ in self._list_parameters():
            state = self._optimizer.state.get(parameter, {})
            if "z" in state:
                state["z"].copy_(weights[name])

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Give a model the average while the block runs, and its own weights back afterwards."""
        own = copy_weights(model)
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state(self) -> list[dict[str, float]]:
        """Return what the optimizer has counted, for each group of parameters."""
        return [{name: group[name] for name in _COUNTED} for group in self._optimizer.param_groups]

    def restore(self, state: list[dict[str, float]]) -> None:
        """Go on from a :meth:`state`."""
        for group, counted in zip(self._optimizer.param_groups, state, strict=True):
            group.update({name: counted[name] for name in _COUNTED})

    def _list_parameters(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
        names = {parameter: name for name, parameter in self._model.named_parameters()}
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                yield names[parameter], parameter, group
