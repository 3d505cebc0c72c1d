from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.scoring import OracleReliability, RepeatMoments


def accumulate(movies: list[np.ndarray], *, skip_frames: int = 0) -> OracleReliability:
    """Each movie (repeat, neuron, time)."""
    reliability = OracleReliability(movies[0].shape[1])
    for movie in movies:
        moments = RepeatMoments(movie.shape[1], movie.shape[2], skip_frames=skip_frames)
        for repeat in movie:
            moments.add(repeat)
        reliability.add(moments)
    return reliability


def make_movies(seed: int, repeats: list[int], *, signal: float, n_neurons: int = 3, n_frames: int = 400) -> list:
    rng = np.random.default_rng(seed)
    return [
        signal * rng.normal(size=(1, n_neurons, n_frames)) + 5 + rng.normal(size=(n, n_neurons, n_frames))
        for n in repeats
    ]


def test_equals_the_textbook_formula_over_movies_of_different_numbers_of_repeats() -> None:
    movies = make_movies(0, [10, 7, 2], signal=0.7)
    for neuron in range(3):
        single, mean_of_others = [], []
        for movie in movies:
            for repeat in range(len(movie)):
                single.append(movie[repeat, neuron, 50:])
                mean_of_others.append(np.delete(movie[:, neuron, 50:], repeat, axis=0).mean(axis=0))
        expected = np.corrcoef(np.concatenate(single), np.concatenate(mean_of_others))[0, 1]
        assert accumulate(movies, skip_frames=50).correlation()[neuron] == pytest.approx(expected, abs=1e-7)


def test_signal_to_noise_ratio_finds_the_planted_one() -> None:
    ratio = accumulate(make_movies(1, [10] * 6, signal=0.5, n_frames=3000)).signal_to_noise()
    np.testing.assert_allclose(ratio, 0.25, atol=0.02)
    nothing = accumulate(make_movies(2, [10] * 6, signal=0.0, n_frames=3000)).signal_to_noise()
    assert (nothing < 0.003).all()


def test_signal_to_noise_ratio_equals_its_formula() -> None:
    movies = make_movies(3, [4, 5], signal=1.0, n_frames=30)
    means = np.concatenate([movie.mean(axis=0) for movie in movies], axis=1)
    noise = np.concatenate([movie.var(axis=0, ddof=1) for movie in movies], axis=1)
    left = np.concatenate([movie.var(axis=0, ddof=1) / len(movie) for movie in movies], axis=1)
    expected = (means.var(axis=1) - left.mean(axis=1)) / noise.mean(axis=1)
    np.testing.assert_allclose(accumulate(movies).signal_to_noise(), expected)


def test_a_constant_trace_scores_0_and_a_missing_value_makes_it_unknown() -> None:
    (movie,) = make_movies(4, [5], signal=1.0)
    movie[:, 0] = 7.3
    movie[2, 1, 9] = np.nan
    correlation = accumulate([movie]).correlation()
    assert correlation[0] == 0
    assert np.isnan(correlation[1])
    assert correlation[2] > 0


def test_movies_shown_once_and_shorter_than_the_skipped_frames_tell_nothing() -> None:
    movies = [*make_movies(5, [1], signal=1.0), *make_movies(5, [4], signal=1.0, n_frames=20)]
    reliability = accumulate(movies, skip_frames=50)
    assert reliability.n_movies == 0
    assert np.isnan(reliability.correlation()).all()
    assert np.isnan(reliability.signal_to_noise()).all()
