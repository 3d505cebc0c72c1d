"""Splits of trials for cross-validation: by movies, so that none is on both sides, or by what frames look like."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.movies.perceptual_hash import choose_hashed_frames, hash_video
from sensorium_data.sessions import Tier
from sensorium_data.store import read_movie_groups

__all__ = ["Fold", "split_by_hash", "split_by_movie"]


@dataclass(frozen=True)
class Fold:
    """One division of the trials into two sides.

    Attributes
    ----------
    train, validation : mapping of str to tuple of int
        Ids of trials, ascending, by session; a session may have none on a side.
    """

    train: Mapping[str, tuple[int, ...]]
    validation: Mapping[str, tuple[int, ...]]


def split_by_movie(
    recordings: Mapping[str, xr.Dataset], n_folds: int, *, seed: int = 0, tiers: Sequence[Tier] = (Tier.TRAIN,)
) -> list[Fold]:
    """Split trials into folds by the movies they show.

    Each movie, wherever it is shown, is validated on in exactly one fold. The folds are balanced in each
    session's number of trials: movies are dealt out, those with most trials first, each to the fold that has fewest
    trials of the sessions that show it. If ``n[m, s]`` trials of session ``s`` show movie ``m``, the squared deviations
    of all folds' and sessions' numbers of trials from their means add up to at most ``(1 - 1 / k) Σ n[m, s]²`` for
    ``k`` folds; those of a single session whose movies are shown once differ by at most one.

    Parameters
    ----------
    recordings : mapping of str to xarray.Dataset
        By session, with ``movie_group``: what :func:`sensorium_data.store.open_session` returns once
        :func:`sensorium_data.movies.link_movies` has compared the store's sessions.
    n_folds : int
        How many folds.
    seed : int
        Which of the equally good splits. The same seed gives the same split, in whatever order the sessions come.
    tiers : sequence of Tier
        Of which tiers. Broken trials and those without responses are left out.

    Returns
    -------
    list of Fold
        ``n_folds`` of them.

    Raises
    ------
    UsageError
        If there are fewer than two folds, or fewer movies than folds, or a session was opened without ``movie_group``.
    """
    trials = {name: _list_trials(dataset, tiers) for name, dataset in recordings.items()}
    counts: dict[str, dict[str, int]] = {}
    for name, movie_of in trials.items():
        for movie in movie_of.values():
            by_session = counts.setdefault(movie, {})
            by_session[name] = by_session.get(name, 0) + 1
    if n_folds < 2:
        raise UsageError("the number of folds makes no sense", found=n_folds, expected="at least 2")
    if len(counts) < n_folds:
        raise UsageError(
            "fewer movies than folds",
            found=f"{count_things(len(counts), 'movie')} in {', '.join(tiers)}",
            expected=f"{n_folds} or more",
        )
    fold_of = _deal(counts, n_folds, seed)
    return [
        Fold(
            train={name: _choose(movie_of, fold_of, fold, is_validation=False) for name, movie_of in trials.items()},
            validation={
                name: _choose(movie_of, fold_of, fold, is_validation=True) for name, movie_of in trials.items()
            },
        )
        for fold in range(n_folds)
    ]


def split_by_hash(
    recordings: Mapping[str, xr.Dataset], n_folds: int, *, tiers: Sequence[Tier] = (Tier.TRAIN,)
) -> list[Fold]:
    """Split trials into folds by a perceptual hash of their videos, as DwiseNeuro's reference does.

    A trial's fold is the remainder of its :func:`sensorium_data.movies.perceptual_hash.hash_video` divided by the
    number of folds. Equal videos are on one side, in whatever session. Nothing else is promised: folds are of uneven
    sizes, and videos that differ a little, as those of two sessions may, can be on both sides. All videos are read.

    Parameters
    ----------
    recordings : mapping of str to xarray.Dataset
        By session: what :func:`sensorium_data.store.open_session` returns.
    n_folds : int
        How many folds; the reference's are 7.
    tiers : sequence of Tier
        As in :func:`split_by_movie`.

    Returns
    -------
    list of Fold
        ``n_folds`` of them.

    Raises
    ------
    UsageError
        If there are fewer than two folds, or a video has fewer than five frames.
    """
    if n_folds < 2:
        raise UsageError("the number of folds makes no sense", found=n_folds, expected="at least 2")
    fold_of: dict[str, dict[int, int]] = {}
    for name, dataset in recordings.items():
        fold_of[name] = {}
        for place in sorted(np.flatnonzero(_can_be_trained_on(dataset, tiers)), key=lambda p: dataset.trial.values[p]):
            frames = choose_hashed_frames(int(dataset.n_frames.values[place]))
            video_THW = dataset.videos.isel(trial=place).values
            fold_of[name][int(dataset.trial.values[place])] = hash_video(video_THW[list(frames)]) % n_folds

    def choose(fold: int, *, is_validation: bool) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(trial for trial, own in by_trial.items() if (own == fold) == is_validation)
            for name, by_trial in fold_of.items()
        }

    return [
        Fold(train=choose(fold, is_validation=False), validation=choose(fold, is_validation=True))
        for fold in range(n_folds)
    ]


def _can_be_trained_on(dataset: xr.Dataset, tiers: Sequence[Tier]) -> np.ndarray:
    """Return which trials are valid, of these tiers, and have responses."""
    chosen: np.ndarray = np.isin(dataset.tier.values, [str(tier) for tier in tiers])
    chosen &= dataset.valid.values & ~dataset.responses_withheld.values
    return chosen


def _list_trials(dataset: xr.Dataset, tiers: Sequence[Tier]) -> dict[int, str]:
    """Return the movies of the trials that can be trained on, by trial, ascending."""
    chosen = _can_be_trained_on(dataset, tiers)
    groups = read_movie_groups(dataset)[chosen].tolist()
    return dict(sorted(zip(dataset.trial.values[chosen].tolist(), groups, strict=True)))


def _deal(counts: Mapping[str, Mapping[str, int]], n_folds: int, seed: int) -> dict[str, int]:
    """Return the fold of each movie."""
    n_trials = {name: [0] * n_folds for by_session in counts.values() for name in by_session}
    n_movies = [0] * n_folds

    def priority(movie: str) -> tuple[int, bytes]:
        # A digest, and no random numbers drawn in turn: other movies do not change a movie's place.
        return -sum(counts[movie].values()), hashlib.sha256(f"{seed}/{movie}".encode()).digest()

    fold_of = {}
    for movie in sorted(counts, key=priority):
        shown = counts[movie]
        fold = min(
            range(n_folds),
            key=lambda fold: (sum(n * n_trials[name][fold] for name, n in shown.items()), n_movies[fold], fold),
        )
        fold_of[movie] = fold
        n_movies[fold] += 1
        for name, n in shown.items():
            n_trials[name][fold] += n
    return fold_of


def _choose(
    movie_of: Mapping[int, str], fold_of: Mapping[str, int], fold: int, *, is_validation: bool
) -> tuple[int, ...]:
    return tuple(trial for trial, movie in movie_of.items() if (fold_of[movie] == fold) == is_validation)
