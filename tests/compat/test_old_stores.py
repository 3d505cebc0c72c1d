"""Stores that earlier versions wrote are read as they were meant: one lies here for each version of the schema.

``predictions-2`` are predictions of the run and the store in ``run-1``, written by the second version.

``python tests/compat/test_old_stores.py`` writes the one of this version, once, when the version is raised.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sensorium_data.ingest import convert_session, verify_session
from sensorium_data.movies import link_movies
from sensorium_data.predictions import StandardizedPredictions, open_predictions
from sensorium_data.schema import SCHEMA_VERSION
from sensorium_data.sessions import Tier, find_session
from sensorium_data.store import Precision, open_session, open_statistics, open_store
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

HERE = Path(__file__).parent
TIERS = ["train", "oracle", "oracle", "none", "live_test_main"]


def recorded() -> Recording:
    """What every store here was made from: never to be changed."""
    return make_recording("F", TIERS, movies={1: 9, 2: 9}, n_frames={0: 3, 1: 4, 2: 4, 4: 5}, n_padded=5, n_neurons=2)


@pytest.mark.parametrize("path", sorted(HERE.glob("store-*")), ids=lambda path: path.name)
def test_a_store_of_an_earlier_version_is_read(path: Path) -> None:
    recording = recorded()
    assert verify_session(str(path), "F").passed
    dataset = open_session(str(path), "F").load()
    assert dataset.tier.values.tolist() == [tier for tier in TIERS if tier != "none"]
    assert dataset.responses_withheld.values.tolist() == [False, False, False, True]
    assert dataset.movie.values.tolist() == [f"29515-10-12:{trial}" for trial in (0, 1, 1, 4)]
    assert dataset.movie_group.values.tolist() == dataset.movie.values.tolist()
    # The archive holds no numbers of its trials, and the second version said nothing of them.
    assert dataset.presentation.values.tolist() == [-1] * 4
    assert dataset.onset.isnull().all()
    assert dataset.trial_idx.values.tolist() == [""] * 4
    np.testing.assert_array_equal(dataset.neuron, recording.unit_ids)
    for number, n_frames in {0: 3, 1: 4, 2: 4, 4: 5}.items():
        block = dataset.sel(trial=number)
        assert block.n_frames == n_frames
        for name, array in recording.trials[number].arrays().items():
            if name == "responses" and number == 4:
                assert block.responses.isnull().all()
                continue
            expected = array.copy()
            expected[..., n_frames:] = np.nan
            stored = block[name].transpose("height", "width", "time") if name == "videos" else block[name]
            tolerance = {} if dataset.attrs["precision"] == "exact" else {"rtol": 2.0**-11, "atol": 1 / 31}
            np.testing.assert_allclose(stored, expected.astype(np.float32), **{"rtol": 0, **tolerance})
    std = open_statistics(str(path), "F").responses.sel(statistic="std")
    np.testing.assert_array_equal(std, recording.statistics["responses", "std"].astype(np.float32))
    signatures = open_store(str(path)).signatures("F")
    assert signatures is not None
    assert signatures.shape[:2] == (4, 5)


def test_a_session_of_an_earlier_version_is_done_and_linked_with_one_of_this(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    shutil.copytree(HERE / "store-2-exact", store)
    recorded().write(tmp_path / "archives")
    other = make_recording("A", TIERS, movies={1: 3, 2: 9}, n_frames={0: 3, 1: 4, 2: 4, 4: 5}, n_padded=5, n_neurons=2)
    other.write(tmp_path / "archives")
    done, new = (
        convert_session(recording.session, store, source=str(tmp_path / "archives"))
        for recording in (recorded(), other)
    )
    assert (done.status, new.status) == ("already done", "converted")
    link_movies(store)
    first, second = (open_session(store, alias) for alias in "FA")
    assert (first.attrs["schema_version"], second.attrs["schema_version"]) == (2, SCHEMA_VERSION)
    assert set(first.coords) == set(second.coords)
    assert first.movie.values[1] == first.movie.values[2] == "29515-10-12:1"
    assert first.movie_group.values[1] == first.movie_group.values[2] == second.movie_group.values[2] == "29156-11-10:2"
    joined = xr.concat([first.isel(neuron=[0]), second.isel(neuron=[0])], "trial", join="override")
    assert joined.presentation.values.tolist() == [-1] * 4 + [0, 1, 2, 4]


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_a_changed_archive_makes_a_version_of_this_schema_of_a_session_of_an_earlier_one(
    precision: str, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    shutil.copytree(HERE / f"store-2-{precision}", store)
    before = open_session(store, "F").load()
    recording = recorded()
    changed = recording.with_trial(0, behavior=recording.trials[0].behavior + 1)
    changed.write(tmp_path / "archives")
    assert convert_session(changed.session, store, source=str(tmp_path / "archives")).status == "updated"
    assert verify_session(store, "F").passed
    after = open_session(store, "F").load()
    assert after.attrs["schema_version"] == SCHEMA_VERSION
    for variable in ("videos", "responses", "pupil_center"):
        np.testing.assert_array_equal(after[variable], before[variable])


def test_predictions_of_an_earlier_version_are_read_beside_their_recording() -> None:
    predictions, store = str(HERE / "predictions-2"), open_store(str(HERE / "run-1" / "store"))
    predicted, recorded = open_predictions(predictions, "F"), store["F"]
    np.testing.assert_array_equal(predicted.trial, recorded.trial[recorded.tier == "oracle"])
    source = StandardizedPredictions(predictions, store, find_session("F"))
    assert source.trials(Tier.ORACLE) == predicted.trial.values.tolist()
    for trial in predicted.trial.values.tolist():
        first, n_frames = source.n_frames(trial) - 1, source.n_frames(trial)
        values = source.read(trial, range(first, n_frames))
        np.testing.assert_array_equal(values, predicted.predictions.sel(trial=trial)[:, first:n_frames])
        assert source.label(trial, "movie_group") == recorded.movie_group.sel(trial=trial)


def test_there_is_a_store_of_this_version() -> None:
    assert {path.name for path in HERE.glob(f"store-{SCHEMA_VERSION}-*")} == {
        f"store-{SCHEMA_VERSION}-{precision}" for precision in ("exact", "compact")
    }


if __name__ == "__main__":
    archives = Path(sys.argv[1])
    recorded().write(archives)
    for precision in (Precision.EXACT, Precision.COMPACT):
        store = HERE / f"store-{SCHEMA_VERSION}-{precision}"
        convert_session(recorded().session, str(store), source=str(archives), precision=precision)
        link_movies(str(store))
