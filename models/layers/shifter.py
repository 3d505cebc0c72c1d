"""How the frame shifts on the retina as the eye moves.

Shape suffixes: F frames, 2 the axes x and y.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Shifter"]


class Shifter(nn.Module):
    """Predict the shift of the visual field from the position of the pupil's center.

    Parameters
    ----------
    n_hidden : int
        Units of each of the two hidden layers.

    Notes
    -----
    ``MLPShifter`` of neuralpredictors with three layers. Its Xavier initialization finds no layer to initialize (it
    looks for them among parameters), so the reference models start from torch's default, as this one does.
    """

    def __init__(self, n_hidden: int = 5) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2, n_hidden),
            nn.Tanh(),
            nn.Linear(n_hidden, n_hidden),
            nn.Tanh(),
            nn.Linear(n_hidden, 2),
            nn.Tanh(),
        )

    def forward(self, pupil_center_F2: torch.Tensor) -> torch.Tensor:
        """Return the shift of each frame, x and y from −1 to 1.

        Parameters
        ----------
        pupil_center_F2 : Tensor, shape (frame, 2)
            Normalized.

        Returns
        -------
        Tensor, shape (frame, 2)
            In the units of :class:`models.layers.readout.FullGaussianReadout`'s places.
        """
        shift_F2: torch.Tensor = self.mlp(pupil_center_F2)
        return shift_F2
