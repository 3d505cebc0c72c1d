"""The ``.sensorium`` accessor of trees of sessions: the same words over all sessions at once.

Importing this module registers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.explore.accessor import SensoriumAccessor
from sensorium_data.explore.arguments import parse_names
from sensorium_data.explore.layout import cut_frames
from sensorium_data.html_table import write_html_table
from sensorium_data.sessions import Session, find_session, find_sessions, is_full_name
from sensorium_data.store import SessionTree, StoreLike, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SensoriumTreeAccessor", "movie_responses"]


@xr.register_datatree_accessor("sensorium")  # type: ignore[no-untyped-call, untyped-decorator]  # xarray has no types
def access_tree(tree: xr.DataTree) -> SensoriumTreeAccessor | SensoriumAccessor:
    """Return ``tree.sensorium``: the accessor of a tree of sessions, or that of a session for a session's own node."""
    if "trial" in tree.dims and "session" in tree.attrs:
        return SensoriumAccessor(tree.to_dataset(inherit=False))
    return SensoriumTreeAccessor(tree)


class SensoriumTreeAccessor:
    """Selections and tables over sessions, as ``tree.sensorium``.

    Parameters
    ----------
    tree : xarray.DataTree
        What :func:`sensorium_data.store.open_sessions` returns, or a selection of it.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree
        self._sessions = {
            find_session(name): node.to_dataset(inherit=False)
            for name, node in tree.children.items()
            if is_full_name(name)
        }

    def __repr__(self) -> str:
        return f"<{count_things(len(self._sessions), 'session')}: {', '.join(one.alias for one in self.sessions)}>"

    def _repr_html_(self) -> str:
        rows = [
            (one.alias, one.name, *(self._sessions[one].sizes.get(dim, 0) for dim in ("trial", "neuron")))
            for one in self.sessions
        ]
        caption = count_things(len(rows), "session")
        return write_html_table(caption, ("alias", "session", "trials", "neurons"), rows)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions, in catalogue order."""
        return tuple(sorted(self._sessions))

    def select(
        self,
        tier: str | Iterable[str] | None = None,
        stimulus: str | Iterable[str] | None = None,
        movie: str | Iterable[str] | None = None,
        session: str | Iterable[str] | None = None,
        *,
        depth: tuple[float, float] | None = None,
        min_reliability: float | None = None,
        valid: bool = True,
    ) -> xr.DataTree:
        """Return some sessions, trials and neurons. Sessions of which no trial is left are left out.

        Parameters
        ----------
        session : str or iterable of str, optional
            Aliases, full names, ``new``, ``old`` and ``all``; all by default.
        tier, stimulus, movie, depth, min_reliability, valid
            As of a session (:meth:`SensoriumAccessor.select`). A tier or movie need not be in every session.

        Raises
        ------
        UnknownNameError
            If there is no tier, class, movie or session of a name.
        UsageError
            If a session that is named is not in the tree; and as a session's ``select`` does.
        """
        chosen = self._choose(session)
        movies = None if movie is None else parse_names(movie, "movie")
        shown = {} if movies is None else {one: self._name_movies(movies, one) for one in chosen}
        tiers = None if tier is None else parse_names(tier, "tier")
        present = {str(name) for one in chosen for name in self._sessions[one]["tier"].values}
        nodes: dict[str, xr.Dataset | xr.DataTree] = {"/": self._tree.to_dataset()}
        for one in chosen:
            dataset = self._sessions[one]
            if movies is not None and not shown[one]:
                continue
            selected = dataset.sensorium.select(
                tier=None if tiers is None else _keep_present(tiers, present, dataset),
                stimulus=stimulus,
                movie=shown.get(one),
                depth=depth,
                min_reliability=min_reliability,
                valid=valid,
            )
            if selected.sizes["trial"] == 0:
                continue
            nodes[one.name] = selected
            # Nodes below, such as the statistics, have the neurons of the session, and go by their places.
            rows = np.flatnonzero(np.isin(dataset["neuron"].values, selected["neuron"].values))
            for name, child in self._tree.children[one.name].children.items():
                nodes[f"{one.name}/{name}"] = child.to_dataset(inherit=False).isel(neuron=rows, missing_dims="ignore")
        if movies is not None and not any(shown.values()):
            raise UnknownNameError(
                "unknown movie",
                found=", ".join(map(repr, movies)),
                remedy="see `movie` and `movie_group` in `tree.sensorium.trials` for the movies there are",
            )
        return SessionTree.from_dict(nodes)

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial of each session, by alias and trial id. Behavior is read."""
        return self._join(lambda dataset: dataset.sensorium.trials, "trial")

    @property
    def neurons(self) -> pd.DataFrame:
        """A row for each neuron of each session, by alias and unit id. The oracle tiers are read."""
        return self._join(lambda dataset: dataset.sensorium.neurons, "neuron")

    def describe(self) -> pd.DataFrame:
        """Return the numbers of trials by session, tier and stimulus."""
        return self._join(lambda dataset: dataset.sensorium.describe(), "tier", "stimulus")

    def movie_responses(self, movie: str) -> dict[str, xr.DataArray]:
        """Return the responses to a movie in every session that shows it; see :func:`movie_responses`."""
        return movie_responses(self._tree, movie)

    def _choose(self, names: str | Iterable[str] | None) -> tuple[Session, ...]:
        if names is None:
            return self.sessions
        chosen: set[Session] = set()
        for name in parse_names(names, "session"):
            found = find_sessions([name])
            there = [one for one in found if one in self._sessions]
            # A word for several sessions means those that are there.
            if len(found) == 1 and not there:
                raise UsageError(
                    "the session is not in the tree",
                    session=found[0],
                    found=", ".join(one.alias for one in self.sessions) or "no session",
                    remedy="choose one of them, or open the tree with it",
                )
            chosen.update(there)
        return tuple(sorted(chosen))

    def _name_movies(self, names: list[str], session: Session) -> list[str]:
        """Return the movies of a session that are meant, by its own ids: another session's id may name its group."""
        wanted = {group for one in self._sessions.values() for group in _groups_of(one, names)}
        dataset = self._sessions[session]
        groups = dataset["movie_group" if "movie_group" in dataset.coords else "movie"].values.astype(str).tolist()
        return [group for group in dict.fromkeys(groups) if group in wanted]

    def _join(self, tabulate: Callable[[xr.Dataset], pd.DataFrame], *levels: str) -> pd.DataFrame:
        tables: Mapping[str, pd.DataFrame] = {one.alias: tabulate(self._sessions[one]) for one in self.sessions}
        if not tables:
            raise UsageError(
                "the tree holds no session",
                found=", ".join(map(str, self._tree.children)) or "no child",
                remedy="use the tree that open_sessions returns",
            )
        return pd.concat(tables, names=["session", *levels])


