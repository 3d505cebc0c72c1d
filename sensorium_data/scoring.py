"""Scores of a predictions store, in the competition's units, by session, tier and stimulus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.base import compute

from sensorium_data.correlation import (
    N_SKIPPED_FRAMES,
    CorrelationAccumulator,
    RepeatAverager,
    correlation_to_average,
    mean_over_mice,
    mean_over_neurons,
    single_trial_correlation,
)
from sensorium_data.errors import PredictionsError, StoreError, UsageError
from sensorium_data.predictions import predicted_sessions, predictions_attributes
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, Tier, find_session
from sensorium_data.standardized import StandardizedPredictions

__all__ = [
    "ALL_STIMULI",
    "CorrelationAccumulator",
    "ScoreTable",
    "correlation_to_average",
    "mean_over_mice",
    "mean_over_neurons",
    "score_predictions",
    "single_trial_correlation",
]

#: In the column ``stimulus``: whatever the trials show.
ALL_STIMULI = "all"

_METRICS = (
    "single_trial_correlation",
    "correlation_to_average",
    "ceiling_single_trial_correlation",
    "ceiling_correlation_to_average",
)
_SCORES = ("n_trials", "n_neurons", *_METRICS, "fraction_of_ceiling")
_ROW_COLUMNS = ["session", "alias", "tier", "stimulus", *_SCORES]
_SUMMARY_COLUMNS = ["aggregation", "n_sessions", "tier", "stimulus", *_SCORES]
_AGGREGATIONS = {"mean over neurons": mean_over_neurons, "mean over mice": mean_over_mice}


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of one predictions store. Made by :func:`score_predictions`.

    Attributes
    ----------
    rows : pandas.DataFrame
        A row for each session and tier (``stimulus`` is ``all``), and one for each stimulus where a tier
        shows several. Columns: ``session``, ``alias``, ``tier``, ``stimulus``, ``n_trials``, ``n_neurons``,
        ``single_trial_correlation`` and ``correlation_to_average``, both the mean over the session's neurons;
        the same of the noiseless rates, ``ceiling_…``, and ``fraction_of_ceiling`` of the single-trial
        correlation, where the truth was given. What is not known is NaN: the correlation to
        average where no movie was shown twice, and ceilings without truth.
    summary : pandas.DataFrame
        The same metrics over sessions, in two rows for each tier and stimulus; ``aggregation`` says which:
        ``mean over neurons`` pools the neurons of all sessions, ``mean over mice`` averages within a mouse first.
    unscored : tuple of str
        What has no score, and why, one sentence each.
    predictions : str
        Path or URL of the predictions store.
    skip_frames : int
        Frames cut from the start of every trial.
    """

    rows: pd.DataFrame
    summary: pd.DataFrame
    unscored: tuple[str, ...]
    predictions: str
    skip_frames: int
    neuron_scores: Mapping[tuple[str, str, str], pd.DataFrame] = field(repr=False)

    def per_neuron(self, session: str, tier: str, stimulus: str = ALL_STIMULI) -> pd.DataFrame:
        """Return the metrics of each neuron, by unit id.

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
        key = (found.name, str(Tier.parse(tier)), stimulus)
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

        Summary rows bear their aggregation under ``alias`` and the number of sessions under ``session``.
        """
        several = self.summary[self.summary["n_sessions"] > 1]
        if several.empty:
            return self.rows.copy()
        summary = several.rename(columns={"aggregation": "alias", "n_sessions": "session"})
        summary["session"] = [f"{n} sessions" for n in summary["session"]]
        return pd.concat([self.rows, summary[self.rows.columns]], ignore_index=True)

    def to_json(self) -> str:
        """Return everything but the scores of single neurons as JSON; what is not known is ``null``."""
        document = {
            "predictions": self.predictions,
            "skip_frames": self.skip_frames,
            "sessions": _to_records(self.rows),
            "summary": _to_records(self.summary),
            "unscored": list(self.unscored),
        }
        return json.dumps(document, indent=2, allow_nan=False)


