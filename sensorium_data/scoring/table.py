"""Scores as tables: by session, over sessions, and neuron by neuron."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.files import OutputFile, digest_bytes
from sensorium_data.frames import PARQUET_MAGIC, FramesProfile
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.scoring.bootstrap import Bootstrap, Resampled
from sensorium_data.scoring.depth import tabulate_depths
from sensorium_data.sessions import Tier, find_session, rank_tier

__all__ = [
    "AGGREGATIONS",
    "ALL_STIMULI",
    "CEILINGS",
    "FURTHER_SCORES",
    "NEURONS_FILE",
    "SCORES",
    "TRUE_CEILINGS",
    "RowKey",
    "ScoreTable",
    "frame_to_records",
    "make_score_table",
    "session_weights",
]

# In the metadata of the Parquet file: the digest of its values.
_NEURONS_KEY = b"sensorium_scores_of_neurons"
#: The scores of every neuron as a file: what its name ends with, and what it may replace.
NEURONS_FILE = OutputFile(
    "the Parquet file of scores",
    (".parquet",),
    lambda data: _is_neurons_file(data),
)

#: In the column ``stimulus``: whatever the trials show.
ALL_STIMULI = "all"

#: The competition's two scores, which have intervals for each neuron too.
SCORES = ("single_trial_correlation", "correlation_to_average")
#: Other readings of them: per movie, relative to the signal power, and of first differences.
FURTHER_SCORES = ("correlation_to_average_per_movie", "normalized_correlation", "frame_difference_correlation")
#: What the repeats say a model that knows the movie could reach.
CEILINGS = ("oracle_correlation", "explainable_variance", "attainable_correlation_to_average")
#: What the noiseless rates of a simulation reach.
TRUE_CEILINGS = ("ceiling_single_trial_correlation", "ceiling_correlation_to_average")

#: The two published ways of averaging over sessions, and who averages so.
AGGREGATIONS: Mapping[str, str] = MappingProxyType(
    {
        "mean over neurons": "the neurons of all sessions pooled, as the starter kit averages",
        "mean over mice": "within a mouse first, as the winner's code averages",
    }
)

#: Score over ceiling: its name, and the two that it compares.
_FRACTIONS = (
    ("fraction_of_oracle", "single_trial_correlation", "oracle_correlation"),
    ("fraction_of_attainable", "correlation_to_average", "attainable_correlation_to_average"),
    ("fraction_of_ceiling", "single_trial_correlation", "ceiling_single_trial_correlation"),
)
#: The scores whose means have intervals. The signal power is itself uncertain, so the normalized correlation has none.
_WITH_INTERVALS = (*SCORES, "correlation_to_average_per_movie", "frame_difference_correlation")
_NORMALIZED = "normalized_correlation"
_NUMBERS = (
    "n_trials",
    "n_neurons",
    *(
        column
        for score in (*SCORES, *FURTHER_SCORES)
        for column in (score, *((f"{score}_low", f"{score}_high") if score in _WITH_INTERVALS else ()))
    ),
    "n_neurons_normalized",
    *CEILINGS,
    *TRUE_CEILINGS,
    *(name for name, _, _ in _FRACTIONS),
)
_ROW_COLUMNS = ["session", "alias", "tier", "stimulus", *_NUMBERS]
_SUMMARY_COLUMNS = ["aggregation", "n_sessions", "tier", "stimulus", *_NUMBERS]

#: A row's session, tier and stimulus.
RowKey = tuple[str, str, str]


_SHOWN_SCORES = ("single_trial_correlation", "correlation_to_average")


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of one predictions store. Made by :func:`sensorium_data.scoring.score_predictions`.

    Attributes
    ----------
    rows : pandas.DataFrame
        A row for each session and tier (``stimulus`` is ``all``), and one for each stimulus of the bonus tiers, and
        of another tier that shows several: ``session``, ``alias``, ``tier``, ``stimulus``, ``n_trials``,
        ``n_neurons``, and means over the session's neurons:

        - ``single_trial_correlation`` and ``correlation_to_average``, each with the ends of its interval, ``…_low``
          and ``…_high``;
        - ``correlation_to_average_per_movie``, with its interval: correlated movie by movie, the mean over movies;
        - ``normalized_correlation`` (CC_norm of Schoppe et al. 2016), the mean over the neurons of which it is known,
          ``n_neurons_normalized``: their signal power exceeds :data:`sensorium_data.scoring.LEAST_SIGNAL_POWER` in at
          least one movie;
        - ``frame_difference_correlation``, with its interval: the single-trial correlation of the differences between
          each frame and the one before;
        - ``oracle_correlation``: the single-trial correlation of the mean over the other repeats of the movie;
          ``explainable_variance``: the share of a trial's variance that the movie explains;
          ``attainable_correlation_to_average``: what the noise left in the average allows (see
          :mod:`sensorium_data.scoring.reliability`). A model that reads behavior too can exceed them;
        - ``ceiling_…``, the same scores of a simulation's noiseless rates, where the truth was given;
        - the ratios of these means: ``fraction_of_oracle`` and ``fraction_of_ceiling``, of the single-trial
          correlation, and ``fraction_of_attainable``, of the correlation to average and what is attainable.

        What is not known is NaN: whatever rests on repeats where no movie was shown twice, ceilings without truth,
        an interval from one trial.
    summary : pandas.DataFrame
        The same over sessions, in two rows for each tier and stimulus; ``aggregation`` says which:
        ``mean over neurons`` pools the neurons of all sessions (starter kit), ``mean over mice`` averages within a
        mouse first (winner). Intervals hold for these mice: their trials are resampled, not the mice.
    unscored : tuple of str
        What has no score, and why, one sentence each.
    notes : tuple of str
        What was odd about the recordings, one sentence each: statistics that end before the trials do.
    doubts : tuple of PredictionsError
        Sessions whose predictions seem to be in other units than their store says.
    predictions : str
        Path or URL of the predictions store.
    frames : str
        Which frames of a trial were scored, a profile of :mod:`sensorium_data.frames`.
    bootstrap : Bootstrap
        How the intervals were made.
    simulated : tuple of str
        Full names of the scored sessions that are simulated: scores on them say nothing about recordings.
    trials : mapping
        By (session, tier, stimulus), the ids of the scored trials.
    resampled : mapping
        By (session, tier, stimulus), each score's mean over neurons, resampled.
    """

    rows: pd.DataFrame
    summary: pd.DataFrame
    unscored: tuple[str, ...]
    notes: tuple[str, ...]
    doubts: tuple[PredictionsError, ...]
    predictions: str
    frames: FramesProfile
    bootstrap: Bootstrap
    trials: Mapping[RowKey, tuple[int, ...]] = field(repr=False)
    resampled: Mapping[RowKey, Mapping[str, Resampled]] = field(repr=False)
    neuron_scores: Mapping[RowKey, pd.DataFrame] = field(repr=False)
    simulated: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the two correlations over sessions, with the ends of their intervals, as text."""
        columns = [f"{score}{part}" for score in _SHOWN_SCORES for part in ("", "_low", "_high")]
        shown = self.summary[["tier", "stimulus", "aggregation", "n_trials", *columns]]
        return str(shown.round(4).to_string(index=False))

    def _repr_html_(self) -> str:
        shown = [
            (row.tier, row.stimulus, row.aggregation, row.n_trials, *map(self._write_score, [row] * 2, _SHOWN_SCORES))
            for row in self.summary.itertuples()
        ]
        heads = ("tier", "stimulus", "aggregation", "trials", *(name.replace("_", " ") for name in _SHOWN_SCORES))
        notes = [self.describe_simulated(), *self.unscored, *self.notes, *map(str, self.doubts)]
        caption = f"Scores of {self.predictions}, frames {self.frames}"
        return write_html_table(caption, heads, shown) + write_html_lines(filter(None, notes))

    @staticmethod
    def _write_score(row: Any, score: str) -> str:
        value, low, high = (getattr(row, f"{score}{part}") for part in ("", "_low", "_high"))
        interval = f" ({low:z.3f} to {high:z.3f})" if np.isfinite([low, high]).all() else ""
        return f"{value:z.3f}{interval}" if np.isfinite(value) else ""

    def describe_simulated(self) -> str:
        """Return a sentence on the scored sessions that are simulated; empty if there are none."""
        aliases = ", ".join(find_session(name).alias for name in self.simulated)
        verb = "is" if len(self.simulated) == 1 else "are"
        return f"{aliases} {verb} simulated: the scores say nothing about recordings" if aliases else ""

    def per_neuron(self, session: str, tier: str, stimulus: str = ALL_STIMULI) -> pd.DataFrame:
        """Return the metrics of each neuron, by unit id, with the cell's position ``x``, ``y``, ``z`` in micrometers.

        Parameters
        ----------
        session : str
            Alias or full name.
        tier : str
            The tier.
        stimulus : str
            A stimulus class, or ``all``.

        Raises
        ------
        UsageError
            If there is no such row.
        """
        found = find_session(session)
        key = (found.name, str(Tier.parse(tier, {key[1] for key in self.neuron_scores})), stimulus)
        if key not in self.neuron_scores:
            raise UsageError(
                "not scored",
                session=found,
                found=f"{tier}, {stimulus}",
                expected="; ".join(sorted(f"{find_session(s).alias}, {t}, {c}" for s, t, c in self.neuron_scores)),
            )
        return self.neuron_scores[key]

    def to_frame(self) -> pd.DataFrame:
        """Return all rows in one table for showing: the sessions', and those of the summary where it sums up several.

        Summary rows have their aggregation under ``alias`` and the number of sessions under ``session``.
        """
        several = self.summary[self.summary["n_sessions"] > 1]
        if several.empty:
            return self.rows.copy()
        summary = several.rename(columns={"aggregation": "alias", "n_sessions": "session"})
        summary["session"] = [f"{n} sessions" for n in summary["session"]]
        return pd.concat([self.rows, summary[self.rows.columns]], ignore_index=True)

    def require_scores(self) -> None:
        """Raise a :class:`~sensorium_data.errors.UsageError` that says why, if nothing was scored."""
        if not self.neuron_scores:
            raise UsageError(
                "nothing was scored",
                path=self.predictions,
                found="; ".join(self.unscored),
                remedy="predict a tier whose responses are known, such as oracle",
            )

    def to_neuron_frame(self) -> pd.DataFrame:
        """Return a row for each neuron, session, tier and stimulus.

        Columns: ``session``, ``alias``, ``neuron`` (unit id), ``x``, ``y``, ``z``, ``tier``, ``stimulus``,
        ``n_trials``, and the metrics of ``rows``. Attributes say what was scored and how.
        """
        parts = []
        for (session, tier, stimulus), scores in self.neuron_scores.items():
            part = scores.reset_index()
            part.insert(0, "session", session)
            part.insert(1, "alias", find_session(session).alias)
            part.insert(6, "tier", tier)
            part.insert(7, "stimulus", stimulus)
            part.insert(8, "n_trials", len(self.trials[session, tier, stimulus]))
            parts.append(part)
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["session", "neuron"])
        labels = [name for name in ("session", "alias", "tier", "stimulus") if name in frame]
        frame = frame.astype(dict.fromkeys(labels, "category"))
        frame.attrs.update(self._describe())
        return frame

    def by_depth(self) -> pd.DataFrame:
        """Return the scores by cortical depth: a row for each session, tier, stimulus and depth.

        Columns: ``session``, ``alias``, ``tier``, ``stimulus``, ``depth`` (micrometers, the neurons' ``z`` rounded to
        the nearest multiple of 25, as the published recordings have it), ``n_neurons``, and the means over these
        neurons of ``single_trial_correlation`` and ``correlation_to_average``. Over several sessions rows of both
        aggregations follow, labelled as in :meth:`to_frame`.
        """
        return tabulate_depths(self.neuron_scores, AGGREGATIONS)

    def to_json(self) -> str:
        """Return everything but the scores of single neurons as JSON; what is not known is ``null``."""
        document = {
            **self._describe(),
            "sessions": frame_to_records(self.rows),
            "summary": frame_to_records(self.summary),
            "by_depth": frame_to_records(self.by_depth()),
            "unscored": list(self.unscored),
            "notes": list(self.notes),
            "doubts": [str(doubt) for doubt in self.doubts],
        }
        return json.dumps(document, indent=2, allow_nan=False)

    def write_parquet(self, path: str | Path) -> None:
        """Write :meth:`to_neuron_frame` as a Parquet file, which appears whole or not at all.

        Raises
        ------
        UsageError
            If nothing was scored, another file is there, or the file cannot be written.
        """
        # Only whoever writes one waits for these.
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.require_scores()
        with NEURONS_FILE.replace(Path(path)) as partial:
            frame = self.to_neuron_frame()
            table = pa.Table.from_pandas(frame, preserve_index=False)
            metadata = {**table.schema.metadata, _NEURONS_KEY: _digest_neurons(frame)}
            pq.write_table(table.replace_schema_metadata(metadata), partial)

    def _describe(self) -> dict[str, Any]:
        return {
            "predictions": self.predictions,
            "frames": self.frames,
            "n_resamples": self.bootstrap.n_resamples,
            "seed": self.bootstrap.seed,
            "confidence": self.bootstrap.confidence,
            "simulated": list(self.simulated),
        }


def _is_neurons_file(data: bytes) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not data.startswith(PARQUET_MAGIC):
        return False
    try:
        table = pq.read_table(pa.BufferReader(data))
        mark = (table.schema.metadata or {}).get(_NEURONS_KEY)
        return mark is not None and mark == _digest_neurons(table.to_pandas())
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return False


def _digest_neurons(frame: pd.DataFrame) -> bytes:
    """Return a digest of a table's columns and values, by which a changed file is known."""
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
    return digest_bytes(json.dumps([str(name) for name in frame.columns]).encode() + rows).encode()


