"""Simulated neurons answer to what moves where they look, as often as the truth says."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.sessions import Stimulus, find_session
from sensorium_data.simulation.behavior import choose_style, simulate_behavior, simulate_pupil_center
from sensorium_data.simulation.neurons import KINDS, draw_neurons
from sensorium_data.simulation.plan import Movie
from sensorium_data.simulation.population import Population
from sensorium_data.simulation.retina import shift_by_gaze, standardize_luminance
from sensorium_data.simulation.sampling_grid import N_PHASES, expectation_operator
from sensorium_data.simulation.stimuli import render_movie

STYLE = choose_style(find_session("F"))
STILL = np.array([[STYLE.mouse.dilation[0]], [0.0]])


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(draw_neurons(find_session("F"), 60, 0), STYLE, 0)


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


def test_energy_neurons_prefer_a_direction_by_its_weight(population: Population) -> None:
    neurons, (rows, columns, time) = (
        population.neurons,
        np.meshgrid(np.arange(36), np.arange(64), np.arange(60), indexing="ij"),
    )
    tuned = np.flatnonzero((neurons.kind == KINDS.index("energy")) & (np.abs(neurons.direction_weight) > 0.25))
    assert len(tuned) > 2
    for n in tuned:
        angle = neurons.rf_orientation[n]
        along = (columns * np.cos(angle) + rows * np.sin(angle)) / neurons.rf_period[n]
        forward, backward = (
            population.drive(np.cos(2 * np.pi * (along - sign * time / 15)).transpose(2, 0, 1).astype(np.float32))[
                20:, n
            ]
            for sign in (1, -1)
        )
        assert (forward.mean() > backward.mean()) == (neurons.direction_weight[n] > 0)


def test_neurons_are_as_active_and_as_variable_as_was_drawn(population: Population) -> None:
    random = np.random.default_rng(0)
    responses = []
    for k in range(14):
        movie = Movie(f"AF/train/{k}", Stimulus.NATURAL_VIDEO, k)
        rate = population.event_rates(standardize_luminance(render_movie(movie, 300, 0)), at_rest(300))
        responses += [population.respond(rate, random) for _ in range(3)]
    mean, std = (statistic(np.concatenate(responses), axis=0) for statistic in (np.mean, np.std))
    assert np.median(mean / population.neurons.mean_response) == pytest.approx(1, abs=0.12)
    assert np.median(std / mean / population.neurons.variation) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(("alias", "correlation"), [("F", -0.349), ("D", -0.261)])
def test_activity_falls_with_depth_as_in_the_recording(alias: str, correlation: float) -> None:
    neurons = draw_neurons(find_session(alias), 4000, 0)
    found = np.corrcoef(np.log(neurons.mean_response), neurons.positions[:, 2])[0, 1]
    assert found == pytest.approx(correlation, abs=0.05)


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
    busy = expected > 0.02 * population.amplitude
    assert busy.sum() > 500
    assert np.mean(np.abs(error[busy]) < 4) > 0.99
    assert abs(np.mean(error[busy])) < 0.5


def test_responses_have_the_floor_of_deconvolution(population: Population) -> None:
    silence = population.respond(np.zeros((300, 60), np.float32), np.random.default_rng(0))
    assert silence.dtype == np.float64
    assert -3.1e-7 <= silence.min() < 0
    medians = np.median(silence, axis=0)
    assert 0.8 < np.mean(medians < 1e-6) < 1
    assert 1e-8 < np.median(medians) < 1e-6
    assert np.mean(silence < 0) < 0.01


def test_neighboring_frames_are_not_independent() -> None:
    operator = expectation_operator(300)
    np.testing.assert_allclose(operator.sum(axis=1), 1.0, rtol=1e-5)
    assert np.count_nonzero(operator[150] > 1e-6) >= 8, "activity was acquired at 8 Hz and put on 30 Hz"
    assert N_PHASES > 1


def test_gaze_shifts_the_stimulus(video: np.ndarray) -> None:
    pupil = np.repeat(STYLE.pupil_mean[:, None], 300, axis=1)
    np.testing.assert_allclose(shift_by_gaze(video, pupil, STYLE), video, atol=1e-4)
    pupil[0] += 1 / 0.16
    shifted = shift_by_gaze(video, pupil, STYLE)
    np.testing.assert_allclose(shifted[:, :, :-1], video[:, :, 1:], atol=1e-3)


@pytest.mark.parametrize(
    ("alias", "running_mean", "running_std", "dilation_mean", "dilation_std"),
    [("A", 5.55, 8.74, 53.6, 14.8), ("F", 0.302, 1.65, 39.8, 16.1), ("E", 2.24, 5.0, 51.1, 16.1)],
)
def test_behavior_has_the_recordings_statistics(
    alias: str, running_mean: float, running_std: float, dilation_mean: float, dilation_std: float
) -> None:
    style = choose_style(find_session(alias))
    dilation, running = simulate_behavior(np.random.default_rng(0), style, 222_000)
    assert dilation.mean() == pytest.approx(dilation_mean, rel=0.05)
    assert dilation.std() == pytest.approx(dilation_std, rel=0.05)
    assert running.mean() == pytest.approx(running_mean, rel=0.15)
    assert running.std() == pytest.approx(running_std, rel=0.15)
    assert np.median(running) < 0.1
    assert running.min() == 0 or running.min() < 0.001
    lagged = [np.corrcoef(trace[1:], trace[:-1])[0, 1] for trace in (dilation, running)]
    assert min(lagged) > 0.95, "smooth in time"
    minutes = dilation[: 1800 * (len(dilation) // 1800)].reshape(-1, 1800).mean(axis=1)
    assert minutes.std() > 0.3 * dilation_std, "some minutes differ from others"


def test_the_pupil_lies_where_the_recorded_mouses_did() -> None:
    centers = simulate_pupil_center(np.random.default_rng(0), STYLE, 222_000)
    np.testing.assert_allclose(centers.mean(axis=1), [155.8, 151.5], atol=1)
    np.testing.assert_allclose(centers.std(axis=1), [3.95, 4.5], atol=0.5)
