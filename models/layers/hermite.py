"""Filters that are seen at several angles: sums of 2D Hermite functions, whose coefficients say how they are turned.

Channels of a map are rotation-major: all features at the first angle, then all at the second.

Shape suffixes: K Hermite functions, R rotations, O output features, I input channels, F frames (of all trials of a
batch), C channels (R × O), H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = ["HermiteConv2d", "RotationBatchNorm2d", "hermite_functions", "rotation_matrices"]

#: Points along each axis on which functions are evaluated for one pixel of a filter, which has their sum.
_UPSAMPLING = 2


class HermiteConv2d(nn.Module):
    """A convolution with filters at several angles, each a learned sum of Hermite functions.

    Parameters
    ----------
    n_in : int
        Channels of the input.
    n_features : int
        Features of the output; it has ``n_rotations`` channels of each.
    kernel : int
        Height and width of the filters, pixels.
    n_rotations : int
        Angles, evenly spread over a full turn.
    sees_rotations : bool
        Whether the input has this many rotations too: a rotated filter then weighs them in a rotated order. Those of
        a video are not.
    stride, padding : int
        Step of the filters, and rows and columns of zeros around the input, pixels.
    init_std : float
        Standard deviation of the coefficients at first.

    Attributes
    ----------
    coefficients : Parameter, shape (function, input channel, output feature)

    Notes
    -----
    ``HermiteConv2D`` of neuralpredictors with an upsampling of 2 (Ecker et al. 2019, "A rotation-equivariant
    convolutional neural network model of primary visual cortex"). It has no bias.
    """

    basis: torch.Tensor
    input_order: torch.Tensor

    def __init__(
        self,
        n_in: int,
        n_features: int,
        kernel: int,
        n_rotations: int,
        *,
        sees_rotations: bool,
        stride: int = 1,
        padding: int = 0,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        functions_KHW, orders = hermite_functions(kernel)
        # Rotating, and adding up the points of a pixel, are linear: done once, to the functions.
        pooled_KHW = functions_KHW.reshape(-1, kernel, _UPSAMPLING, kernel, _UPSAMPLING).sum(axis=(2, 4))
        basis_RKHW = np.einsum("khw,rkj->rjhw", pooled_KHW, rotation_matrices(orders, n_rotations))
        # They follow from the architecture: no part of the weights.
        self.register_buffer("basis", torch.tensor(basis_RKHW, dtype=torch.float32), persistent=False)
        shift = n_in // n_rotations if sees_rotations else 0
        order_RI = (torch.arange(n_in) - shift * torch.arange(n_rotations)[:, None]) % n_in
        self.register_buffer("input_order", order_RI, persistent=False)
        self.coefficients = nn.Parameter(torch.empty(len(orders), n_in, n_features).normal_(std=init_std))

    def render_filters(self) -> torch.Tensor:
        """Return the filters at all angles, shape (rotation × output feature, input channel, height, width)."""
        ordered_KRIO = self.coefficients[:, self.input_order]
        return torch.einsum("rkhw,krio->roihw", self.basis, ordered_KRIO).flatten(0, 1)

    def forward(self, features_FIHW: torch.Tensor) -> torch.Tensor:
        """Return the filters' products with each frame, shape (frame, rotation × output feature, height, width)."""
        return functional.conv2d(features_FIHW, self.render_filters(), stride=self.stride, padding=self.padding)


class RotationBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that treats a feature alike at all angles: one mean, variance, weight and bias for all of them.

    Parameters
    ----------
    n_features, n_rotations : int
        Of the map, which has a channel for each pair.
    momentum : float
        Weight of the newest batch in the running mean and variance.
    """

    def __init__(self, n_features: int, n_rotations: int, *, momentum: float) -> None:
        super().__init__(n_features, momentum=momentum)
        self.n_rotations = n_rotations

    def forward(self, features_FCHW: torch.Tensor) -> torch.Tensor:
        """Return the map normalized, of the same shape."""
        n_frames, n_channels, height, width = features_FCHW.shape
        # A feature's angles as if they were frames.
        by_angle = features_FCHW.reshape(n_frames * self.n_rotations, self.num_features, height, width)
        return super().forward(by_angle).reshape(n_frames, n_channels, height, width)


def hermite_functions(kernel: int) -> tuple[np.ndarray, list[int]]:
    """Return the 2D Hermite functions in polar coordinates, up to the rank ``kernel`` − 1, each of length 1.

    A function of angular order m and radial order n is, with the Laguerre polynomial L::

        (−1)^n r^m L_n^m(r² / 2) exp(−r² / 4) times cos(m θ) or sin(m θ)

    Its rank is 2 n + m. Ranks ascend, and the angular orders of a rank too. An order above 0 has its cosine first.

    Parameters
    ----------
    kernel : int
        Pixels along each axis. Each is evaluated at two points along both axes. The grid reaches from
        −2 sqrt(kernel) to 2 sqrt(kernel), between the outer edges of its pixels.

    Returns
    -------
    functions : ndarray of float64, shape (function, 2 kernel, 2 kernel)
        kernel (kernel + 1) / 2 of them.
    orders : list of int
        The angular order of each.
    """
    n_points = _UPSAMPLING * kernel
    edge = 2 * math.sqrt(kernel) * (1 - 1 / n_points)
    axis = np.linspace(-edge, edge, n_points)
    rows, columns = axis[:, None], axis[None]
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    functions, orders = [], []
    for rank in range(kernel):
        for order in range(rank % 2, rank + 1, 2):
            radial_order = (rank - order) // 2
            profile = (-1) ** radial_order * radius**order * _laguerre(radial_order, order, radius**2 / 2)
            profile = profile * np.exp(-(radius**2) / 4)
            waves = (np.cos(order * angle), np.sin(order * angle)) if order else (np.ones_like(angle),)
            functions += [profile * wave for wave in waves]
            orders += [order] * len(waves)
    stacked = np.stack(functions)
    return stacked / np.sqrt(np.square(stacked).sum(axis=(1, 2), keepdims=True)), orders


def rotation_matrices(orders: list[int], n_rotations: int) -> np.ndarray:
    """Return the matrices that turn coefficients of Hermite functions, so that their sum is rotated.

    Parameters
    ----------
    orders : list of int
        Angular orders, as :func:`hermite_functions` returns them.
    n_rotations : int
        Rotation i is by 2 π i / ``n_rotations``; it takes what a filter had at the angle θ + that to θ.

    Returns
    -------
    ndarray of float64, shape (rotation, function, function)
        The coefficients of the functions of the first axis, from those of the second.
    """
    matrices = np.zeros((n_rotations, len(orders), len(orders)))
    angles = 2 * np.pi * np.arange(n_rotations) / n_rotations
    first = 0
    while first < len(orders):
        order = orders[first]
        cosine, sine = np.cos(order * angles), np.sin(order * angles)
        matrices[:, first, first] = cosine
        if order:
            matrices[:, first, first + 1] = sine
            matrices[:, first + 1, first] = -sine
            matrices[:, first + 1, first + 1] = cosine
        first += 2 if order else 1
    return matrices


def _laguerre(degree: int, alpha: int, x: np.ndarray) -> np.ndarray:
    """Return the generalized Laguerre polynomial."""
    terms = [
        (-1) ** power * math.comb(degree + alpha, degree - power) / math.factorial(power) * x**power
        for power in range(degree + 1)
    ]
    return np.sum(terms, axis=0)