def make_score_table(
    *,
    trials: Mapping[RowKey, tuple[int, ...]],
    resampled: Mapping[RowKey, Mapping[str, Resampled]],
    neuron_scores: Mapping[RowKey, pd.DataFrame],
    unscored: Sequence[str],
    notes: Sequence[str],
    doubts: Sequence[PredictionsError],
    predictions: str,
    frames: FramesProfile,
    bootstrap: Bootstrap,
    simulated: Sequence[str] = (),
) -> ScoreTable:
    """Put a score table together from the scores of neurons; arguments as the attributes of :class:`ScoreTable`."""
    rows = []
    for key in neuron_scores:
        session, tier, stimulus = key
        labels = {"session": session, "alias": find_session(session).alias, "tier": tier, "stimulus": stimulus}
        rows.append({**labels, **_aggregate([key], "mean over mice", trials, resampled, neuron_scores, bootstrap)})
    groups: dict[tuple[str, str], list[RowKey]] = {}
    for key in neuron_scores:
        groups.setdefault(key[1:], []).append(key)
    summary = []
    for tier, stimulus in sorted(groups, key=lambda group: rank_tier(group[0])):
        keys = groups[tier, stimulus]
        for aggregation in AGGREGATIONS:
            of_all: dict[str, Any] = {
                "aggregation": aggregation,
                "n_sessions": len(keys),
                "tier": tier,
                "stimulus": stimulus,
            }
            summary.append({**of_all, **_aggregate(keys, aggregation, trials, resampled, neuron_scores, bootstrap)})
    return ScoreTable(
        rows=pd.DataFrame(rows, columns=_ROW_COLUMNS),
        summary=pd.DataFrame(summary, columns=_SUMMARY_COLUMNS),
        unscored=tuple(unscored),
        notes=tuple(notes),
        doubts=tuple(doubts),
        predictions=predictions,
        frames=frames,
        bootstrap=bootstrap,
        trials=trials,
        resampled=resampled,
        neuron_scores=neuron_scores,
        simulated=tuple(simulated),
    )