def score_predictions(
    predictions: str,
    store: str,
    *,
    truth: str | None = None,
    skip_frames: int = N_SKIPPED_FRAMES,
    tiers: Iterable[str] | None = None,
    progress: Progress = ignore_progress,
) -> ScoreTable:
    """Score predictions against recorded responses, in the competition's units.

    Responses are multiplied by their precision, frame by frame, as the server does; so are predictions in raw
    units. One trial at a time is in memory.

    Parameters
    ----------
    predictions : str
        Path or URL of the predictions store.
    store : str
        The session stores.
    truth : str, optional
        Truth of simulated sessions. It stands in for withheld responses, and its noiseless
        rates, scored the same way, are the ceiling.
    skip_frames : int
        Frames cut from the start of every trial; the competition cuts 50.
    tiers : iterable of str, optional
        Tiers to score; by default all that were predicted.
    progress : Progress
        Told after each trial.

    Raises
    ------
    PredictionsError
        If the predictions do not fit the recording, lack a scored frame, or lack a named tier.
    StoreError
        If a session is not in the store.
    UsageError
        If ``skip_frames`` is negative or a tier does not exist.
    """
    if skip_frames < 0:
        raise UsageError("skip_frames", found=skip_frames, expected="0 or more")
    predicted_tiers = [Tier(tier) for tier in predictions_attributes(predictions)["tiers"]]
    chosen = predicted_tiers if tiers is None else [Tier.parse(tier) for tier in tiers]
    absent = [tier for tier in chosen if tier not in predicted_tiers]
    if absent:
        raise PredictionsError(
            "tiers that were not predicted",
            path=predictions,
            found=", ".join(absent),
            expected=", ".join(predicted_tiers),
            remedy="predict them with `sensorium predict --tier`",
        )
    order = [tier for tier in Tier if tier in chosen]
    sources = [
        _Source(predictions, store, truth, session, order, skip_frames) for session in predicted_sessions(predictions)
    ]
    n_total = sum(len(trials) for source in sources for trials in source.scorable.values())
    n_done = 0
    rows: list[dict[str, Any]] = []
    neuron_scores: dict[tuple[str, str, str], pd.DataFrame] = {}
    for source in sources:
        for tier in order:
            moments: dict[str, _Moments] = {}
            for stimulus, repeats in source.group_repeats(tier):
                moment = moments.setdefault(stimulus, _Moments(source.neurons.size))
                averager = RepeatAverager()
                for trial in repeats:
                    signals = source.read_trial(trial, skip_frames)
                    moment.add_trial(signals)
                    if len(repeats) > 1:
                        averager.add(*signals)
                    n_done += 1
                    progress("score", n_done, n_total)
                if averager.n_repeats:
                    moment.add_average(averager.averages())
            if not moments:
                continue
            whole = _Moments(source.neurons.size)
            for moment in moments.values():
                whole.merge(moment)
            scored = {ALL_STIMULI: whole, **(moments if len(moments) > 1 else {})}
            for stimulus, moment in scored.items():
                of_neurons = moment.per_neuron(source.neurons)
                neuron_scores[source.session.name, tier, stimulus] = of_neurons
                rows.append(
                    {
                        "session": source.session.name,
                        "alias": source.session.alias,
                        "tier": str(tier),
                        "stimulus": stimulus,
                        "n_trials": moment.n_trials,
                        "n_neurons": source.neurons.size,
                        **_with_fraction({metric: float(of_neurons[metric].mean()) for metric in _METRICS}),
                    }
                )
    return ScoreTable(
        rows=pd.DataFrame(rows, columns=_ROW_COLUMNS),
        summary=_summarize(rows, neuron_scores),
        unscored=tuple(reason for source in sources for reason in source.unscored),
        predictions=predictions,
        skip_frames=skip_frames,
        neuron_scores=neuron_scores,
    )


class _Source:
    """One session's predictions, responses and, where the truth is known, rates."""

    def __init__(
        self, predictions: str, store: str, truth: str | None, session: Session, tiers: Sequence[Tier], skip_frames: int
    ) -> None:
        self.session = session
        self._predictions = StandardizedPredictions(predictions, store, session)
        self._truth = None if truth is None else _open_truth(truth, self._predictions)
        self.neurons = self._predictions.neurons
        #: What has no score, and why.
        self.unscored: list[str] = []
        #: The trials of each tier that can be scored.
        self.scorable = {tier: self._find_scorable(tier, skip_frames) for tier in tiers}

    def _find_scorable(self, tier: Tier, skip_frames: int) -> list[int]:
        predicted = self._predictions
        trials = predicted.trials(tier)
        if not trials:
            self.unscored.append(f"session {self.session}, {tier}: no trial was predicted")
        unpredicted = predicted.unpredicted_trials(tier)
        if trials and unpredicted:
            self.unscored.append(f"session {self.session}, {tier}: {len(unpredicted)} trials of it were not predicted")
        scorable, withheld = [], []
        for trial in trials:
            where = f"session {self.session}, {tier}, trial {trial}"
            if not predicted.is_valid(trial):
                self.unscored.append(f"{where}: its stimulus is broken")
            elif predicted.n_frames(trial) <= skip_frames:
                self.unscored.append(
                    f"{where}: it has {predicted.n_frames(trial)} frames, and the first {skip_frames} are not scored"
                )
            elif predicted.is_withheld(trial) and self._truth is None:
                withheld.append(trial)
            else:
                scorable.append(trial)
        if withheld:
            self.unscored.append(
                f"session {self.session}, {tier}: the responses of {len(withheld)} of {len(trials)} trials are "
                "withheld; only the competition's server can score them"
            )
        return scorable

    def group_repeats(self, tier: Tier) -> Iterator[tuple[str, list[int]]]:
        """Yield the tier's trials movie by movie, each group with its stimulus class."""
        groups: dict[tuple[str, str], list[int]] = {}
        for trial in self.scorable[tier]:
            # A trial whose movie is not known repeats nothing.
            movie = self._predictions.label(trial, "movie") or f"trial {trial}"
            groups.setdefault((self._predictions.label(trial, "stimulus"), movie), []).append(trial)
        for (stimulus, _), trials in groups.items():
            yield stimulus, trials

    def read_trial(self, trial: int, skip_frames: int) -> tuple[npt.NDArray[np.float32], ...]:
        """Return responses, predictions and, with truth, rates: (neurons, scored frames) in standardized units."""
        frames = range(skip_frames, self._predictions.n_frames(trial))
        cut = {"time": slice(frames.start, frames.stop)}
        lazy = [self._predictions.block(trial)]
        if self._truth is not None and self._predictions.is_withheld(trial):
            lazy.append(self._truth["responses"].sel(trial=trial))
        else:
            lazy.append(self._predictions.recording["responses"].sel(trial=trial))
        if self._truth is not None:
            lazy.append(self._truth["rates"].sel(trial=trial))
        # Together, so that the blocks are read at once.
        block, response, *rates = compute(*(array.data for array in lazy))  # type: ignore[no-untyped-call]
        precision = self._predictions.precision[:, cut["time"]]
        prediction = self._predictions.finish(trial, block, frames)
        return (response[:, cut["time"]] * precision, prediction, *(rate[:, cut["time"]] * precision for rate in rates))


