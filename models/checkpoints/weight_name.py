"""One weight, here and in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["WeightName"]


@dataclass(frozen=True)
class WeightName:
    """What one weight is called here and in a file, and how its axes differ.

    Attributes
    ----------
    name, file_name : str
        In the model here, and in the file.
    unit_axes : tuple of int
        Axes of length 1 that the weight has in the file only, in rising order.
    is_transposed : bool
        Whether its two axes stand in the other order in the file.
    is_optional : bool
        Whether the file may lack it; it is 0 then.
    """

    name: str
    file_name: str
    unit_axes: tuple[int, ...] = ()
    is_transposed: bool = False
    is_optional: bool = False

    def from_file(self, value: torch.Tensor) -> torch.Tensor:
        """Return a value of the file as it is here."""
        value = value.squeeze(self.unit_axes) if self.unit_axes else value
        return value.T.contiguous() if self.is_transposed else value

    def to_file(self, value: torch.Tensor) -> torch.Tensor:
        """Return a value of the model here as it is in the file."""
        value = value.T.contiguous() if self.is_transposed else value
        for axis in self.unit_axes:
            value = value.unsqueeze(axis)
        return value

    def file_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape in the file of a weight that has some shape here."""
        return tuple(self.to_file(torch.empty(tuple(shape), device="meta")).shape)
