"""Readouts of five levels: each neuron's own, and those of 2, 4, 8 and 16 neurons that share a place and weights.

Shape suffixes: B trials of a batch, F frames of all trials, T frames of a trial, C channels, H height, W width, N
neurons, M columns of a coarse level, L levels, 2 the axes x and y.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.layers import FullGaussianReadout, read_places

__all__ = ["AdaptiveFusion", "LeveledReadout", "map_nearest"]

#: Hidden units of what refines a level's responses, by how many neurons share one.
_UNITS = {2: 32, 4: 64, 8: 128, 16: 256}


class LeveledReadout(FullGaussianReadout):
    """A readout of places, fused with coarser ones along the order of neurons.

    A coarse level has a weight vector for each of N // k columns. A column's place is that of one of its neurons, which
    are those next to each other in the recording's order. Its response is refined by a small network, the same for all
    columns, and stands for each of its neurons.

    Parameters
    ----------
    positions : ndarray, shape (neuron, 2)
        Cortical x and y, in any unit.
    n_channels : int
        Of the feature map.
    init_sigma, n_hidden
        As in :class:`models.layers.FullGaussianReadout`.
    levels : tuple of int
        Coarse levels that are fused with the neurons' own responses. The weights of the others exist and stay as they
        are.
    is_adaptive : bool
        Whether levels are weighted by what their means decide; else they are averaged.

    Notes
    -----
    The hierarchical Gaussian readout of Dynamic-V1FM (Zhu, second place of SENSORIUM 2023).
    """

    def __init__(
        self,
        positions: np.ndarray,
        n_channels: int,
        *,
        init_sigma: float,
        n_hidden: int,
        levels: tuple[int, ...],
        is_adaptive: bool,
    ) -> None:
        super().__init__(positions, n_channels, init_sigma=init_sigma, n_hidden=n_hidden)
        n_neurons = len(positions)
        self.levels = levels
        self.coarse_features = nn.ParameterDict()
        self.refinements = nn.ModuleDict()
        for level, n_units in _UNITS.items():
            n_columns = count_columns(n_neurons, level)
            self.coarse_features[str(level)] = nn.Parameter(torch.full((n_channels, n_columns), 1 / n_channels))
            self.refinements[str(level)] = nn.Sequential(
                nn.Conv1d(1, n_units, 1), nn.ELU(), nn.Conv1d(n_units, 1, 1, bias=False)
            )
            self.register_buffer(f"first_{level}", map_nearest(n_neurons, n_columns), persistent=False)
            self.register_buffer(f"column_{level}", map_nearest(n_columns, n_neurons), persistent=False)
        self.fusions = nn.ModuleDict()
        if is_adaptive:
            self.fusions.update({str(n_levels): AdaptiveFusion(n_levels) for n_levels in range(2, len(_UNITS) + 2)})
        self.is_adaptive = is_adaptive
        self._freeze_unused()

    def length(self) -> torch.Tensor:
        """Return the sum of all channels' weights' sizes at all levels that count, a scalar."""
        coarse = [self.coarse_features[str(level)].abs().sum() for level in self.levels]
        return torch.stack([super().length(), *coarse]).sum()

    def read_trials(self, features_FCHW: torch.Tensor, shift_F2: torch.Tensor, n_frames: int) -> torch.Tensor:
        """Return the neurons' responses in each frame, before any output nonlinearity.

        Parameters
        ----------
        features_FCHW : Tensor, shape (frame, channel, height, width)
            Feature map of each frame.
        shift_F2 : Tensor, shape (frame, 2)
            Added to all places of a frame, x and y.
        n_frames : int
            Frames of a trial: adaptive fusion weighs the levels of a trial.

        Returns
        -------
        Tensor, shape (frame, neuron)
        """
        places_FN2 = self.draw_places(len(features_FCHW)) + shift_F2[:, None]
        own_FN = read_places(features_FCHW, places_FN2, self.features)
        if not self.levels:
            return own_FN + self.bias
        coarse = [self._read_level(features_FCHW, places_FN2, level) for level in self.levels]
        levels_FLN = torch.stack([own_FN, *coarse], dim=1)
        if self.is_adaptive:
            return self.fusions[str(levels_FLN.shape[1])](levels_FLN, n_frames) + self.bias
        return levels_FLN.mean(dim=1) + self.bias

    def _read_level(self, features_FCHW: torch.Tensor, places_FN2: torch.Tensor, level: int) -> torch.Tensor:
        first_M, column_N = self.get_buffer(f"first_{level}"), self.get_buffer(f"column_{level}")
        columns_FM = read_places(features_FCHW, places_FN2[:, first_M], self.coarse_features[str(level)])
        # The same for all neurons of a column: refined before they are told apart.
        refined_FM = self.refinements[str(level)](columns_FM[:, None])[:, 0]
        return torch.index_select(refined_FM, 1, column_N)

    def _freeze_unused(self) -> None:
        """Make what no prediction depends on constant."""
        for level in _UNITS.keys() - set(self.levels):
            self.coarse_features[str(level)].requires_grad_(False)
            self.refinements[str(level)].requires_grad_(False)
        for n_levels, fusion in self.fusions.items():
            fusion.requires_grad_(bool(self.levels) and int(n_levels) == len(self.levels) + 1)


class AdaptiveFusion(nn.Module):
    """Sum levels up, each weighted from 0 to 1 by what a small network makes of all levels' means.

    Parameters
    ----------
    n_levels : int
    """

    def __init__(self, n_levels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_levels, n_levels), nn.ReLU(), nn.Linear(n_levels, n_levels), nn.Sigmoid()
        )

    def forward(self, levels_FLN: torch.Tensor, n_frames: int) -> torch.Tensor:
        """Return the weighted sum, shape (frame, neuron).

        Parameters
        ----------
        levels_FLN : Tensor, shape (frame, level, neuron)
            Responses.
        n_frames : int
            Frames of a trial, over all of which, and all neurons, a level's mean is taken.
        """
        levels_BTLN = levels_FLN.unflatten(0, (-1, n_frames))
        weights_BL = self.layers(levels_BTLN.mean(dim=(1, 3)))
        fused_BTN = (levels_BTLN * weights_BL[:, None, :, None]).sum(dim=2)
        return fused_BTN.flatten(0, 1)


def count_columns(n_neurons: int, level: int) -> int:
    """Return how many weight vectors a level has, at least one.

    Examples
    --------
    >>> count_columns(7863, 16), count_columns(5, 16)
    (491, 1)
    """
    return max(1, n_neurons // level)


def map_nearest(n_sources: int, n_targets: int) -> torch.Tensor:
    """Return which of some sources in a row each target takes, as ``interpolate(mode="nearest")`` does.

    Examples
    --------
    >>> map_nearest(7, 3).tolist(), map_nearest(3, 7).tolist()
    ([0, 2, 4], [0, 0, 0, 1, 1, 2, 2])
    """
    # Asked of torch itself, which computes with 32 bits. The device is a real one also where weights are not.
    numbers = torch.arange(n_sources, dtype=torch.float32, device="cpu")
    return functional.interpolate(numbers[None, None], size=n_targets, mode="nearest")[0, 0].long()
