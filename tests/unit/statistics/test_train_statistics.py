from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fixtures.recorded_stores import Recorded, record_session
from sensorium_data import schema
from sensorium_data.errors import StoreError, UnknownNameError, UsageError
from sensorium_data.sessions import Tier
from sensorium_data.statistics.train_statistics import TRAIN_STATISTICS, compute_train_statistics

ORACLES = {"mean": np.nanmean, "std": np.nanstd, "min": np.nanmin, "max": np.nanmax}
VARIABLES = ("videos", "responses", "behavior", "pupil_center")
# More trials than are in memory at once; one short, one broken, and frames that no train trial has.
N_BY_TIER = {"train": 11, "oracle": 3, "live_test_main": 4}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recorded]:
    store = tmp_path_factory.mktemp("statistics")
    return str(store), record(store)


@pytest.fixture(scope="module")
def over_trials(recorded: tuple[str, Recorded]) -> xr.Dataset:
    return compute_train_statistics(recorded[0], "F")


@pytest.fixture(scope="module")
def overall(recorded: tuple[str, Recorded]) -> xr.Dataset:
    return compute_train_statistics(recorded[0], "F", axes="trials and time")


def record(store: Path, **options: object) -> Recorded:
    lengths = {4: 7, 9: 9, 12: 15}
    return record_session(store, "F", n_by_tier=N_BY_TIER, n_frames=12, lengths=lengths, broken=(6,), seed=4, **options)


def select(recorded: Recorded, tier: str = "train") -> np.ndarray:
    return np.array([t == tier and valid for t, valid in zip(recorded.tiers, recorded.valid, strict=True)])


def with_numpy(statistic: str, values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    with warnings.catch_warnings():
        # Frames that no trial has.
        warnings.simplefilter("ignore", RuntimeWarning)
        return ORACLES[statistic](values.astype(np.float64), axis=axis)


@pytest.mark.parametrize("variable", VARIABLES)
def test_over_trials_every_frame_has_its_own_statistics(
    variable: str, recorded: tuple[str, Recorded], over_trials: xr.Dataset
) -> None:
    train, (_, made) = over_trials, recorded
    values = getattr(made, variable)[select(made)]
    assert train[variable].dims == ("statistic", *schema.VARIABLES[variable].dims[1:])
    for statistic in TRAIN_STATISTICS:
        found = train[variable].sel(statistic=statistic).values
        np.testing.assert_allclose(found, with_numpy(statistic, values, 0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variable", VARIABLES)
def test_over_trials_and_time_the_frame_axis_is_gone(
    variable: str, recorded: tuple[str, Recorded], overall: xr.Dataset
) -> None:
    train, (_, made) = overall, recorded
    values = getattr(made, variable)[select(made)]
    dims = schema.VARIABLES[variable].dims
    assert train[variable].dims == ("statistic", *(dim for dim in dims if dim not in ("trial", "time")))
    for statistic in TRAIN_STATISTICS:
        expected = ORACLES[statistic](values.astype(np.float64), axis=(0, dims.index("time")))
        np.testing.assert_allclose(train[variable].sel(statistic=statistic).values, expected, rtol=1e-12)


def test_luminance_is_of_all_pixels_together(recorded: tuple[str, Recorded], overall: xr.Dataset) -> None:
    train, (_, made) = overall, recorded
    pixels = made.videos[select(made)].astype(np.float64)
    for statistic in TRAIN_STATISTICS:
        np.testing.assert_allclose(train.luminance.sel(statistic=statistic), ORACLES[statistic](pixels), rtol=1e-12)


def test_labels_say_what_was_counted(
    recorded: tuple[str, Recorded], over_trials: xr.Dataset, overall: xr.Dataset
) -> None:
    train, (_, made) = over_trials, recorded
    assert train.attrs["n_trials"] == train.attrs["n_trials_with_responses"] == select(made).sum() == 10
    assert train.statistic.values.tolist() == ["mean", "std", "min", "max"]
    np.testing.assert_array_equal(train.neuron.values, made.unit_ids)
    assert train.behavior_channel.values.tolist() == list(schema.BEHAVIOR_CHANNELS)
    assert "time" not in overall.dims


def test_withheld_responses_are_not_counted_and_their_videos_are(
    recorded: tuple[str, Recorded], overall: xr.Dataset
) -> None:
    store, made = recorded
    both = compute_train_statistics(store, "F", tiers=(Tier.TRAIN, Tier.LIVE_TEST_MAIN), axes="trials and time")
    np.testing.assert_allclose(both.responses, overall.responses, rtol=1e-13)
    chosen = select(made) | select(made, "live_test_main")
    np.testing.assert_allclose(both.luminance.sel(statistic="mean"), np.nanmean(made.videos[chosen], dtype=np.float64))
    assert both.attrs["n_trials"] == chosen.sum()
    assert both.attrs["n_trials_with_responses"] == 10
    withheld = compute_train_statistics(store, "F", tiers=(Tier.LIVE_TEST_MAIN,))
    assert withheld.responses.isnull().all()


def test_threads_change_no_bit(recorded: tuple[str, Recorded], over_trials: xr.Dataset, overall: xr.Dataset) -> None:
    for several in (over_trials, overall):
        one = compute_train_statistics(recorded[0], "F", axes=several.attrs["axes"], jobs=1)
        for name in one.data_vars:
            assert one[name].values.tobytes() == several[name].values.tobytes()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.0625), ("float64", 0.0)])
