"""Movies on which one session is scored while another is trained on them.

The sessions of a pair were shown nearly the same movies, some of them in different tiers: who trains on
one session's oracle trials has seen what the other's test trials show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
import xarray as xr

from sensorium_data.errors import StoreError
from sensorium_data.html_table import write_html_table
from sensorium_data.sessions import Tier, find_session
from sensorium_data.store import Store, StoreLike, ingest_command, open_store, read_movie_groups

__all__ = ["LeakageReport", "MovieLeak", "find_leaks", "report_leakage", "unlinked_sessions"]


@dataclass(frozen=True, order=True)
class MovieLeak:
    """A movie that sits in a scored tier of one session and in trials of another that can be trained on.

    Attributes
    ----------
    movie_group : str
        Its id across sessions.
    scored_session, scored_tier : str
        Where it is scored: oracle or a test tier.
    trained_session, trained_tier : str
        Where responses to it are published.
    n_scored_trials, n_trained_trials : int
        Valid trials that show it; of the trained ones, those whose responses are published.
    """

    movie_group: str
    scored_session: str
    scored_tier: str
    trained_session: str
    trained_tier: str
    n_scored_trials: int
    n_trained_trials: int

    @property
    def is_from_train(self) -> bool:
        """Whether the movie is in the tier made for training; else in one that people train on besides."""
        return self.trained_tier == Tier.TRAIN


@dataclass(frozen=True)
class LeakageReport:
    """What :func:`find_leaks` found.

    Attributes
    ----------
    sessions : tuple of str
        The sessions compared.
    leaks : tuple of MovieLeak
        Ordered by movie; empty where there are none.
    """

    sessions: tuple[str, ...]
    leaks: tuple[MovieLeak, ...]

    @property
    def n_leaks_from_train(self) -> int:
        """Leaks out of train tiers, which nobody who follows the tiers can avoid."""
        return sum(leak.is_from_train for leak in self.leaks)

    def to_table(self) -> pd.DataFrame:
        """Return a row a leak, its columns :class:`MovieLeak`'s attributes and ``is_from_train``."""
        rows = [{**asdict(leak), "is_from_train": leak.is_from_train} for leak in self.leaks]
        return pd.DataFrame(rows, columns=[*(field.name for field in fields(MovieLeak)), "is_from_train"])

    def count_by_tiers(self) -> pd.DataFrame:
        """Return a row a pair of a scored and a trained tier that share movies.

        Returns
        -------
        pandas.DataFrame
            Columns scored_session, scored_tier, trained_session, trained_tier, is_from_train, n_movies,
            n_scored_trials and n_trained_trials.
        """
        keys = ["scored_session", "scored_tier", "trained_session", "trained_tier", "is_from_train"]
        counted = self.to_table().groupby(keys, as_index=False)
        return counted.agg(
            n_movies=("movie_group", "size"),
            n_scored_trials=("n_scored_trials", "sum"),
            n_trained_trials=("n_trained_trials", "sum"),
        )

    def _repr_html_(self) -> str:
        columns = ["scored_session", "scored_tier", "trained_session", "trained_tier", "n_movies"]
        rows = self.count_by_tiers()[columns].itertuples(index=False)
        caption = f"Movies scored in one session and trained on in another: {len(self.leaks)}"
        return write_html_table(caption, [name.replace("_", " ") for name in columns], rows)

    def to_json(self) -> str:
        """Return the report as JSON."""
        leaks = [{**asdict(leak), "is_from_train": leak.is_from_train} for leak in self.leaks]
        return json.dumps({"sessions": self.sessions, "leaks": leaks}, indent=2)


def find_leaks(recordings: Mapping[str, xr.Dataset]) -> LeakageReport:
    """Find the movies that are scored in one session and can be trained on in another.

    Scored are oracle and the test tiers. Trained on are train and every other tier with published responses: the test
    tiers of the old sessions and everybody's oracle; :attr:`MovieLeak.is_from_train` keeps the two apart.

    Parameters
    ----------
    recordings : mapping of str to xarray.Dataset
        By session, with ``movie_group``: what :func:`sensorium_data.store.open_session` returns once
        :func:`sensorium_data.movies.link_movies` has compared the store's sessions.

    Raises
    ------
    UsageError
        If a session was opened without ``movie_group``: its own ids would hide every leak.
    """
    shown = _count_trials(recordings)
    leaks = []
    for movie, places in shown.items():
        for (scored, scored_tier), (n_scored, _) in places.items():
            if scored_tier == Tier.TRAIN:
                continue
            for (trained, trained_tier), (_, n_trained) in places.items():
                if trained != scored and n_trained:
                    leaks.append(MovieLeak(movie, scored, scored_tier, trained, trained_tier, n_scored, n_trained))
    return LeakageReport(tuple(recordings), tuple(sorted(leaks)))


def report_leakage(store: StoreLike) -> LeakageReport:
    """Find the leaks among all sessions of a store, by their full names.

    Raises
    ------
    StoreError
        If there is no store, a session in it is damaged, or its movies have not been compared with the others':
        their ids would hide every leak.
    """
    opened = open_store(store)
    recordings = {session.name: opened.as_stored(session) for session in opened}
    if len(recordings) > 1:
        _require_links(opened, recordings)
    return find_leaks({name: opened.links.apply(dataset) for name, dataset in recordings.items()})


def unlinked_sessions(store: StoreLike) -> tuple[str, ...]:
    """Return the full names of the sessions whose movies have not been compared with the others'.

    Raises
    ------
    StoreError
        If there is no store, or a session in it is damaged.
    """
    opened = open_store(store)
    if len(opened) < 2:
        return ()
    return tuple(session.name for session in opened if not opened.links.covers(opened.as_stored(session)))


def _require_links(store: Store, recordings: Mapping[str, xr.Dataset]) -> None:
    missing = [name for name, dataset in recordings.items() if not store.links.covers(dataset)]
    if missing:
        first = find_session(missing[0])
        raise StoreError(
            "the movies of these sessions have not been compared with the others'",
            path=store.url,
            found=", ".join(missing),
            remedy=f"`{ingest_command(store.objects, first, store.group(first))}` compares them",
        )


def _count_trials(recordings: Mapping[str, xr.Dataset]) -> dict[str, dict[tuple[str, str], tuple[int, int]]]:
    """Return, by movie, session and tier, how many valid trials show it, and how many have responses."""
    shown: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for session, dataset in recordings.items():
        valid = np.flatnonzero(dataset.valid.values)
        rows: Iterable[tuple[str, str, bool]] = zip(
            read_movie_groups(dataset)[valid].tolist(),
            dataset.tier.values[valid].tolist(),
            dataset.responses_withheld.values[valid].tolist(),
            strict=True,
        )
        for movie, tier, is_withheld in rows:
            places = shown.setdefault(movie, {})
            n_shown, n_published = places.get((session, tier), (0, 0))
            places[session, tier] = n_shown + 1, n_published + (not is_withheld)
    return shown
