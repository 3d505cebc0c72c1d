"""Gradients that are too long are shortened: to a given norm, or to a percentile of those before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from models.config import TrainingConfig

__all__ = ["GradientClipping", "NormClipping", "PercentileClipping", "make_clipping"]

# ViV1T's closed-loop version remembers as many.
_N_REMEMBERED = 100_000


class GradientClipping(ABC):
    """Bounds the length of the gradient of all parameters together."""

    @abstractmethod
    def choose_limit(self, norm: float) -> float:
        """Return the greatest norm that a gradient of this norm may keep, and remember the norm if that counts."""

    def clip(self, parameters: Iterable[nn.Parameter]) -> float:
        """Shorten the gradient, and return its norm before.

        A gradient that is not finite is left alone and not remembered: the step is skipped, or the loss says so.
        """
        with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in with_gradient if parameter.grad is not None])
        value = float(norm)
        if np.isfinite(value):
            limit = self.choose_limit(value)
            if np.isfinite(limit):
                clip_grads_with_norm_(with_gradient, limit, norm)
        return value


class NormClipping(GradientClipping):
    """Shortens gradients to a norm that never changes.

    Parameters
    ----------
    max_norm : float
        The norm.
    """

    def __init__(self, max_norm: float) -> None:
        self._max_norm = max_norm

    def choose_limit(self, norm: float) -> float:
        """Return the norm."""
        return self._max_norm


class PercentileClipping(GradientClipping):
    """Shortens gradients to a percentile of the norms of all gradients before; the first one is left alone.

    Parameters
    ----------
    percentile : float
        Of those norms, 0 to 100; ViV1T's closed-loop version takes the 10th.

    Notes
    -----
    AutoClip (Seetharaman et al. 2020, arXiv:2007.14469), as ViV1T's closed-loop version uses it. That one
    forgets the norms when it is interrupted; here they are part of a checkpoint.
    """

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._norms: list[float] = []

    def choose_limit(self, norm: float) -> float:
        """Return the percentile of the norms so far, infinity at first, and remember this one."""
        limit = float(np.percentile(self._norms, self._percentile)) if self._norms else float("inf")
        self._norms.append(norm)
        del self._norms[:-_N_REMEMBERED]
        return limit

    @property
    def norms(self) -> torch.Tensor:
        """The remembered norms, in order, in double precision."""
        return torch.tensor(self._norms, dtype=torch.float64)

    @norms.setter
    def norms(self, norms: torch.Tensor) -> None:
        self._norms = norms.tolist()


def make_clipping(config: TrainingConfig) -> GradientClipping | None:
    """Return what a recipe clips gradients by, None if it does not."""
    if config.max_gradient_norm is not None:
        return NormClipping(config.max_gradient_norm)
    if config.gradient_norm_percentile is not None:
        return PercentileClipping(config.gradient_norm_percentile)
    return None
