"""Several entries side by side, each scored on the same trials and the same resamples of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd

from sensorium_data.counting import count_things
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.frames import FramesProfile, parse_frames_profile
from sensorium_data.html_table import write_html_table
from sensorium_data.predictions import predicted_sessions
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.scoring.bootstrap import Bootstrap, Resampled
from sensorium_data.scoring.scoring import choose_tiers, score_predictions
from sensorium_data.scoring.table import AGGREGATIONS, SCORES, RowKey, ScoreTable, frame_to_records, session_weights
from sensorium_data.scoring.trials import ScoredSession
from sensorium_data.sessions import Session, Tier, rank_tier
from sensorium_data.store import Store, StoreLike, open_store

__all__ = ["Leaderboard", "Reference", "compare_predictions", "name_entries"]

#: What each entry's difference is taken to: the best by single-trial correlation, tier by tier, or the one named first.
Reference = Literal["best", "first"]

_SCORE_COLUMNS = tuple(
    f"{score}{part}"
    for score in SCORES
    for part in ("", "_low", "_high", "_difference", "_difference_low", "_difference_high")
)
_COLUMNS = ["tier", "stimulus", "aggregation", "rank", "entry", "n_sessions", "n_trials", "n_neurons", *_SCORE_COLUMNS]


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Entries ranked. Made by :func:`compare_predictions`.

    Attributes
    ----------
    rows : pandas.DataFrame
        A row for each tier, stimulus (``all``, or one), aggregation and entry, the best first: ``rank``, ``entry``,
        ``n_sessions``, ``n_trials``, ``n_neurons``, and for each score its mean, the ends of its interval (``…_low``,
        ``…_high``), and its difference to the reference's score (``…_difference``) with the ends of the paired
        interval. An interval that holds 0 is a tie. ``aggregation`` is ``mean over neurons``, ``mean over mice``, or
        for the single sessions their alias.
    entries : mapping of str to ScoreTable
        Every entry's scores, by name.
    references : mapping
        The entry that differences are taken to, by (tier, stimulus, aggregation).
    reference : {"best", "first"}
        How it was chosen. The best of many entries on these trials owes some of its lead to these trials.
    """

    rows: pd.DataFrame
    entries: Mapping[str, ScoreTable]
    references: Mapping[tuple[str, str, str], str]
    reference: Reference

    def _repr_html_(self) -> str:
        names = ("tier", "stimulus", "aggregation", "rank", "entry", *SCORES)
        shown = self.rows[self.rows["aggregation"].isin(AGGREGATIONS)] if len(self.rows) else self.rows
        caption = f"Entries on the same trials; the {self.reference} is the reference"
        return write_html_table(
            caption, [name.replace("_", " ") for name in names], shown[list(names)].itertuples(index=False)
        )

    def to_json(self) -> str:
        """Return the rows, and what they rest on, as JSON; what is not known is ``null``."""
        first = next(iter(self.entries.values()))
        document = {
            "entries": {name: table.predictions for name, table in self.entries.items()},
            "reference": self.reference,
            "frames": first.frames,
            "n_resamples": first.bootstrap.n_resamples,
            "seed": first.bootstrap.seed,
            "confidence": first.bootstrap.confidence,
            "rows": frame_to_records(self.rows),
            "references": [
                {"tier": tier, "stimulus": stimulus, "aggregation": aggregation, "entry": entry}
                for (tier, stimulus, aggregation), entry in self.references.items()
            ],
            "unscored": list(first.unscored),
        }
        return json.dumps(document, indent=2, allow_nan=False)


