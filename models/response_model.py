"""What training and prediction need of a model.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, 2 the axes x and y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["ResponseModel"]


class ResponseModel(nn.Module, ABC):
    """A network that predicts the responses of several sessions' neurons to videos.

    Attributes
    ----------
    core : Module
        What all sessions share.
    n_frames_lost : int
        Frames at the start of a window that have no prediction.
    """

    core: nn.Module
    n_frames_lost: int

    def forward(self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, session: str) -> torch.Tensor:
        """Predict the responses of one session's neurons.

        Parameters
        ----------
        videos_BCTHW : Tensor, shape (batch, 3, time, height, width)
            Video, pupil dilation and running speed, normalized; the last two are constant over space.
        pupil_center_B2T : Tensor, shape (batch, 2, time)
            Normalized.
        session : str
            Full name; all trials of a batch are of one session.

        Returns
        -------
        Tensor, shape (batch, neuron, time − n_frames_lost)
            Of the last frames, in the order in which responses are stored; not negative.

        Raises
        ------
        UnknownNameError
            If the model has no readout for the session.
        UsageError
            If the window is too short for any prediction.
        """
        return self.predict_rows(videos_BCTHW, pupil_center_B2T, [(session, slice(None))])[0]

    @abstractmethod
    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        """Predict several sessions' responses to parts of one batch; the core sees the batch once, and whole.

        So batch norm has the statistics of all sessions that a batch mixes, and a teacher's predictions for many
        sessions take one pass.

        Parameters
        ----------
        videos_BCTHW, pupil_center_B2T : Tensor
            As in :meth:`forward`.
        wanted : sequence of (str, slice)
            Sessions by full name, and the rows of the batch whose responses are wanted of each.

        Returns
        -------
        list of Tensor, shape (row, neuron, time − n_frames_lost)
            One for each that is wanted.

        Raises
        ------
        UnknownNameError, UsageError
            As in :meth:`forward`.
        """

    @abstractmethod
    def regularizer(self) -> torch.Tensor:
        """Return the penalty on the weights, a scalar to be added to the loss of each batch."""

    @abstractmethod
    def initialize_readout_bias(self, session: str, mean_response_N: torch.Tensor) -> None:
        """Start a session's readout from its neurons' mean responses.

        Parameters
        ----------
        session : str
            Full name.
        mean_response_N : Tensor, shape (neuron,)
            Normalized.
        """
