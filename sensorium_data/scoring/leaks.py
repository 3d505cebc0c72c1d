"""What an entry was trained on, and which of the movies that score it were among that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sensorium_data.errors import StoreError
from sensorium_data.movies import report_leakage
from sensorium_data.predictions import RunRecord, find_runs, predictions_attributes
from sensorium_data.sessions import Session, Tier, find_session, sort_tiers
from sensorium_data.store import Store

__all__ = ["TRAINED_SESSIONS", "TierLeak", "TrainingData", "find_tier_leaks", "read_training_data"]

#: The attribute of a predictions store that names the sessions its model was trained on, where no run does.
TRAINED_SESSIONS = "trained_sessions"


@dataclass(frozen=True)
class TrainingData:
    """What an entry was trained on, as far as is known.

    Attributes
    ----------
    sessions : tuple of str
        Full names, in catalogue order.
    tiers : tuple of str
        Tiers that it was trained on, and those that its epoch was chosen by.
    unknown : tuple of str
        What is not known, one clause each; empty if all is.
    """

    sessions: tuple[str, ...]
    tiers: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class TierLeak:
    """How much of a scored tier an entry was trained on.

    Attributes
    ----------
    session, alias, tier : str
        What is scored.
    n_movies, n_trials : int
        Its movies and valid trials.
    n_leaked_movies, n_leaked_trials : int
        Those whose movie was shown in the sessions and tiers that the entry was trained on.
    trained_sessions : tuple of str
        Aliases of the sessions that the movies leak from.
    """

    session: str
    alias: str
    tier: str
    n_movies: int
    n_trials: int
    n_leaked_movies: int
    n_leaked_trials: int
    trained_sessions: tuple[str, ...]


def read_training_data(predictions: str, folders: Iterable[str]) -> TrainingData:
    """Find out what the model behind a predictions store was trained on.

    The store names its runs by their digests, and a run's folder lists its sessions and tiers. A store of another
    software may list sessions in its attribute :data:`TRAINED_SESSIONS`; they are taken to be trained on ``train`` and
    ``oracle``.

    Parameters
    ----------
    predictions : str
        The predictions store.
    folders : iterable of str
        Runs, or folders of runs, to look in; none need exist.

    Raises
    ------
    PredictionsError
        If there is no finished predictions store.
    RunError
        If a file of one of the runs is damaged.
    UnknownNameError
        If the store names a session that does not exist.
    """
    attributes = predictions_attributes(predictions)
    digests: list[str] = list(attributes["runs"])
    declared: Sequence[str] = attributes.get(TRAINED_SESSIONS, ())
    sessions = {find_session(name) for name in declared}
    tiers: set[Tier] = {Tier.TRAIN, Tier.ORACLE} if declared else set()
    runs: dict[str, RunRecord] = {}
    for folder in folders:
        if missing := [digest for digest in digests if digest not in runs]:
            runs |= find_runs(folder, missing)
    for run in runs.values():
        sessions |= {find_session(name) for name in run.sessions}
        tiers |= {Tier(tier) for tier in run.config.get("tiers", [Tier.TRAIN])}
        if run.config.get("n_folds") is None:
            tiers.add(Tier.ORACLE)
    unknown = [f"run {digest[:8]}, which predicted it, is not at hand" for digest in digests if digest not in runs]
    if not digests and not declared:
        unknown.append("the predictions store does not say what was trained on")
    return TrainingData(
        tuple(session.name for session in sorted(sessions)),
        sort_tiers(tiers),
        tuple(unknown),
    )


def find_tier_leaks(
    store: Store, trained: TrainingData, scored: Mapping[Session, Sequence[Tier]]
) -> tuple[tuple[TierLeak, ...], tuple[str, ...]]:
    """Count the movies and trials of scored tiers that an entry was trained on.

    A movie leaks if the entry was trained on a trial of another session, or of another tier of the same one, that
    shows it; of a tier that it was trained on itself, all movies do. Folds are not looked into: of a run that left some
    movies out, more may be counted than it saw.

    Parameters
    ----------
    store : Store
        The session stores.
    trained : TrainingData
        What the entry was trained on.
    scored : mapping of Session to sequence of Tier
        What is scored.

    Returns
    -------
    leaks : tuple of TierLeak
        For every scored session and tier; what cannot be compared is not counted.
    unknown : tuple of str
        What cannot be told, one clause each.
    """
    unknown = list(trained.unknown)
    absent = [name for name in trained.sessions if find_session(name) not in store]
    if absent:
        aliases = ", ".join(find_session(name).alias for name in absent)
        unknown.append(f"it was trained on {aliases}, whose movies are not in the store")
    shared: dict[tuple[str, str], dict[str, set[str]]] = {}
    try:
        leakage = report_leakage(store)
    except StoreError as error:
        unknown.append(f"the store's movies cannot be compared: {error}")
    else:
        for leak in leakage.leaks:
            if leak.trained_session in trained.sessions and leak.trained_tier in trained.tiers:
                movies = shared.setdefault((leak.scored_session, leak.scored_tier), {})
                movies.setdefault(leak.movie_group, set()).add(leak.trained_session)
    leaks = [
        _count(store, session, tier, trained, shared.get((session.name, str(tier)), {}))
        for session, tiers in scored.items()
        for tier in tiers
    ]
    return tuple(leaks), tuple(unknown)


def _count(
    store: Store, session: Session, tier: Tier, trained: TrainingData, shared: Mapping[str, set[str]]
) -> TierLeak:
    recording = store[session]
    tiers, movies = (recording[name].values.astype(str) for name in ("tier", "movie_group"))
    is_valid = recording["valid"].values.astype(bool)
    of_tier = movies[is_valid & (tiers == str(tier))]
    seen = set(shared)
    sources = {source for movie in set(of_tier.tolist()) for source in shared.get(movie, ())}
    if session.name in trained.sessions:
        published = is_valid & ~recording["responses_withheld"].values.astype(bool)
        own = set(movies[published & np.isin(tiers, [str(one) for one in trained.tiers])].tolist())
        if own & set(of_tier.tolist()):
            sources.add(session.name)
        seen |= own
    return TierLeak(
        session=session.name,
        alias=session.alias,
        tier=str(tier),
        n_movies=len(set(of_tier.tolist())),
        n_trials=len(of_tier),
        n_leaked_movies=len(seen & set(of_tier.tolist())),
        n_leaked_trials=int(np.isin(of_tier, sorted(seen)).sum()),
        trained_sessions=tuple(one.alias for one in sorted(map(find_session, sources))),
    )