def compare_predictions(
    predictions: Sequence[str],
    store: StoreLike,
    *,
    truth: str | None = None,
    frames: FramesProfile = "official",
    tiers: Iterable[str] | None = None,
    reference: Reference = "best",
    bootstrap: Bootstrap | None = None,
    jobs: int = 2,
    progress: Progress = ignore_progress,
) -> Leaderboard:
    """Score several predictions stores on the same trials, and compare them.

    The intervals of differences are paired: both entries are scored on the same resampled trials, so what
    makes a trial hard for all does not blur who is better.

    Parameters
    ----------
    predictions : sequence of str
        Paths or URLs of two or more predictions stores; their units may differ.
    store, truth, frames, bootstrap, jobs
        As of :func:`sensorium_data.scoring.score_predictions`.
    tiers : iterable of str, optional
        Tiers to compare on; by default every tier that an entry predicts.
    reference : {"best", "first"}
        What differences are taken to.
    progress : Progress
        Told after each trial of each entry.

    Raises
    ------
    PredictionsError
        If an entry lacks a session, a tier, trials or neurons that another one has, or does not fit the recording, or
        seems to be in other units than its store says.
    UsageError
        If there are fewer than two entries, or one twice, or nothing can be scored.
    """
    if len(predictions) < 2:
        raise UsageError(
            "too few entries to compare", found=len(predictions), expected="two or more predictions stores"
        )
    names = name_entries(predictions)
    profile = parse_frames_profile(frames)
    named = None if tiers is None else list(tiers)
    opened = open_store(store)
    _require_same_trials(names, opened, truth, profile, named)
    entries: dict[str, ScoreTable] = {}
    for name, path in names.items():

        def show(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, name: str = name) -> None:
            progress(f"{label} {name}", n_done, n_total, n_bytes=n_bytes)

        table = score_predictions(
            path, opened, truth=truth, frames=profile, tiers=named, bootstrap=bootstrap, jobs=jobs, progress=show
        )
        if table.doubts:
            raise table.doubts[0]
        if not table.trials:
            raise UsageError(
                "nothing can be scored",
                path=path,
                found="; ".join(table.unscored),
                remedy="compare on a tier whose responses are known, such as oracle",
            )
        entries[name] = table
    return _rank(entries, reference)


def name_entries(predictions: Sequence[str]) -> dict[str, str]:
    """Return each predictions store by a short name: the end of its path, as long as it has to be to differ.

    Raises
    ------
    UsageError
        If one is there twice.

    Examples
    --------
    >>> name_entries(["a/model", "b/model", "other/"])
    {'a/model': 'a/model', 'b/model': 'b/model', 'other': 'other/'}
    """
    paths = [_spell_out(path).rstrip("/") for path in predictions]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise UsageError("an entry is named twice", path=twice[0], remedy="name each predictions store once")
    parts = [PurePosixPath(path).parts for path in paths]
    names = {}
    for path, given, own in zip(paths, predictions, parts, strict=True):
        others = [one for one in parts if one is not own]
        n = next((n for n in range(1, len(own)) if all(one[-n:] != own[-n:] for one in others)), len(own))
        names["/".join(own[-n:]) if n < len(own) else path] = given
    return names


def _spell_out(path: str) -> str:
    """Return a path that ends in its folder's name: neither in ``.`` nor in ``..``."""
    local = "://" not in path and not {".", ".."}.isdisjoint(path.split("/"))
    return str(Path(path).resolve()) if local else path


