"""What the animal's state adds to the features of a frame.

Shape suffixes: F frames (of all trials of a batch), S variables of the state, C channels.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["StateEncoder"]


class StateEncoder(nn.Module):
    """Turn the animal's state in a frame into one number for each channel of a feature map, from −1 to 1.

    Parameters
    ----------
    n_variables : int
        Of the state; ViV1T's four are pupil dilation, running speed, and the pupil center's x and y.
    n_channels : int
        Of the feature map; the hidden layer has as many units.
    dropout : float
        Share of hidden units that are zeroed in training.

    Notes
    -----
    The state encoder of ViV1T's readouts (Li et al., third place of SENSORIUM 2023).
    """

    def __init__(self, n_variables: int, n_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(n_variables, n_channels),
            nn.LayerNorm(n_channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(n_channels, n_channels),
            nn.Tanh(),
        )

    def forward(self, state_FS: torch.Tensor) -> torch.Tensor:
        """Return what is added to the features of each frame.

        Parameters
        ----------
        state_FS : Tensor, shape (frame, variable)
            Normalized.

        Returns
        -------
        Tensor, shape (frame, channel)
        """
        code_FC: torch.Tensor = self.mlp(state_FS)
        return code_FC
