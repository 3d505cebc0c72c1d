"""What is in a store, and in a session of it, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from sensorium_data.sessions import Session, Tier, sort_tiers
from sensorium_data.store.open import open_session, open_store
from sensorium_data.store.store import StoreLike

# Loaded where it is used: a command that finds nothing to do would wait for it.
if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_session", "describe_store", "expand_tiers", "format_range", "list_tiers", "parse_tiers"]


def describe_store(store: StoreLike) -> pd.DataFrame:
    """Return what is in a store, a row a session.

    Returns
    -------
    pandas.DataFrame
        Columns alias, session, simulated (no recording, but what :mod:`sensorium_data.simulation` invented), trials,
        neurons, frames (length of the padded frame axis), size_bytes and source.

    Raises
    ------
    StoreError
        If there is no store, or a session in it is damaged.
    """
    import pandas as pd

    opened = open_store(store)
    rows = []
    for session in opened.require_all():
        dataset = opened[session]
        rows.append(
            {
                "alias": session.alias,
                "session": session.name,
                "simulated": bool(dataset.attrs.get("simulated", False)),
                "trials": dataset.sizes["trial"],
                "neurons": dataset.sizes["neuron"],
                "frames": dataset.sizes["time"],
                "size_bytes": opened.ledger(session).size_bytes,
                "source": dataset.attrs.get("source", ""),
            }
        )
    columns = ["alias", "session", "simulated", "trials", "neurons", "frames", "size_bytes", "source"]
    return pd.DataFrame(rows, columns=columns)


def describe_session(store: StoreLike, session: str) -> pd.DataFrame:
    """Return what a session's trials are, a row a tier.

    Returns
    -------
    pandas.DataFrame
        Columns tier, trials, movies, frames (their range over valid trials), stimuli, withheld (trials without
        responses), broken (trials without a valid stimulus) and placed (trials whose place in the session is known).

    Raises
    ------
    StoreError
        As :func:`open_session` does.
    """
    import pandas as pd

    dataset = open_session(store, session)
    rows = []
    for tier in sort_tiers(dataset.tier.values.tolist()):
        trials = dataset.coords.to_dataset().isel(trial=np.flatnonzero(dataset.tier.values == str(tier)))
        valid = trials.valid.values
        lengths = trials.n_frames.values[valid]
        if trials.sizes["trial"]:
            rows.append(
                {
                    "tier": str(tier),
                    "trials": trials.sizes["trial"],
                    "movies": len(set(trials.movie_group.values[valid].tolist())),
                    "frames": format_range(lengths),
                    "stimuli": ", ".join(sorted(set(trials.stimulus.values[valid].tolist()))),
                    "withheld": int(trials.responses_withheld.values.sum()),
                    "broken": int((~valid).sum()),
                    "placed": int((trials.presentation.values >= 0).sum()),
                }
            )
    return pd.DataFrame(rows, columns=["tier", "trials", "movies", "frames", "stimuli", "withheld", "broken", "placed"])


def list_tiers(store: StoreLike, sessions: Iterable[str | Session] | None = None) -> tuple[Tier, ...]:
    """Return the tiers of the trials of sessions, SENSORIUM's first.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    sessions : iterable of str, optional
        Aliases or full names; all sessions of the store by default.

    Raises
    ------
    StoreError
        As :func:`open_session` does.
    """
    opened = open_store(store)
    chosen = opened.sessions if sessions is None else tuple(sessions)
    return sort_tiers(tier for one in chosen for tier in opened.as_stored(one).tier.values.tolist())


def parse_tiers(
    names: Iterable[str], store: StoreLike, sessions: Iterable[str | Session] | None = None
) -> tuple[Tier, ...]:
    """Return the tiers of these names, each once: SENSORIUM's, and those of other labs that the sessions have.

    Parameters
    ----------
    names : iterable of str
        Names of tiers.
    store, sessions
        As :func:`list_tiers` takes them; only read where a name is none of SENSORIUM's.

    Raises
    ------
    UnknownNameError
        If neither SENSORIUM nor the sessions have a tier of a name.
    StoreError
        As :func:`open_session` does.
    """
    given = list(names)
    are_known = all(name in [str(tier) for tier in Tier] for name in given)
    present = () if are_known else list_tiers(store, sessions)
    return tuple(dict.fromkeys(Tier.parse(name, present) for name in given))


def expand_tiers(
    names: Iterable[str], store: StoreLike, sessions: Iterable[str | Session] | None = None
) -> tuple[Tier, ...]:
    """Return tiers by name, ``test`` for the four test tiers and ``all`` for all, in the order of :class:`Tier`.

    ``all`` means the tiers of other labs too that the sessions have, and ``test`` the one that a lab calls so.

    Parameters
    ----------
    names : iterable of str
        Names of tiers, ``test`` and ``all``.
    store, sessions
        As :func:`list_tiers` takes them.

    Raises
    ------
    UnknownNameError, StoreError
        As :func:`parse_tiers` raises them.
    """
    chosen: set[Tier] = set()
    for name in names:
        match name:
            case "all":
                chosen.update((*Tier, *list_tiers(store, sessions)))
            case "test":
                chosen.update(tier for tier in (*Tier, *list_tiers(store, sessions)) if tier.is_test or tier == name)
            case _:
                chosen.update(parse_tiers([name], store, sessions))
    return sort_tiers(chosen)


def format_range(values: np.ndarray) -> str:
    """Return the range of integers in words.

    Examples
    --------
    >>> format_range(np.array([305, 326, 310])), format_range(np.array([300, 300])), format_range(np.array([]))
    ('305-326', '300', 'none')
    """
    if len(values) == 0:
        return "none"
    low, high = int(np.min(values)), int(np.max(values))
    return str(low) if low == high else f"{low}-{high}"
