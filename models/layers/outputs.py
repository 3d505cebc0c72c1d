"""Output nonlinearities, which make responses positive."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["elu1"]


def elu1(values: torch.Tensor) -> torch.Tensor:
    """Return ``ELU(values) + 1``: exponential below 0, linear above; never negative.

    Parameters
    ----------
    values : Tensor
        Of any shape.

    Examples
    --------
    >>> elu1(torch.tensor([-1000.0, 0.0, 2.0]))
    tensor([0., 1., 3.])
    """
    return functional.elu(values) + 1