class _Moments:
    """Running moments of one session, tier and stimulus."""

    def __init__(self, n_neurons: int) -> None:
        self.n_trials = 0
        self._accumulators = {metric: CorrelationAccumulator(n_neurons) for metric in _METRICS}

    def add_trial(self, signals: Sequence[npt.NDArray[Any]]) -> None:
        self.n_trials += 1
        self._update(signals, "single_trial_correlation")

    def add_average(self, signals: Sequence[npt.NDArray[Any]]) -> None:
        self._update(signals, "correlation_to_average")

    def _update(self, signals: Sequence[npt.NDArray[Any]], metric: str) -> None:
        response, prediction, *rates = signals
        self._accumulators[metric].update(response, prediction)
        for rate in rates:
            self._accumulators[f"ceiling_{metric}"].update(response, rate)

    def merge(self, other: _Moments) -> None:
        self.n_trials += other.n_trials
        for metric, accumulator in self._accumulators.items():
            accumulator.merge(other._accumulators[metric])

    def per_neuron(self, neurons: npt.NDArray[np.int64]) -> pd.DataFrame:
        return pd.DataFrame(
            {metric: accumulator.correlation() for metric, accumulator in self._accumulators.items()},
            index=pd.Index(neurons, name="neuron"),
        )


def _open_truth(truth: str, predictions: StandardizedPredictions) -> xr.Dataset:
    # The simulator is needed by those alone who simulate.
    from sensorium_data.simulate import open_truth

    dataset: xr.Dataset = open_truth(truth, predictions.session.name)
    if not np.array_equal(dataset["neuron"].values, predictions.neurons):
        raise StoreError(
            "the truth is of other neurons than the recording",
            session=predictions.session,
            path=truth,
            found=f"{dataset.sizes['neuron']} neurons",
            expected=f"{predictions.neurons.size}",
            remedy="give the truth that was written with the archives",
        )
    missing = sorted(set(predictions.recording["trial"].values.tolist()) - set(dataset["trial"].values.tolist()))
    if missing:
        raise StoreError(
            "the truth lacks trials of the recording",
            session=predictions.session,
            trial=missing[0],
            path=truth,
            remedy="give the truth that was written with the archives",
        )
    return dataset


def _with_fraction(metrics: Mapping[str, float]) -> dict[str, float]:
    ceiling = metrics["ceiling_single_trial_correlation"]
    fraction = metrics["single_trial_correlation"] / ceiling if ceiling > 0 else float("nan")
    return {**metrics, "fraction_of_ceiling": fraction}


def _summarize(
    rows: Sequence[Mapping[str, Any]], neuron_scores: Mapping[tuple[str, str, str], pd.DataFrame]
) -> pd.DataFrame:
    groups: dict[tuple[str, str], list[pd.DataFrame]] = {}
    n_trials: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["tier"], row["stimulus"])
        groups.setdefault(key, []).append(neuron_scores[row["session"], *key])
        n_trials[key] = n_trials.get(key, 0) + row["n_trials"]
    summary = []
    for tier in [str(tier) for tier in Tier]:
        for key in [key for key in groups if key[0] == tier]:
            for aggregation, mean in _AGGREGATIONS.items():
                # A session without repeats has no correlation to average: it does not count as zero.
                metrics = {
                    metric: mean([f[metric].to_numpy() for f in groups[key] if f[metric].notna().all()])
                    for metric in _METRICS
                }
                summary.append(
                    {
                        "aggregation": aggregation,
                        "n_sessions": len(groups[key]),
                        "tier": tier,
                        "stimulus": key[1],
                        "n_trials": n_trials[key],
                        "n_neurons": sum(len(f) for f in groups[key]),
                        **_with_fraction(metrics),
                    }
                )
    return pd.DataFrame(summary, columns=_SUMMARY_COLUMNS)


def _to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    records = frame.to_dict(orient="records")
    return [
        {str(name): None if isinstance(value, float) and np.isnan(value) else value for name, value in record.items()}
        for record in records
    ]
