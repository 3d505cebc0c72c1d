"""Boxes of one window's video in another's, and responses mixed by their area."""

from __future__ import annotations

import numpy as np
import torch

from models.inputs import ModelInputs
from models.training.cutmix import CutMix, draw_box


def windows(n_windows=6, n_neurons=3, n_frames=4):
    """Windows whose every pixel, and every response, is the window's own number."""
    numbers = torch.arange(n_windows, dtype=torch.float32)
    return ModelInputs(
        session="F",
        trials=tuple(range(n_windows)),
        first_frames=(0,) * n_windows,
        stride=1,
        behavior=torch.zeros(n_windows, 2, n_frames),
        videos=numbers[:, None, None, None, None].expand(n_windows, 3, n_frames, 36, 64).clone(),
        pupil_center=torch.rand(n_windows, 2, n_frames),
        responses=numbers[:, None, None].expand(n_windows, n_neurons, n_frames).clone(),
    )


def test_responses_are_mixed_by_the_share_of_pixels_that_are_the_partners():
    inputs = windows()
    n_mixed = 0
    for seed in range(20):
        mixed = CutMix(0.5, 1.0).mix(inputs, (seed,))
        for window in range(6):
            video = mixed.videos[window].numpy()
            # The same box in every channel and frame.
            assert (video == video[:1, :1]).all()
            foreign = video[0, 0] != window
            if not foreign.any():
                np.testing.assert_array_equal(mixed.responses[window].numpy(), window)
                continue
            n_mixed += 1
            (partner,) = np.unique(video[0, 0][foreign])
            rows, columns = np.nonzero(foreign)
            assert foreign.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            share = foreign.sum() / (36 * 64)
            np.testing.assert_allclose(
                mixed.responses[window].numpy(), (1 - share) * window + share * partner, rtol=1e-5
            )
    # Half of 120, but for boxes of no pixel.
    assert 35 < n_mixed < 75
    assert torch.equal(mixed.pupil_center, inputs.pupil_center)


def test_the_inputs_stay_and_a_seed_decides():
    inputs = windows()
    before = inputs.videos.clone()
    first, again, other = (CutMix(1.0, 1.0).mix(inputs, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(inputs.videos, before)
    assert torch.equal(first.videos, again.videos)
    assert not torch.equal(first.videos, other.videos)


def test_one_window_has_nobody_to_be_mixed_with():
    inputs = windows(1)
    assert torch.equal(CutMix(1.0, 1.0).mix(inputs, (0,)).videos, inputs.videos)


def test_boxes_lie_in_the_frame_and_their_areas_follow_the_distribution():
    random = np.random.default_rng(0)
    boxes = [draw_box(random, 1.0, 64, 64) for _ in range(4000)]
    for box in boxes:
        assert 0 <= box.top <= box.bottom <= 64
        assert 0 <= box.left <= box.right <= 64
        # Even before it is cut off, around the pixel that was drawn.
        inside = box.top > 0 and box.bottom < 64, box.left > 0 and box.right < 64
        assert not (inside[0] and (box.bottom - box.top) % 2)
        assert not (inside[1] and (box.right - box.left) % 2)
    # A square of side s around a uniform center, cut off at the edges, covers (s - s² / 4)² of the frame.
    sides = np.sqrt(np.linspace(0, 1, 10001))
    expected = np.mean((sides - sides**2 / 4) ** 2)
    assert abs(np.mean([box.area for box in boxes]) / 64**2 - expected) < 0.02
