"""What a model is given: batches as tensors, on the scale that its preset was made for.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sensorium_data.errors import UnknownNameError
from sensorium_data.loader import Batch
from sensorium_data.statistics import Normalizer, competition_normalizer

__all__ = ["INPUT_CHANNELS", "ModelInputs", "open_normalizers", "to_tensors"]

#: The channels of a model's video, in order.
INPUT_CHANNELS = ("video", "pupil_dilation", "running_speed")


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """A batch on the device it is used on.

    Attributes
    ----------
    videos : Tensor, shape (batch, 3, time, height, width)
        The video, and pupil dilation and running speed as planes that are constant over space.
    pupil_center : Tensor, shape (batch, 2, time)
    responses : Tensor, shape (batch, neuron, time)
        Empty where the batch has no responses.
    """

    videos: torch.Tensor
    pupil_center: torch.Tensor
    responses: torch.Tensor


def to_tensors(batch: Batch, device: torch.device) -> ModelInputs:
    """Return a batch as tensors on ``device``."""
    video_BTHW = torch.from_numpy(batch.videos).to(device)
    behavior_B2T = torch.from_numpy(batch.behavior).to(device)
    n_trials, n_frames, height, width = video_BTHW.shape
    # Expanded on the device: the two planes are copies of two numbers a frame.
    planes_B2THW = behavior_B2T[..., None, None].expand(n_trials, 2, n_frames, height, width)
    responses = batch.responses if batch.responses is not None else np.empty((n_trials, 0, n_frames), np.float32)
    return ModelInputs(
        videos=torch.cat([video_BTHW[:, None], planes_B2THW], dim=1),
        pupil_center=torch.from_numpy(batch.pupil_center).to(device),
        responses=torch.from_numpy(responses).to(device),
    )


def open_normalizers(normalization: str, store: str, sessions: Sequence[str]) -> dict[str, Normalizer]:
    """Return each session's normalizer.

    Parameters
    ----------
    normalization : str
        ``"competition"``: the archive's own statistics, frame by frame.
    store : str
        Path or URL of the store's root.
    sessions : sequence of str
        Full names.

    Raises
    ------
    UnknownNameError
        If there is no such normalization.
    """
    if normalization != "competition":
        raise UnknownNameError.of("normalization", normalization, ["competition"])
    return {session: competition_normalizer(store, session) for session in sessions}
