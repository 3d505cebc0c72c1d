"""Simulated neurons answer to what moves where they look, as often as the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.sessions import Stimulus, find_session
from sensorium_data.simulation.behavior import choose_style, simulate_behavior, simulate_pupil_center
from sensorium_data.simulation.neurons import KINDS, Population, draw_neurons
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.retina import shift_by_gaze, standardize_luminance
from sensorium_data.simulation.sampling_grid import N_PHASES, expectation_operator
from sensorium_data.simulation.stimuli import render_movie

STILL = np.array([[53.6], [3.0]])


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(draw_neurons(find_session("F"), 60, 0), 0)


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    return standardize_luminance(render_movie(Movie("AF/train/3", Stimulus.NATURAL_VIDEO, 3), 300, 0))


def at_rest(n_frames: int) -> np.ndarray:
    return np.repeat(STILL, n_frames, axis=1)


def test_neurons_lie_where_the_recorded_ones_do() -> None:
    positions = np.concatenate([draw_neurons(find_session(alias), 500, 0).positions for alias in "ABCDEFGHIJ"])
    assert positions.dtype.kind == "i"
    assert set(positions[:, 2]) == set(range(200, 426, 25))
    assert positions[:, 0].min() >= -1498
    assert positions[:, 0].max() <= -143
    assert positions[:, 1].min() >= -728
    assert positions[:, 1].max() <= 236


def test_unit_ids_increase_with_gaps() -> None:
    ids = draw_neurons(find_session("F"), 500, 0).unit_ids
    assert np.all(np.diff(ids) >= 1)
    assert ids[-1] > 550


def test_sessions_share_one_retinotopic_map() -> None:
    first, second = (draw_neurons(find_session(alias), 800, 0) for alias in "FG")
    for axis, place in ((0, "rf_x"), (1, "rf_y")):
        slope, offset = np.polyfit(first.positions[:, axis], getattr(first, place), 1)
        predicted = slope * second.positions[:, axis] + offset
        assert np.std(getattr(second, place) - predicted) < 2, "only scatter is left"
        assert np.std(predicted) > 3, "the map spreads over the screen"


def test_activity_follows_the_stimulus_and_never_precedes_it(population: Population, video: np.ndarray) -> None:
    changed = video.copy()
    changed[150:] = video[:150]
    before = population.event_rates(video, at_rest(300))
    after = population.event_rates(changed, at_rest(300))
    np.testing.assert_allclose(after[:150], before[:150], rtol=1e-4, atol=1e-5)
    assert np.abs(after[155:] - before[155:]).max() > 0.1


def test_a_neuron_sees_its_receptive_field_alone(population: Population, video: np.ndarray) -> None:
    neurons = population.neurons
    rows, columns = np.mgrid[:36, :64]
    for n in range(3):
        far = np.hypot(rows - neurons.rf_y[n], columns - neurons.rf_x[n]) > 5 * neurons.rf_sigma[n]
        blank_outside, blank_inside = video.copy(), video.copy()
        blank_outside[:, far] = 0
        blank_inside[:, ~far] = 0
        full = population.drive(video)[:, n]
        np.testing.assert_allclose(population.drive(blank_outside)[:, n], full, atol=1e-2 * np.abs(full).max())
        assert np.abs(population.drive(blank_inside)[:, n]).max() < 0.05 * np.abs(full).max()


def test_energy_neurons_ignore_the_sign_of_contrast_and_the_others_do_not(
    population: Population, video: np.ndarray
) -> None:
    same, inverted = population.drive(video), population.drive(-video)
    is_energy = population.neurons.kind == KINDS.index("energy")
    assert 0 < is_energy.sum() < len(is_energy)
    np.testing.assert_allclose(inverted[:, is_energy], same[:, is_energy], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(inverted[:, ~is_energy], -same[:, ~is_energy], rtol=1e-4, atol=1e-4)


def test_frames_in_disorder_drive_other_activity(population: Population, video: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(len(video))
    expected = population.expect(population.event_rates(video, at_rest(300)))[50:]
    disordered = population.expect(population.event_rates(video[order], at_rest(300)))[50:]
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(expected.T, disordered.T, strict=True)]
    assert abs(np.mean(correlations)) < 0.1


def test_running_raises_activity(population: Population, video: np.ndarray) -> None:
    running = at_rest(300)
    running[1] = 30.0
    assert population.event_rates(video, running).sum() > 1.1 * population.event_rates(video, at_rest(300)).sum()


def test_the_mean_of_many_draws_is_the_expectation(population: Population, video: np.ndarray) -> None:
    rate = population.event_rates(video[:90], at_rest(90))
    expected = population.expect(rate)
    random = np.random.default_rng(0)
    draws = np.stack([population.respond(rate, random) for _ in range(800)])
    error = (draws.mean(axis=0) - expected) / np.maximum(draws.std(axis=0) / np.sqrt(len(draws)), 1e-6)
    busy = expected > 0.02 * population.neurons.amplitude
    assert busy.sum() > 500
    assert np.mean(np.abs(error[busy]) < 4) > 0.99
    assert abs(np.mean(error[busy])) < 0.5


def test_responses_have_the_floor_of_deconvolution(population: Population) -> None:
    silence = population.respond(np.zeros((300, 60), np.float32), np.random.default_rng(0))
    assert silence.dtype == np.float64
    assert -3e-7 <= silence.min() < -1e-9
    assert np.abs(silence).max() < 1e-6
    assert 0 < np.median(silence) < 3e-9


def test_neighboring_frames_are_not_independent() -> None:
    operator = expectation_operator(300)
    np.testing.assert_allclose(operator.sum(axis=1), 1.0, rtol=1e-5)
    assert np.count_nonzero(operator[150] > 1e-6) >= 8, "activity was acquired at 8 Hz and put on 30 Hz"
    assert N_PHASES > 1


def test_gaze_shifts_the_stimulus(video: np.ndarray) -> None:
    style = choose_style(0, find_session("F").name, "F")
    pupil = np.repeat(style.pupil_mean[:, None], 300, axis=1)
    np.testing.assert_allclose(shift_by_gaze(video, pupil, style), video, atol=1e-4)
    pupil[0] += 1 / 0.16
    shifted = shift_by_gaze(video, pupil, style)
    np.testing.assert_allclose(shifted[:, :, :-1], video[:, :, 1:], atol=1e-3)


def test_behavior_has_the_recordings_statistics() -> None:
    random = np.random.default_rng(0)
    behavior = np.concatenate([simulate_behavior(random, 324) for _ in range(400)], axis=1)
    dilation, running = behavior
    assert dilation.mean() == pytest.approx(53.6, abs=2)
    assert dilation.std() == pytest.approx(14.8, abs=2)
    assert running.mean() == pytest.approx(5.6, abs=0.8)
    assert running.std() == pytest.approx(8.7, abs=1.2)
    assert running.min() == 0
    assert running.max() <= 47
    one = simulate_behavior(random, 324)
    lagged = [np.corrcoef(trace[1:], trace[:-1])[0, 1] for trace in one]
    assert min(lagged) > 0.95, "smooth in time"


def test_the_pupil_of_session_f_lies_where_it_was() -> None:
    random, style = np.random.default_rng(0), choose_style(0, find_session("F").name, "F")
    centers = np.concatenate([simulate_pupil_center(random, style, 300) for _ in range(300)], axis=1)
    np.testing.assert_allclose(centers.mean(axis=1), [151, 156], atol=1)
    assert np.all((centers.std(axis=1) > 3.5) & (centers.std(axis=1) < 5))
