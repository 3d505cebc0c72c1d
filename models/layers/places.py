"""Where in the frame a neuron looks, from where it lies in the cortex.

Shape suffixes: N neurons, 2 the axes x and y.
"""

from __future__ import annotations

import numpy as np
from torch import nn

__all__ = ["PlacePredictor", "normalize_positions"]


class PlacePredictor(nn.Sequential):
    """Predict each neuron's place in the frame, x and y from −1 to 1, from its normalized position in the cortex.

    The visual cortex is retinotopic, so all neurons of a session share one small network.

    Parameters
    ----------
    n_hidden : int
        Hidden units.

    Notes
    -----
    The grid mean predictor of type ``cortex`` of neuralpredictors, with one hidden layer and a final tanh.
    """

    def __init__(self, n_hidden: int = 30) -> None:
        super().__init__(nn.Linear(2, n_hidden), nn.ELU(), nn.Linear(n_hidden, 2), nn.Tanh())


def normalize_positions(positions: np.ndarray) -> np.ndarray:
    """Center cortical positions and scale them, both axes alike, so that the farthest coordinate is 1.

    Parameters
    ----------
    positions : ndarray, shape (neuron, 2)
        Cortical x and y, in any unit.

    Returns
    -------
    ndarray of float32, shape (neuron, 2)
        Zeros if all neurons lie at one point.

    Examples
    --------
    >>> normalize_positions(np.array([[100.0, 20.0], [300.0, 40.0]]))
    array([[-1. , -0.1],
           [ 1. ,  0.1]], dtype=float32)
    """
    centered = positions.astype(np.float64) - positions.mean(axis=0, dtype=np.float64)
    extent = float(np.abs(centered).max())
    normalized: np.ndarray = (centered / (extent or 1.0)).astype(np.float32)
    return normalized
