from __future__ import annotations

import numpy as np
import pytest

import sensorium_data.explore
from fixtures.explored_sessions import make_session
from sensorium_data.errors import UsageError
from sensorium_data.sessions import Stimulus
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.stimuli import list_gabors, render_movie, resample_repeat

MOVIES = [Movie(f"B/Gabor/{number}", Stimulus.GABOR, number) for number in range(6)]
ANGLES = np.arange(8) * 45.0


@pytest.fixture(scope="module")
def shown() -> list[tuple[int, np.ndarray, list[tuple[float, float, float]]]]:
    """Two repeats of six movies of all conditions, each on a grid of its own, and what the simulation says of them."""
    random = np.random.default_rng(0)
    trials = []
    for number, movie in enumerate(MOVIES):
        video = render_movie(movie, 300, seed=5)
        trials += [(number, resample_repeat(video, random), list_gabors(movie, 300, 5)) for _ in range(2)]
    return trials


def curve(angles: np.ndarray) -> np.ndarray:
    """Responses of a neuron that prefers 90°, of one that likes that axis either way, and of one that is not tuned."""
    away = np.radians(angles - 90)
    return np.stack([np.exp(2 * np.cos(away)), np.exp(2 * np.cos(2 * away)), np.full(len(angles), 4.0)])


def respond(trial, random: np.random.Generator) -> np.ndarray:
    degrees = np.degrees([angle for angle, _, _ in trial[2]])
    return np.repeat(curve(degrees), 25, axis=1) + random.gamma(0.5, 1.0, (3, 300))


def make_tuned_session(shown, **arguments):
    random = np.random.default_rng(1)
    return make_session(
        [respond(trial, random) for trial in shown],
        videos=[video for _, video, _ in shown],
        movies=[f"m{number}" for number, _, _ in shown],
        stimuli=["Gabor"] * len(shown),
        **arguments,
    )


def test_what_patches_show_is_recovered_from_the_frames(shown) -> None:
    table = sensorium_data.explore.tabulate_gabors(make_tuned_session(shown))
    truth = np.array([patch for _, _, patches in shown for patch in patches])
    assert len(table) == len(truth) == 144
    degrees = np.degrees(truth[:, 0])
    np.testing.assert_array_equal(table.direction, degrees)
    error = (table.measured_direction.to_numpy() - degrees + 180) % 360 - 180
    assert np.abs(error).max() < 8
    np.testing.assert_allclose(1 / table.spatial_frequency, truth[:, 1], rtol=0.06)
    np.testing.assert_allclose(table.temporal_frequency, truth[:, 2], rtol=0.15)
    assert table[["trial", "block", "first_frame"]].iloc[13].tolist() == [11, 1, 25]


@pytest.mark.parametrize("direction", [0.0, 30.0, 135.0, 260.0])
@pytest.mark.parametrize("rate_hz", [0.4, 3.0])
def test_a_slow_or_fast_patch_at_any_angle_is_recovered(direction: float, rate_hz: float) -> None:
    rows, columns = np.mgrid[:36, :64]
    time = np.arange(25)[:, None, None] / 30
    along = (columns - 40) * np.cos(np.radians(direction)) + (rows - 12) * np.sin(np.radians(direction))
    window = np.exp(-((columns - 40) ** 2 + (rows - 12) ** 2) / (2 * 8.0**2))
    patch = sensorium_data.explore.recover_gabor(127 + 60 * window * np.cos(2 * np.pi * (along / 9 - rate_hz * time)))
    assert abs((patch.direction - direction + 180) % 360 - 180) < 4
    assert patch.spatial_frequency == pytest.approx(1 / 9, rel=0.05)
    assert patch.temporal_frequency == pytest.approx(rate_hz, rel=0.1)


@pytest.mark.parametrize("frames", [np.full((25, 36, 64), 127.0), np.full((25, 36, 64), np.nan), np.zeros((3, 36, 64))])
def test_what_is_no_patch_has_no_direction(frames: np.ndarray) -> None:
    assert sensorium_data.explore.recover_gabor(frames) is None


