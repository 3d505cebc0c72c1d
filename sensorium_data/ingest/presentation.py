"""When each trial was shown: its place in the session, its onset, and the archive's own number of it.

Both releases number their trials in the order of presentation, each in its own way. The rules were found by comparing
the real archives' trials with published tables of the recordings' events. Where a rule does not settle a trial's place,
the place is unknown.

- The old release, sessions A to E, has no ``trial_idx.npy``. A trial's id is its place among the clips that are not
  natural images; trials of natural images have the last ids. Where a session shows natural images (B, C, D), the
  archive does not tell where between the other clips, so no place is known. Session E lost clip 579, and later ids
  moved up by one.
- The new release, sessions F to J, holds ``trial_idx.npy``: the trial's number before trials were dropped. A trial of
  natural images holds the numbers of its ten images, joined by ``--``.

Clips follow each other without a gap, so a trial's onset is the length of all clips before it. It is known as long as
no clip before it is missing from the archive, whose length nobody knows. A trial of natural images is taken to last as
long as its video, which is right to a frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.errors import TrialError
from sensorium_data.schema import PRESENTATION_RATE_HZ
from sensorium_data.sessions import Release, Session, Stimulus, Tier

__all__ = ["Presentation", "compute_onsets", "find_places", "read_presentation"]

_MEMBER = "meta/trials/trial_idx.npy"
# The published ones take a few hundred kilobytes.
_MOST_BYTES = 16 << 20
_LONGEST_TEXT = 200
_N_IMAGES = 10
_NUMBERS = re.compile(r"\d{1,9}(--\d{1,9})*", re.ASCII)
# The clip that a session lost before its trials were numbered.
_LOST_CLIP = {"E": 579}
_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Presentation:
    """When the trials of an archive were shown.

    Attributes
    ----------
    trial_idx : tuple of str
        For each trial, the archive's own number of it; empty where it is not known.
    places : np.ndarray
        (trial,) int64, the trial's place among all clips that were shown, from 0; -1 where it is not known.
    notes : tuple of str
        What is wrong with the archive's numbers, one sentence each.
    """

    trial_idx: tuple[str, ...]
    places: np.ndarray
    notes: tuple[str, ...] = ()


def read_presentation(archive: SessionArchive, session: Session, trials: Sequence[int]) -> Presentation:
    """Read the archive's own numbers of its trials, and find the trials' places in the session.

    Parameters
    ----------
    archive : SessionArchive
        The session's archive.
    session : Session
        Which session that is.
    trials : sequence of int
        Ids of the trials that have files, ascending.

    Raises
    ------
    ArchiveError, SourceError
        If the archive's numbers are damaged or cannot be had. Numbers that make no sense are a note.
    """
    texts, note = _read_trial_idx(archive, trials)
    places = find_places(session, trials, texts)
    if any(texts) and session.is_described and _parse_numbers(texts, shows_images=_shows_images(session)) is None:
        note = "trial_idx does not ascend with the trials' ids: places in the session are unknown"
    return Presentation(texts, places, (note,) if note else ())


def find_places(session: Session, trials: Sequence[int], trial_idx: Sequence[str]) -> np.ndarray:
    """Return the place of each trial in the session, by the rules of its release.

    Parameters
    ----------
    session : Session
        Which session.
    trials : sequence of int
        Ids of the trials that have files, ascending.
    trial_idx : sequence of str
        The archive's own number of each; empty where it holds none.

    Returns
    -------
    np.ndarray
        (trial,) int64, from 0; -1 where the place is not known, as in sessions that the catalogue lacks.
    """
    places = np.full(len(trials), _UNKNOWN, np.int64)
    if not session.is_described:
        return places
    shows_images = _shows_images(session)
    if any(trial_idx):
        numbers = _parse_numbers(trial_idx, shows_images=shows_images)
        if numbers is not None:
            places[:] = _count_clips(numbers, shows_images=shows_images)
    elif session.release is Release.OLD and not shows_images:
        lost = _LOST_CLIP.get(session.alias)
        places[:] = [trial + (lost is not None and trial >= lost) for trial in trials]
    return places


def compute_onsets(places: np.ndarray, n_frames: Sequence[int]) -> np.ndarray:
    """Return when each trial began, in seconds from the session's first frame.

    Parameters
    ----------
    places : np.ndarray
        (trial,) int, place in the session; -1 where it is not known.
    n_frames : sequence of int
        (trial,), valid frames; 0 where the stimulus is broken, and its length unknown.

    Returns
    -------
    np.ndarray
        (trial,) float64, NaN where a clip before the trial is missing or broken.
    """
    onsets = np.full(len(places), np.nan)
    trial_at = {place: trial for trial, place in enumerate(places.tolist()) if place != _UNKNOWN}
    n_before = 0
    for place in range(len(trial_at)):
        trial = trial_at.get(place)
        if trial is None:
            break
        onsets[trial] = n_before / PRESENTATION_RATE_HZ
        if not n_frames[trial]:
            break
        n_before += n_frames[trial]
    return onsets


def _shows_images(session: Session) -> bool:
    return any(Stimulus.NATURAL_IMAGES in session.stimuli_of(tier) for tier in Tier)


def _parse_numbers(trial_idx: Sequence[str], *, shows_images: bool) -> list[range] | None:
    """Return the numbers of each trial, one or those of ten images; None if they do not ascend with the trials."""
    parsed: list[range] = []
    for text in trial_idx:
        numbers = [int(number) for number in text.split("--")] if _NUMBERS.fullmatch(text) else []
        if len(numbers) != 1 and not (shows_images and len(numbers) == _N_IMAGES):
            return None
        run = range(numbers[0], numbers[0] + len(numbers))
        if numbers != list(run) or (parsed and run.start < parsed[-1].stop):
            return None
        parsed.append(run)
    return parsed


def _count_clips(numbers: Sequence[range], *, shows_images: bool) -> list[int]:
    """Return each trial's place among the clips, ten images being one; unknown from where that cannot be told."""
    places = []
    place, following = 0, 0
    for run in numbers:
        n_missing = run.start - following
        if shows_images and n_missing >= _N_IMAGES:
            # They are as many clips, or fewer of which some are ten images each.
            break
        place += n_missing
        places.append(place)
        place += 1
        following = run.stop
    return places + [_UNKNOWN] * (len(numbers) - len(places))


def _read_trial_idx(archive: SessionArchive, trials: Sequence[int]) -> tuple[tuple[str, ...], str]:
    """Return the archive's text of each trial, and what is wrong with the file; empty where nothing is."""
    nothing = ("",) * len(trials)
    entry = archive.entries.get(archive.member(_MEMBER))
    if entry is None:
        return nothing, ""
    if entry.size_bytes > _MOST_BYTES:
        return nothing, f"trial_idx is left out: {entry.size_bytes} bytes, at most {_MOST_BYTES} are expected"
    try:
        values = archive.read_array(entry.name)
    except TrialError as error:
        return nothing, f"trial_idx is left out: {error.problem}"
    if values.ndim != 1 or values.dtype.kind not in "iuUS":
        return nothing, f"trial_idx is left out: {values.dtype} {values.shape}, numbers or text (trials,) are expected"
    if trials and len(values) <= max(trials):
        return nothing, f"trial_idx is left out: {len(values)} of at least {max(trials) + 1} trials"
    texts = tuple(_to_text(value) for value in values[list(trials)].tolist())
    if not all(text.isprintable() and len(text) <= _LONGEST_TEXT for text in texts):
        return nothing, "trial_idx is left out: it holds text that is no number"
    return texts, ""


def _to_text(value: int | str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
