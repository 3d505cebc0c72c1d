"""Which trials may show the same movie as one of a block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sensorium_data.movies import candidates as movie_candidates
from sensorium_data.movies import sign_video
from sensorium_data.movies.candidates import NO_GROUP, CandidateBlock
from sensorium_data.movies.screens import find_limit, screen_trials


def noise(seed: int, n_frames: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (n_frames, 8, 16)).astype(np.float32)


def find(
    in_block: Sequence[np.ndarray], looked_up: Sequence[np.ndarray], *, groups: Sequence[int], own: Sequence[int]
) -> list[tuple[int, int]]:
    block = CandidateBlock([sign_video(video) for video in in_block], find_limit(0.0, 0.0))
    block.set_groups(np.array(groups))
    cells = screen_trials([sign_video(video) for video in looked_up])
    found = block.find(cells, np.array([len(video) for video in looked_up]), np.array(own))
    return list(zip(*(part.tolist() for part in found), strict=True))


@pytest.mark.parametrize("n_counts", [1, 2**22])
def test_repeats_are_found_and_other_movies_are_not(n_counts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movie_candidates, "_N_COUNTS", n_counts)
    in_block = [noise(seed) for seed in (0, 1, 2, 1)]
    looked_up = [noise(seed) for seed in (7, 1, 8, 0)]
    found = find(in_block, looked_up, groups=range(4), own=[NO_GROUP] * 4)
    assert found == [(1, 1), (1, 3), (3, 0)]


def test_more_than_56_percent_of_the_common_frames_are_shared() -> None:
    movie = noise(1, 100)
    enough, too_few = noise(2, 100), noise(2, 100)
    enough[:57], too_few[:56] = movie[:57], movie[:56]
    assert find([movie], [enough, too_few], groups=[0], own=[NO_GROUP] * 2) == [(0, 0)]


def test_shorter_ones_are_repeats_down_to_85_percent() -> None:
    movie = noise(1, 100)
    assert find([movie], [movie[:86], movie[:85], movie[:0]], groups=[0], own=[NO_GROUP] * 3) == [(0, 0)]
    assert find([movie[:86], movie[:85]], [movie], groups=[0, 1], own=[NO_GROUP]) == [(0, 0)]


def test_what_is_joined_is_not_looked_for_but_what_is_not_is_found_behind_it() -> None:
    """Two trials of the block that lie in the same cells, and show two movies: one of them is joined."""
    in_block = [noise(1), noise(1)]
    assert find(in_block, [noise(1)], groups=[0, 0], own=[0]) == []
    for own in (0, 1):
        assert set(find(in_block, [noise(1)], groups=[0, 1], own=[own])) >= {(0, 1 - own)}


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert find([], [noise(1)], groups=[], own=[NO_GROUP]) == []
    assert find([noise(1)], [], groups=[0], own=[]) == []
    assert find([noise(1, 0)], [noise(1, 0)], groups=[0], own=[NO_GROUP]) == []
