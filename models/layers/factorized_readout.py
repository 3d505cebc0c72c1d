"""From a feature map to neurons: each one has a mask over the whole map.

Shape suffixes: F frames (of all trials of a batch), C channels, H height, W width, N neurons.
"""

from __future__ import annotations

import torch
from torch import nn

from sensorium_data.errors import UsageError

__all__ = ["FactorizedReadout"]


class FactorizedReadout(nn.Module):
    """Read every neuron's response off the whole feature map, through a mask over space and weights of the channels.

    The mask is the same for all channels: a neuron's weights are an outer product. Nothing is drawn at random, and
    there is no place that the eye could shift.

    Parameters
    ----------
    n_neurons, n_channels : int
        Of the session, and of the feature map.
    size : tuple of int
        Height and width of the feature map.
    init_std : float
        Standard deviation of mask and weights at first.

    Attributes
    ----------
    mask : Parameter, shape (neuron, height, width)
    features : Parameter, shape (channel, neuron)
        Weight of each channel.
    bias : Parameter, shape (neuron,)

    Notes
    -----
    ``FullFactorized2d`` of neuralpredictors, neither normalized nor kept positive, as the starter kit has it (Klindt
    et al. 2017, "Neural system identification for large populations separating 'what' and 'where'").
    """

    def __init__(self, n_neurons: int, n_channels: int, size: tuple[int, int], *, init_std: float = 1e-3) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.empty(n_neurons, *size).normal_(std=init_std))
        self.features = nn.Parameter(torch.empty(n_channels, n_neurons).normal_(std=init_std))
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def length(self) -> torch.Tensor:
        """Return the sum of the sizes of all neurons' weights, a scalar: what sparse readouts keep small.

        A neuron's weights are the products of its mask and its weights of the channels.
        """
        return (self.mask.abs().sum(dim=(1, 2)) * self.features.abs().sum(dim=0)).sum()

    def forward(self, features_FCHW: torch.Tensor) -> torch.Tensor:
        """Return the neurons' responses in each frame, before any output nonlinearity.

        Parameters
        ----------
        features_FCHW : Tensor, shape (frame, channel, height, width)
            Of the size that the readout was made for.

        Returns
        -------
        Tensor, shape (frame, neuron)

        Raises
        ------
        UsageError
            If the maps have another size.
        """
        size, expected = tuple(features_FCHW.shape[2:]), tuple(self.mask.shape[1:])
        if size != expected:
            raise UsageError(
                "the feature map has another size than the readouts' masks",
                found=" × ".join(map(str, size)),
                expected=" × ".join(map(str, expected)),
                remedy="choose an input_layout without padding, or readout gaussian",
            )
        masked_FCN = features_FCHW.flatten(2) @ self.mask.flatten(1).T
        return (masked_FCN * self.features).sum(1) + self.bias
