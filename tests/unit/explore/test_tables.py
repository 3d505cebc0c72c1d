from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sensorium_data.explore  # noqa: F401 (registers the accessor)
from fixtures.explored_sessions import make_session
from sensorium_data.errors import UsageError

RNG = np.random.default_rng(0)
LENGTHS = [40, 50, 50, 30, 60]
BEHAVIOR = [RNG.gamma(2, 10, (2, n)) for n in LENGTHS]


def make_small_session(**arguments):
    given = {
        "behavior": BEHAVIOR,
        "tiers": ["train", "oracle", "oracle", "live_test_main", "train"],
        "stimuli": ["NaturalVideo"] * 4 + ["Gabor"],
        "movies": ["a", "b", "b", "c", "d"],
        "withheld": [3],
        "broken": [4],
        "presentation": [3, 1, 0, -1, 2],
        "onset": [9.0, 4.0, 0.0, np.nan, 7.0],
    }
    return make_session([np.ones((3, n)) for n in LENGTHS], **(given | arguments))


def test_trials_are_a_table_with_means_of_behavior() -> None:
    table = make_small_session().sensorium.trials
    assert table.index.tolist() == [10, 11, 12, 13, 14]
    assert table.index.name == "trial"
    assert table.repeats.tolist() == [1, 2, 2, 1, 1]
    assert table.withheld.tolist() == [False, False, False, True, False]
    assert table.valid.tolist() == [True, True, True, True, False]
    assert table.presentation.tolist() == [3, 1, 0, -1, 2]
    assert table.tier.tolist()[3] == "live_test_main"
    assert table.n_frames.tolist() == LENGTHS
    dilation, speed = np.array([one.mean(axis=1) for one in BEHAVIOR]).T
    np.testing.assert_allclose(table.running_speed[:4], speed[:4], rtol=1e-5)
    np.testing.assert_allclose(table.pupil_dilation[:4], dilation[:4], rtol=1e-5)
    assert table.loc[14, ["running_speed", "pupil_dilation"]].isna().all()


def test_behavior_that_ends_early_counts_to_its_end_and_a_gap_is_nan() -> None:
    session = make_small_session().load()
    session.behavior[0, :, 37:] = np.nan
    session.behavior[1, 1, 20] = np.nan
    table = session.sensorium.trials
    assert table.running_speed[10] == pytest.approx(BEHAVIOR[0][1, :37].mean(), rel=1e-5)
    assert np.isnan(table.running_speed[11])
    assert table.pupil_dilation[11] == pytest.approx(BEHAVIOR[1][0].mean(), rel=1e-5)


def test_repeats_count_over_the_movies_group_and_a_nameless_movie_is_alone() -> None:
    session = make_small_session(movies=["", "b", "c", "", "d"])
    session = session.assign_coords(movie_group=("trial", ["", "z", "z", "", "z"]))
    assert session.sensorium.trials.repeats.tolist() == [1, 3, 3, 1, 3]


def test_a_session_without_behavior_and_positions_has_tables_too() -> None:
    session = make_small_session(behavior=None).drop_vars(["x", "y", "z"])
    assert session.sensorium.trials.running_speed.isna().all()
    assert session.sensorium.neurons[["x", "y", "z"]].isna().all(axis=None)


def test_neurons_are_a_table_with_positions_and_reliability() -> None:
    rng = np.random.default_rng(1)
    session = make_session([rng.random((3, 80)) for _ in range(3)], movies=["a"] * 3)
    table = session.sensorium.neurons
    assert table.index.tolist() == [3, 5, 7]
    assert table.z.tolist() == [200.0, 225.0, 250.0]
    np.testing.assert_array_equal(table.reliability, session.sensorium.reliability())


def test_changing_a_table_changes_nothing_else() -> None:
    session = make_small_session()
    table = session.sensorium.trials
    table["tier"] = "changed"
    assert session.sensorium.trials.tier.tolist()[0] == "train"


def test_a_description_counts_trials_by_tier_and_stimulus() -> None:
    table = make_small_session().sensorium.describe()
    assert table.index.tolist() == [
        ("train", "Gabor"), ("train", "NaturalVideo"), ("oracle", "NaturalVideo"), ("live_test_main", "NaturalVideo")
    ]  # fmt: skip
    oracle = table.loc[("oracle", "NaturalVideo")]
    assert oracle[["trials", "movies", "most_repeats", "shortest", "longest", "withheld", "broken"]].tolist() == [
        2, 1, 2, 50, 50, 0, 0
    ]  # fmt: skip
    assert table.withheld.tolist() == [0, 0, 0, 1]
    assert table.broken.tolist() == [1, 0, 0, 0]
    assert table.longest.tolist() == [0, 40, 50, 30]
    assert isinstance(table, pd.DataFrame)


def test_by_presentation_sorts_and_tells_the_time_of_every_frame() -> None:
    session = make_small_session()
    ordered = session.sensorium.by_presentation()
    assert ordered.trial.values.tolist() == [12, 11, 14, 10]
    assert ordered.responses.chunks is not None
    time = ordered.session_time.values
    assert ordered.session_time.dims == ("trial", "time")
    np.testing.assert_allclose(time[1, :50], 4.0 + np.arange(50) / 29.967)
    assert np.isnan(time[1, 50:]).all()
    cut = session.isel(time=slice(10, None)).sensorium.by_presentation()
    assert cut.session_time.values[0, 0] == pytest.approx(10 / 29.967)


def test_an_unknown_order_is_an_error() -> None:
    for session in (make_session([np.ones((2, 9))]), make_session([np.ones((2, 9))]).drop_vars("presentation")):
        with pytest.raises(UsageError, match="the order of presentation is not known"):
            session.sensorium.by_presentation()