def _require_same_trials(
    names: Mapping[str, str], store: Store, truth: str | None, frames: FramesProfile, tiers: Sequence[str] | None
) -> None:
    """See that all entries can be scored on the same trials, before the first of them is read."""
    sessions = {name: predicted_sessions(path) for name, path in names.items()}
    chosen = {name: choose_tiers(path, tiers) for name, path in names.items()}
    for kind, of_entry in (("session", sessions), ("tier", chosen)):
        for name, path in names.items():
            for other, items in of_entry.items():
                absent = [item for item in items if item not in of_entry[name]]
                if absent:
                    raise PredictionsError(
                        f"an entry lacks a {kind} that another one has",
                        path=path,
                        found=", ".join(_label(item) for item in of_entry[name]),
                        expected=f"{', '.join(_label(item) for item in absent)} too, as {other} has",
                        remedy="predict it"
                        + ("" if kind == "session" else ", or name tiers that all have with --tier"),
                    )
    first, *others = names
    for session in sessions[first]:
        opened = {
            name: ScoredSession(path, store, truth, session, chosen[name], frames) for name, path in names.items()
        }
        scorable = {name: source.scorable for name, source in opened.items()}
        for other in others:
            neurons, others_neurons = opened[first].neurons, opened[other].neurons
            if not np.array_equal(neurons, others_neurons):
                raise PredictionsError(
                    "the entries predict different neurons, so their scores cannot be compared",
                    session=session,
                    path=names[other],
                    found=count_things(len(others_neurons), "neuron"),
                    expected=f"the {len(neurons)} that {first} predicts "
                    f"({np.intersect1d(neurons, others_neurons).size} are the same)",
                    remedy="predict with runs that were trained on the same neurons",
                )
            for tier in chosen[first]:
                for lacking, having in ((first, other), (other, first)):
                    found, expected = scorable[lacking][tier], scorable[having][tier]
                    missing = sorted(set(expected) - set(found))
                    if missing:
                        raise PredictionsError(
                            "an entry lacks trials that another one has",
                            session=session,
                            trial=missing[0],
                            path=names[lacking],
                            found=f"{count_things(len(found), 'trial')} of {tier}",
                            expected=f"{len(missing)} more, as {having} has",
                            remedy="predict the whole tier",
                        )


def _label(item: Session | Tier) -> str:
    return item.alias if isinstance(item, Session) else str(item)


def _rank(entries: Mapping[str, ScoreTable], reference: Reference) -> Leaderboard:
    first = next(iter(entries.values()))
    groups: dict[tuple[str, str], list[RowKey]] = {}
    for key in first.trials:
        groups.setdefault(key[1:], []).append(key)
    aliases = dict(zip(first.rows["session"], first.rows["alias"], strict=True))
    rows: list[dict[str, Any]] = []
    references: dict[tuple[str, str, str], str] = {}
    for tier, stimulus in sorted(groups, key=lambda group: rank_tier(group[0])):
        keys = groups[tier, stimulus]
        parts = [(aggregation, keys) for aggregation in AGGREGATIONS] + [(aliases[key[0]], [key]) for key in keys]
        # Of one session alone its mean is all there is.
        for aggregation, chosen in parts if len(keys) > 1 else parts[-1:]:
            scores = {name: _combine(table, chosen, aggregation) for name, table in entries.items()}
            # Equal scores keep the order in which they were named.
            order = sorted(scores, key=lambda name: -scores[name][SCORES[0]].estimate)
            compared = order[0] if reference == "best" else next(iter(entries))
            references[tier, stimulus, aggregation] = compared
            for name in order:
                numbers = {
                    "tier": tier,
                    "stimulus": stimulus,
                    "aggregation": aggregation,
                    "rank": 1 + order.index(name),
                    "entry": name,
                    "n_sessions": len(chosen),
                    "n_trials": sum(len(first.trials[key]) for key in chosen),
                    "n_neurons": sum(len(first.neuron_scores[key]) for key in chosen),
                }
                for score, resampled in scores[name].items():
                    confidence = first.bootstrap.confidence
                    low, high = resampled.interval(confidence)
                    numbers |= {score: resampled.estimate, f"{score}_low": low, f"{score}_high": high}
                    if name != compared:
                        difference = Resampled.add([resampled, scores[compared][score]], [1, -1])
                        low, high = difference.interval(confidence)
                        numbers |= {
                            f"{score}_difference": difference.estimate,
                            f"{score}_difference_low": low,
                            f"{score}_difference_high": high,
                        }
                rows.append(numbers)
    return Leaderboard(pd.DataFrame(rows, columns=_COLUMNS), entries, references, reference)


def _combine(table: ScoreTable, keys: Sequence[RowKey], aggregation: str) -> dict[str, Resampled]:
    """Return each score that is known over the sessions."""
    combined = {}
    for score in SCORES:
        known = [key for key in keys if score in table.resampled[key]]
        if known:
            weights = session_weights([len(table.neuron_scores[key]) for key in known], aggregation)
            combined[score] = Resampled.add([table.resampled[key][score] for key in known], weights)
    return combined
