"""Scores by cortical depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sensorium_data.sessions import find_session

__all__ = ["DEPTH_STEP_UM", "round_depths", "tabulate_depths"]

#: The published recordings have planes at multiples of it, 200 to 425 micrometers deep.
DEPTH_STEP_UM = 25

_SCORES = ("single_trial_correlation", "correlation_to_average")
_COLUMNS = ["session", "alias", "tier", "stimulus", "depth", "n_neurons", *_SCORES]


def round_depths(z: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return depths, in micrometers, rounded to the nearest multiple of 25; a half is rounded up.

    Those of the published recordings are such multiples. Others come into bins of 25 micrometers around them.

    Examples
    --------
    >>> round_depths([200.0, 237.5, 236.0]).tolist()
    [200, 250, 225]
    """
    return (DEPTH_STEP_UM * np.floor(np.asarray(z, np.float64) / DEPTH_STEP_UM + 0.5)).astype(np.int64)


def tabulate_depths(
    neuron_scores: Mapping[tuple[str, str, str], pd.DataFrame], aggregations: Iterable[str]
) -> pd.DataFrame:
    """Return the mean scores of the neurons at each depth; see :meth:`sensorium_data.scoring.ScoreTable.by_depth`.

    Parameters
    ----------
    neuron_scores : mapping
        By (session, tier, stimulus), a row for each neuron with its ``z`` and scores.
    aggregations : iterable of str
        Names of the aggregations over sessions to append where a tier and stimulus have several sessions.
    """
    means = {key: _mean_by_depth(scores) for key, scores in neuron_scores.items()}
    rows: list[dict[str, Any]] = []
    for (session, tier, stimulus), part in means.items():
        labels = {"session": session, "alias": find_session(session).alias, "tier": tier, "stimulus": stimulus}
        for row in part.reset_index().to_dict(orient="records"):
            rows.append(labels | {str(name): value for name, value in row.items()})
    groups: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for (_, tier, stimulus), part in means.items():
        groups.setdefault((tier, stimulus), []).append(part)
    for (tier, stimulus), parts in groups.items():
        if len(parts) < 2:
            continue
        together = pd.concat(parts).sort_index(kind="stable")
        for aggregation in aggregations:
            for depth, of_depth in together.groupby(level="depth"):
                labels = {"session": f"{len(of_depth)} sessions", "alias": aggregation, "tier": tier}
                rows.append({**labels, "stimulus": stimulus, "depth": depth, **_average(of_depth, aggregation)})
    return pd.DataFrame(rows, columns=_COLUMNS)


def _mean_by_depth(scores: pd.DataFrame) -> pd.DataFrame:
    # A position that is not known has no depth.
    known = scores[np.isfinite(scores["z"].to_numpy(np.float64))]
    grouped = known.groupby(pd.Index(round_depths(known["z"]), name="depth"))
    means: pd.DataFrame = grouped[list(_SCORES)].mean().assign(n_neurons=grouped.size())
    return means


def _average(of_depth: pd.DataFrame, aggregation: str) -> dict[str, Any]:
    """Return the mean over sessions at one depth; a session whose score is not known does not count."""
    numbers: dict[str, Any] = {"n_neurons": int(of_depth["n_neurons"].sum())}
    for score in _SCORES:
        known = of_depth[of_depth[score].notna()]
        sizes = known["n_neurons"].to_numpy(np.float64)
        weights = sizes if aggregation == "mean over neurons" else np.ones(len(known))
        numbers[score] = float(np.average(known[score], weights=weights)) if len(known) else float("nan")
    return numbers
