"""Which trials a recipe trains and validates on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import zarr

from fixtures.recorded_stores import record_session
from fixtures.session_stores import write_ledger
from fixtures.tiny_training import tiny_config
from models.training.batches import TrainingBatches
from sensorium_data.errors import UsageError
from sensorium_data.movies.perceptual_hash import hash_video
from sensorium_data.sessions import Tier, find_session

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of a session that withholds test responses and one that publishes them, and what they were made of."""
    store = tmp_path_factory.mktemp("store")
    tiers = {"train": 8, "oracle": 4, "live_test_main": 3}
    made = {alias: record_session(store, alias, n_by_tier=tiers, n_frames=35) for alias in ("F", "A")}
    return str(store), {session.name: session for session in made.values()}


def open_batches(world, **changes):
    return TrainingBatches(tiny_config(**changes), world[0], list(world[1]), CPU)


def trials_of(made, *tiers):
    return {trial for trial, tier in zip(made.trials, made.tiers, strict=True) if tier in tiers}


def test_training_trials_train_and_oracle_trials_validate(world):
    batches = open_batches(world)
    for side, tier in ((batches.split.training, "train"), (batches.split.validation, "oracle")):
        for trials in side:
            assert set(trials.trials) == trials_of(world[1][trials.session], tier)
    drawn = {name: set() for name in world[1]}
    for batch in batches.iter_batches(1):
        (part,) = batch.parts
        assert batch.n_windows == {part.session: len(part)}
        drawn[part.session].update(part.trials)
    assert drawn == {name: trials_of(made, "train") for name, made in world[1].items()}


def test_folds_by_hash_are_those_of_the_frames(world):
    settings = {"n_folds": 2, "fold_rule": "dwiseneuro"}
    splits = [open_batches(world, fold=fold, **settings).split for fold in range(2)]
    for number, split in enumerate(splits):
        for trials in split.validation:
            made = world[1][trials.session]
            for trial in trials.trials:
                video = made.videos[made.position(trial)][[3, 10, 17, 24, 31]]
                assert hash_video(video) % 2 == number
    assert splits[0].training == splits[1].validation


def test_an_epoch_can_be_entered_at_any_batch(world):
    batches = open_batches(world)
    whole = list(batches.iter_batches(3))
    assert len(whole) == batches.n_batches
    for first in range(len(whole) + 1):
        rest = list(batches.iter_batches(3, first))
        for one, other in zip(rest, whole[first:], strict=True):
            (found,), (expected,) = one.parts, other.parts
            assert (found.trials, found.first_frames) == (expected.trials, expected.first_frames)
            assert torch.equal(found.videos, expected.videos)


def test_ranks_read_their_own_rows_and_know_how_many_there_are_in_all(world):
    settings = {"session_balance": "mixed", "n_windows_per_session": 7, "batch_size": 5, "window_stride": 2}
    batches = open_batches(world, n_frames_window=8, **settings)
    ranks = [list(batches.iter_batches(2, rank=rank, n_ranks=2)) for rank in range(2)]
    for whole, *shares in zip(batches.iter_batches(2), *ranks, strict=True):
        windows = [
            sorted(
                (part.session, *window)
                for part in one.parts
                for window in zip(part.trials, part.first_frames, strict=True)
            )
            for one in (whole, *shares)
        ]
        assert sorted(windows[1] + windows[2]) == windows[0]
        assert abs(len(windows[1]) - len(windows[2])) <= 1
        assert {one.n_windows == whole.n_windows for one in shares} == {True}
        assert sum(whole.n_windows.values()) == len(windows[0])


def test_each_trial_validates_in_one_fold_and_trains_in_all_others(world):
    n_folds = 4
    settings = {"tiers": (Tier.TRAIN, Tier.ORACLE), "n_folds": n_folds}
    splits = [open_batches(world, fold=fold, **settings).split for fold in range(n_folds)]
    for index, (_, made) in enumerate(world[1].items()):
        asked = trials_of(made, "train", "oracle")
        validated = [set(split.validation[index].trials) for split in splits]
        assert sorted(itertools.chain(*validated)) == sorted(asked)
        for split, held_out in zip(splits, validated, strict=True):
            assert set(split.training[index].trials) == asked - held_out
    # Another seed trains otherwise, on the same sides.
    assert open_batches(world, fold=0, seed=9, **settings).split == splits[0]
    assert len({split.digest for split in splits}) == n_folds


def test_what_is_withheld_somewhere_is_trained_on_elsewhere_and_said(world):
    batches = open_batches(world, tiers=(Tier.TRAIN, Tier.LIVE_TEST_MAIN))
    withholding, publishing = world[1].values()
    by_session = {trials.session: set(trials.trials) for trials in batches.split.training}
    assert by_session[withholding.name] == trials_of(withholding, "train")
    assert by_session[publishing.name] == trials_of(publishing, "train", "live_test_main")
    note, loud = batches.split.notes
    assert "live_test_main are withheld in" in note
    assert loud.startswith("Scored tiers are trained on: live_test_main of ")
    assert str(find_session("F")) in note


def test_statistics_that_end_before_the_trained_frames_are_noted(world, tmp_path):
    assert open_batches(world).notes == ()
    made = record_session(tmp_path, "F", lengths={0: 75})
    path = tmp_path / made.name / "statistics"
    std = zarr.open_array(path / "responses", mode="r+")
    std[:, :, 60:] = np.nan
    (tmp_path / made.name / "ledger.json").unlink()
    write_ledger(tmp_path / made.name)
    batches = open_batches((str(tmp_path), {made.name: made}))
    longest = max(n for trials in (*batches.split.training, *batches.split.validation) for n in trials.n_frames)
    (note,) = batches.notes
    assert note.startswith("Session F")
    assert f"statistics of responses end at frame 60 of {longest}; later frames take frame 59's." in note


@pytest.mark.parametrize(
    ("alias", "settings", "message"),
    [
        ("F", {"tiers": ("train", "live_test_main")}, "responses of tier live_test_main are withheld: they cannot"),
        ("A", {"tiers": ("train", "final_test_main")}, "no valid trial of tier final_test_main: found tiers live_test"),
        ("A", {"n_folds": 9, "fold": 0}, "fewer movies than folds: found 8 movies in train"),
        ("A", {"n_frames_window": 36}, r"trial \d+: a trial is shorter than the window: found 35 frames"),
        ("A", {"cache": "device"}, "trials cannot stay on the device: found device cpu"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(world, alias, settings, message):
    with pytest.raises(UsageError, match=message):
        TrainingBatches(tiny_config(**settings), world[0], [find_session(alias).name], CPU)
