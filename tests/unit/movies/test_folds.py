from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.movies import split_by_hash, split_by_movie
from sensorium_data.movies.folds import Fold
from sensorium_data.movies.perceptual_hash import hash_video
from sensorium_data.sessions import Tier


def session(movies: list[str], tiers: list[str] | None = None, **marks: list[bool]) -> xr.Dataset:
    """A session without arrays; trial ids are not their positions, and not in order."""
    n_trials = len(movies)
    nothing = [False] * n_trials
    return xr.Dataset(
        coords={
            "trial": 7 * np.arange(n_trials)[::-1] + 3,
            "tier": ("trial", tiers or ["train"] * n_trials),
            "movie_group": ("trial", movies),
            "valid": ("trial", ~np.array(marks.get("broken", nothing))),
            "responses_withheld": ("trial", marks.get("withheld", nothing)),
        }
    )


def test_a_movie_of_two_sessions_is_on_one_side_in_both() -> None:
    folds = split_by_movie({"a": session(["x", "y"]), "b": session(["y", "x"])}, 2)
    halves = [
        Fold(train={"a": (10,), "b": (3,)}, validation={"a": (3,), "b": (10,)}),
        Fold(train={"a": (3,), "b": (10,)}, validation={"a": (10,), "b": (3,)}),
    ]
    assert folds in (halves, halves[::-1])


def test_training_trials_alone_are_split_unless_others_are_asked_for() -> None:
    recordings = {"a": session(["x", "y", "z", "z"], ["train", "train", "oracle", "oracle"])}
    by_default = split_by_movie(recordings, 2)
    assert sorted(trial for fold in by_default for trial in fold.validation["a"]) == [17, 24]
    both = split_by_movie(recordings, 3, tiers=(Tier.TRAIN, Tier.ORACLE))
    assert sorted(fold.validation["a"] for fold in both) == [(3, 10), (17,), (24,)]


def test_what_cannot_be_trained_on_is_left_out() -> None:
    recordings = {
        "a": session(["x", "y", "z", "w"], broken=[True, False, False, False], withheld=[False, True, False, False])
    }
    for fold in split_by_movie(recordings, 2):
        assert sorted(fold.train["a"] + fold.validation["a"]) == [3, 10]


def test_a_session_without_such_trials_has_none_on_either_side() -> None:
    recordings = {"a": session(["x", "y"]), "b": session(["z"], ["oracle"])}
    assert all(fold.train["b"] == fold.validation["b"] == () for fold in split_by_movie(recordings, 2))


def test_five_folds_of_real_size_are_even_and_differ_by_seed() -> None:
    rng = np.random.default_rng(0)
    shared = [f"shared:{number}" for number in range(340)]
    recordings = {
        name: session(rng.permutation(shared + [f"{name}:{number}" for number in range(n_own)]).tolist())
        for name, n_own in (("A", 10), ("F", 8), ("third", 0))
    }
    folds = split_by_movie(recordings, 5)
    for name, dataset in recordings.items():
        sizes = [len(fold.validation[name]) for fold in folds]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == dataset.sizes["trial"]
    others = split_by_movie(recordings, 5, seed=1)
    assert folds != others
    assert folds == split_by_movie(recordings, 5, seed=0)


@pytest.mark.parametrize(("n_folds", "message"), [(1, "found 1, expected at least 2"), (3, "found 2 movies in train")])
def test_folds_that_cannot_be_are_refused(n_folds: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_by_movie({"a": session(["x", "y", "y"])}, n_folds)


def filmed(seeds: list[int], **marks: list[bool]) -> xr.Dataset:
    """A session whose trials of equal seeds show equal videos, one in five of them of another length."""
    dataset = session([str(seed) for seed in seeds], **marks)
    videos = np.zeros((len(seeds), 12, 36, 64), np.float32)
    n_frames = []
    for video, seed in zip(videos, seeds, strict=True):
        n_frames.append(12 if seed % 5 else 10)
        video[:] = np.random.default_rng(seed).uniform(0, 255, video.shape)
        video[n_frames[-1] :] = np.nan
    return dataset.assign_coords(n_frames=("trial", n_frames)).assign(
        videos=(("trial", "time", "height", "width"), videos)
    )


def test_a_hash_of_the_frames_puts_equal_videos_into_one_fold_wherever_they_are_shown() -> None:
    seeds = list(range(30))
    recordings = {"a": filmed(seeds), "b": filmed(seeds[::-1], broken=[True] + [False] * 29)}
    folds = split_by_hash(recordings, 7)
    place = {}
    for number, fold in enumerate(folds):
        for name, dataset in recordings.items():
            trials = dict(zip(dataset.trial.values.tolist(), dataset.movie_group.values.tolist(), strict=True))
            own = {trials.pop(trial) for trial in fold.validation[name]}
            assert {trials[trial] for trial in fold.train[name]} == set(trials.values()) - (
                {"29"} if name == "b" else set()
            )
            for movie in own:
                assert place.setdefault(movie, number) == number
    assert len(place) == 30
    assert len(set(place.values())) > 4
    # In steps of 2 frames from the second one on.
    video = recordings["a"].videos.values[7]
    hashed = hash_video(video[[1, 3, 5, 7, 9]])
    assert place["7"] == hashed % 7


def test_a_hash_makes_two_folds_at_least() -> None:
    with pytest.raises(UsageError, match="found 1, expected at least 2"):
        split_by_hash({"a": filmed([1, 2])}, 1)
