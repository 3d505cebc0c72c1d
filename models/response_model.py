"""What training and prediction need of a model.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, 2 the axes x and y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from models.model_config import ModelConfig
from sensorium_data.errors import UsageError

__all__ = ["ResponseModel", "require_penalty", "require_predictions"]


class ResponseModel(nn.Module, ABC):
    """A network that predicts the responses of several sessions' neurons to videos.

    A model is made by ``Model(config, neurons, n_input_channels=…)``: its settings, a
    :class:`models.neurons.NeuronInfo` for each session by full name, and the number of the video's channels.

    Attributes
    ----------
    config_class : type
        Its settings. By default there are none.
    recipe : mapping
        Settings of :class:`models.config.TrainingConfig` that a class of a user's own is trained with instead of the
        defaults.
    core : Module
        What all sessions share.
    n_frames_lost : int
        Frames at the start of a window that have no prediction.
    is_causal : bool or None
        Whether, in evaluation mode, a prediction depends on no frame after its own; None where a model does not say.
    """

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    recipe: ClassVar[Mapping[str, Any]] = {}
    core: nn.Module
    n_frames_lost: int = 0
    is_causal: ClassVar[bool | None] = None

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

    def regularizer(self) -> torch.Tensor:
        """Return the penalty on the weights, a scalar to be added to the loss of each batch; by default 0."""
        return next(self.parameters()).new_zeros(())

    def session_regularizer(self, session: str) -> torch.Tensor | None:
        """Return the penalty on what one session has of its own, to be added to the loss of each batch with it.

        Parameters
        ----------
        session : str
            Full name.

        Returns
        -------
        Tensor or None
            A scalar; None where there is no such penalty, as in most models.
        """
        return None

    def initialize_readout_bias(self, session: str, mean_response_N: torch.Tensor) -> None:
        """Start a session's readout from its neurons' mean responses; by default nothing is done.

        Parameters
        ----------
        session : str
            Full name.
        mean_response_N : Tensor, shape (neuron,)
            Normalized.
        """


def require_predictions(
    predictions: object, *, session: str, n_rows: int, n_neurons: int | None, n_frames: int
) -> None:
    """Check that a model returned what it should for one session.

    Parameters
    ----------
    predictions : object
        What it returned.
    session : str
        Full name.
    n_rows, n_frames : int
        Of the videos, the frames without those that the model loses.
    n_neurons : int or None
        Of the session; None where nobody knows.

    Raises
    ------
    UsageError
        If it is no tensor of numbers, or of another shape.
    """
    if not isinstance(predictions, torch.Tensor) or not predictions.is_floating_point():
        raise UsageError(
            "the model returns no tensor of numbers",
            session=session,
            found=predictions.dtype if isinstance(predictions, torch.Tensor) else type(predictions).__name__,
            expected="a floating-point tensor (batch, neuron, time)",
        )
    found = tuple(predictions.shape)
    wanted = (n_rows, n_neurons, n_frames)
    if len(found) != 3 or any(one not in (other, None) for other, one in zip(found, wanted, strict=True)):
        raise UsageError(
            "the model returns another shape than it should",
            session=session,
            found=found,
            expected=f"({n_rows}, {'neurons' if n_neurons is None else n_neurons}, {n_frames}): batch, neuron, and "
            "time without the frames that the model loses",
            remedy="correct what predict_rows or forward returns, or n_frames_lost",
        )


def require_penalty(penalty: object) -> torch.Tensor:
    """Return what a model penalizes its weights with, once it is known to be one number.

    Raises
    ------
    UsageError
        If it is no tensor of one real floating-point number.
    """
    if isinstance(penalty, torch.Tensor) and penalty.is_floating_point() and penalty.numel() == 1:
        return penalty.reshape(())
    found = type(penalty).__name__
    if isinstance(penalty, torch.Tensor):
        found = f"a tensor of shape {tuple(penalty.shape)}, {penalty.dtype}"
    raise UsageError(
        "the regularizer of the model returns no penalty", found=found, expected="a tensor of one floating-point number"
    )
