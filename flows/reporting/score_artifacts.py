"""Scores as an artifact, with what has changed since those that were published before."""

from __future__ import annotations

import math
import re

import pandas as pd

from flows.reporting.artifacts import order_columns, publish_table, read_tables
from flows.reporting.run_logging import log_line
from sensorium_data.scoring import SCORES, ScoreTable

__all__ = ["publish_scores"]

_KEY = "scores"
_SAME = ["alias", "tier", "stimulus"]
# The page shows about so many without moving the table to the side.
_FIRST = (*_SAME, "n_trials", *SCORES)
_LAST = ("n_neurons", "session")


def publish_scores(table: ScoreTable, store: str) -> None:
    """Publish scores, and beside each how much it has changed since the last scores on the same store.

    Parameters
    ----------
    table : ScoreTable
        The scores.
    store : str
        Root of the session stores that they were scored on.
    """
    frame = table.to_frame()
    last = next(iter(read_tables(_KEY)), None)
    against = "" if last is None else _find_predictions(last.description, store, table.frames)
    if last is not None and against:
        frame = add_changes(frame, last.rows)
        _log_changes(frame, against)
    notes = [
        *([f"changes are since `{against}`"] if against else []),
        *(f"not scored: {reason}" for reason in table.unscored),
        *([table.describe_simulated()] if table.simulated else []),
        *table.notes,
        *(f"doubtful: {doubt}" for doubt in table.doubts),
    ]
    lines = "".join(f"\n- {note}" for note in notes)
    publish_table(
        _KEY, order_columns(frame, _FIRST, _LAST), f"{_describe(table.predictions, store, table.frames)}{lines}"
    )


def add_changes(frame: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    """Return scores with a column behind each that holds its difference to the last; NaN where there was none.

    Parameters
    ----------
    frame, last : DataFrame
        As :meth:`sensorium_data.scoring.ScoreTable.to_frame` returns them.
    """
    changed = frame.copy()
    # Tables of other versions may lack columns.
    before = last.reindex(columns=[*_SAME, *SCORES]).drop_duplicates(_SAME).set_index(_SAME).astype(float)
    for score in SCORES:
        old = before[score].reindex(pd.MultiIndex.from_frame(frame[_SAME])).to_numpy()
        changed.insert(list(changed.columns).index(score) + 1, f"{score}_change", frame[score].to_numpy() - old)
    return changed


def _describe(predictions: str, store: str, frames: str) -> str:
    return f"Scores of `{predictions}` on `{store}`, frames {frames}"


def _find_predictions(description: str, store: str, frames: str) -> str:
    """Return what was scored, if it was scored on the same store and frames."""
    found = re.match(r"Scores of `([^`\n]*)`", description)
    return found[1] if found and description.startswith(_describe(found[1], store, frames)) else ""


def _log_changes(frame: pd.DataFrame, against: str) -> None:
    for row in frame[frame["stimulus"] == "all"].to_dict(orient="records"):
        score, change = (float(row[f"single_trial_correlation{suffix}"]) for suffix in ("", "_change"))
        if not math.isnan(change):
            log_line(
                f"{row['alias']}, {row['tier']}: single-trial correlation {score:.4f}, {change:+.4f} since {against}"
            )
