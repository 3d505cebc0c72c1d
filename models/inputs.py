"""What a model is given: batches as tensors, on the scale and in the form that its preset was made for.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, 2 the axes x and y or the two
behavioral variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from models.layouts import InputLayout
from sensorium_data.statistics import Normalizer, open_normalizer
from sensorium_data.store import StoreLike, open_store
from sensorium_data.windows import Batch

__all__ = [
    "DeviceNormalizer",
    "InputPreparer",
    "ModelInputs",
    "open_normalizers",
]


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """Windows of one session on the device where they are used.

    Attributes
    ----------
    session : str
        Full name.
    trials, first_frames : tuple of int
        Of each window.
    stride : int
        From one frame of a window to the next, in frames of the trial.
    videos : Tensor, shape (batch, channel, time, height, width)
        As the layout composes them.
    behavior : Tensor, shape (batch, 2, time)
    pupil_center : Tensor, shape (batch, 2, time)
    responses : Tensor, shape (batch, neuron, time)
        Empty where the batch has no responses. Time runs slower in memory than neurons do.
    """

    session: str
    trials: tuple[int, ...]
    first_frames: tuple[int, ...]
    stride: int
    videos: torch.Tensor
    behavior: torch.Tensor
    pupil_center: torch.Tensor
    responses: torch.Tensor

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def n_frames(self) -> int:
        """Frames in a window."""
        return int(self.videos.shape[2])


class InputPreparer:
    """Brings batches to a device, and into the form that a model takes.

    Parameters
    ----------
    layout : InputLayout
        How the video is composed.
    device : torch.device
        Where to.
    normalizers : mapping of str to Normalizer, optional
        By full session name, for batches as they are stored: they are normalized on the device. Without them
        batches are taken as they come.
    """

    def __init__(
        self, layout: InputLayout, device: torch.device, normalizers: Mapping[str, Normalizer] | None = None
    ) -> None:
        self.layout = layout
        self.device = device
        self._normalizers = {
            session: DeviceNormalizer(normalizer, device) for session, normalizer in (normalizers or {}).items()
        }

    def prepare(self, batch: Batch) -> ModelInputs:
        """Return a batch as a model takes it."""
        return self.compose(
            session=batch.session,
            trials=batch.trials,
            first_frames=batch.first_frames,
            stride=batch.stride,
            video_BTHW=self._send(batch.videos),
            behavior_B2T=self._send(batch.behavior),
            pupil_center_B2T=self._send(batch.pupil_center),
            # Sent with time before neurons, as it lies in memory.
            responses_BTN=None if batch.responses is None else self._send(batch.responses.transpose(0, 2, 1)),
        )

    def compose(
        self,
        *,
        session: str,
        trials: tuple[int, ...],
        first_frames: tuple[int, ...],
        stride: int,
        video_BTHW: torch.Tensor,
        behavior_B2T: torch.Tensor,
        pupil_center_B2T: torch.Tensor,
        responses_BTN: torch.Tensor | None,
    ) -> ModelInputs:
        """Normalize tensors that are on the device, if that is to be done here, and compose a model's inputs."""
        normalizer = self._normalizers.get(session)
        if normalizer is not None:
            n_frames = video_BTHW.shape[1]
            steps_T = stride * torch.arange(n_frames, device=self.device)
            frames_BT = torch.tensor(first_frames, device=self.device)[:, None] + steps_T
            video_BTHW = normalizer.videos(video_BTHW, frames_BT)
            behavior_B2T = normalizer.behavior(behavior_B2T, frames_BT)
            pupil_center_B2T = normalizer.pupil_center(pupil_center_B2T, frames_BT)
            if responses_BTN is not None:
                responses_BTN = normalizer.responses(responses_BTN, frames_BT)
        if responses_BTN is None:
            responses_BTN = video_BTHW.new_empty((len(trials), video_BTHW.shape[1], 0))
        return ModelInputs(
            session=session,
            trials=trials,
            first_frames=first_frames,
            stride=stride,
            videos=self._compose_video(video_BTHW, behavior_B2T, pupil_center_B2T),
            behavior=behavior_B2T,
            pupil_center=pupil_center_B2T,
            responses=responses_BTN.transpose(1, 2),
        )

    def _send(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            # From pinned memory the copy runs beside what the device computes.
            return tensor.contiguous().pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _compose_video(
        self, video_BTHW: torch.Tensor, behavior_B2T: torch.Tensor, pupil_center_B2T: torch.Tensor
    ) -> torch.Tensor:
        layout = self.layout
        top, bottom, left, right = layout.padding
        states = [behavior_B2T] * layout.has_behavior + [pupil_center_B2T] * layout.has_pupil_center
        video_BCTHW = video_BTHW[:, None]
        if layout.fills_padding:
            video_BCTHW = functional.pad(video_BCTHW, (left, right, top, bottom))
        # Expanded on the device: the planes are copies of a few numbers a frame.
        planes = [state[..., None, None].expand(*state.shape, *video_BCTHW.shape[-2:]) for state in states]
        composed_BCTHW = torch.cat([video_BCTHW, *planes], dim=1)
        if not layout.fills_padding and any(layout.padding):
            composed_BCTHW = functional.pad(composed_BCTHW, (left, right, top, bottom))
        return composed_BCTHW


class DeviceNormalizer:
    """A session's normalization as tensors: what :class:`~sensorium_data.statistics.Normalizer` does, on a device.

    Parameters
    ----------
    normalizer : Normalizer
    device : torch.device
    """

    def __init__(self, normalizer: Normalizer, device: torch.device) -> None:
        def send(table: np.ndarray) -> torch.Tensor:
            # Time first: windows are rows of the tables.
            return torch.from_numpy(np.ascontiguousarray(table)).to(device)

        self._video = send(normalizer.video_offset), send(normalizer.video_scale)
        self._behavior = send(normalizer.behavior_offset.T), send(normalizer.behavior_scale.T)
        self._pupil_center = send(normalizer.pupil_center_offset.T), send(normalizer.pupil_center_scale.T)
        self._precision_TN = send(normalizer.precision.T)
        self._least_response = normalizer.least_response

    def videos(self, video_BTHW: torch.Tensor, frames_BT: torch.Tensor) -> torch.Tensor:
        """Return ``(video - offset) * scale`` of the given frames."""
        offset_THW, scale_THW = self._video
        return (video_BTHW - offset_THW[frames_BT]) * scale_THW[frames_BT]

    def behavior(self, behavior_B2T: torch.Tensor, frames_BT: torch.Tensor) -> torch.Tensor:
        """Return ``(behavior - offset) * scale`` of the given frames."""
        offset_T2, scale_T2 = self._behavior
        return (behavior_B2T - offset_T2[frames_BT].transpose(1, 2)) * scale_T2[frames_BT].transpose(1, 2)

    def pupil_center(self, pupil_center_B2T: torch.Tensor, frames_BT: torch.Tensor) -> torch.Tensor:
        """Return ``(pupil_center - offset) * scale`` of the given frames."""
        offset_T2, scale_T2 = self._pupil_center
        return (pupil_center_B2T - offset_T2[frames_BT].transpose(1, 2)) * scale_T2[frames_BT].transpose(1, 2)

    def responses(self, responses_BTN: torch.Tensor, frames_BT: torch.Tensor) -> torch.Tensor:
        """Return responses times their precision, not below the least one."""
        scaled_BTN = responses_BTN * self._precision_TN[frames_BT]
        if self._least_response > -np.inf:
            scaled_BTN = scaled_BTN.clamp(min=self._least_response)
        return scaled_BTN


def open_normalizers(normalization: str, store: StoreLike, sessions: Sequence[str]) -> dict[str, Normalizer]:
    """Return each session's normalizer, by full name.

    Parameters
    ----------
    normalization : str
        One of :data:`sensorium_data.statistics.normalizations.NORMALIZATIONS`.
    store : Store or path
        The store, or the path or fsspec URL of its root.
    sessions : sequence of str
        Full names.

    Raises
    ------
    UnknownNameError, StoreError, UsageError
        As :func:`sensorium_data.statistics.open_normalizer` does.
    """
    opened = open_store(store)
    return {session: open_normalizer(normalization, opened, session) for session in sessions}
