"""Frames in two bytes each."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sensorium_data.movies import sign_video
from sensorium_data.movies.screens import LARGEST_SCREENED_ERROR, find_limit, mark_frames, screen_trials


def noise(seed: int, n_frames: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (n_frames, 8, 16)).astype(np.float32)


def test_what_is_kept_in_stores_never_changes() -> None:
    """Another hash would find no movie of the screens that are kept: raise their version if it has to change."""
    means = np.zeros((3, 38), np.float32)
    means[1, :32], means[2] = np.linspace(0, 255, 32), -1e9
    expected = []
    for frame in means.tolist():
        mixed = 0
        for block in (9, 11, 13, 18, 20, 22):
            cell = math.floor((frame[block] - 127.5) / 8 + 0.5)
            mixed = (mixed ^ (cell % 2**64)) * 0x9E3779B97F4A7C15 % 2**64
            mixed ^= mixed >> 32
        expected.append([mixed % 65535 + 1])
    assert screen_trials([means]).tolist() == expected
    assert expected[0] == [51433]


def test_a_frame_is_among_the_marks_of_all_frames_that_may_equal_it() -> None:
    random = np.random.default_rng(0)
    for error in (0.0, 0.0625, LARGEST_SCREENED_ERROR):
        video = noise(1, 300)
        other = video + random.uniform(-1 - 2 * error, 1 + 2 * error, video.shape).astype(np.float32)
        _, frames, hashes = mark_frames([sign_video(video)], find_limit(error, error))
        marked = set(zip(frames.tolist(), hashes.tolist(), strict=True))
        looked_up = screen_trials([sign_video(other)])[:, 0].tolist()
        assert marked >= set(enumerate(looked_up))


def test_the_marks_of_gray_frames_are_few() -> None:
    gray = np.full((5, 36, 64), 127.5, np.float32)
    assert len(mark_frames([sign_video(gray)], find_limit(0.0625, 0.0625))[0]) == 5


def test_frames_that_do_not_exist_or_equal_no_other_are_not_marked() -> None:
    signatures = [sign_video(noise(1, 3)), sign_video(noise(2, 5))]
    signatures[1][2, 9] = np.nan
    signatures[1][3, 22] = np.inf
    cells = screen_trials(signatures)
    assert (cells == 0).tolist() == [[False, False], [False, False], [False, True], [True, True], [True, False]]
    trials, frames, _ = mark_frames(signatures, 1.01)
    expected = {(trial, frame) for frame, trial in np.argwhere(cells).tolist()}
    assert set(zip(trials.tolist(), frames.tolist(), strict=True)) == expected


@pytest.mark.parametrize("n_trials", [0, 2])
def test_trials_without_frames_have_no_cells(n_trials: int) -> None:
    assert screen_trials([sign_video(noise(1, 0))] * n_trials).shape == (0, n_trials)
    assert len(mark_frames([sign_video(noise(1, 0))] * n_trials, 1.01)[0]) == 0


def test_a_limit_of_more_than_half_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="more than two cells"):
        mark_frames([sign_video(noise(1))], find_limit(LARGEST_SCREENED_ERROR, LARGEST_SCREENED_ERROR + 0.01))
