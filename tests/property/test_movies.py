"""Movies of sessions that come one after the other are joined as those of sessions that come at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.movies import group_movies, sign_video
from sensorium_data.movies.grouping import join_groups


def make_videos(steps: list[int]) -> list[np.ndarray]:
    """Videos of which any two that are one step apart, and no others, show the same movie."""
    base = np.random.default_rng(0).uniform(20, 200, (40, 36, 64)).astype(np.float32)
    videos = []
    for step in steps:
        video = base.copy()
        # Each step changes the next ten of the forty frames, two steps twenty: 25 % and 50 %.
        for changed in range(10 * step):
            video[changed % 40, 3, 4] += 9
        videos.append(video)
    return videos


@given(
    steps=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    cuts=st.lists(st.integers(1, 8), max_size=3, unique=True),
)
def test_sessions_may_come_one_after_the_other(steps: list[int], cuts: list[int]) -> None:
    videos = make_videos(steps)
    signatures = [sign_video(video) for video in videos]
    expected = group_movies(signatures, videos.__getitem__)
    groups: list[int] = []
    for end in sorted({*(cut for cut in cuts if cut < len(steps)), len(steps)}):
        start = len(groups)
        own = group_movies(signatures[start:end], videos[start:end].__getitem__)
        groups = join_groups(
            signatures[:end],
            videos.__getitem__,
            groups=[*groups, *(start + first for first in own)],
            batches=[0] * start + [1] * (end - start),
            largest_errors=[0.0] * end,
        )
    assert groups == expected
    # By hand: steps are joined where no step between them is missing.
    present = sorted(set(steps))
    runs = np.cumsum([0, *(np.diff(present) > 1)])
    run_of = dict(zip(present, runs.tolist(), strict=True))
    assert expected == [next(i for i, s in enumerate(steps) if run_of[s] == run_of[step]) for step in steps]
