from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sensorium_data.explore  # noqa: F401 (registers the accessor)
from fixtures.explored_sessions import make_session
from sensorium_data.errors import UnknownNameError, UsageError

LENGTHS = [100, 120, 90, 110]


def make_running_session(**arguments):
    rng = np.random.default_rng(2)
    speed = [np.where(rng.random(n) < 0.5, 0.0, rng.gamma(2, 3, n)) for n in LENGTHS]
    dilation = [rng.normal(50, 10, n) for n in LENGTHS]
    behavior = [np.stack(pair) for pair in zip(dilation, speed, strict=True)]
    gains = [np.array([1 + s, np.ones_like(s), 2 - (s > 1)]) for s in speed]
    responses = [rng.gamma(0.5, 4, gain.shape) * gain for gain in gains]
    return make_session(responses, behavior=behavior, **arguments)


def joined(session, positions, variable: str) -> np.ndarray:
    return np.concatenate([session[variable].values[p, :, : LENGTHS[p]] for p in positions], axis=1).astype(float)


def test_stimulus_means_are_over_all_frames_of_a_class() -> None:
    classes = ["NaturalVideo", "Gabor", "NaturalVideo", "PinkNoise"]
    session = make_running_session(stimuli=classes, withheld=[3])
    means = session.sensorium.stimulus_means()
    assert means.stimulus.values.tolist() == ["NaturalVideo", "Gabor", "PinkNoise"]
    np.testing.assert_allclose(means[:, 0], joined(session, [0, 2], "responses").mean(axis=1))
    np.testing.assert_allclose(means[:, 1], joined(session, [1], "responses").mean(axis=1))
    assert np.isnan(means[:, 2]).all()
    assert means.n_trials.values.tolist() == [2, 1, 0]
    later = session.sensorium.stimulus_means(skip_frames=50)
    np.testing.assert_allclose(later[:, 1], session.responses.values[1, :, 50:120].mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(("state", "row", "threshold"), [("running", 1, 1.0), ("pupil", 0, None)])
def test_modulation_compares_frames_above_and_below_a_threshold(state: str, row: int, threshold: float | None) -> None:
    session = make_running_session(broken=[1])
    responses, behavior = (joined(session, [0, 2, 3], name) for name in ("responses", "behavior"))
    limit = np.median(behavior[row]) if threshold is None else threshold
    high = responses[:, behavior[row] > limit].mean(axis=1)
    low = responses[:, behavior[row] <= limit].mean(axis=1)
    found = session.sensorium.modulation(state)
    np.testing.assert_allclose(found.response_high, high)
    np.testing.assert_allclose(found.response_low, low)
    np.testing.assert_allclose(found.modulation_index, (high - low) / (high + low))
    assert found.attrs["threshold"] == pytest.approx(limit)
    assert found.attrs["n_frames_high"] + found.attrs["n_frames_low"] == 300
    assert found.z.values.tolist() == session.z.values.tolist()
    if state == "running":
        assert found.modulation_index.values[0] > 0.3 > 0 > found.modulation_index.values[2]


def test_a_value_at_the_threshold_is_low() -> None:
    session = make_running_session()
    resting = int((joined(session, range(4), "behavior")[1] == 0).sum())
    found = session.sensorium.modulation("running", threshold=0.0)
    assert found.attrs["n_frames_low"] == resting > 60


def test_too_few_frames_of_a_state_are_nan() -> None:
    session = make_running_session()
    found = session.sensorium.modulation("running", threshold=1000.0)
    assert np.isnan(found.response_high).all()
    assert np.isnan(found.modulation_index).all()
    assert np.isfinite(found.response_low).all()


def test_missing_responses_and_behavior_do_not_spread() -> None:
    session = make_running_session().load()
    whole = session.sensorium.modulation("running")
    session.responses[0, 1, 20] = np.nan
    found = session.sensorium.modulation("running")
    is_high = session.behavior.values[0, 1, 20] > 1
    assert np.isnan(found.response_high.values[1]) == is_high
    assert np.isnan(found.response_low.values[1]) != is_high
    np.testing.assert_array_equal(found.modulation_index[[0, 2]], whole.modulation_index[[0, 2]])
    session.behavior[2, 1, :50] = np.nan
    assert session.sensorium.modulation("running").attrs["n_frames_low"] < found.attrs["n_frames_low"]
    means = session.sensorium.stimulus_means()
    assert np.isnan(means.values[1]).all()
    assert np.isfinite(means.values[[0, 2]]).all()


def test_states_and_recordings_without_behavior_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean running"):
        make_running_session().sensorium.modulation("runing")
    with pytest.raises(UsageError, match="no variable behavior"):
        make_session([np.ones((2, 90))]).sensorium.modulation("pupil")
    with pytest.raises(UsageError, match="no trial to measure modulation from: found 4 trials, 4 withheld"):
        make_running_session(withheld=range(4)).sensorium.modulation("pupil")


def test_running_onsets_follow_rest_and_begin_running() -> None:
    speed = np.zeros(200)
    speed[40:60] = 5.0  # an onset
    speed[70:90] = 5.0  # after too short a rest
    speed[130:135] = 5.0  # too short a run
    speed[190:] = 5.0  # cut by the trial's end
    early = np.zeros(200)
    early[10:] = 5.0  # too soon
    behavior = [np.stack([np.full(200, 50.0), s]) for s in (speed, early, speed)]
    session = make_session([np.ones((2, 200))] * 3, behavior=behavior, broken=[2], withheld=[0])
    onsets = session.sensorium.running_onsets()
    assert onsets.to_dict("list") == {"trial": [10], "frame": [40]}
    assert session.sensorium.running_onsets(rest_frames=9).frame.tolist() == [40, 70, 10]
    assert session.sensorium.running_onsets(threshold=9.0).empty
    with pytest.raises(UsageError, match="rest_frames cannot be this: found 0"):
        session.sensorium.running_onsets(rest_frames=0)


def test_an_event_average_is_the_mean_of_the_windows() -> None:
    session = make_running_session(withheld=[3])
    events = pd.DataFrame({"trial": [10, 10, 11, 12, 13], "frame": [20, 97, 118, 30, 50]})
    found = session.sensorium.event_average(events, window=(-5, 2))
    values = session.responses.values
    # The event at 118 of 120 frames lacks the last frame of its window, and trial 13 is withheld.
    expected = np.mean([values[0, :, 15:23], values[0, :, 92:100], values[2, :, 25:33]], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.lag.values.tolist() == list(range(-5, 3))
    np.testing.assert_allclose(found.lag_s, np.arange(-5, 3) / 30)
    assert (found.attrs["n_events"], found.attrs["n_events_given"]) == (3, 5)
    pairs = [(10, 20), (10, 97), (12, 30)]
    np.testing.assert_array_equal(session.sensorium.event_average(pairs, window=(-5, 2)), found)


@pytest.mark.parametrize(
    ("events", "window", "match"),
    [
        ([(99, 5)], (-1, 1), "no such trial: found 99"),
        ([(10, 0)], (-1, 1), "no event to average"),
        ([], (-1, 1), "no event to average.*found 0 events"),
        ([(10, 20.5)], (-1, 1), "no event: found"),
        ([10], (-1, 1), "no event: found 10"),
        ([(10, "x")], (-1, 1), "no event: found"),
        ([(10, 20)], (3, 1), "no window"),
        ([(10, 20)], 5, "no window"),
        (pd.DataFrame({"trial": [1]}), (-1, 1), "no table of events: found columns trial"),
    ],
)
def test_events_that_cannot_be_are_refused(events, window, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make_running_session().sensorium.event_average(events, window)