def session_weights(n_neurons: Sequence[int], aggregation: str) -> list[float]:
    """Return what the mean of each session's neurons counts for in an aggregation over sessions.

    Examples
    --------
    >>> session_weights([1, 3], "mean over neurons"), session_weights([1, 3], "mean over mice")
    ([0.25, 0.75], [0.5, 0.5])
    """
    sizes = n_neurons if aggregation == "mean over neurons" else [1] * len(n_neurons)
    return [size / sum(sizes) for size in sizes]


def frame_to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON's types; NaN becomes ``None``."""
    records = frame.to_dict(orient="records")
    return [
        {str(name): None if isinstance(value, float) and np.isnan(value) else value for name, value in record.items()}
        for record in records
    ]


def _aggregate(
    keys: Sequence[RowKey],
    aggregation: str,
    trials: Mapping[RowKey, tuple[int, ...]],
    resampled: Mapping[RowKey, Mapping[str, Resampled]],
    neuron_scores: Mapping[RowKey, pd.DataFrame],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "n_trials": sum(len(trials[key]) for key in keys),
        "n_neurons": sum(len(neuron_scores[key]) for key in keys),
    }
    for metric in (*SCORES, *FURTHER_SCORES, *CEILINGS, *TRUE_CEILINGS):
        # What a session or a neuron lacks does not count as zero.
        n_known = {key: int(neuron_scores[key][metric].notna().sum()) for key in keys}
        known = [key for key in keys if n_known[key]]
        weights = session_weights([n_known[key] for key in known], aggregation)
        means = [float(neuron_scores[key][metric].mean()) for key in known]
        numbers[metric] = sum(w * m for w, m in zip(weights, means, strict=True)) if known else float("nan")
        if metric == _NORMALIZED:
            numbers["n_neurons_normalized"] = sum(n_known.values())
        if metric in _WITH_INTERVALS:
            low, high = float("nan"), float("nan")
            if known:
                low, high = Resampled.add([resampled[key][metric] for key in known], weights).interval(
                    bootstrap.confidence
                )
            numbers |= {f"{metric}_low": low, f"{metric}_high": high}
    for name, score, ceiling in _FRACTIONS:
        numbers[name] = numbers[score] / numbers[ceiling] if numbers[ceiling] > 0 else float("nan")
    return numbers
