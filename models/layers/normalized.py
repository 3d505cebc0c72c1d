"""A convolution, and what usually comes after it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["NormalizedLayer", "init_convolutions"]


class NormalizedLayer(nn.Module):
    """A convolution, batch norm, ELU.

    Parameters
    ----------
    convolution : Module
        Of any kind.
    norm : Module
        Of the convolution's channels.
    ends_in_elu : bool
        Without it the normalized values are returned.
    """

    def __init__(self, convolution: nn.Module, norm: nn.Module, *, ends_in_elu: bool = True) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = norm
        self.ends_in_elu = ends_in_elu

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the convolution's map, normalized."""
        normalized: torch.Tensor = self.norm(self.convolution(features))
        return functional.elu(normalized, inplace=True) if self.ends_in_elu else normalized


def init_convolutions(module: nn.Module) -> None:
    """Draw the weights of all convolutions in a module as Xavier does, from a normal distribution; biases are 0.

    Parameters
    ----------
    module : Module
        Changed in place.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
