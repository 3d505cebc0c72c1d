"""Whatever sessions and movies there are, folds cover the trials, share no movie, and are balanced."""

from __future__ import annotations

from collections import Counter

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.movies import split_by_movie
from sensorium_data.sessions import Tier


@st.composite
def recordings(draw: st.DrawFn, max_sessions: int = 4) -> dict[str, xr.Dataset]:
    """Sessions of any trials; few movies, so that many are shared and repeated; some trials not to be used."""
    datasets = {}
    for name in "abcd"[: draw(st.integers(1, max_sessions))]:
        n_trials = draw(st.integers(0, 25))
        column = st.lists(st.integers(0, 9), min_size=n_trials, max_size=n_trials)
        movies, unusable = draw(column), draw(column)
        trials = draw(st.permutations(range(n_trials)))
        datasets[name] = xr.Dataset(
            coords={
                "trial": np.array(trials, int),
                "tier": ("trial", np.where(np.array(unusable) == 9, "oracle", "train")),
                "movie_group": ("trial", np.array([f"m{movie}" for movie in movies], str)),
                "valid": ("trial", np.array(unusable) != 8),
                "responses_withheld": ("trial", np.array(unusable) == 7),
            }
        )
    return datasets


def usable_movies(dataset: xr.Dataset) -> dict[int, str]:
    chosen = (dataset.tier == "train") & dataset.valid & ~dataset.responses_withheld
    kept = dataset.isel(trial=np.flatnonzero(chosen))
    return dict(zip(kept.trial.values.tolist(), kept.movie_group.values.tolist(), strict=True))


@given(recordings=recordings(), n_folds=st.integers(2, 5), seed=st.integers(0, 3))
def test_folds_divide_trials_and_movies(recordings: dict[str, xr.Dataset], n_folds: int, seed: int) -> None:
    usable = {name: usable_movies(dataset) for name, dataset in recordings.items()}
    movies = {movie for of_trials in usable.values() for movie in of_trials.values()}
    if len(movies) < n_folds:
        return
    folds = split_by_movie(recordings, n_folds, seed=seed)
    assert len(folds) == n_folds
    validated: Counter[str] = Counter()
    for fold in folds:
        sides = []
        for side in (fold.train, fold.validation):
            assert side.keys() == recordings.keys()
            sides.append({usable[name][trial] for name, trials in side.items() for trial in trials})
        assert not sides[0] & sides[1], "a movie on both sides"
        validated.update(sides[1])
        for name, of_trials in usable.items():
            assert sorted(fold.train[name] + fold.validation[name]) == sorted(of_trials)
            assert list(fold.train[name]) == sorted(fold.train[name])
    assert validated == dict.fromkeys(movies, 1), "each movie is validated on once"

    backwards = split_by_movie(dict(reversed(recordings.items())), n_folds, seed=seed)
    assert backwards == folds
    shuffled = {name: dataset.isel(trial=slice(None, None, -1)) for name, dataset in recordings.items()}
    assert split_by_movie(shuffled, n_folds, seed=seed, tiers=(Tier.TRAIN,)) == folds


@given(recordings=recordings(), n_folds=st.integers(2, 5))
def test_folds_are_balanced(recordings: dict[str, xr.Dataset], n_folds: int) -> None:
    usable = {name: usable_movies(dataset) for name, dataset in recordings.items()}
    if len({movie for of_trials in usable.values() for movie in of_trials.values()}) < n_folds:
        return
    folds = split_by_movie(recordings, n_folds)
    sizes = np.array([[len(fold.validation[name]) for fold in folds] for name in recordings])
    repeats = [Counter(of_trials.values()) for of_trials in usable.values()]
    squares = sum(count**2 for of_session in repeats for count in of_session.values())
    deviations = sizes - sizes.mean(axis=1, keepdims=True)
    assert (deviations**2).sum() <= (1 - 1 / n_folds) * squares + 1e-9
    if len(recordings) == 1:
        assert np.ptp(sizes) <= max(repeats[0].values())
