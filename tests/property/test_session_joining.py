"""Sessions are joined by their screens as they are by comparing every pair of trials."""

from __future__ import annotations

from itertools import combinations
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.movies import group_movies, session_joining, sign_video
from sensorium_data.movies.candidates import NO_GROUP, CandidateBlock
from sensorium_data.movies.grouping import same_movie
from sensorium_data.movies.joining import TrialGroups
from sensorium_data.movies.screens import find_limit, screen_trials
from sensorium_data.movies.session_joining import ScreenedSession, SessionTrials, join_sessions
from sensorium_data.progress import ignore_progress

# A trial: which movie, which frames of it are changed, by how much all pixels are brighter, how many frames, and
# whether one of them has a pixel that is no number.
trials = st.tuples(
    st.integers(0, 2),
    st.sampled_from([0, 3, 10, 17, 18, 20, 40]),
    st.sampled_from([0.0, 0.5, 1.0, 1.05, 1.2, 2.0]),
    st.sampled_from([0, 1, 33, 34, 35, 39, 40]),
    st.booleans(),
)
sessions = st.lists(
    st.tuples(st.lists(trials, max_size=6), st.sampled_from([0.0, 0.0625, 0.5, 2.0])), min_size=1, max_size=4
)


def make_video(movie: int, n_changed: int, brighter: float, n_frames: int, has_hole: bool) -> np.ndarray:
    """A video of 8 x 16 pixels; movie 2 is gray but for a few pixels."""
    rng = np.random.default_rng(movie)
    video = rng.uniform(20, 200, (40, 8, 16)).astype(np.float32)
    if movie == 2:
        video[:, 2:] = 127.5
    video += np.float32(brighter)
    video[40 - n_changed :, 3, 4] += 9
    if has_hole:
        video[5, 0, 0] = np.nan
    return video[:n_frames]


def sign(video: np.ndarray) -> np.ndarray:
    """Return the signature; where a pixel is no number, neither are the means."""
    signature = sign_video(np.nan_to_num(video))
    signature[np.isnan(video).any(axis=(1, 2))] = np.nan
    return signature


def compare_all(trials: SessionTrials, videos: list[np.ndarray]) -> list[int]:
    """The plain way: each trial with each of another session."""
    joined = TrialGroups(trials.groups)
    errors = np.repeat([s.largest_error for s in trials.sessions], [len(s.n_frames) for s in trials.sessions])
    for one, other in combinations(range(len(videos)), 2):
        if trials.batches[one] != trials.batches[other] and same_movie(
            videos[one], videos[other], 1.0 + errors[one] + errors[other]
        ):
            joined.join(one, other)
    return joined.firsts()


@given(drawn=sessions, n_known=st.integers(0, 3), block=st.integers(1, 9), looked_up=st.integers(1, 3))
def test_sessions_are_joined_as_by_comparing_every_pair(
    drawn: list[tuple[list[tuple[int, int, float, int, bool]], float]], n_known: int, block: int, looked_up: int
) -> None:
    videos = [[make_video(*trial) for trial in of_session] for of_session, _ in drawn]
    signatures = [[sign(video) for video in of_session] for of_session in videos]
    flat = [video for of_session in videos for video in of_session]
    screened = []
    for number, (of_session, (_, error)) in enumerate(zip(videos, drawn, strict=True)):
        # Nobody compares again what a session says of its own trials, be it wrong.
        own = (
            list(range(len(of_session)))
            if number == 1
            else group_movies(signatures[number], of_session.__getitem__, largest_error=error)
        )
        n_frames = np.array([len(video) for video in of_session], np.int64)
        screened.append(
            ScreenedSession(
                name=str(number),
                is_known=number < n_known,
                # What was found of the known ones before: that some show one movie.
                groups=[("", first % 2) if number < n_known else (number, first) for first in own],
                n_frames=n_frames,
                cells=screen_trials(signatures[number]),
                largest_error=error,
            )
        )
    trials = SessionTrials(screened)
    with (
        patch.object(session_joining, "_BLOCK_N_TRIALS", block),
        patch.object(session_joining, "_FIRST_LOOKED_UP", looked_up),
    ):
        found = join_sessions(
            trials,
            lambda name: signatures[int(name)],
            lambda name, place: videos[int(name)][place],
            jobs=2,
            progress=ignore_progress,
        )
    assert found == compare_all(trials, flat)


@given(one=st.lists(trials, max_size=6), other=st.lists(trials, max_size=6), errors=st.sampled_from([0.0, 0.0625, 1.0]))
def test_no_pair_that_shows_one_movie_is_left_out(
    one: list[tuple[int, int, float, int, bool]], other: list[tuple[int, int, float, int, bool]], errors: float
) -> None:
    videos, others = ([make_video(*trial) for trial in drawn] for drawn in (one, other))
    block = CandidateBlock([sign(video) for video in videos], find_limit(errors, errors))
    block.set_groups(np.arange(len(videos)))
    lengths = np.array([len(video) for video in others], np.int64)
    cells = screen_trials([sign(video) for video in others])
    found = block.find(cells, lengths, np.full(len(others), NO_GROUP))
    expected = {
        (i, j)
        for i, looked_up in enumerate(others)
        for j, video in enumerate(videos)
        if same_movie(looked_up, video, 1.0 + 2 * errors)
    }
    assert expected <= set(zip(*(part.tolist() for part in found), strict=True))
