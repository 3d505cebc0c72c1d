"""What a session is, in a few lines: for the text and the page that notebooks show of ``session.sensorium``."""

from __future__ import annotations

from collections import Counter

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.explore.layout import find_duplicates
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.sessions import rank_tier
from sensorium_data.store import format_range
from sensorium_data.visible_text import make_visible, shorten

__all__ = ["describe_html", "describe_text"]

_HEADS = ("tier", "trials", "stimuli", "frames", "repeated movies", "withheld", "broken")
_LONGEST_NAME = 100


def describe_text(dataset: xr.Dataset) -> str:
    """Return the story of a session or of a selection of its trials, as lines of text."""
    rows = [tuple("" if cell is None else str(cell) for cell in row) for row in (_HEADS, *_tier_rows(dataset))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    is_text = [name in ("tier", "stimuli") for name in _HEADS]
    table = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([f"<{_headline(dataset)}>", *(f"  {line}" for line in (*table, *_facts(dataset)))])


def describe_html(dataset: xr.Dataset) -> str:
    """Return the same as a table in HTML."""
    return write_html_table(_headline(dataset), _HEADS, _tier_rows(dataset)) + write_html_lines(_facts(dataset))


def _headline(dataset: xr.Dataset) -> str:
    kind = "simulated session" if dataset.attrs.get("simulated", False) else "session"
    alias, name = (_clean(dataset.attrs.get(key, "")) for key in ("alias", "session"))
    if _is_joined(dataset):
        kind, alias, name = "joined recordings", "", ""
    titles = [text for text in (alias, f"({name})" if name and name != alias else "") if text]
    sizes = [count_things(dataset.sizes[dim], dim) for dim in ("trial", "neuron") if dim in dataset.sizes]
    return f"{' '.join([kind, *titles])}: {', '.join(sizes)}"


def _is_joined(dataset: xr.Dataset) -> bool:
    """Return whether trials of several sessions were joined: the ids of one session differ."""
    trials = dataset.coords.get("trial")
    return trials is not None and trials.ndim == 1 and bool(find_duplicates(trials.values))


def _tier_rows(dataset: xr.Dataset) -> list[tuple[object, ...]]:
    if "tier" not in dataset.coords or "trial" not in dataset.dims:
        return []
    rows: list[tuple[object, ...]] = []
    labels = dataset.coords.to_dataset()
    for tier in sorted(set(map(str, dataset.tier.values)), key=rank_tier):
        trials = labels.isel(trial=np.flatnonzero(labels.tier.values == tier))
        n_trials = trials.sizes["trial"]
        if not n_trials:
            continue
        valid = trials.valid.values if "valid" in trials.coords else np.ones(n_trials, bool)
        stimuli = sorted(set(trials.stimulus.values[valid].tolist())) if "stimulus" in trials.coords else []
        movies = Counter(trials.movie.values[valid].tolist()) if "movie" in trials.coords else Counter()
        rows.append(
            (
                _clean(tier),
                n_trials,
                ", ".join(map(_clean, stimuli)),
                format_range(trials.n_frames.values[valid]) if "n_frames" in trials.coords else "",
                sum(count > 1 for count in movies.values()),
                int(trials.responses_withheld.values.sum()) if "responses_withheld" in trials.coords else None,
                int((~valid).sum()),
            )
        )
    return rows


def _facts(dataset: xr.Dataset) -> list[str]:
    facts = []
    for name, label in (("behavior", "behavior"), ("pupil_center", "pupil center")):
        if name not in dataset:
            facts.append(f"{label}: not recorded")
        elif name == "behavior":
            channels = (_clean(one).replace("_", " ") for one in dataset.behavior_channel.values)
            facts.append(f"{label}: {', '.join(channels)}")
        else:
            facts.append(f"{label}: {', '.join(map(_clean, dataset.eye_axis.values))}")
    for name, label in (("presentation", "place in the session"), ("onset", "time in the session")):
        if name in dataset.coords and "trial" in dataset.dims:
            # -1 or NaN where it is not known.
            values = dataset[name].values
            n_known, n_trials = int((values >= 0).sum()), len(values)
            known = "known" if n_known == n_trials else f"known of {n_known:,} of {n_trials:,} trials"
            facts.append(f"{label}: {known if n_known else 'not known'}")
    return facts


def _clean(text: object) -> str:
    return shorten(make_visible(str(text)), _LONGEST_NAME)
