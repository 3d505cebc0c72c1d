"""Which trials a simulated session has: their ids, tiers, movies, repeats and lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from sensorium_data.sessions import Session, Stimulus, Tier
from sensorium_data.simulation.random_streams import random_stream

__all__ = ["UNPUBLISHED", "Movie", "SessionPlan", "TrialPlan", "apportion_trials", "plan_session"]

#: Label of entries of ``tiers.npy`` that have no files.
UNPUBLISHED = "none"

_PAIRS = ("AF", "BJ", "CG", "DH", "EI")
_BROKEN_TRIALS: Mapping[str, int] = MappingProxyType({"D": 668, "J": 156})

_MOST_REPEATS = 10
# Of the training movies of a pair's second session, one in this many is its own.
_OWN_MOVIE_EVERY = 32

_N_FRAMES: Mapping[Stimulus, int] = MappingProxyType(
    {
        Stimulus.NATURAL_VIDEO: 300,
        Stimulus.GABOR: 300,
        Stimulus.GAUSSIAN_DOT: 315,
        Stimulus.RANDOM_DOTS: 240,
        Stimulus.PINK_NOISE: 324,
    }
)
_NATURAL_IMAGES_N_FRAMES = (305, 326)


@dataclass(frozen=True)
class Movie:
    """A movie, the same wherever it is shown.

    Attributes
    ----------
    id : str
        Names the sessions it is shown to, its class or ``train``, and its number: ``"AF/train/12"``, ``"AF/Gabor/3"``.
    stimulus : Stimulus
        Its class.
    number : int
        Its number within its class. A class whose conditions are listed shows the ``number``-th share of them.
    """

    id: str
    stimulus: Stimulus
    number: int


@dataclass(frozen=True)
class TrialPlan:
    """One trial that has files.

    Attributes
    ----------
    trial : int
        Its id: the name of its files.
    tier : Tier
        What it is for.
    movie : Movie
        What it shows.
    n_frames : int
        Frames of the stimulus; of a broken trial, all frames of the array.
    is_broken : bool
        The video holds nothing but NaN.
    is_withheld : bool
        The archive holds zeros in place of the responses.
    """

    trial: int
    tier: Tier
    movie: Movie
    n_frames: int
    is_broken: bool
    is_withheld: bool


@dataclass(frozen=True)
class SessionPlan:
    """All trials of a session.

    Attributes
    ----------
    session : Session
        The published session that is imitated.
    seed : int
        Seed of the whole simulation.
    n_neurons : int
        Neurons recorded.
    trials : tuple of TrialPlan
        By id.
    tiers : tuple of str
        ``tiers.npy``: the tier of every id, ``none`` where there are no files.
    presentation : tuple of int
        ``trial_idx.npy``: when every id was shown.
    """

    session: Session
    seed: int
    n_neurons: int
    trials: tuple[TrialPlan, ...]
    tiers: tuple[str, ...]
    presentation: tuple[int, ...]


def plan_session(session: Session, *, n_trials: int | None, n_neurons: int | None, seed: int) -> SessionPlan:
    """Decide which trials a simulated session has.

    Parameters
    ----------
    session : Session
        Which session to imitate.
    n_trials : int, optional
        Trials with files, over all tiers; as many as published by default.
    n_neurons : int, optional
        Neurons; as many as published by default.
    seed : int
        Sessions of a pair planned with one seed show nearly the same movies.
    """
    total = session.n_trials if n_trials is None else n_trials
    random = random_stream(seed, "plan", session.name)
    counts = apportion_trials(session, total)
    shown = [tier for tier in Tier for _ in range(counts[tier])]
    tiers = _scatter_tiers(shown, _n_unpublished(session, total), random)
    broken = _place_broken(session, tiers)
    if broken is not None:
        counts[Tier.LIVE_TEST_BONUS] -= 1
    movies = {tier: _choose_movies(session, tier, counts[tier]) for tier in Tier}
    for of_tier in movies.values():
        random.shuffle(of_tier)
    trials = []
    for trial, label in enumerate(tiers):
        if label == UNPUBLISHED:
            continue
        tier = Tier(label)
        # Nobody can tell what a broken trial showed.
        movie = (
            Movie(f"{session.alias}/broken/0", session.live_bonus_stimulus, 0)
            if trial == broken
            else movies[tier].pop()
        )
        trials.append(
            TrialPlan(
                trial=trial,
                tier=tier,
                movie=movie,
                n_frames=session.n_frames_padded if trial == broken else _count_frames(session, movie, trial, seed),
                is_broken=trial == broken,
                is_withheld=session.withholds_test_responses and tier.is_test,
            )
        )
    return SessionPlan(
        session=session,
        seed=seed,
        n_neurons=session.n_neurons if n_neurons is None else n_neurons,
        trials=tuple(trials),
        tiers=tuple(tiers),
        presentation=tuple(int(index) for index in random.permutation(len(tiers))),
    )


def apportion_trials(session: Session, n_trials: int) -> dict[Tier, int]:
    """Share trials among the tiers in the published proportions.

    Each tier but train gets at least two trials for each of its stimulus classes, so that a movie is
    repeated, as far as ``n_trials`` allows; a train trial comes before them.

    Returns
    -------
    dict of Tier to int
        For every tier, summing to ``n_trials``.
    """
    published = session.n_trials_by_tier
    least = {tier: 1 if tier is Tier.TRAIN else 2 * len(session.stimuli_of(tier)) for tier in Tier}
    if n_trials <= sum(least.values()):
        counts = dict.fromkeys(Tier, 0)
        for tier in Tier:
            counts[tier] = min(least[tier], n_trials - sum(counts.values()))
        return counts
    exact = {tier: n_trials * published[tier] / session.n_trials for tier in Tier}
    counts = {tier: max(least[tier], int(exact[tier])) for tier in Tier}
    # What rounding left goes to the largest remainders; what the least counts overdrew comes from the largest tier.
    for tier in sorted(Tier, key=lambda tier: int(exact[tier]) - exact[tier]):
        if sum(counts.values()) < n_trials:
            counts[tier] += 1
    while sum(counts.values()) > n_trials:
        counts[max(Tier, key=lambda tier: counts[tier] - least[tier])] -= 1
    return counts


def _n_unpublished(session: Session, n_trials: int) -> int:
    if not session.n_unpublished_trials:
        return 0
    return max(2, round(session.n_unpublished_trials * n_trials / session.n_trials))


def _scatter_tiers(tiers: Sequence[Tier], n_unpublished: int, random: np.random.Generator) -> list[str]:
    """Return the label of every trial id, in random order."""
    labels = [*map(str, tiers), *[UNPUBLISHED] * n_unpublished]
    return [labels[index] for index in random.permutation(len(labels))]


def _place_broken(session: Session, tiers: list[str]) -> int | None:
    """Return the id of the broken trial, if the session has one, after giving that id the broken trial's tier."""
    tier = str(Tier.LIVE_TEST_BONUS)
    if session.alias not in _BROKEN_TRIALS or tiers.count(tier) < 3:
        return None
    trial, other = _BROKEN_TRIALS[session.alias], tiers.index(tier)
    if trial >= len(tiers):
        return other
    if tiers[trial] != tier:
        tiers[trial], tiers[other] = tier, tiers[trial]
    return trial


