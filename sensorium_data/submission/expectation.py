"""What a submission has to say, as the session stores know it: neurons, trials, tiers and lengths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensorium_data.errors import SubmissionError, UnknownNameError
from sensorium_data.sessions import Release, Session, Tier, find_session
from sensorium_data.store import Store

__all__ = ["ExpectedSession", "full_name_of", "parse_trial", "read_expectation"]


@dataclass(frozen=True, eq=False)
class ExpectedSession:
    """What a submission has to say of one session.

    Attributes
    ----------
    session : Session
        The session.
    neurons : np.ndarray
        Unit ids, in the order of the store.
    tiers : mapping of int to Tier
        Of each trial id.
    n_frames : mapping of int to int
        Valid frames of each trial.
    broken : frozenset of int
        Trials whose stimulus is broken.
    """

    session: Session
    neurons: npt.NDArray[np.int64]
    tiers: Mapping[int, Tier]
    n_frames: Mapping[int, int]
    broken: frozenset[int]

    def trials(self, tier: Tier) -> set[int]:
        """Return the tier's valid trials."""
        return {trial for trial, of in self.tiers.items() if of is tier and trial not in self.broken}


def read_expectation(store: Store) -> dict[str, ExpectedSession]:
    """Read what a submission has to say of each scored session of a store, by full name.

    Raises
    ------
    StoreError
        If the store cannot be read.
    SubmissionError
        If it holds no scored session.
    """
    scored = [session for session in store if session.release is Release.NEW]
    if not scored:
        raise SubmissionError(
            "the store holds no session that the competition scores",
            path=store.url,
            expected="at least one of F to J",
            remedy="ingest the new sessions",
        )
    return {session.name: _read_session(store, session) for session in scored}


def full_name_of(name: object) -> str:
    """Return the full name of the session that is meant, or the name as it is."""
    try:
        return find_session(str(name)).name
    except UnknownNameError:
        return str(name)


def parse_trial(value: object) -> int | None:
    """Return the trial id, of ``1``, ``'1'`` or ``'1.npy'``."""
    match = re.fullmatch(r"([0-9]{1,9})(\.npy)?", str(value))
    return int(match[1]) if match else None


def _read_session(store: Store, session: Session) -> ExpectedSession:
    recording = store[session]
    trials = recording["trial"].values.tolist()
    return ExpectedSession(
        session=session,
        neurons=np.asarray(recording["neuron"].values, np.int64),
        tiers=dict(zip(trials, map(Tier, recording["tier"].values.tolist()), strict=True)),
        n_frames=dict(zip(trials, recording["n_frames"].values.tolist(), strict=True)),
        broken=frozenset(t for t, valid in zip(trials, recording["valid"].values.tolist(), strict=True) if not valid),
    )