def movie_responses(source: StoreLike | xr.DataTree, movie: str) -> dict[str, xr.DataArray]:
    """Return the responses to a movie in every session that shows it; they are not read yet.

    Parameters
    ----------
    source : Store, path, or xarray.DataTree
        Session stores, or the tree of sessions that :func:`sensorium_data.store.open_sessions` returns.
    movie : str
        An id of ``movie_group``, or of a session's own ``movie``.

    Returns
    -------
    dict of str to xarray.DataArray
        By alias, in catalogue order: the responses (trial, neuron, time) to the valid repeats whose responses are
        there, cut to the longest. A session without such a trial is left out. A plain dict, because the sessions have
        different neurons and numbers of repeats.

    Raises
    ------
    UnknownNameError
        If no session shows the movie.
    UsageError
        If sessions show it, and the responses of all its trials are withheld or broken.

    Examples
    --------
    >>> responses = movie_responses("demo/store", "29156-11-10:4")  # doctest: +SKIP
    >>> {alias: one.mean("trial") for alias, one in responses.items()}  # doctest: +SKIP
    """
    tree = source if isinstance(source, xr.DataTree) else open_store(source).tree()
    selected = tree.sensorium.select(movie=movie)
    gathered = {}
    for session in selected.sensorium.sessions:
        dataset = selected.children[session.name].to_dataset()
        dataset = dataset.isel(trial=~dataset["responses_withheld"].values)
        if dataset.sizes["trial"]:
            gathered[session.alias] = cut_frames(dataset, int(dataset["n_frames"].max()))["responses"]
    if not gathered:
        raise UsageError(
            "no responses to the movie",
            found=f"movie {movie}, whose trials are all withheld or broken",
            expected="a valid trial whose responses are there",
            remedy="choose another movie",
        )
    return gathered


def _groups_of(dataset: xr.Dataset, names: list[str]) -> list[str]:
    """Return the groups of the movies of a session that have one of some ids, or are called so themselves."""
    movies = dataset["movie"].values.astype(str)
    groups = dataset["movie_group"].values.astype(str) if "movie_group" in dataset.coords else movies
    return [str(group) for own, group in zip(movies, groups, strict=True) if own and (own in names or group in names)]


def _keep_present(tiers: list[str], present: set[str], dataset: xr.Dataset) -> list[str]:
    """Return the tiers without those of another session that this one lacks."""
    own = {str(name) for name in dataset["tier"].values}
    return [name for name in tiers if name in own or name not in present]