def _choose_movies(session: Session, tier: Tier, n_trials: int) -> list[Movie]:
    """Return the movie of each trial of a tier, repeats next to each other."""
    pair = next(pair for pair in _PAIRS if session.alias in pair)
    is_second = pair[1] == session.alias
    if tier is Tier.TRAIN:
        return [_training_movie(pair, number, is_second=is_second) for number in range(n_trials)]
    stimuli = session.stimuli_of(tier)
    movies = []
    for index, stimulus in enumerate(stimuli):
        n_shown = (n_trials + len(stimuli) - 1 - index) // len(stimuli)
        n_movies = _count_movies(n_shown)
        for number in range(n_movies):
            n_repeats = (n_shown + n_movies - 1 - number) // n_movies
            if stimulus is Stimulus.NATURAL_VIDEO:
                movie = _natural_test_movie(pair, tier, number, is_second=is_second)
            else:
                movie = Movie(f"{pair}/{stimulus}/{number}", stimulus, number)
            movies += [movie] * n_repeats
    return movies


def _count_movies(n_trials: int) -> int:
    """Return how many movies a class of a tier shows: 6 for 60 trials, fewer for fewer, each at least twice."""
    wanted = max(-(-n_trials // _MOST_REPEATS), round(math.sqrt(0.6 * n_trials)))
    return max(1, min(wanted, n_trials // 2))


def _training_movie(pair: str, number: int, *, is_second: bool) -> Movie:
    is_own = is_second and number % _OWN_MOVIE_EVERY == _OWN_MOVIE_EVERY - 1
    return Movie(f"{pair[1] if is_own else pair}/train/{number}", Stimulus.NATURAL_VIDEO, number)


def _natural_test_movie(pair: str, tier: Tier, number: int, *, is_second: bool) -> Movie:
    """Return a natural test movie; every other one sits in another tier for the second session of a pair."""
    tiers = (Tier.ORACLE, Tier.LIVE_TEST_MAIN, Tier.FINAL_TEST_MAIN)
    is_moved = is_second and number % 2 == 1
    slot = (tiers.index(tier) + is_moved) % len(tiers)
    number = len(tiers) * number + slot
    return Movie(f"{pair}/{Stimulus.NATURAL_VIDEO}/{number}", Stimulus.NATURAL_VIDEO, number)


def _count_frames(session: Session, movie: Movie, trial: int, seed: int) -> int:
    if movie.stimulus is not Stimulus.NATURAL_IMAGES:
        return min(_N_FRAMES[movie.stimulus], session.n_frames_padded)
    shortest, longest = _NATURAL_IMAGES_N_FRAMES
    longest = min(longest, session.n_frames_padded)
    # The gray after the last image lasted a little longer or shorter each time.
    length = int(random_stream(seed, "length", movie.id).integers(shortest + 1, longest))
    return length + int(random_stream(seed, "length", session.name, trial).integers(-1, 2))
