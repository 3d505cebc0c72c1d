"""Simulated movies look like the classes they are named after."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sensorium_data.sessions import Stimulus
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.stimuli import render_movie, resample_repeat

LENGTHS = {
    Stimulus.NATURAL_VIDEO: 300,
    Stimulus.GABOR: 300,
    Stimulus.GAUSSIAN_DOT: 315,
    Stimulus.RANDOM_DOTS: 240,
    Stimulus.PINK_NOISE: 324,
    Stimulus.NATURAL_IMAGES: 320,
}


def render(stimulus: Stimulus, number: int = 0, seed: int = 0) -> np.ndarray:
    folder = "train" if stimulus is Stimulus.NATURAL_VIDEO else stimulus
    return render_movie(Movie(f"AF/{folder}/{number}", stimulus, number), LENGTHS[stimulus], seed)


@pytest.mark.parametrize("stimulus", LENGTHS)
def test_luminance_is_real_valued_and_within_range(stimulus: Stimulus) -> None:
    video = render(stimulus)
    assert video.shape == (LENGTHS[stimulus], 36, 64)
    assert video.dtype == np.float32
    assert video.min() >= 0
    assert video.max() <= 255
    assert np.mean(video == np.rint(video)) < 0.05
    assert video.std() > 5


@pytest.mark.parametrize("stimulus", LENGTHS)
def test_a_movie_is_the_same_whenever_it_is_rendered_and_no_other(stimulus: Stimulus) -> None:
    np.testing.assert_array_equal(render(stimulus), render(stimulus))
    assert np.abs(render(stimulus) - render(stimulus, number=1)).mean() > 1
    assert np.abs(render(stimulus) - render(stimulus, seed=1)).mean() > 1


@pytest.mark.parametrize("stimulus", [stimulus for stimulus in LENGTHS if stimulus is not Stimulus.NATURAL_VIDEO])
def test_no_two_of_the_movies_that_a_full_session_shows_are_the_same(stimulus: Stimulus) -> None:
    videos = [render(stimulus, number) for number in range(8)]
    for number, video in enumerate(videos):
        for other in videos[:number]:
            assert (np.abs(video - other).max(axis=(1, 2)) > 1).mean() > 0.5


def test_natural_movies_have_the_recordings_luminance() -> None:
    videos = np.stack([render(Stimulus.NATURAL_VIDEO, number) for number in range(24)])
    assert videos.mean() == pytest.approx(79.5, abs=5)
    assert videos.std() == pytest.approx(57, abs=5)
    assert np.median(videos) == pytest.approx(69.6, abs=6)


def test_natural_movies_move_smoothly_between_cuts() -> None:
    video = render(Stimulus.NATURAL_VIDEO).reshape(300, -1)
    centered = video - video.mean(axis=1, keepdims=True)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    successive = np.sum(centered[1:] * centered[:-1], axis=1)
    is_cut = successive < 0.6
    assert 2 <= is_cut.sum() <= 10
    assert np.median(successive) > 0.9
    assert np.mean(np.abs(np.diff(video, axis=0)).max(axis=1) > 1) > 0.9, "what moves changes in nearly every frame"


def test_repeats_differ_in_some_frames_and_in_no_more_than_20_percent() -> None:
    movie = render(Stimulus.NATURAL_VIDEO)
    repeats = [resample_repeat(movie, np.random.default_rng(seed)) for seed in range(8)]
    shares = [
        np.mean(np.abs(first - second).max(axis=(1, 2)) > 1.0) for first, second in itertools.combinations(repeats, 2)
    ]
    assert 0.1 < max(shares) <= 0.2
    assert all(len(repeat) == len(movie) for repeat in repeats)


def test_natural_images_stand_still_and_are_parted_by_gray() -> None:
    video = render(Stimulus.NATURAL_IMAGES)
    is_gray = video.std(axis=(1, 2)) < 1e-3
    runs = [(gray, len(list(group))) for gray, group in itertools.groupby(is_gray)]
    inner = runs[:-1]
    assert {length for gray, length in inner if not gray} == {15}
    grays = {length for gray, length in inner if gray}
    assert min(grays) >= 12
    assert max(grays) <= 18
    assert not any(np.ptp(part, axis=0).any() for part in np.split(video, np.flatnonzero(np.diff(is_gray)) + 1))


@pytest.mark.parametrize(
    ("stimulus", "n_frames_each", "n_shown"),
    [(Stimulus.GABOR, 25, 12), (Stimulus.GAUSSIAN_DOT, 9, 35), (Stimulus.RANDOM_DOTS, 60, 4)],
)
def test_conditions_last_as_long_as_published(stimulus: Stimulus, n_frames_each: int, n_shown: int) -> None:
    video = render(stimulus)
    change = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2))
    largest = np.sort(np.argsort(change)[-(n_shown - 1) :]) + 1
    assert np.mean(largest % n_frames_each == 0) > 0.8


def test_six_movies_show_every_place_and_polarity_of_dots() -> None:
    seen = set()
    for number in range(6):
        for dot in render(Stimulus.GAUSSIAN_DOT, number)[::9]:
            deviation = dot - np.median(dot)
            row, column = np.unravel_index(np.argmax(np.abs(deviation)), dot.shape)
            seen.add((row, column, deviation[row, column] > 0))
    assert len(seen) == 210


def test_gabors_drift_at_three_temporal_frequencies() -> None:
    periods = set()
    for number in range(6):
        video = render(Stimulus.GABOR, number)
        for start in range(0, 300, 25):
            patch = video[start : start + 25]
            row, column = np.unravel_index(np.argmax(patch.std(axis=0)), (36, 64))
            trace = patch[:, row, column] - patch[:, row, column].mean()
            spectrum = np.abs(np.fft.rfft(trace, 3000))
            periods.add(round(float(np.fft.rfftfreq(3000, 1 / 30)[np.argmax(spectrum)]) * 2) / 2)
    assert {2.0, 4.0} <= periods
    assert periods <= {0.5, 1.0, 1.5, 2.0, 4.0}
