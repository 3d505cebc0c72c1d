"""From a feature map to neurons: each one looks at one place of it.

Shape suffixes: F frames (of all trials of a batch), C channels, H height, W width, N neurons, 2 the axes x and y.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from models.layers.place_products import read_places
from models.layers.places import PlacePredictor, normalize_positions

__all__ = ["FullGaussianReadout"]


class FullGaussianReadout(nn.Module):
    """Read every neuron's response off one learned place of a feature map.

    A small network, shared by all neurons of a session, predicts the place from where the neuron lies in the cortex:
    the visual cortex is retinotopic. While training, places are drawn from a Gaussian around it with a learned
    covariance for each neuron, anew for each frame; in evaluation they are its mean.

    Parameters
    ----------
    positions : ndarray, shape (neuron, 2)
        Cortical x and y, in any unit.
    n_channels : int
        Of the feature map.
    init_sigma : float
        The factors of the covariances are drawn uniformly from ±``init_sigma`` at first.
    n_hidden : int
        Hidden units of the network that predicts the places.

    Attributes
    ----------
    cortical_positions : Tensor, shape (neuron, 2)
        The network's input, as :func:`models.layers.places.normalize_positions` returns it.
    sigma : Parameter, shape (neuron, 2, 2)
        The covariance is ``sigma @ sigma.T``.
    features : Parameter, shape (channel, neuron)
        Weight of each channel at the neuron's place.
    bias : Parameter, shape (neuron,)

    Notes
    -----
    ``FullGaussian2d`` of neuralpredictors with a grid mean predictor and ``gauss_type="full"`` (Lurz et al. 2021,
    "Generalization in data-driven models of primary visual cortex"). Places are in the units of
    :func:`torch.nn.functional.grid_sample`: −1 to 1 from the center of the first pixel to that of the last.
    """

    cortical_positions: torch.Tensor

    def __init__(self, positions: np.ndarray, n_channels: int, *, init_sigma: float = 1.0, n_hidden: int = 30) -> None:
        super().__init__()
        n_neurons = len(positions)
        self.register_buffer("cortical_positions", torch.from_numpy(normalize_positions(positions)))
        self.position_predictor = PlacePredictor(n_hidden)
        self.sigma = nn.Parameter(torch.empty(n_neurons, 2, 2).uniform_(-init_sigma, init_sigma))
        self.features = nn.Parameter(torch.full((n_channels, n_neurons), 1 / n_channels))
        self.bias = nn.Parameter(torch.zeros(n_neurons))

    def predict_places(self) -> torch.Tensor:
        """Return where in the frame each neuron looks: x and y from −1 to 1, shape (neuron, 2)."""
        places_N2: torch.Tensor = self.position_predictor(self.cortical_positions)
        return places_N2

    def length(self) -> torch.Tensor:
        """Return the sum of all channels' weights' sizes, a scalar: what sparse readouts keep small."""
        return self.features.abs().sum()

    def forward(
        self, features_FCHW: torch.Tensor, shift_F2: torch.Tensor, state_FC: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the neurons' responses in each frame, before any output nonlinearity.

        Parameters
        ----------
        features_FCHW : Tensor, shape (frame, channel, height, width)
            Feature map of each frame.
        shift_F2 : Tensor, shape (frame, 2)
            Added to all places of a frame, x and y.
        state_FC : Tensor, shape (frame, channel), optional
            Added to the features at every place of a frame, inside of the map and outside; e.g. of a
            :class:`models.layers.state_encoder.StateEncoder`.

        Returns
        -------
        Tensor, shape (frame, neuron)
        """
        if features_FCHW.requires_grad:
            # grid_sample gives a gradient with channels first, with which a batch norm before it takes threefold time.
            features_FCHW.register_hook(_put_channels_last)
        places_FN2 = self.draw_places(len(features_FCHW)) + shift_F2[:, None]
        responses_FN = read_places(features_FCHW, places_FN2, self.features) + self.bias
        # The same for all neurons of a frame: weighing it here saves adding it to each neuron's features.
        return responses_FN if state_FC is None else responses_FN + state_FC @ self.features

    def draw_places(self, n_frames: int) -> torch.Tensor:
        """Return where each neuron looks in each frame, before any shift, shape (frame, neuron, 2)."""
        mean_N2 = self.predict_places()
        if not self.training:
            return mean_N2.expand(n_frames, -1, -1)
        noise_FN2 = torch.randn(n_frames, *mean_N2.shape, dtype=mean_N2.dtype, device=mean_N2.device)
        places_FN2 = mean_N2 + (self.sigma * noise_FN2[:, :, None]).sum(-1)
        # The draw is kept inside of the frame; the shift, which comes later, is not.
        return places_FN2.clamp(-1, 1)


def _put_channels_last(gradient_FCHW: torch.Tensor) -> torch.Tensor:
    return gradient_FCHW.contiguous(memory_format=torch.channels_last)
