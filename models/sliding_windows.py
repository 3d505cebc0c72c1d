"""Whole trials from windows that slide over them, averaged where they overlap.

Shape suffixes: B trials of a batch, W windows, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models.inputs import ModelInputs
from models.response_model import ResponseModel, require_predictions
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError

__all__ = ["SlidingWindows", "Window", "predict_sliding"]

#: Frames of all windows that go through a model at once. They bound its memory, whatever the length of a trial.
_FRAMES_A_PASS = {"cpu": 128, "cuda": 1024}


@dataclass(frozen=True, eq=False)
class Window:
    """A place of a window in a trial.

    Attributes
    ----------
    first_frame : int
        Of the window, in the trial.
    counts : ndarray of bool, shape (predicted frame,)
        Which of the frames that the window predicts are taken from it.
    """

    first_frame: int
    counts: np.ndarray


@dataclass(frozen=True)
class SlidingWindows:
    """Where windows lie in trials.

    Attributes
    ----------
    n_frames : int
        Frames of a window.
    stride : int
        From one of them to the next, in frames of the trial.
    n_frames_lost : int
        Frames at the start of a window that have no prediction.
    hop : int
        From the start of a window to that of the next, in frames of the trial.
    offset : int
        Start of the first one.
    """

    n_frames: int
    stride: int = 1
    n_frames_lost: int = 0
    hop: int = 1
    offset: int = 0

    @property
    def span(self) -> int:
        """Frames of a trial from a window's first to its last one."""
        return (self.n_frames - 1) * self.stride + 1

    @property
    def least_frames(self) -> int:
        """Frames that a trial needs, so that each frame after those that are lost can be in a window."""
        return self.span + self.stride - 1

    def plan(self, n_frames_trial: int, *, session: str | None = None, trial: int | None = None) -> list[Window]:
        """Return the windows of a trial.

        Regular windows start at ``offset``, ``offset + hop``, and so on, as long as they end in the trial. Frames that
        these leave are filled from the trial's start to its end: each is the first one that a further window predicts,
        or, close to the end, it is in the last window that holds it. Further windows count for these frames alone.

        Parameters
        ----------
        n_frames_trial : int
            Of the trial.
        session, trial
            What an error names.

        Raises
        ------
        UsageError
            If the trial has fewer than :attr:`least_frames`.
        """
        if n_frames_trial < self.least_frames:
            raise UsageError(
                "the trial is too short for the windows that the model predicts",
                session=session,
                trial=trial,
                found=count_things(n_frames_trial, "frame"),
                expected=f"at least {self.least_frames}",
            )
        last_start = n_frames_trial - self.span
        n_predicted = self.n_frames - self.n_frames_lost
        windows = [
            Window(start, np.ones(n_predicted, dtype=bool)) for start in range(self.offset, last_start + 1, self.hop)
        ]
        is_covered = np.zeros(n_frames_trial, dtype=bool)
        # Nothing predicts these.
        is_covered[: self.n_frames_lost * self.stride] = True
        for window in windows:
            is_covered[self.frames(window.first_frame)] = True
        for frame in range(n_frames_trial):
            if not is_covered[frame]:
                start = frame - self.n_frames_lost * self.stride
                if start > last_start:
                    start -= -(-(start - last_start) // self.stride) * self.stride
                window = Window(start, ~is_covered[self.frames(start)])
                windows.append(window)
                is_covered[self.frames(start)] = True
        return windows

    def frames(self, first_frame: int) -> slice:
        """Return the frames of a trial that a window predicts which starts at a frame."""
        return slice(first_frame + self.n_frames_lost * self.stride, first_frame + self.span, self.stride)


@dataclass(frozen=True)
class _Row:
    """One window of one trial of a batch."""

    trial: int
    window: Window


def predict_sliding(
    model: ResponseModel,
    inputs: ModelInputs,
    session: str,
    windows: SlidingWindows,
    *,
    frames_a_pass: int | None = None,
) -> torch.Tensor:
    """Return a model's predictions of whole trials of one session, each frame's the mean over the windows that hold it.

    Windows of one trial and the next go through the model together. How many do changes memory and time alone.

    Parameters
    ----------
    model : ResponseModel
        In evaluation mode, so that windows of a batch do not depend on each other.
    inputs : ModelInputs
        Trials of equal length, all frames of them.
    session : str
        Full name.
    windows : SlidingWindows
        Where they lie.
    frames_a_pass : int, optional
        Frames of all windows that go through the model at once; a window at least.

    Returns
    -------
    Tensor of float32, shape (batch, neuron, time - n_frames_lost * stride)
        Of the last frames.

    Raises
    ------
    UsageError
        If the trials are too short for a window, or the model returns another shape than it should.
    """
    n_frames_trial = inputs.n_frames
    planned = windows.plan(n_frames_trial, session=session, trial=inputs.trials[0])
    n_lost = windows.n_frames_lost * windows.stride
    counts_T = np.zeros(n_frames_trial)
    for window in planned:
        counts_T[windows.frames(window.first_frame)] += window.counts
    shares_T = torch.from_numpy(1 / counts_T[n_lost:]).float()
    bound = frames_a_pass or _FRAMES_A_PASS.get(inputs.videos.device.type, _FRAMES_A_PASS["cpu"])
    n_rows = max(1, bound // windows.n_frames)
    rows = [_Row(trial, window) for trial in range(len(inputs)) for window in planned]
    sums_BNT = torch.empty(len(inputs), 0, n_frames_trial)
    for chosen, predictions_WNT in _predict_rows(model, inputs, session, windows, rows, n_rows):
        if not sums_BNT.numel():
            sums_BNT = predictions_WNT.new_zeros((len(inputs), predictions_WNT.shape[1], n_frames_trial))
        for row, prediction_NT in zip(chosen, predictions_WNT, strict=True):
            frames_NT = sums_BNT[row.trial][:, windows.frames(row.window.first_frame)]
            if row.window.counts.all():
                frames_NT += prediction_NT
            else:
                counted = torch.from_numpy(np.flatnonzero(row.window.counts)).to(prediction_NT.device)
                frames_NT[:, counted] += prediction_NT[:, counted]
    means_BNT: torch.Tensor = sums_BNT[..., n_lost:] * shares_T.to(sums_BNT.device)
    return means_BNT


def _predict_rows(
    model: ResponseModel,
    inputs: ModelInputs,
    session: str,
    windows: SlidingWindows,
    rows: list[_Row],
    n_rows: int,
) -> Iterator[tuple[list[_Row], torch.Tensor]]:
    """Yield some rows after the others, and their predictions, shape (window, neuron, predicted frame)."""
    for first in range(0, len(rows), n_rows):
        chosen = rows[first : first + n_rows]
        spans = [
            (row.trial, slice(row.window.first_frame, row.window.first_frame + windows.span, windows.stride))
            for row in chosen
        ]
        videos_WCTHW = torch.stack([inputs.videos[trial][:, span] for trial, span in spans])
        pupil_center_W2T = torch.stack([inputs.pupil_center[trial][:, span] for trial, span in spans])
        predictions_WNT = model(videos_WCTHW, pupil_center_W2T, session)
        require_predictions(
            predictions_WNT,
            session=session,
            n_rows=len(chosen),
            n_neurons=inputs.responses.shape[1] or None,
            n_frames=windows.n_frames - windows.n_frames_lost,
        )
        yield chosen, predictions_WNT.float()
