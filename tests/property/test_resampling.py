"""What is summed trial by trial against everything at once, over real trial lengths and any repeats and orders."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import pearson_corrcoef

from sensorium_data.frames import FRAMES_PROFILES, frames_of
from sensorium_data.scoring import Bootstrap
from sensorium_data.scoring.correlation import correlation_to_average, single_trial_correlation
from sensorium_data.scoring.movie_products import MovieProducts, RepeatedMovies
from sensorium_data.scoring.trial_moments import TrialMoments, sum_trial

#: From RandomDots' 240 frames to the longest of NaturalImages.
LENGTHS = st.integers(240, 326)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Responses and predictions of a few trials, and the movies they show; repeats differ by few frames."""
    n_neurons = draw(st.integers(1, 7))
    movies = draw(st.lists(st.integers(0, 3), min_size=1, max_size=8))
    lengths = {movie: draw(LENGTHS) for movie in set(movies)}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_frames = [min(326, lengths[movie] + int(rng.integers(0, 4))) for movie in movies]
    responses = [rng.gamma(0.3, 10, (n_neurons, n)).astype(np.float32) for n in n_frames]
    predictions = [(0.2 * r + rng.random(r.shape)).astype(np.float32) for r in responses]
    return responses, predictions, movies


def take_moments(responses: list[np.ndarray], predictions: list[np.ndarray]) -> TrialMoments:
    sums = [sum_trial(a[:, 50:], b[:, 50:]) for a, b in zip(responses, predictions, strict=True)]
    return TrialMoments([a.shape[1] - 50 for a in responses], sums)


def multiply_repeats(
    responses: list[np.ndarray], predictions: list[np.ndarray], movies: list[int]
) -> RepeatedMovies | None:
    groups = [[i for i, one in enumerate(movies) if one == movie] for movie in sorted(set(movies))]
    products = [
        MovieProducts([responses[i][:, 50:] for i in group], [predictions[i][:, 50:] for i in group])
        for group in groups
        if len(group) > 1
    ]
    return RepeatedMovies(products) if products else None


@given(recordings())
@settings(max_examples=40)
def test_sums_of_trials_equal_the_whole(recording: tuple[list[np.ndarray], list[np.ndarray], list[int]]) -> None:
    responses, predictions, movies = recording
    found = take_moments(responses, predictions).correlation()
    assert np.allclose(found, single_trial_correlation(responses, predictions), rtol=0, atol=1e-12)
    a, b = (np.concatenate([x[:, 50:] for x in signals], axis=1, dtype=np.float64) for signals in recording[:2])
    assert np.allclose(found, pearson_corrcoef(torch.from_numpy(b.T), torch.from_numpy(a.T)), rtol=0, atol=1e-7)
    repeated = multiply_repeats(responses, predictions, movies)
    average = correlation_to_average(responses, predictions, movies)
    assert np.isnan(average).all() if repeated is None else np.allclose(repeated.correlation(), average, atol=1e-12)


@given(recordings(), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_order_of_trials_and_of_neurons_does_not_matter(
    recording: tuple[list[np.ndarray], list[np.ndarray], list[int]], random: object
) -> None:
    responses, predictions, movies = recording
    trials = list(range(len(movies)))
    random.shuffle(trials)  # type: ignore[attr-defined]
    neurons = np.random.default_rng(len(trials)).permutation(len(responses[0]))
    shuffled = [[signals[i][neurons] for i in trials] for signals in (responses, predictions)]
    expected = take_moments(responses, predictions).correlation()[neurons]
    assert np.allclose(take_moments(*shuffled).correlation(), expected, atol=1e-12)
    repeated = multiply_repeats(responses, predictions, movies)
    again = multiply_repeats(*shuffled, [movies[i] for i in trials])
    if repeated is not None and again is not None:
        assert np.allclose(again.correlation(), repeated.correlation()[neurons], atol=1e-12)
        for measure in ("correlation", "explainable_variance", "attainable_correlation"):
            before, after = (getattr(one.reliability(), measure)() for one in (repeated, again))
            assert np.allclose(after, before[neurons], atol=1e-9)


@given(recordings())
@settings(max_examples=15)
def test_intervals_are_ordered_and_ceilings_lie_between_0_and_1(
    recording: tuple[list[np.ndarray], list[np.ndarray], list[int]],
) -> None:
    responses, predictions, movies = recording
    mean, low, high = take_moments(responses, predictions).bootstrap(Bootstrap(100))
    assert np.isnan(low).all() if len(movies) == 1 else (low <= high).all()
    assert mean.replicates.shape == (100,)
    repeated = multiply_repeats(responses, predictions, movies)
    if repeated is not None:
        _, low, high = repeated.bootstrap(Bootstrap(100))
        assert (low <= high).all()
        for ceiling in (repeated.reliability().explainable_variance(), repeated.reliability().attainable_correlation()):
            assert ((ceiling >= 0) & (ceiling <= 1)).all()


@given(LENGTHS, st.sampled_from(FRAMES_PROFILES))
def test_every_profile_leaves_out_the_first_fifty_frames(n_frames: int, profile: str) -> None:
    frames = frames_of(profile, n_frames)  # type: ignore[arg-type]
    assert frames.start >= 50
    assert frames.stop <= n_frames
    assert len(frames) == (n_frames - 50 if profile == "official" else min(n_frames, 300) - 51)
