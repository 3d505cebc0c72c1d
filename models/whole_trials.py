"""A model that was trained on windows, applied to whole trials.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import torch

from models.config import TrainingConfig
from models.inputs import ModelInputs
from models.response_model import ResponseModel, require_predictions
from models.sliding_windows import SlidingWindows, predict_sliding

__all__ = ["predict_trials", "predict_whole"]


def predict_trials(
    model: ResponseModel, inputs: ModelInputs, session: str, config: TrainingConfig, *, validates: bool = False
) -> torch.Tensor:
    """Return a model's predictions of whole trials of one session in the way that its recipe names.

    Parameters
    ----------
    model : ResponseModel
        In evaluation mode.
    inputs : ModelInputs
        Trials of equal length, all frames of them.
    session : str
        Full name.
    config : TrainingConfig
        The recipe.
    validates : bool
        Whether its ``validation_hop`` holds.

    Returns
    -------
    Tensor, shape (batch, neuron, time - n_frames_lost * window_stride)
        Of the last frames, on the scale that the model was trained on.

    Raises
    ------
    UsageError
        If the model returns another shape than it should, or a trial is too short.
    """
    if config.prediction_windows == "whole":
        return predict_whole(model, inputs, session, stride=config.window_stride)
    hop = config.validation_hop if validates and config.validation_hop else config.prediction_hop
    windows = SlidingWindows(
        n_frames=config.n_frames_window,
        stride=config.window_stride,
        n_frames_lost=model.n_frames_lost,
        hop=hop,
        offset=config.prediction_offset,
    )
    return predict_sliding(model, inputs, session, windows)


def predict_whole(model: ResponseModel, inputs: ModelInputs, session: str, *, stride: int = 1) -> torch.Tensor:
    """Return a model's predictions of whole trials of one session, on the scale that it was trained on.

    A model that was trained on every ``stride``-th frame predicts the frames 0, stride, 2 stride, … from each other,
    then 1, stride + 1, …, and so on, which together are all frames.

    Parameters
    ----------
    model : ResponseModel
        Which predicts as many frames as there are, but for those that it loses at the start.
    inputs : ModelInputs
        Trials of equal length, all frames of them.
    session : str
        Full name.
    stride : int
        The recipe's ``window_stride``.

    Returns
    -------
    Tensor, shape (batch, neuron, time - n_frames_lost * stride)
        Of the last frames.

    Raises
    ------
    UsageError
        If the model returns another shape than it should.
    """

    def predict_phase(phase: int) -> torch.Tensor:
        videos = inputs.videos[:, :, phase::stride]
        predictions_BNT: torch.Tensor = model(videos, inputs.pupil_center[..., phase::stride], session)
        require_predictions(
            predictions_BNT,
            session=session,
            n_rows=len(videos),
            n_neurons=inputs.responses.shape[1] or None,
            n_frames=videos.shape[2] - model.n_frames_lost,
        )
        return predictions_BNT

    if stride == 1:
        return predict_phase(0)
    n_frames = inputs.videos.shape[2]
    n_lost = model.n_frames_lost * stride
    phases = [predict_phase(phase) for phase in range(stride)]
    all_frames_BNT = phases[0].new_empty((*phases[0].shape[:2], n_frames))
    for phase, phase_BNT in enumerate(phases):
        all_frames_BNT[..., phase + n_lost :: stride] = phase_BNT
    return all_frames_BNT[..., n_lost:]
