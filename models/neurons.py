"""What a model must know of a session's neurons to be built for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["NeuronInfo"]


@dataclass(frozen=True, eq=False)
class NeuronInfo:
    """The neurons of one session, in the order of a model's outputs.

    Attributes
    ----------
    n_neurons : int
    positions : ndarray, shape (neuron, 2)
        Each neuron's x and y in the plane of the cortex, in micrometers.

    Raises
    ------
    ValueError
        If ``positions`` does not hold two finite numbers for each of at least one neuron.
    """

    n_neurons: int
    positions: np.ndarray

    def __post_init__(self) -> None:
        if self.n_neurons < 1 or self.positions.shape != (self.n_neurons, 2):
            raise ValueError(
                f"expected positions of shape ({self.n_neurons}, 2) for at least one neuron, "
                f"found shape {self.positions.shape}"
            )
        if not np.isfinite(self.positions).all():
            raise ValueError("expected finite positions, found NaN or infinity")
