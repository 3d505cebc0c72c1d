"""Whole trials from sliding windows: which windows there are, and what their predictions come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.inputs import ModelInputs
from models.response_model import ResponseModel
from models.sliding_windows import SlidingWindows, predict_sliding
from sensorium_data.errors import UsageError

DWISENEURO = SlidingWindows(n_frames=16, stride=2)
DYNAMIC_V1FM = SlidingWindows(n_frames=30, n_frames_lost=15, hop=15, offset=5)


class WindowModel(ResponseModel):
    """Two neurons whose prediction of a frame depends on the whole window, and on the frame's place in it."""

    def __init__(self, n_frames_lost: int = 0) -> None:
        super().__init__()
        self.core = nn.Identity()
        self.scale = nn.Parameter(torch.tensor([1.0, -0.5]))
        self.n_frames_lost = n_frames_lost
        self.n_rows: list[int] = []

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        self.n_rows.append(len(videos_BCTHW))
        values_BT = videos_BCTHW.mean(dim=(1, 3, 4)) + pupil_center_B2T.sum(1)
        places_T = torch.arange(values_BT.shape[1]) / 10
        mixed_BT = values_BT * (1 + places_T) + values_BT.mean(1, keepdim=True)
        predictions_BNT = torch.tanh(mixed_BT[:, None] * self.scale[:, None])[..., self.n_frames_lost :]
        return [predictions_BNT[rows] for _, rows in wanted]


def make_inputs(n_trials: int, n_frames: int) -> ModelInputs:
    generator = torch.Generator().manual_seed(n_frames)
    return ModelInputs(
        session="session",
        trials=tuple(range(n_trials)),
        first_frames=(0,) * n_trials,
        stride=1,
        videos=torch.randn(n_trials, 1, n_frames, 2, 3, generator=generator),
        behavior=torch.zeros(n_trials, 2, n_frames),
        pupil_center=torch.randn(n_trials, 2, n_frames, generator=generator),
        responses=torch.empty(n_trials, 0, n_frames),
    )


def count_windows(windows: SlidingWindows, n_frames: int) -> np.ndarray:
    counts = np.zeros(n_frames, dtype=int)
    for window in windows.plan(n_frames):
        counts[windows.frames(window.first_frame)] += window.counts
    return counts


def predict_one_by_one(model: ResponseModel, inputs: ModelInputs, windows: SlidingWindows) -> np.ndarray:
    """Every window by itself, in float64 where it is added up."""
    n_trials, n_frames = len(inputs), inputs.n_frames
    sums, counts = np.zeros((n_trials, 2, n_frames)), np.zeros(n_frames)
    for window in windows.plan(n_frames):
        frames = np.arange(window.first_frame, window.first_frame + windows.span, windows.stride)
        counted = frames[windows.n_frames_lost :][window.counts]
        counts[counted] += 1
        for trial in range(n_trials):
            found = model(
                inputs.videos[trial : trial + 1, :, frames], inputs.pupil_center[trial : trial + 1, :, frames], ""
            )
            sums[trial][:, counted] += found[0].numpy()[:, window.counts]
    return (sums / np.maximum(counts, 1))[..., windows.n_frames_lost * windows.stride :]


@st.composite
def windows_and_trials(draw: st.DrawFn) -> tuple[SlidingWindows, int]:
    n_frames = draw(st.integers(1, 9))
    windows = SlidingWindows(
        n_frames=n_frames,
        stride=draw(st.integers(1, 3)),
        n_frames_lost=draw(st.integers(0, n_frames - 1)),
        hop=draw(st.integers(1, 12)),
        offset=draw(st.integers(0, 12)),
    )
    return windows, draw(st.integers(windows.least_frames, windows.least_frames + 25))


@given(windows_and_trials())
def test_every_frame_that_can_be_predicted_is(made):
    windows, n_frames = made
    counts = count_windows(windows, n_frames)
    n_lost = windows.n_frames_lost * windows.stride
    assert not counts[:n_lost].any()
    assert (counts[n_lost:] > 0).all()
    for window in windows.plan(n_frames):
        assert 0 <= window.first_frame <= n_frames - windows.span
        assert window.counts.any()


@given(windows_and_trials())
@torch.no_grad()
def test_windows_together_predict_as_one_by_one(made):
    windows, n_frames = made
    model, inputs = WindowModel(windows.n_frames_lost).eval(), make_inputs(2, n_frames)
    found = predict_sliding(model, inputs, "session", windows)
    np.testing.assert_allclose(found, predict_one_by_one(model, inputs, windows), atol=1e-6)


def test_a_frame_of_dwiseneuro_is_in_up_to_16_windows():
    counts = count_windows(DWISENEURO, 300)
    assert counts.min() == 1
    assert counts.max() == 16
    # The first two and the last two frames are in one window each; 270 windows of 16 frames there are.
    assert (counts[:2] == 1).all()
    assert (counts[-2:] == 1).all()
    assert counts.sum() == 270 * 16


def test_windows_one_after_the_other_hold_the_frames_that_dwiseneuro_validates_on():
    windows = SlidingWindows(n_frames=16, stride=2, hop=31)
    planned = windows.plan(300)
    assert [window.first_frame for window in planned if window.counts.all()][:9] == list(range(0, 270, 31))
    # Whole trials cost twice as many windows, not 30 times as many.
    assert len(planned) < 25


def test_windows_of_dynamic_v1fm_end_as_published():
    planned = DYNAMIC_V1FM.plan(300)
    predicted = {
        window.first_frame: np.arange(300)[DYNAMIC_V1FM.frames(window.first_frame)][window.counts] for window in planned
    }
    assert {35, 50, 65, 260} < set(predicted)
    assert predicted[35].tolist() == list(range(50, 65))
    assert predicted[270].tolist() == list(range(290, 300))
    assert predicted[0].tolist() == list(range(15, 20))
    assert (count_windows(DYNAMIC_V1FM, 300)[15:] == 1).all()


@pytest.mark.parametrize("frames_a_pass", [1, 16, 40, 10_000])
@torch.no_grad()
def test_memory_is_bounded_by_the_frames_of_a_pass(frames_a_pass):
    model, inputs = WindowModel().eval(), make_inputs(2, 60)
    expected = predict_sliding(model, inputs, "session", DWISENEURO)
    model.n_rows.clear()
    found = predict_sliding(model, inputs, "session", DWISENEURO, frames_a_pass=frames_a_pass)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert max(model.n_rows) <= max(1, frames_a_pass // 16)
    assert sum(model.n_rows) == 2 * len(DWISENEURO.plan(60))


def test_a_trial_that_is_too_short_is_named():
    with pytest.raises(
        UsageError, match=r"session session, trial 0: .*too short.*: found 31 frames, expected at least 32"
    ):
        predict_sliding(WindowModel().eval(), make_inputs(1, 31), "session", DWISENEURO)
