"""Which clips a simulated session shows, in which tiers, and which of them have no files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType

import numpy as np

from sensorium_data.sessions import Release, Session, Stimulus, Tier
from sensorium_data.simulation.random_streams import random_stream

__all__ = ["BROKEN_TRIALS", "Clip", "Fate", "Movie", "apportion_trials", "list_clips", "n_movies_published"]

_PAIRS = ("AF", "BJ", "CG", "DH", "EI")
#: The id of the trial whose video is broken, by alias.
BROKEN_TRIALS: Mapping[str, int] = MappingProxyType({"D": 668, "J": 156})

# A session showed so many movies once, and the others ten times.
_N_TRAINING_CLIPS = 360
_MOST_REPEATS = 10
# Of the training movies of a pair's second session, one in this many is its own.
_OWN_MOVIE_EVERY = 32


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


class Fate(Enum):
    """What became of a clip that the mouse saw."""

    PUBLISHED = auto()
    #: It has no files.
    DROPPED = auto()
    #: Nor has it an id, in the old release, where dropped clips have one.
    LOST = auto()


@dataclass(frozen=True)
class Clip:
    """A clip that the mouse saw.

    Attributes
    ----------
    tier, movie
        As of a trial.
    slot : tuple
        What tells the showings of a template apart; the template says when each comes.
    fate : Fate
        Whether it has files.
    is_broken : bool
        Its video is not known.
    """

    tier: Tier
    movie: Movie
    slot: tuple[str | int, ...]
    fate: Fate = Fate.PUBLISHED
    is_broken: bool = False


def list_clips(session: Session, n_trials: int, seed: int) -> list[Clip]:
    """Return all clips of a session, in no order."""
    random = random_stream(seed, "plan", session.name)
    counts = apportion_trials(session, n_trials)
    dropped = _apportion_dropped(session, n_trials)
    has_broken = session.alias in BROKEN_TRIALS and counts[Tier.LIVE_TEST_BONUS] >= 3
    counts[Tier.LIVE_TEST_BONUS] -= has_broken
    clips: list[Clip] = []
    for tier in reversed(Tier):
        n_dropped = dropped[tier]
        while True:
            shown = _choose_movies(session, tier, counts[tier] + n_dropped)
            without_files = _choose_dropped(shown, n_dropped, random)
            if without_files is not None:
                break
            # Too few repeats to do without one: a training movie goes in its place.
            n_dropped -= 1
            dropped[Tier.TRAIN] += 1
        clips += [replace(clip, fate=Fate.DROPPED) if i in without_files else clip for i, clip in enumerate(shown)]
    if has_broken:
        clips.append(_add_broken(session, clips))
    return clips


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


def _apportion_dropped(session: Session, n_trials: int) -> dict[Tier, int]:
    """Return how many clips of each tier have no files, in the published proportions."""
    published = session.n_trials_by_tier
    missing = {tier: _template_count(session, tier) - published[tier] for tier in Tier}
    scale = n_trials / session.n_trials
    total = round(sum(missing.values()) * scale)
    if session.release is Release.OLD:
        n_lost = round((sum(missing.values()) - session.n_unpublished_trials) * scale)
        total = _n_unpublished(session, n_trials) + n_lost
    counts = {tier: int(missing[tier] * scale) for tier in Tier}
    for tier in sorted(Tier, key=lambda tier: counts[tier] - missing[tier] * scale):
        counts[tier] += sum(counts.values()) < total
    # The least number of a small session goes beyond the proportions.
    counts[Tier.TRAIN] += total - sum(counts.values())
    return counts


def _template_count(session: Session, tier: Tier) -> int:
    if tier is Tier.TRAIN:
        return _N_TRAINING_CLIPS
    return sum(_MOST_REPEATS * n_movies_published(stimulus) for stimulus in session.stimuli_of(tier))


def n_movies_published(stimulus: Stimulus) -> int:
    return 8 if stimulus is Stimulus.RANDOM_DOTS else 6


def _n_unpublished(session: Session, n_trials: int) -> int:
    if not session.n_unpublished_trials:
        return 0
    return max(2, round(session.n_unpublished_trials * n_trials / session.n_trials))


def _choose_dropped(clips: Sequence[Clip], n_dropped: int, random: np.random.Generator) -> set[int] | None:
    """Choose clips such that every repeated movie is still repeated; None if there are not as many."""
    n_left = Counter(clip.movie for clip in clips)
    is_repeated = max(n_left.values(), default=1) > 1
    chosen: set[int] = set()
    for index in random.permutation(len(clips)).tolist():
        if len(chosen) == n_dropped:
            break
        if (not is_repeated and clips[index].tier is Tier.TRAIN) or n_left[clips[index].movie] > 2:
            n_left[clips[index].movie] -= 1
            chosen.add(index)
    return chosen if len(chosen) == n_dropped else None


def _add_broken(session: Session, clips: Sequence[Clip]) -> Clip:
    """Return the broken clip: one more showing of the live bonus movie that is shown least often."""
    shown = Counter(clip.slot[:-1] for clip in clips if clip.tier is Tier.LIVE_TEST_BONUS)
    rarest = min(shown, key=lambda slot: (shown[slot], slot))
    # Nobody can tell what a broken trial showed.
    movie = Movie(f"{session.alias}/broken/0", session.live_bonus_stimulus, 0)
    return Clip(Tier.LIVE_TEST_BONUS, movie, (*rarest, shown[rarest]), is_broken=True)


def _choose_movies(session: Session, tier: Tier, n_clips: int) -> list[Clip]:
    """Return the clips of a tier, repeats next to each other."""
    pair = next(pair for pair in _PAIRS if session.alias in pair)
    is_second = pair[1] == session.alias
    if tier is Tier.TRAIN:
        return [
            Clip(tier, _training_movie(pair, number, is_second=is_second), ("once", number))
            for number in range(n_clips)
        ]
    stimuli = session.stimuli_of(tier)
    clips = []
    for stimulus, n_shown in zip(stimuli, _share_among_classes(stimuli, n_clips), strict=True):
        n_movies = _count_movies(n_shown)
        for number in range(n_movies):
            n_repeats = (n_shown + n_movies - 1 - number) // n_movies
            if stimulus is Stimulus.NATURAL_VIDEO:
                movie = _natural_test_movie(pair, tier, number, is_second=is_second)
            else:
                movie = Movie(f"{pair}/{stimulus}/{number}", stimulus, number)
            slot = ("repeated", _rank_class(session, stimulus), movie.number)
            clips += [Clip(tier, movie, (*slot, repeat)) for repeat in range(n_repeats)]
    return clips


def _share_among_classes(stimuli: Sequence[Stimulus], n_clips: int) -> list[int]:
    """Share a tier's clips among its one or two classes, in proportion to the movies that they show."""
    if len(stimuli) == 1:
        return [n_clips]
    weights = [n_movies_published(stimulus) for stimulus in stimuli]
    first = round(n_clips * weights[0] / sum(weights))
    return [first, n_clips - first]


def _rank_class(session: Session, stimulus: Stimulus) -> int:
    """Return a class's rank in the session's template, where the class with the most movies comes first."""
    if stimulus is Stimulus.NATURAL_VIDEO:
        return 0
    others = {session.live_bonus_stimulus, *session.final_bonus_stimuli}
    return 1 + sorted(others, key=lambda other: (-n_movies_published(other), other)).index(stimulus)


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
