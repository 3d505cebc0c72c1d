from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

from fixtures.session_stores import HandMadeSession, TrialFacts, write_session_store
from sensorium_data.errors import PredictionsError, StoreError, UnknownNameError, UsageError
from sensorium_data.predictions import (
    create_predictions,
    find_predictions,
    from_arrays,
    open_predictions,
    predicted_sessions,
    predictions_attributes,
    verify_predictions,
)
from sensorium_data.predictions.writer import PredictionsWriter
from sensorium_data.schema import SCHEMA_VERSION
from sensorium_data.sessions import find_session
from sensorium_data.store import open_store

J = find_session("J").name

TRIALS = (
    TrialFacts(4, "oracle", 60, "m0"),
    TrialFacts(9, "train", 58),
    TrialFacts(2, "oracle", 57, "m0"),
    TrialFacts(7, "live_test_bonus", 0, stimulus="NaturalImages", valid=False),
    TrialFacts(1, "live_test_bonus", 62, stimulus="NaturalImages"),
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, HandMadeSession]:
    store = tmp_path_factory.mktemp("predictions") / "store"
    return str(store), write_session_store(store, "J", TRIALS, n_neurons=3)


def random_trial(trial: int, n_frames: int, first_frame: int = 5) -> np.ndarray:
    return np.random.default_rng(trial).random((3, n_frames - first_frame), np.float32)


def begin(url: Path | str, store: str, tiers: tuple[str, ...] = ("oracle",), **options: object) -> PredictionsWriter:
    return create_predictions(
        str(url), store=store, sessions=["J"], tiers=tiers, response_units="standardized", **options
    )


def write_oracle(url: Path | str, store: str, **options: object) -> None:
    with begin(url, store, **options) as writer:
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
        writer.write_trial("J", 2, random_trial(2, 57), first_frame=5)


def write_one_and_raise(url: Path | str, store: str, error: BaseException, **options: object) -> None:
    with begin(url, store, **options) as writer:
        writer.write_trial("J", 2, random_trial(2, 57), first_frame=5)
        raise error


def test_what_was_written_comes_back_with_the_sessions_labels(
    recorded: tuple[str, HandMadeSession], tmp_path: Path
) -> None:
    store, made = recorded
    write_oracle(tmp_path / "p", store)
    predicted = open_predictions(str(tmp_path / "p"), "J")
    assert predicted["trial"].values.tolist() == [4, 2]
    assert predicted["tier"].values.tolist() == ["oracle", "oracle"]
    assert predicted["n_frames"].values.tolist() == [60, 57]
    assert predicted["movie"].values.tolist() == ["m0", "m0"]
    assert predicted["stimulus"].values.tolist() == ["NaturalVideo", "NaturalVideo"]
    assert predicted["valid"].values.tolist() == [True, True]
    assert np.array_equal(predicted["neuron"], made.neurons)
    assert np.allclose(predicted["time"], np.arange(64) / 30)
    assert predicted["predictions"].dtype == np.float32
    for trial, n_frames in ((4, 60), (2, 57)):
        values = predicted["predictions"].sel(trial=trial).values
        assert np.array_equal(values[:, 5:n_frames], random_trial(trial, n_frames))
        assert np.isnan(values[:, :5]).all()
        assert np.isnan(values[:, n_frames:]).all()


