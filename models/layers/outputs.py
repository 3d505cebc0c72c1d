"""Output nonlinearities, which make responses positive."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["elu1", "invert_elu1"]


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


def invert_elu1(responses: torch.Tensor, *, smallest: float = 0.01) -> torch.Tensor:
    """Return the values of which :func:`elu1` makes these responses.

    Parameters
    ----------
    responses : Tensor
        Of any shape.
    smallest : float
        Taken for smaller responses: no value leads to 0.

    Examples
    --------
    >>> invert_elu1(torch.tensor([1.0, 3.0]))
    tensor([0., 2.])
    """
    responses = responses.clamp(min=smallest)
    return torch.where(responses < 1, responses.log(), responses - 1)
