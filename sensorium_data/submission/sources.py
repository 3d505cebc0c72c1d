"""Where a submission's values come from: one predictions store, or the weighted mean of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sensorium_data.counting import count_things
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.predictions import (
    StandardizedPredictions,
    choose_weights,
    predicted_sessions,
    predictions_attributes,
)
from sensorium_data.sessions import Session, Tier
from sensorium_data.store import Store

__all__ = ["Entry", "EntryMember", "EntrySession", "open_entry"]


@dataclass(frozen=True, eq=False)
class EntryMember:
    """One predictions store of an entry.

    Attributes
    ----------
    url : str
        Where it is.
    weight : float
        How much it counts, as it was given.
    share : float
        Its share of the mean; those of all members sum to 1.
    attributes : dict
        Of its root: what made it.
    """

    url: str
    weight: float
    share: float
    attributes: dict[str, Any]

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The predicted tiers."""
        return tuple(Tier(tier) for tier in self.attributes["tiers"])

    def identify(self) -> dict[str, Any]:
        """Return what decides its values, as JSON values."""
        names = ("content_digest", "response_units")
        return {"share": self.share, **{name: self.attributes[name] for name in names}}


@dataclass(frozen=True, eq=False)
class Entry:
    """The predictions that an entry of the competition consists of. Made by :func:`open_entry`.

    Attributes
    ----------
    members : tuple of EntryMember
        The predictions stores, in the order in which they were named.
    """

    members: tuple[EntryMember, ...]

    @property
    def urls(self) -> str:
        """The members, in words."""
        return ", ".join(member.url for member in self.members)

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that any member predicts."""
        return tuple(tier for tier in Tier if any(tier in member.tiers for member in self.members))

    def sessions(self) -> dict[str, tuple[Session, ...]]:
        """Return each member's sessions, by its URL."""
        return {member.url: predicted_sessions(member.url) for member in self.members}

    def open_session(self, store: Store, session: Session) -> EntrySession:
        """Open one session of every member beside its recording; see :class:`EntrySession`."""
        return EntrySession(self, store, session)


class EntrySession:
    """One session's values, trial by trial, in standardized units.

    Parameters
    ----------
    entry : Entry
        The entry.
    store : Store
        The session stores.
    session : Session
        A session of all of them.

    Raises
    ------
    PredictionsError
        If a member does not predict the session or all of its neurons, or its neurons, trials, tiers or trial lengths
        are not the recording's.
    StoreError
        If the session is not in the store.
    """

    def __init__(self, entry: Entry, store: Store, session: Session) -> None:
        self.session = session
        self._members = entry.members
        self._sources = [StandardizedPredictions(member.url, store, session) for member in entry.members]
        for member, source in zip(entry.members, self._sources, strict=True):
            if source.neurons.size < source.n_recorded_neurons:
                raise PredictionsError(
                    "some neurons are not predicted, and the competition scores all",
                    session=session,
                    path=member.url,
                    found=count_things(source.neurons.size, "neuron"),
                    expected=f"all {source.n_recorded_neurons}",
                    remedy="submit predictions of a run that was trained without --neurons and --min-reliability",
                )

    @property
    def neurons(self) -> npt.NDArray[np.int64]:
        """Unit ids, in the order of the values' neurons."""
        return self._sources[0].neurons

    def n_frames(self, trial: int) -> int:
        """Return a trial's number of valid frames."""
        return self._sources[0].n_frames(trial)

    def is_valid(self, trial: int) -> bool:
        """Whether a trial's stimulus is whole."""
        return self._sources[0].is_valid(trial)

    def trials(self, tier: Tier) -> list[int]:
        """Return the ids of a tier's trials, sorted; broken ones are among them.

        Raises
        ------
        PredictionsError
            If a member lacks a valid one.
        """
        for member, source in zip(self._members, self._sources, strict=True):
            missing = source.unpredicted_trials(tier)
            n_left_out = len(source.left_out.intersection(missing))
            if missing:
                raise PredictionsError(
                    f"trials of {tier} are not predicted",
                    session=self.session,
                    trial=missing[0],
                    path=member.url,
                    found=f"{len(missing)} of them missing"
                    + (f", {n_left_out} left out when they were predicted" if n_left_out else ""),
                    expected="every trial of the tier, which the competition scores",
                    remedy="predict again without --exclude and --nan drop-trial"
                    if n_left_out
                    else "give the store that was predicted, or predict again",
                )
        return self._sources[0].trials(tier)

    def read(self, trial: int, frames: range) -> npt.NDArray[np.floating]:
        """Read a trial's frames.

        Parameters
        ----------
        trial : int
            The trial's id.
        frames : range
            The frames to return.

        Returns
        -------
        np.ndarray
            (neuron, frame): float32, the stored bits, of one member; float64, the weighted mean, of several.

        Raises
        ------
        PredictionsError
            If a member did not predict a frame.
        """
        if len(self._sources) == 1:
            return self._sources[0].read(trial, frames)
        mean = np.zeros((self.neurons.size, len(frames)))
        for member, source in zip(self._members, self._sources, strict=True):
            mean += member.share * source.read(trial, frames)
        return mean


def open_entry(predictions: str | Sequence[str], weights: Sequence[float] | None = None) -> Entry:
    """Open the predictions that an entry consists of.

    Parameters
    ----------
    predictions : str or sequence of str
        Paths or URLs of predictions stores; the values of several are averaged, each in standardized units.
    weights : sequence of float, optional
        One for each store, positive, of any sum; by default equal.

    Raises
    ------
    UsageError
        If none is named, one is named twice, or the weights do not fit.
    PredictionsError
        If a store is missing, unfinished or damaged.
    """
    urls = [predictions] if isinstance(predictions, str) else list(predictions)
    if not urls:
        raise UsageError("no predictions named", expected="one predictions store or more", remedy="name them")
    given = choose_weights(weights, len(urls), of="predictions")
    members: list[EntryMember] = []
    for url, weight in zip(urls, given, strict=True):
        attributes = predictions_attributes(url)
        for other in members:
            if other.attributes["content_digest"] == attributes["content_digest"]:
                raise UsageError(
                    "the same predictions twice",
                    path=url,
                    found=f"the values of {other.url}",
                    remedy="name each store once; a weight says how much it counts",
                )
        members.append(EntryMember(url, weight, weight / sum(given), attributes))
    return Entry(tuple(members))
