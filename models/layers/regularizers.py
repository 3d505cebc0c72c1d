"""Penalties that keep filters smooth and few.

Shape suffixes: O output channels, C input channels, H height, W width, T frames.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = [
    "SPATIAL_LAPLACIAN",
    "TEMPORAL_LAPLACIAN",
    "group_sparsity",
    "spatial_roughness",
    "temporal_roughness",
]

#: Kernel of :func:`spatial_roughness`.
SPATIAL_LAPLACIAN = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))
#: Kernel of :func:`temporal_roughness`: the one the field uses, not a second difference, which has 2 in its middle.
TEMPORAL_LAPLACIAN = (-1.0, 4.0, -1.0)


def spatial_roughness(weights_OCHW: torch.Tensor) -> torch.Tensor:
    """Return the energy of filters' Laplacian, relative to that of the filters.

    ``sum(laplacian(w)²) / sum(w²)``; the filters go on with zeros outside. Scaling them all changes nothing.

    Parameters
    ----------
    weights_OCHW : Tensor, shape (output channel, input channel, height, width)
        Spatial filters.

    Notes
    -----
    ``LaplaceL2norm`` of neuralpredictors.
    """
    kernel_11HW = weights_OCHW.new_tensor(SPATIAL_LAPLACIAN)[None, None]
    laplacian = functional.conv2d(weights_OCHW.flatten(0, 1)[:, None], kernel_11HW, padding=1)
    return laplacian.square().sum() / weights_OCHW.square().sum()


def temporal_roughness(weights_OCT: torch.Tensor) -> torch.Tensor:
    """Return the same for filters over time, with the kernel (−1, 4, −1).

    Parameters
    ----------
    weights_OCT : Tensor, shape (output channel, input channel, time)
        Temporal filters.

    Notes
    -----
    ``DepthLaplaceL21d`` of neuralpredictors.
    """
    kernel_11T = weights_OCT.new_tensor(TEMPORAL_LAPLACIAN)[None, None]
    laplacian = functional.conv1d(weights_OCT.flatten(0, 1)[:, None], kernel_11T, padding=1)
    return laplacian.square().sum() / weights_OCT.square().sum()


def group_sparsity(weights_OCHW: torch.Tensor) -> torch.Tensor:
    """Return the mean length of filters: it drives whole filters to 0, not single weights.

    Parameters
    ----------
    weights_OCHW : Tensor, shape (output channel, input channel, height, width)
        A filter for each pair of channels.

    Notes
    -----
    ``group_sparsity`` of neuralpredictors' 2D cores, for one layer.
    """
    return torch.linalg.vector_norm(weights_OCHW, dim=(2, 3)).mean()