def test_the_stored_precision_changes_nothing_but_the_precision(
    dtype: str, tolerance: float, over_trials: xr.Dataset, overall: xr.Dataset, tmp_path: Path
) -> None:
    record(tmp_path, dtypes={"videos": dtype})
    for expected in (over_trials, overall):
        found = compute_train_statistics(str(tmp_path), "F", axes=expected.attrs["axes"])
        assert found.videos.dtype == np.float64
        # Half of float16's step below 256.
        np.testing.assert_allclose(found.videos, expected.videos, rtol=0, atol=tolerance)
        assert found.videos.equals(expected.videos) == (dtype == "float64")
        assert found.responses.equals(expected.responses)


def test_a_neuron_far_from_zero_keeps_its_spread(tmp_path: Path) -> None:
    def far(arrays: dict[str, np.ndarray]) -> None:
        spread = np.random.default_rng(0).normal(0, 1, arrays["responses"].shape)
        arrays["responses"] = np.where(np.isnan(arrays["responses"]), np.nan, 1e9 + spread)

    made = record_session(
        tmp_path, "A", n_by_tier={"train": 20}, n_frames=9, dtypes={"responses": "float64"}, change=far
    )
    std = compute_train_statistics(str(tmp_path), "A", axes="trials and time").responses.sel(statistic="std")
    # The mean of squares less the square of the mean is off by a hundred percent here.
    np.testing.assert_allclose(std, np.nanstd(made.responses, axis=(0, 2)), rtol=1e-6)


def test_what_never_changes_has_no_spread(tmp_path: Path) -> None:
    def still(arrays: dict[str, np.ndarray]) -> None:
        arrays["behavior"][:, 1] = np.where(np.isnan(arrays["behavior"][:, 1]), np.nan, 0.1)

    record_session(tmp_path, "A", n_by_tier={"train": 20}, n_frames=9, dtypes={"behavior": "float64"}, change=still)
    per_frame, overall = (
        compute_train_statistics(str(tmp_path), "A", axes=axes).behavior.sel(statistic="std")
        for axes in ("trials", "trials and time")
    )
    assert overall.values[0] > 0
    assert overall.values[1] == 0
    assert (per_frame.values[1, :9] == 0).all()


def test_a_value_that_is_missing_is_no_statistic(tmp_path: Path) -> None:
    def lose(arrays: dict[str, np.ndarray]) -> None:
        arrays["responses"][0, 0, 3] = np.nan

    made = record_session(tmp_path, "A", n_by_tier={"train": 3}, n_frames=9, change=lose)
    with pytest.raises(StoreError, match=rf"trial {made.trials[0]}.*responses.*found 1 of"):
        compute_train_statistics(str(tmp_path), "A")


def test_unknown_axes_and_empty_tiers_are_refused(recorded: tuple[str, Recorded]) -> None:
    store, _ = recorded
    with pytest.raises(UnknownNameError, match="did you mean trials"):
        compute_train_statistics(store, "F", axes="trial")
    with pytest.raises(UsageError, match=r"no valid trial of tier final_test_bonus.*oracle"):
        compute_train_statistics(store, "F", tiers=(Tier.FINAL_TEST_BONUS,))


def test_progress_counts_trials(recorded: tuple[str, Recorded]) -> None:
    store, _ = recorded
    told: list[tuple[object, ...]] = []
    compute_train_statistics(store, "F", progress=lambda *call: told.append(call))
    assert told == [("statistics of F", 0, 10), ("statistics of F", 8, 10), ("statistics of F", 10, 10)]
