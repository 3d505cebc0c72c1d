"""Which trials a simulated session has: their ids, tiers, movies, lengths and order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from sensorium_data.sessions import Release, Session, Stimulus, Tier
from sensorium_data.simulation.clips import (
    BROKEN_TRIALS,
    Clip,
    Fate,
    Movie,
    apportion_trials,
    list_clips,
    n_movies_published,
)
from sensorium_data.simulation.random_streams import random_stream

__all__ = ["SHOWN_RATE_HZ", "UNPUBLISHED", "Movie", "SessionPlan", "TrialPlan", "apportion_trials", "plan_session"]

#: Label of entries of ``tiers.npy`` that have no files.
UNPUBLISHED = "none"

#: Frames came a little more slowly than at the nominal 30 Hz.
SHOWN_RATE_HZ = 29.967

# The place of the clip that a session lost before its trials were numbered.
_LOST_CLIPS: Mapping[str, int] = MappingProxyType({"E": 579})

# Of a trial of images; each was a trial of the recording.
_N_IMAGES = 10
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
    presentation : int
        Its place among all clips of the session, those without files included.
    first_frame : int
        The frame of the session at which it begins.
    """

    trial: int
    tier: Tier
    movie: Movie
    n_frames: int
    is_broken: bool
    is_withheld: bool
    presentation: int
    first_frame: int


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
    trial_idx : tuple of str or None
        ``trial_idx.npy``: the number of every id in the recording, the ten of a trial of images joined by ``--``. The
        old release does not have it.
    n_frames : int
        Frames of the whole session: its clips follow each other without a gap.
    """

    session: Session
    seed: int
    n_neurons: int
    trials: tuple[TrialPlan, ...]
    tiers: tuple[str, ...]
    trial_idx: tuple[str, ...] | None
    n_frames: int


def plan_session(session: Session, *, n_trials: int | None, n_neurons: int | None, seed: int) -> SessionPlan:
    """Decide which trials a simulated session has, and in which order.

    Parameters
    ----------
    session : Session
        Which session to imitate.
    n_trials : int, optional
        Trials with files, over all tiers; as many as published by default.
    n_neurons : int, optional
        Neurons; as many as published by default.
    seed : int
        Sessions of a pair planned with one seed show nearly the same movies, in the same order.
    """
    total = session.n_trials if n_trials is None else n_trials
    clips = _order_clips(list_clips(session, total, seed), session)
    numbered = _number_clips(clips, session)
    lengths = [session.n_frames_padded if clip.is_broken else _count_frames(session, clip, seed) for clip in clips]
    starts = [0, *itertools.accumulate(lengths)]
    trials = tuple(
        TrialPlan(
            trial=trial,
            tier=clips[place].tier,
            movie=clips[place].movie,
            n_frames=lengths[place],
            is_broken=clips[place].is_broken,
            is_withheld=session.withholds_test_responses and clips[place].tier.is_test,
            presentation=place,
            first_frame=starts[place],
        )
        for trial, place in enumerate(numbered)
        if clips[place].fate is Fate.PUBLISHED
    )
    is_published = [clips[place].fate is Fate.PUBLISHED for place in numbered]
    return SessionPlan(
        session=session,
        seed=seed,
        n_neurons=session.n_neurons if n_neurons is None else n_neurons,
        trials=trials,
        tiers=tuple(
            str(clips[place].tier) if published else UNPUBLISHED
            for place, published in zip(numbered, is_published, strict=True)
        ),
        trial_idx=_name_recorded_trials(clips, numbered) if session.release is Release.NEW else None,
        n_frames=starts[-1],
    )


def _order_clips(clips: Sequence[Clip], session: Session) -> list[Clip]:
    """Return the clips in the order of their template.

    Two templates say when which of a session's clips came: one for 740 clips, one for 720. Both sessions of a pair
    show one movie at one place.
    """
    has_eight = any(n_movies_published(stimulus) == 8 for tier in Tier for stimulus in session.stimuli_of(tier))
    template = "740 clips" if has_eight else "720 clips"
    ordered = sorted(clips, key=lambda clip: random_stream("template", template, *clip.slot).random())
    return _lose_clip(_place_broken(ordered, session), session)


def _lose_clip(clips: list[Clip], session: Session) -> list[Clip]:
    """Move the clip without files that is next to the one that the session lost to its place."""
    lost = _LOST_CLIPS.get(session.alias, len(clips))
    dropped = [place for place, clip in enumerate(clips) if clip.fate is Fate.DROPPED]
    if lost < len(clips) and dropped:
        nearest = min(dropped, key=lambda place: (abs(place - lost), place))
        clips[lost], clips[nearest] = clips[nearest], clips[lost]
        clips[lost] = replace(clips[lost], fate=Fate.LOST)
    return clips


def _place_broken(clips: list[Clip], session: Session) -> list[Clip]:
    """Move the broken clip, if there is one, to the id that it has in the recording."""
    broken = next((place for place, clip in enumerate(clips) if clip.is_broken), None)
    numbered = _number_clips(clips, session)
    wanted_id = BROKEN_TRIALS.get(session.alias, 0)
    if broken is None or wanted_id >= len(numbered):
        return clips
    wanted = numbered[wanted_id]
    # It changes places first with a clip of its kind, so that the template stays as it is.
    kin = [place for place, clip in enumerate(clips) if clip.tier is Tier.LIVE_TEST_BONUS]
    nearest = min(kin, key=lambda place: (abs(place - wanted), place))
    for other in (nearest, wanted):
        clips[broken], clips[other] = clips[other], clips[broken]
        broken = other
    return clips


def _number_clips(clips: Sequence[Clip], session: Session) -> list[int]:
    """Return the place of the clip that each trial id stands for.

    The old release numbered all clips, those without files included, and images after all others. The new one numbered
    those with files, in the order in which they were shown.
    """
    if session.release is Release.NEW:
        return [place for place, clip in enumerate(clips) if clip.fate is Fate.PUBLISHED]
    places = [place for place, clip in enumerate(clips) if clip.fate is not Fate.LOST]
    return sorted(places, key=lambda place: clips[place].movie.stimulus is Stimulus.NATURAL_IMAGES)


def _name_recorded_trials(clips: Sequence[Clip], numbered: Sequence[int]) -> tuple[str, ...]:
    """Return the number of each id in the recording, in which every image was a trial."""
    counts = [_N_IMAGES if clip.movie.stimulus is Stimulus.NATURAL_IMAGES else 1 for clip in clips]
    starts = [0, *itertools.accumulate(counts)]
    return tuple("--".join(str(number) for number in range(starts[p], starts[p] + counts[p])) for p in numbered)


def _count_frames(session: Session, clip: Clip, seed: int) -> int:
    movie = clip.movie
    if movie.stimulus is not Stimulus.NATURAL_IMAGES:
        return min(_N_FRAMES[movie.stimulus], session.n_frames_padded)
    shortest, longest = _NATURAL_IMAGES_N_FRAMES
    longest = min(longest, session.n_frames_padded)
    # The gray after the last image lasted a little longer or shorter each time.
    length = int(random_stream(seed, "length", movie.id).integers(shortest + 1, longest))
    return length + int(random_stream(seed, "length", session.name, *clip.slot).integers(-1, 2))