def test_predictions_are_one_dask_block_a_trial(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    write_oracle(tmp_path / "p", recorded[0])
    assert open_predictions(str(tmp_path / "p"), "J")["predictions"].chunks == ((1, 1), (3,), (64,))


def test_store_opens_in_plain_xarray_and_plain_zarr(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, made = recorded
    write_oracle(tmp_path / "p", store)
    tree = xr.open_datatree(tmp_path / "p", engine="zarr")
    assert tree[made.session.name]["tier"].values.tolist() == ["oracle", "oracle"]
    array = zarr.open_array(tmp_path / "p" / made.session.name / "predictions", mode="r")
    assert np.array_equal(array[0][:, 5:60], random_trial(4, 60))


def test_attributes_say_what_made_the_predictions(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, made = recorded
    write_oracle(tmp_path / "p", store, runs=["r1", "r2"], identity="i", attributes={"title": "mine", "fold": 3})
    attributes = predictions_attributes(str(tmp_path / "p"))
    assert attributes["response_units"] == "standardized"
    assert attributes["runs"] == ["r1", "r2"]
    assert attributes["tiers"] == ["oracle"]
    assert attributes["stores"] == {made.session.name: open_store(store).digest("J")}
    assert attributes["identity"] == "i"
    assert (attributes["title"], attributes["fold"]) == ("mine", 3)
    assert predicted_sessions(str(tmp_path / "p")) == (made.session,)


def test_content_digest_follows_the_values(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded

    def digest(name: str, change: float) -> str:
        arrays = {"J": {4: random_trial(4, 60) + change, 2: random_trial(2, 57)}}
        from_arrays(str(tmp_path / name), store, arrays, response_units="raw")
        return str(predictions_attributes(str(tmp_path / name))["content_digest"])

    assert digest("a", 0) == digest("b", 0)
    assert digest("a2", 0) != digest("c", 1e-6)


def test_trials_may_be_written_from_threads(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with begin(tmp_path / "p", store, ("oracle", "train", "live_test_bonus")) as writer:
        lengths = {4: 60, 2: 57, 9: 58, 1: 62}
        threads = [
            threading.Thread(target=writer.write_trial, args=("J", t, random_trial(t, n), 5))
            for t, n in lengths.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.missing_trials("J") == ()
    predicted = open_predictions(str(tmp_path / "p"), "J")
    assert np.array_equal(predicted["predictions"].sel(trial=9).values[:, 5:58], random_trial(9, 58))


def test_missing_trial_keeps_the_store_from_its_name(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with (
        pytest.raises(PredictionsError, match=r"trial 2, .*not every trial .* found 1 missing"),
        begin(tmp_path / "p", store) as writer,
    ):
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
    assert list(tmp_path.iterdir()) == []


def test_error_while_predicting_leaves_nothing(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with pytest.raises(ZeroDivisionError):
        write_one_and_raise(tmp_path / "p", store, ZeroDivisionError())
    assert list(tmp_path.iterdir()) == []


def test_broken_trials_are_not_asked_for(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with begin(tmp_path / "p", store, ("live_test_bonus",)) as writer:
        assert writer.trials("J") == (1,)
        with pytest.raises(PredictionsError, match="trial 7: a trial whose stimulus is broken"):
            writer.write_trial("J", 7, np.zeros((3, 0)), first_frame=0)
        writer.write_trial("J", 1, random_trial(1, 62), first_frame=5)
    predicted = open_predictions(str(tmp_path / "p"), "J")
    assert predicted["valid"].values.tolist() == [False, True]
    assert np.isnan(predicted["predictions"].sel(trial=7)).all()


@pytest.mark.parametrize(
    ("trial", "shape", "first_frame", "message"),
    [
        (4, (3, 54), 5, r"found \(3, 54\), expected \(3, 55\) \(neurons, frames 5 to 59\)"),
        (4, (2, 55), 5, r"found \(2, 55\), expected \(3, 55\)"),
        (4, (55, 3), 5, "wrong shape"),
        (4, (165,), 5, "wrong shape"),
        (4, (3, 61), -1, "first predicted frame"),
        (4, (3, 0), 61, "first predicted frame"),
        (9, (3, 53), 5, "trial 9: the trial is not being predicted: expected a valid trial of oracle"),
        (77, (3, 53), 5, "trial 77: the trial is not being predicted"),
    ],
)
def test_wrong_arrays_are_refused(
    recorded: tuple[str, HandMadeSession],
    tmp_path: Path,
    trial: int,
    shape: tuple[int, ...],
    first_frame: int,
    message: str,
) -> None:
    with pytest.raises(PredictionsError, match=message), begin(tmp_path / "p", recorded[0]) as writer:
        writer.write_trial("J", trial, np.zeros(shape, np.float32), first_frame=first_frame)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_no_float32_numbers_are_refused(
    recorded: tuple[str, HandMadeSession], tmp_path: Path, value: float
) -> None:
    array = np.zeros((3, 55))
    array[1, 7] = value
    expected = "trial 4: predictions are NaN, infinite, or too large for float32: found 1 value, .*neuron 1, frame 12"
    with pytest.raises(PredictionsError, match=expected), begin(tmp_path / "p", recorded[0]) as writer:
        writer.write_trial("J", 4, array, first_frame=5)


def test_a_trial_is_written_once(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    with begin(tmp_path / "p", recorded[0]) as writer:
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
        with pytest.raises(PredictionsError, match="trial 4: the trial was written before"):
            writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
        writer.write_trial("J", 2, random_trial(2, 57), first_frame=5)


def test_finished_predictions_are_found_by_their_identity(
    recorded: tuple[str, HandMadeSession], tmp_path: Path
) -> None:
    url = str(tmp_path / "p")
    assert not find_predictions(url, "i")
    write_oracle(url, recorded[0], identity="i")
    assert find_predictions(url, "i")
    with pytest.raises(PredictionsError, match="found identity i, expected identity j; choose another name"):
        find_predictions(url, "j")


def test_finished_predictions_are_never_overwritten(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    write_oracle(tmp_path / "p", recorded[0])
    with pytest.raises(PredictionsError, match="something lies there already"), begin(tmp_path / "p", recorded[0]):
        pass
    assert open_predictions(str(tmp_path / "p"), "J")["trial"].values.tolist() == [4, 2]


def test_interrupted_predictions_continue(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with pytest.raises(KeyboardInterrupt):
        write_one_and_raise(tmp_path / "p", store, KeyboardInterrupt(), identity="i")
    with pytest.raises(PredictionsError, match="the predictions are unfinished"):
        open_predictions(str(tmp_path / "p"), "J")
    with begin(tmp_path / "p", store, identity="i") as writer:
        assert writer.missing_trials("J") == (4,)
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
    write_oracle(tmp_path / "whole", store, identity="i")
    resumed, whole = (predictions_attributes(str(tmp_path / name)) for name in ("p", "whole"))
    assert resumed["content_digest"] == whole["content_digest"]
    values = open_predictions(str(tmp_path / "p"), "J")["predictions"]
    assert np.array_equal(values.sel(trial=2).values[:, 5:57], random_trial(2, 57))


def test_killed_writer_leaves_work_that_continues(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    code = (
        "import os, sys, numpy as np\n"
        "from sensorium_data.predictions.predictions import create_predictions\n"
        "url, store = sys.argv[1:]\n"
        "with create_predictions(url, store=store, sessions=['J'], tiers=['oracle'], response_units='raw',"
        " identity='i') as writer:\n"
        "    writer.write_trial('J', 2, np.ones((3, 52)), 5)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p"), store], check=False)
    # What a write cut off in its middle leaves behind.
    group = next(path for path in (tmp_path / "p.partial").iterdir() if path.is_dir())
    (group / "predictions" / "c" / f".0.{'0' * 32}.tmp").write_bytes(b"half")
    with create_predictions(
        str(tmp_path / "p"), store=store, sessions=["J"], tiers=["oracle"], response_units="raw", identity="i"
    ) as writer:
        assert writer.missing_trials("J") == (4,)
        writer.write_trial("J", 4, np.zeros((3, 55)), 5)
    assert (open_predictions(str(tmp_path / "p"), "J")["predictions"].sel(trial=2).values[:, 5:57] == 1).all()
    assert not list((tmp_path / "p").rglob("*.tmp"))


@pytest.mark.parametrize("n_bytes_left", [0, 3, 100, -1])
def test_trial_that_was_damaged_meanwhile_is_asked_for_again(
    recorded: tuple[str, HandMadeSession], tmp_path: Path, n_bytes_left: int
) -> None:
    store, made = recorded
    with pytest.raises(KeyboardInterrupt):
        write_one_and_raise(tmp_path / "p", store, KeyboardInterrupt(), identity="i")
    path = tmp_path / "p.partial" / made.session.name / "predictions" / "c" / "1" / "0" / "0"
    path.write_bytes(path.read_bytes()[:n_bytes_left])
    with begin(tmp_path / "p", store, identity="i") as writer:
        assert writer.missing_trials("J") == (4, 2)
        for trial, n_frames in ((4, 60), (2, 57)):
            writer.write_trial("J", trial, random_trial(trial, n_frames), first_frame=5)


def test_lost_trial_is_an_error_rather_than_nan(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, made = recorded
    write_oracle(tmp_path / "p", store)
    (tmp_path / "p" / made.session.name / "predictions" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(PredictionsError, match=r"trial 2, .*damaged: found no predictions/c/1/0/0"):
        open_predictions(str(tmp_path / "p"), "J")


def test_interrupted_predictions_of_something_else_are_kept(
    recorded: tuple[str, HandMadeSession], tmp_path: Path
) -> None:
    store, _ = recorded
    with pytest.raises(KeyboardInterrupt):
        write_one_and_raise(tmp_path / "p", store, KeyboardInterrupt(), identity="i")
    told = r"p\.partial: an interrupted prediction of something else is there: found 1 finished trial of other runs"
    with pytest.raises(PredictionsError, match=told), begin(tmp_path / "p", store, identity="another"):
        pass
    with begin(tmp_path / "p", store, identity="i") as writer:
        assert writer.missing_trials("J") == (4,)
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)


def test_interrupted_predictions_without_a_finished_trial_give_way(
    recorded: tuple[str, HandMadeSession], tmp_path: Path
) -> None:
    store, _ = recorded
    with pytest.raises(KeyboardInterrupt), begin(tmp_path / "p", store, identity="i"):
        raise KeyboardInterrupt
    with begin(tmp_path / "p", store, identity="another") as writer:
        assert writer.missing_trials("J") == (4, 2)
        for trial, n_frames in ((4, 60), (2, 57)):
            writer.write_trial("J", trial, random_trial(trial, n_frames), first_frame=5)


@pytest.mark.parametrize("kind", ["store", "predictions"])
def test_other_stores_under_the_name_of_a_working_folder_are_kept(
    recorded: tuple[str, HandMadeSession], tmp_path: Path, kind: str
) -> None:
    store, _ = recorded
    if kind == "predictions":
        write_oracle(tmp_path / "finished", store)
    partial = shutil.copytree(store if kind == "store" else tmp_path / "finished", tmp_path / "p.partial")
    before = sorted(partial.rglob("*"))
    with pytest.raises(PredictionsError, match="a folder of something else is in the way"):
        write_oracle(tmp_path / "p", store, identity="i")
    assert sorted(partial.rglob("*")) == before


def test_two_writers_of_one_store_are_kept_apart(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with begin(tmp_path / "p", store, identity="i") as writer:
        with (
            pytest.raises(PredictionsError, match="another process is writing"),
            begin(tmp_path / "p", store, identity="i"),
        ):
            pass
        for trial, n_frames in ((4, 60), (2, 57)):
            writer.write_trial("J", trial, random_trial(trial, n_frames), first_frame=5)
    assert find_predictions(str(tmp_path / "p"), "i")


def test_folder_of_something_else_is_not_emptied(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    (tmp_path / "p.partial").mkdir()
    (tmp_path / "p.partial" / "thesis.tex").write_text("years of work")
    with pytest.raises(PredictionsError, match="a folder of something else"), begin(tmp_path / "p", recorded[0]):
        pass
    assert (tmp_path / "p.partial" / "thesis.tex").read_text() == "years of work"


def test_what_somebody_else_has_among_unfinished_predictions_is_kept(
    recorded: tuple[str, HandMadeSession], tmp_path: Path
) -> None:
    store, _ = recorded
    names = ("notes.txt", f"{J}/notes.txt", f"{J}/predictions/c/.0.tmp", "mine/zarr.json")

    def put_notes() -> None:
        for name in names:
            (tmp_path / "p.partial" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "p.partial" / name).write_text("mine")

    def read_notes(folder: str) -> list[str]:
        return [(tmp_path / folder / name).read_text() for name in names]

    # Nothing goes on from predictions that nobody can recognize: they are deleted, and the notes are not.
    def fail_beside_notes() -> None:
        with begin(tmp_path / "p", store) as writer:
            writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
            put_notes()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_beside_notes()
    assert read_notes("p.partial") == ["mine"] * len(names)
    assert sum(path.is_file() for path in (tmp_path / "p.partial").rglob("*")) == len(names)
    with pytest.raises(PredictionsError, match=r"a folder of something else is in the way: found .*notes\.txt"):
        write_oracle(tmp_path / "p", store, identity="i")
    shutil.rmtree(tmp_path / "p.partial")
    with pytest.raises(KeyboardInterrupt):
        write_one_and_raise(tmp_path / "p", store, KeyboardInterrupt(), identity="i")
    put_notes()
    with begin(tmp_path / "p", store, identity="i") as writer:
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
    assert read_notes("p") == ["mine"] * len(names)


def test_arrays_of_any_model_make_a_store(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    arrays = {"J": {2: random_trial(2, 57, 50).tolist(), 4: random_trial(4, 60, 30).astype(np.float64)}}
    from_arrays(str(tmp_path / "p"), store, arrays, response_units="raw", attributes={"model": "mine"})
    predicted = open_predictions(str(tmp_path / "p"), "J")
    assert predicted.attrs["response_units"] == "raw"
    assert predicted.attrs["model"] == "mine"
    assert np.array_equal(predicted["predictions"].sel(trial=4).values[:, 30:60], random_trial(4, 60, 30))
    assert np.isnan(predicted["predictions"].sel(trial=2).values[:, :50]).all()


def test_trials_may_be_named_by_numpys_integers(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    arrays = {4: random_trial(4, 60), 2: random_trial(2, 57)}
    plain = {"J": arrays}
    numpys = {"J": {np.int64(trial): values for trial, values in arrays.items()}}
    assert from_arrays(tmp_path / "mine", store, numpys, response_units="raw").status == "written"
    assert from_arrays(tmp_path / "mine", store, plain, response_units="raw").status == "already done"
    assert from_arrays(tmp_path / "mine", store, numpys, response_units="raw").status == "already done"
    with pytest.raises(PredictionsError, match=r"trial True.*no such trial"):
        from_arrays(tmp_path / "other", store, {"J": {True: random_trial(1, 62)}}, response_units="raw")


def test_masked_values_are_missing(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    masked = np.ma.masked_less(random_trial(4, 60), 0.01)
    assert masked.mask.any()
    with pytest.raises(PredictionsError, match=r"trial 4.*NaN"):
        from_arrays(tmp_path / "mine", store, {"J": {4: masked, 2: random_trial(2, 57)}}, response_units="raw")
    assert not (tmp_path / "mine").exists()


def test_arrays_of_half_a_tier_are_refused(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with pytest.raises(PredictionsError, match=r"trial 2: not every trial .* 1 trial missing: 2, .*; add the trial"):
        from_arrays(str(tmp_path / "p"), store, {"J": {4: random_trial(4, 60)}}, response_units="raw")
    with pytest.raises(PredictionsError, match=r"trial 5, .*: no such trial"):
        from_arrays(str(tmp_path / "p"), store, {"J": {5: random_trial(4, 60)}}, response_units="raw")


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((60, 3), "transpose it$"),
        ((20, 3), "transpose it$"),
        ((3, 61), "give every"),
        ((60,), "give"),
        ((), "give"),
        ((3, 0), "give"),
    ],
)
def test_arrays_of_another_shape_are_told_what_is_wanted(
    recorded: tuple[str, HandMadeSession], tmp_path: Path, shape: tuple[int, ...], remedy: str
) -> None:
    arrays = {"J": {2: random_trial(2, 57), 4: np.zeros(shape)}}
    with pytest.raises(PredictionsError, match=rf"trial 4: .* expected \(3, 1 to 60\), neurons by frames; {remedy}"):
        from_arrays(str(tmp_path / "p"), recorded[0], arrays, response_units="raw")


def test_store_behind_a_url_is_found_only_when_whole(recorded: tuple[str, HandMadeSession]) -> None:
    store, _ = recorded
    url = "memory://predictions/p"
    with begin(url, store) as writer:
        writer.write_trial("J", 4, random_trial(4, 60), first_frame=5)
        with pytest.raises(PredictionsError, match="no predictions store"):
            predictions_attributes(url)
        writer.write_trial("J", 2, random_trial(2, 57), first_frame=5)
    assert predictions_attributes(url)["tiers"] == ["oracle"]
    with pytest.raises(ZeroDivisionError):
        write_one_and_raise("memory://predictions/q", store, ZeroDivisionError())
    assert not fsspec.filesystem("memory").exists("/predictions/q")
    values = open_predictions(url, "J")["predictions"]
    assert np.array_equal(values.sel(trial=2).values[:, 5:57], random_trial(2, 57))


def test_things_that_are_no_predictions_are_told_apart(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded
    with pytest.raises(PredictionsError, match="no predictions store; give the store that `sensorium predict` wrote"):
        open_predictions(str(tmp_path / "nothing"), "J")
    with pytest.raises(PredictionsError, match="found a Zarr group titled None"):
        open_predictions(store, "J")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "zarr.json").write_text("no JSON")
    with pytest.raises(PredictionsError, match="damaged"):
        predictions_attributes(str(tmp_path / "text"))
    write_oracle(tmp_path / "p", store)
    with pytest.raises(PredictionsError, match=r"session F .*: the session is not predicted: found J"):
        open_predictions(str(tmp_path / "p"), "F")


def test_later_schema_is_refused(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    write_oracle(tmp_path / "p", recorded[0])
    path = tmp_path / "p" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["schema_version"] = 99
    path.write_text(json.dumps(metadata))
    with pytest.raises(PredictionsError, match=f"another schema version: found 99, expected 2 or {SCHEMA_VERSION}"):
        predictions_attributes(str(tmp_path / "p"))


def test_lost_session_is_an_error(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, made = recorded
    write_oracle(tmp_path / "p", store)
    shutil.rmtree(tmp_path / "p" / made.session.name)
    with pytest.raises(PredictionsError, match="damaged"):
        open_predictions(str(tmp_path / "p"), "J")


def test_predictions_without_their_root_are_damaged(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    url = str(tmp_path / "p")
    write_oracle(url, recorded[0], identity="i")
    (tmp_path / "p" / "zarr.json").unlink()
    for call in (
        lambda: predictions_attributes(url),
        lambda: open_predictions(url, "J"),
        lambda: find_predictions(url, "i"),
        lambda: verify_predictions(url),
    ):
        with pytest.raises(PredictionsError, match=r"the predictions store is damaged: found no zarr\.json; "):
            call()


def test_wrong_arguments_are_named(recorded: tuple[str, HandMadeSession], tmp_path: Path) -> None:
    store, _ = recorded

    def create(**changes: object) -> PredictionsWriter:
        arguments = {"sessions": ["J"], "tiers": ["oracle"], "response_units": "raw"} | changes
        return create_predictions(str(tmp_path / "p"), store=store, **arguments)

    with pytest.raises(UnknownNameError, match="did you mean oracle"):
        create(tiers=["oracl"])
    with pytest.raises(UsageError, match="found 'z-scores', expected standardized or raw"):
        create(response_units="z-scores")
    with pytest.raises(UsageError, match="no session or no tier"):
        create(tiers=[])
    with pytest.raises(UsageError, match="sets itself: found runs, tiers"):
        create(attributes={"runs": [], "tiers": []})
    with pytest.raises(StoreError, match="session F"):
        create(sessions=["F"])
    with pytest.raises(PredictionsError, match=r"session J .*no trial of the tiers"), create(tiers=["final_test_main"]):
        pass
