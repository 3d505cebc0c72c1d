"""What a submission will hold: which trials in which file of which zip, found before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sensorium_data.errors import PredictionsError
from sensorium_data.frames import (
    MEMBER_NAMES,
    OFFICIAL_FRAMES_NOTE,
    FloatType,
    FramesProfile,
    frames_of,
    zip_members,
)
from sensorium_data.sessions import Release, Session, Tier, Track
from sensorium_data.store import Store
from sensorium_data.submission.sources import Entry, EntrySession
from sensorium_data.submission.writer import PredictionsTable, SubmissionRow, measure_rows

__all__ = ["SubmissionPlan", "make_plan"]

#: Raised when the bytes that the same predictions give change.
_FORMAT_VERSION = 2
# Rows that a zip's size is estimated from: the first of as many sessions and files.
_SAMPLED_ROWS = 4
# A row's entry in the index of a file: measured, and of no weight beside a real row's megabytes.
_ROW_OVERHEAD_BYTES = 900


@dataclass(frozen=True, eq=False)
class SubmissionPlan:
    """What will be written. Made by :func:`make_plan`.

    Attributes
    ----------
    track : Track
        The track.
    frames : str
        The frames profile.
    float_type : str
        Of the values.
    entry : Entry
        Where they come from.
    zips : mapping of str to tuple of Tier
        The tiers of each zip, by its name.
    rows : mapping of Tier to tuple
        Each tier's trials, in the order of the rows.
    notes : tuple of str
        What is left out, and why, and what to know of the frames.
    stores : mapping of str to str
        Digests of the recorded sessions, by full name.
    """

    track: Track
    frames: FramesProfile
    float_type: FloatType
    entry: Entry
    zips: Mapping[str, tuple[Tier, ...]]
    rows: Mapping[Tier, tuple[tuple[EntrySession, int], ...]]
    notes: tuple[str, ...]
    stores: Mapping[str, str]

    @property
    def n_rows(self) -> int:
        """Rows of all zips."""
        return sum(self.count_rows(tiers) for tiers in self.zips.values())

    def count_rows(self, tiers: Sequence[Tier]) -> int:
        """Return the number of rows of some tiers' files."""
        return sum(len(self.rows[tier]) for tier in tiers)

    def identify(self) -> dict[str, Any]:
        """Return everything that the bytes depend on, as JSON values."""
        return {
            "format_version": _FORMAT_VERSION,
            "writer": f"pyarrow {pa.__version__}",
            "track": str(self.track),
            "frames": self.frames,
            "float_type": self.float_type,
            "predictions": [member.identify() for member in self.entry.members],
            "stores": dict(self.stores),
        }

    def table(self, tier: Tier) -> PredictionsTable:
        """Return a tier's predictions file."""
        n_values = sum(s.neurons.size * len(self._frames_of(s, trial)) for s, trial in self.rows[tier])
        return PredictionsTable(MEMBER_NAMES[tier], self.float_type, n_values, lambda: self._read_rows(self.rows[tier]))

    def tables(self, name: str) -> list[PredictionsTable]:
        """Return a zip's predictions files."""
        return [self.table(tier) for tier in self.zips[name]]

    def estimate_size_bytes(self, name: str) -> int:
        """Return about how large a zip will be, from some of its rows, which are compressed to find out."""
        firsts: dict[tuple[Tier, Session], tuple[EntrySession, int]] = {}
        for tier in self.zips[name]:
            for session, trial in self.rows[tier]:
                firsts.setdefault((tier, session.session), (session, trial))
        step = max(1, len(firsts) // _SAMPLED_ROWS)
        sampled = list(firsts.values())[::step][:_SAMPLED_ROWS]
        bytes_per_value = measure_rows(self._read_rows(sampled), self.float_type)
        n_values = sum(table.n_values for table in self.tables(name))
        return int(n_values * bytes_per_value) + _ROW_OVERHEAD_BYTES * self.count_rows(self.zips[name])

    def _frames_of(self, session: EntrySession, trial: int) -> range:
        return frames_of(self.frames, session.n_frames(trial))

    def _read_rows(self, rows: Sequence[tuple[EntrySession, int]]) -> Iterator[SubmissionRow]:
        for session, trial in rows:
            values = session.read(trial, self._frames_of(session, trial))
            yield SubmissionRow(session.session.name, trial, values, session.neurons)


def make_plan(
    entry: Entry, store: Store, track: Track, frames: FramesProfile, float_type: FloatType = "float32"
) -> SubmissionPlan:
    """Find out what a track's submission will hold.

    Rows are the valid trials of the scored sessions, by session and trial id. Trials whose stimulus is broken are
    left out, because there is nothing to predict them from; whether the server wants rows for them is not known.

    Parameters
    ----------
    entry : Entry
        The predictions.
    store : Store
        The session stores.
    track : Track
        The track.
    frames, float_type : str
        Which frames, and as what.

    Raises
    ------
    PredictionsError
        If a scored session of the store, a tier or a trial is not predicted, or does not fit its recording.
    StoreError
        If a session is not in the store.
    """
    scored, old = _scored_sessions(entry, store)
    notes = [f"left out {', '.join(old)}: the competition scores the new sessions, F to J"] if old else []
    if frames == "official":
        notes.append(OFFICIAL_FRAMES_NOTE)
    zips, absent = _planned_zips(entry, track)
    notes += [f"no zip for {tier}: it was not predicted" for tier in absent]
    sessions = [entry.open_session(store, session) for session in scored]
    rows: dict[Tier, tuple[tuple[EntrySession, int], ...]] = {}
    for tier in (tier for tiers in zips.values() for tier in tiers):
        trials = [(session, trial) for session in sessions for trial in session.trials(tier)]
        rows[tier] = tuple((session, trial) for session, trial in trials if session.is_valid(trial))
        notes += [
            f"session {session.session}, {tier}, trial {trial}: left out, its stimulus is broken; whether the server "
            "wants a row for it is not known"
            for session, trial in trials
            if not session.is_valid(trial)
        ]
    stores = {session.name: store.digest(session) for session in scored}
    return SubmissionPlan(track, frames, float_type, entry, zips, rows, tuple(notes), stores)


def _scored_sessions(entry: Entry, store: Store) -> tuple[list[Session], list[str]]:
    """Return the sessions to write, and the aliases of those that are predicted and not scored."""
    wanted = [session for session in store if session.release is Release.NEW]
    old: dict[str, None] = {}
    for url, predicted in entry.sessions().items():
        scored = [session for session in predicted if session.release is Release.NEW]
        unpredicted = [session for session in wanted if session not in predicted]
        if unpredicted or not scored:
            raise PredictionsError(
                "sessions that the competition scores are not predicted",
                path=url,
                found=", ".join(session.alias for session in predicted),
                expected=f"also {', '.join(session.alias for session in unpredicted) or 'F to J'}",
                remedy="predict these too, with a run that was trained on them",
            )
        # One that is not in the store is refused, with its name, when it is opened.
        wanted += [session for session in scored if session not in wanted]
        old |= dict.fromkeys(session.alias for session in predicted if session.release is Release.OLD)
    return sorted(wanted), list(old)


def _planned_zips(entry: Entry, track: Track) -> tuple[dict[str, tuple[Tier, ...]], list[Tier]]:
    """Return the zips to write, and the tiers of the track that nobody predicted."""
    members = zip_members(track)
    wanted = [tier for tiers in members.values() for tier in tiers]
    zips = {
        name: tiers for name, tiers in members.items() if track is Track.MAIN or any(t in entry.tiers for t in tiers)
    }
    needed = [tier for tiers in zips.values() for tier in tiers] or wanted
    for member in entry.members:
        absent = [tier for tier in needed if tier not in member.tiers]
        if absent:
            raise PredictionsError(
                f"tiers of the {track} track are not predicted",
                path=member.url,
                found=", ".join(member.tiers),
                expected=f"also {', '.join(absent)}",
                remedy=f"predict into one store the tiers {' '.join(wanted)}",
            )
    return zips, [tier for tier in wanted if tier not in needed]