def test_tuning_is_the_mean_response_by_direction_and_its_vector_sums(shown) -> None:
    session = make_tuned_session(shown, withheld=[1], broken=[2])
    counted = [trial for trial in range(len(shown)) if trial not in (1, 2)]
    by_patch = {}
    for trial in counted:
        number, _, patches = shown[trial]
        values = session.responses.values[trial, :, :300].astype(float).reshape(3, 12, 25).mean(axis=2)
        for block, (angle, _, _) in enumerate(patches):
            by_patch.setdefault((number, block, round(np.degrees(angle))), []).append(values[:, block])
    response = np.stack(
        [np.mean([np.mean(r, axis=0) for (_, _, a), r in by_patch.items() if a == angle], axis=0) for angle in ANGLES],
        axis=1,
    )
    tuning = session.sensorium.tuning("Gabor", n_permutations=99, seed=4)
    np.testing.assert_allclose(tuning.response, response, rtol=1e-6)
    assert tuning.direction.values.tolist() == ANGLES.tolist()
    assert tuning.n_patches.values.tolist() == [9] * 8
    total, theta = response.sum(axis=1), np.radians(ANGLES)
    np.testing.assert_allclose(tuning.orientation_selectivity, np.abs(response @ np.exp(2j * theta)) / total, rtol=1e-6)
    np.testing.assert_allclose(tuning.direction_selectivity, np.abs(response @ np.exp(1j * theta)) / total, rtol=1e-6)
    assert tuning.preferred_direction.values[0] == 90
    assert tuning.preferred_direction.values.tolist() == ANGLES[response.argmax(axis=1)].tolist()
    np.testing.assert_allclose(tuning.preferred_orientation.values[:2], 90, atol=5)
    assert tuning.orientation_p.values[:2].tolist() == [0.01, 0.01]
    assert tuning.direction_p.values[0] == 0.01
    assert tuning.direction_p.values[1] > 0.05
    assert tuning.orientation_p.values[2] > 0.05
    assert tuning.z.values.tolist() == session.z.values.tolist()
    again = session.sensorium.tuning("Gabor", n_permutations=99, seed=4)
    np.testing.assert_array_equal(again.direction_p, tuning.direction_p)


def test_p_values_are_uniform_without_tuning_and_repeats_of_a_patch_are_one_piece_of_evidence(shown) -> None:
    random = np.random.default_rng(7)
    n_neurons = 200
    # Each neuron likes some patches, whatever their direction, and answers all repeats alike.
    liked = random.gamma(0.3, 1.0, (len(MOVIES), n_neurons, 12))
    session = make_session(
        [np.repeat(liked[number], 25, axis=1) + 0.01 * random.random((n_neurons, 300)) for number, _, _ in shown],
        videos=[video for _, video, _ in shown],
        movies=[f"m{number}" for number, _, _ in shown],
        stimuli=["Gabor"] * len(shown),
    )
    tuning = session.sensorium.tuning(n_permutations=199)
    for p in (tuning.orientation_p.values, tuning.direction_p.values):
        assert 0.005 <= (p <= 0.05).mean() <= 0.1
        assert 0.42 <= np.median(p) <= 0.58


def test_responses_may_be_taken_later_and_patches_left_out(shown) -> None:
    session = make_tuned_session(shown[::2])
    shifted = session.assign(responses=session.responses.shift(time=4, fill_value=0))
    tuning = shifted.sensorium.tuning(delay_frames=4, n_permutations=1)
    blurred = shifted.sensorium.tuning(n_permutations=1)
    assert float(tuning.direction_selectivity[0]) > 1.1 * float(blurred.direction_selectivity[0])
    assert int(session.sensorium.tuning(skip_blocks=2, n_permutations=1).n_patches.sum()) == 60


def test_missing_values_and_silence_are_nan_and_spoil_no_other_neuron(shown) -> None:
    session = make_tuned_session(shown[::2]).load()
    whole = session.sensorium.tuning(n_permutations=9)
    session.responses[3, 0, 100] = np.nan
    session.responses[:, 1] *= 0
    tuning = session.sensorium.tuning(n_permutations=9)
    for name in ("orientation_selectivity", "direction_selectivity", "preferred_direction", "direction_p"):
        assert np.isnan(tuning[name].values[:2]).all(), name
        assert tuning[name].values[2] == pytest.approx(whole[name].values[2], rel=1e-9), name


def test_what_has_no_tuning_is_refused(shown) -> None:
    session = make_tuned_session(shown)
    with pytest.raises(UsageError, match="expected Gabor"):
        session.sensorium.tuning("PinkNoise")
    with pytest.raises(UsageError, match="no trial shows Gabor patches: found NaturalVideo"):
        make_session([np.ones((2, 60))]).sensorium.tuning()
    with pytest.raises(UsageError, match="no trial to measure tuning from: found 12 trials, 12 withheld"):
        make_tuned_session(shown, withheld=range(12)).sensorium.tuning()
    with pytest.raises(UsageError, match=r"not every direction was shown: found no \d+°"):
        session.isel(trial=[0]).sensorium.tuning(skip_blocks=9)
    with pytest.raises(UsageError, match="n_permutations cannot be this: found 0"):
        session.sensorium.tuning(n_permutations=0)
