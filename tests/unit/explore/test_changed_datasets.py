"""Datasets that users changed by xarray's own methods: the same numbers, or an error that says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import sensorium_data.explore  # noqa: F401 (registers the accessor)
from fixtures.explored_sessions import make_session
from sensorium_data.errors import SensoriumError, UsageError

N_TRIALS, N_FRAMES = 6, 60
TRIAL, NEURON = 10, 3

Call = Callable[[Any], Any]

MEASURES: list[Call] = [
    lambda s: s.reliability(skip_frames=5),
    lambda s: s.signal_to_noise(skip_frames=5),
    lambda s: s.stimulus_means(),
    lambda s: s.modulation("running"),
    lambda s: s.receptive_fields(lags=[0, 2]),
    lambda s: s.event_average([(11, 20), (12, 30)], (-3, 4)),
    lambda s: s.running_onsets(rest_frames=2, run_frames=2),
    lambda s: s.trials,
]


def make_changeable() -> xr.Dataset:
    rng = np.random.default_rng(4)
    session = make_session(
        [rng.gamma(1, 2, (4, N_FRAMES)) for _ in range(N_TRIALS)],
        videos=[rng.uniform(0, 255, (N_FRAMES, 4, 6)) for _ in range(N_TRIALS)],
        behavior=[rng.gamma(1, 2, (2, N_FRAMES)) for _ in range(N_TRIALS)],
        movies=["a", "a", "b", "b", "b", "c"],
        n_padded=N_FRAMES,
    )
    return session


@pytest.fixture(scope="module")
def session() -> xr.Dataset:
    return make_changeable()


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, xr.DataArray | xr.Dataset):
        xr.testing.assert_allclose(found, expected)
    else:
        # The table tells the trial's own length; what is measured goes by the frames that are there.
        assert found.drop(columns="n_frames", errors="ignore").equals(
            expected.drop(columns="n_frames", errors="ignore")
        )


@pytest.mark.parametrize("measure", MEASURES)
def test_the_order_of_the_dimensions_does_not_matter(measure: Call, session: xr.Dataset) -> None:
    turned = session.transpose("neuron", "time", "width", "behavior_channel", "trial", "height")
    assert_same(measure(turned.sensorium), measure(session.sensorium))


@pytest.mark.parametrize("measure", MEASURES)
def test_frames_that_are_cut_away_at_the_end_do_not_count(measure: Call, session: xr.Dataset) -> None:
    short = session.isel(time=slice(0, 40))
    padded = session.assign_coords(n_frames=("trial", np.full(N_TRIALS, 40)))
    assert_same(measure(short.sensorium), measure(padded.sensorium))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kept", [slice(5, None), slice(None, None, 2), [3, 0, 1]])
def test_frames_that_are_cut_away_at_the_start_are_refused(measure: Call, kept: Any, session: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="cut away"):
        measure(session.isel(time=kept).sensorium)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_time_axis_without_frames_is_refused(measure: Call, session: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="holds no frame"):
        measure(session.isel(time=[]).sensorium)


def test_a_trial_whose_start_is_cut_away_keeps_its_valid_frames(session: xr.Dataset) -> None:
    lengths = np.full(N_TRIALS, 40)
    later = session.assign_coords(n_frames=("trial", lengths)).isel(time=slice(5, None))
    frames = np.rint(later.sensorium.trial_block(TRIAL).time.values * 30).astype(int)
    assert frames.tolist() == list(range(5, 40))
    assert later.sensorium.repeats("a").sizes["time"] == 35


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_replaced_variable_is_measured_anew(in_memory: bool) -> None:
    session = make_changeable()
    rng = np.random.default_rng(8)
    if in_memory:
        session = session.load()
    before, trials = session.sensorium.reliability(skip_frames=50), session.sensorium.trials
    noise = xr.DataArray(rng.normal(size=session.responses.shape).astype(np.float32), dims=session.responses.dims)
    session["responses"] = noise if in_memory else noise.chunk({"trial": 1})
    fresh = session.copy()
    after = session.sensorium.reliability(skip_frames=50)
    assert not np.allclose(before, after)
    xr.testing.assert_allclose(after, fresh.sensorium.reliability(skip_frames=50))
    assert session.sensorium.neurons.reliability.tolist() == pytest.approx(after.values.tolist())
    session["behavior"] = session.behavior * 2
    assert session.sensorium.trials.running_speed.tolist() == pytest.approx((trials.running_speed * 2).tolist())
    session["responses_withheld"] = ("trial", [True] * N_TRIALS)
    assert session.sensorium.trials.withheld.all()
    assert session.sensorium.describe().withheld.sum() == N_TRIALS
    with pytest.raises(UsageError, match="no repeats"):
        session.sensorium.reliability(skip_frames=50)


def test_values_changed_in_place_are_measured_anew() -> None:
    session = make_changeable().load()
    before = session.sensorium.reliability(skip_frames=50)
    session.responses.values[:] = np.random.default_rng(1).normal(size=session.responses.shape)
    assert not np.allclose(before, session.sensorium.reliability(skip_frames=50))


@pytest.mark.parametrize(
    "measure",
    [
        lambda s: s.event_average([(11, 20)], (-3, 4)),
        lambda s: s.trial_block(11),
        lambda s: s.running_onsets(),
        lambda s: s.tuning(),
    ],
)
def test_equal_trial_ids_are_refused(measure: Call, session: xr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"more than once.*found (10|11)"):
        measure(xr.concat([session, session], "trial").sensorium)


def test_equal_unit_ids_are_refused(session: xr.Dataset) -> None:
    twice = xr.concat([session, session], "neuron", data_vars="minimal", coords="minimal", compat="override")
    with pytest.raises(UsageError, match="more than once"):
        twice.sensorium.traces(NEURON)


def test_values_that_where_replaced_are_refused_with_the_reason(session: xr.Dataset) -> None:
    blank = session.where(session.movie != "a")
    with pytest.raises(UsageError, match=r"no response is known.*drop=True"):
        blank.sensorium.stimulus_means()
    left = session.where((session.movie != "a").compute(), drop=True)
    assert left.sensorium.stimulus_means().n_trials.values.tolist() == [4]


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda d: d.isel(trial=0), "dimension trial"),
        (lambda d: d.isel(neuron=0), "dimension neuron"),
        (lambda d: d.mean("neuron"), "dimension neuron"),
        (lambda d: d.rename(neuron="cell"), "dimension neuron"),
        (lambda d: d.drop_vars("responses"), "variable responses"),
        (lambda d: d.drop_vars("valid"), "coordinate valid"),
        (lambda d: d.drop_vars("responses_withheld"), "coordinate responses_withheld"),
        (lambda d: d.drop_vars("time"), "coordinate time"),
        (lambda d: d.drop_vars("n_frames"), "coordinate n_frames"),
        (lambda d: xr.Dataset(), "no variable responses"),
    ],
)
def test_what_a_measure_misses_is_named(change: Call, missing: str, session: xr.Dataset) -> None:
    changed = change(session)
    for measure in MEASURES[:3]:
        with pytest.raises(UsageError, match=missing):
            measure(changed.sensorium)


@pytest.mark.parametrize(
    ("change", "call", "missing"),
    [
        (lambda d: d.isel(trial=0), lambda s: s.trials, "dimension trial"),
        (lambda d: d.isel(trial=0), lambda s: s.select(), "dimension trial"),
        (lambda d: d.isel(trial=0), lambda s: s.trial_block(TRIAL), "dimension trial"),
        (lambda d: d.isel(trial=0), lambda s: s.tuning(), "dimension trial"),
        (lambda d: d.drop_vars("videos"), lambda s: s.receptive_fields(), "no variable videos"),
        (lambda d: d.drop_vars("responses"), lambda s: s.traces(NEURON), "variable responses"),
        (lambda d: d.drop_vars("trial"), lambda s: s.tuning(), "coordinate trial"),
        (lambda d: d.drop_vars("stimulus"), lambda s: s.select(stimulus="Gabor"), "coordinate stimulus"),
        (lambda d: d.isel(neuron=[]), lambda s: s.receptive_fields(method="ridge"), "no neuron"),
        (lambda d: d.rename(neuron="cell"), lambda s: s.neurons, "dimension neuron"),
        (lambda d: d.rename(neuron="cell"), lambda s: s.traces(NEURON), "dimension neuron"),
    ],
)
def test_what_a_call_misses_is_named(change: Call, call: Call, missing: str, session: xr.Dataset) -> None:
    with pytest.raises(UsageError, match=missing):
        call(change(session).sensorium)


def test_labels_may_come_from_the_dataset(session: xr.Dataset) -> None:
    s = session.sensorium
    for label in (session.trial[1], session.trial.values[1], np.float64(11), np.array(11)):
        assert int(s.trial_block(label).trial) == 11
    assert s.repeats(session.movie[0]).trial.values.tolist() == [10, 11]
    assert s.select(movie=session.movie[0]).trial.values.tolist() == [10, 11]
    assert s.select(movie=session.movie[1:4]).trial.values.tolist() == [10, 11, 12, 13, 14]
    assert s.select(tier=session.tier[:3]).sizes["trial"] == N_TRIALS
    expected = s.receptive_fields([5, 9], [1])
    for labels in (session.neuron[[1, 3]], session.neuron.values[[1, 3]], session.indexes["neuron"][[1, 3]]):
        xr.testing.assert_equal(s.receptive_fields(labels, [1]), expected)
    assert s.receptive_fields(session.neuron[1], [1]).neuron.values.tolist() == [5]
    assert s.reliability(tier=["oracle"], skip_frames=5).equals(s.reliability(skip_frames=5))


WRONG: list[Call] = [
    lambda s: s.receptive_fields([3.7], [1]),
    lambda s: s.receptive_fields("35", [1]),
    lambda s: s.receptive_fields(["3"], [1]),
    lambda s: s.receptive_fields([True, False, True, False], [1]),
    lambda s: s.receptive_fields(np.array([True, False, True, False]), [1]),
    lambda s: s.receptive_fields(slice(0, 3)),
    lambda s: s.receptive_fields(penalty="1", method="ridge"),
    lambda s: s.receptive_fields(bin_pixels=True),
    lambda s: s.receptive_fields(bin_pixels=1.5),
    lambda s: s.receptive_fields(method=None),
    lambda s: s.receptive_fields(lags=[True]),
    lambda s: s.receptive_fields({"a": 3}, [1]),
    lambda s: s.select(tier={"oracle": 1}.values()),
    lambda s: s.plot_map([[1], [1, 2]]),
    lambda s: s.select(tier=5),
    lambda s: s.select(movie=3),
    lambda s: s.select(stimulus=[3]),
    lambda s: s.select(valid="no"),
    lambda s: s.select(min_reliability="a"),
    lambda s: s.select(min_reliability=np.nan),
    lambda s: s.repeats(3),
    lambda s: s.repeats(["a", "b"]),
    lambda s: s.modulation(None),
    lambda s: s.modulation(threshold="1"),
    lambda s: s.modulation(threshold=np.nan),
    lambda s: s.responses_standardized(None),
    lambda s: s.traces([3, 5]),
    lambda s: s.traces(True),
    lambda s: s.trial_block("10"),
    lambda s: s.trial_block(10.5),
    lambda s: s.stimulus_means(skip_frames=1.5),
    lambda s: s.reliability(skip_frames="5"),
    lambda s: s.reliability(tier=5),
    lambda s: s.tuning(delay_frames=1.5),
    lambda s: s.tuning(n_permutations=10.5),
    lambda s: s.tuning(seed=-1),
    lambda s: s.tuning(None),
    lambda s: s.running_onsets(rest_frames=10.5),
    lambda s: s.running_onsets(threshold=None),
    lambda s: s.event_average(None),
    lambda s: s.event_average([(10, np.inf)]),
    lambda s: s.event_average([(10, True)]),
    lambda s: s.event_average(["10"]),
    lambda s: s.plot_frames(TRIAL, True),
]


@pytest.mark.parametrize("call", WRONG)
def test_an_argument_of_a_wrong_type_is_an_error_of_ours(call: Call, session: xr.Dataset) -> None:
    with pytest.raises(SensoriumError):
        call(session.sensorium)


def test_text_is_shown_in_quotes_and_a_mask_is_called_one(session: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="found '10'"):
        session.sensorium.trial_block("10")
    with pytest.raises(UsageError, match="a mask"):
        session.sensorium.receptive_fields(np.array([True, False, True, False]), [1])


def test_numpys_whole_numbers_count_as_such(session: xr.Dataset) -> None:
    fields = session.sensorium.receptive_fields([3], np.arange(2), bin_pixels=np.int64(2))
    assert fields.sizes["width"] == 3
    assert session.sensorium.stimulus_means(skip_frames=np.int64(3)).equals(
        session.sensorium.stimulus_means(skip_frames=3)
    )


def test_responses_are_not_normalized_twice(session: xr.Dataset) -> None:
    done = session.assign(responses=session.responses.assign_attrs(normalization="competition"))
    with pytest.raises(UsageError, match="normalized already: found normalization competition"):
        done.sensorium.responses_standardized()


def test_a_delay_longer_than_the_trials_is_named(session: xr.Dataset) -> None:
    frames, columns = np.arange(50)[:, None, None], np.arange(64)
    video = 128 + 60 * np.cos(2 * np.pi * (columns / 8 - frames / 15)) * np.ones((50, 36, 64))
    shown = make_session([np.ones((2, 50))], videos=[video], stimuli=["Gabor"])
    with pytest.raises(UsageError, match="delay_frames 500, and trials of at most 50 frames"):
        shown.sensorium.tuning(delay_frames=500)


def test_trials_of_joined_sessions_are_not_called_one_session(session: xr.Dataset) -> None:
    assert repr(session.sensorium).startswith("<session B (")
    joined = xr.concat([session, session], "trial")
    assert repr(joined.sensorium).startswith("<joined recordings: 12 trials, 4 neurons>")


def test_the_table_of_neurons_lacks_a_reliability_only_without_repeats_or_responses(session: xr.Dataset) -> None:
    assert session.drop_vars("responses").sensorium.neurons.reliability.isna().all()
    assert session.isel(trial=[0, 2, 5]).sensorium.neurons.reliability.isna().all()
    with pytest.raises(UsageError, match="cut away"):
        _ = session.isel(time=slice(5, None)).sensorium.neurons
