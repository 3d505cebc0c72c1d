"""What a session is like, in rows of numbers: its tiers, lengths, stimuli, behavior and responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sensorium_data.movies import N_FRAMES_BY_STIMULUS
from sensorium_data.quality.scan import RESPONSE_FLOOR, SessionScan
from sensorium_data.schema import VARIABLES
from sensorium_data.sessions import Session, Stimulus, Tier, sort_tiers
from sensorium_data.store import format_range

__all__ = [
    "ChannelSummary",
    "ModalityLengths",
    "ResponseSummary",
    "StimulusSummary",
    "TierSummary",
    "summarize_channels",
    "summarize_lengths",
    "summarize_neurons",
    "summarize_responses",
    "summarize_stimuli",
    "summarize_tiers",
]

_N_BINS = 48
_OUTLIER_FACTOR = 5.0


@dataclass(frozen=True)
class TierSummary:
    """A tier's trials.

    Attributes
    ----------
    tier : str
        Its name.
    n_trials : int
        Trials in the store.
    n_published : int or None
        Trials published; None where nothing is.
    n_movies : int
        Movies that the valid ones show.
    repeats : tuple of int
        How often each movie is shown, the most often first; empty for a tier that shows every movie once.
    frames : str
        Range of their valid frames.
    stimuli : tuple of str
        Classes of stimulus.
    n_withheld, n_broken : int
        Trials without responses, and without a valid frame.
    """

    tier: str
    n_trials: int
    n_published: int | None
    n_movies: int
    repeats: tuple[int, ...]
    frames: str
    stimuli: tuple[str, ...]
    n_withheld: int
    n_broken: int


@dataclass(frozen=True)
class ModalityLengths:
    """Where a modality's finite values end, against the trial's valid frames, which the video sets.

    Attributes
    ----------
    variable : str
        The modality.
    n_trials : int
        Valid trials that have any value of it; withheld responses have none.
    shortest, longest : int or None
        Frames up to the last finite value.
    n_equal, n_shorter, n_longer : int
        Trials whose values end with the last valid frame, before it, and after it.
    n_empty : int
        Valid trials without any value of it, withheld responses not counted.
    """

    variable: str
    n_trials: int
    shortest: int | None
    longest: int | None
    n_equal: int
    n_shorter: int
    n_longer: int
    n_empty: int


@dataclass(frozen=True)
class StimulusSummary:
    """The trials that show one class of stimulus.

    Attributes
    ----------
    stimulus : str
        The class.
    n_trials, n_movies : int
        Valid trials, and movies they show.
    frames, known_frames : str
        Range of their valid frames, and the range counted over all real trials.
    luminance_low, luminance_high, luminance_mean, luminance_std : float
        Over the pixels of all valid frames; the last is the mean over trials of each trial's.
    blank_share, still_share : float
        Share of frames of one shade, and share that equal the frame before.
    """

    stimulus: str
    n_trials: int
    n_movies: int
    frames: str
    known_frames: str
    luminance_low: float
    luminance_high: float
    luminance_mean: float
    luminance_std: float
    blank_share: float
    still_share: float


@dataclass(frozen=True)
class ChannelSummary:
    """One channel of behavior or pupil, over the valid frames of all trials.

    Attributes
    ----------
    variable, channel, units : str
        Which one.
    lowest, percentile_1, median, percentile_99, highest, mean, std : float
        Its values; NaN without any.
    outliers_below, outliers_above : float
        Beyond these a value is an outlier: five times as far from the median as the 1st or 99th percentile.
    n_missing, n_outliers : int
        Values that are NaN or infinite, and outliers.
    constant_trials : tuple of int
        Ids of the trials in which it never changes.
    histogram_edges : tuple of float
        Edges of bins from the lowest to the highest value that is no outlier.
    histogram_counts : tuple of int
        Values in each.
    """

    variable: str
    channel: str
    units: str
    lowest: float
    percentile_1: float
    median: float
    percentile_99: float
    highest: float
    mean: float
    std: float
    outliers_below: float
    outliers_above: float
    n_missing: int
    n_outliers: int
    constant_trials: tuple[int, ...]
    histogram_edges: tuple[float, ...]
    histogram_counts: tuple[int, ...]


@dataclass(frozen=True)
class ResponseSummary:
    """All published responses together.

    Attributes
    ----------
    n_trials, n_neurons, n_dead : int
        Trials with published responses, neurons, and neurons that never exceed the numerical floor.
    active_share : float
        Share of values above the floor.
    floor : float
        That floor.
    lowest, highest, mean : float
        Over all values.
    reliability_median, reliability_10, reliability_90, signal_to_noise_median : float
        Over neurons; NaN without repeats in the oracle tier.
    n_reliable_from, n_oracle_movies, n_oracle_trials : int
        Neurons with a reliability, and the movies and trials that it comes from.
    """

    n_trials: int
    n_neurons: int
    n_dead: int
    active_share: float
    floor: float
    lowest: float
    highest: float
    mean: float
    reliability_median: float
    reliability_10: float
    reliability_90: float
    signal_to_noise_median: float
    n_reliable_from: int
    n_oracle_movies: int
    n_oracle_trials: int


def summarize_tiers(dataset: xr.Dataset, session: Session) -> tuple[TierSummary, ...]:
    """Return a row for each tier that has trials or should have."""
    return tuple(_each_tier(dataset, session))


def _each_tier(dataset: xr.Dataset, session: Session) -> Iterator[TierSummary]:
    for tier in sort_tiers([*Tier, *dataset.tier.values.tolist()]):
        trials = dataset.coords.to_dataset().isel(trial=np.flatnonzero(dataset.tier.values == str(tier)))
        published = session.n_trials_by_tier.get(tier)
        if not trials.sizes["trial"] and not published:
            continue
        valid = trials.valid.values
        repeats = sorted(Counter(trials.movie_group.values[valid].tolist()).values(), reverse=True)
        yield TierSummary(
            tier=str(tier),
            n_trials=trials.sizes["trial"],
            n_published=published,
            n_movies=len(repeats),
            repeats=tuple(repeats) if repeats and repeats[0] > 1 else (),
            frames=format_range(trials.n_frames.values[valid]),
            stimuli=tuple(sorted(set(trials.stimulus.values[valid].tolist()))),
            n_withheld=int(trials.responses_withheld.values.sum()),
            n_broken=int((~valid).sum()),
        )


def summarize_lengths(dataset: xr.Dataset, scan: SessionScan) -> tuple[ModalityLengths, ...]:
    """Return a row for each modality, over the valid trials."""
    rows = []
    n_frames = dataset.n_frames.values
    for variable in scan.finite_end:
        end = scan.finite_end[variable]
        expected = dataset.valid.values.copy()
        if variable == "responses":
            expected &= ~dataset.responses_withheld.values
        present = expected & (end > 0)
        rows.append(
            ModalityLengths(
                variable=variable,
                n_trials=int(present.sum()),
                shortest=int(end[present].min()) if present.any() else None,
                longest=int(end[present].max()) if present.any() else None,
                n_equal=int((end == n_frames)[present].sum()),
                n_shorter=int((end < n_frames)[present].sum()),
                n_longer=int((end > n_frames)[present].sum()),
                n_empty=int((expected & ~present).sum()),
            )
        )
    return tuple(rows)


def summarize_stimuli(dataset: xr.Dataset, scan: SessionScan) -> tuple[StimulusSummary, ...]:
    """Return a row for each class of stimulus that a valid trial shows."""
    rows = []
    for stimulus in Stimulus:
        shown = dataset.valid.values & (dataset.stimulus.values == str(stimulus)) & np.isfinite(scan.blank_share)
        if not shown.any():
            continue
        n_frames = dataset.n_frames.values[shown]
        low, high, mean, std = scan.luminance[shown].T
        rows.append(
            StimulusSummary(
                stimulus=str(stimulus),
                n_trials=int(shown.sum()),
                n_movies=len(set(dataset.movie_group.values[shown].tolist())),
                frames=format_range(n_frames),
                known_frames=format_range(np.array(N_FRAMES_BY_STIMULUS.get(stimulus, ()))),
                luminance_low=float(low.min()),
                luminance_high=float(high.max()),
                luminance_mean=float(np.average(mean, weights=n_frames)),
                luminance_std=float(std.mean()),
                blank_share=float(np.average(scan.blank_share[shown], weights=n_frames)),
                still_share=float(np.average(scan.still_share[shown], weights=n_frames)),
            )
        )
    return tuple(rows)


def summarize_channels(dataset: xr.Dataset) -> tuple[ChannelSummary, ...]:
    """Return a row for each channel of behavior and pupil."""
    within = np.arange(dataset.sizes["time"]) < dataset.n_frames.values[:, np.newaxis]
    rows = []
    for variable, axis in (("behavior", "behavior_channel"), ("pupil_center", "eye_axis")):
        if variable not in dataset:
            continue
        values = dataset[variable].values.astype(np.float64)
        for position, label in enumerate(dataset[axis].values.tolist()):
            channel = f"pupil_center_{label}" if variable == "pupil_center" else str(label)
            # pupil_center's unit holds for both its axes; behavior's channels have none that is known.
            units = VARIABLES[variable].units
            rows.append(_summarize_channel(variable, channel, units, values[:, position], within, dataset.trial.values))
    return tuple(rows)


def _summarize_channel(
    variable: str, channel: str, units: str, values: npt.NDArray[np.float64], within: np.ndarray, trials: np.ndarray
) -> ChannelSummary:
    finite = np.isfinite(values) & within
    known = values[finite]
    n_missing = int(within.sum() - finite.sum())
    if len(known) == 0:
        nothing = (np.nan,) * 9
        return ChannelSummary(variable, channel, units, *nothing, n_missing, 0, (), (), ())
    low, median, high = np.percentile(known, (1, 50, 99))
    below, above = median - _OUTLIER_FACTOR * (median - low), median + _OUTLIER_FACTOR * (high - median)
    usual = known[(known >= below) & (known <= above)]
    counts, edges = np.histogram(usual, _N_BINS)
    shown = np.where(finite, values, np.nan)
    spans = np.fmax.reduce(shown, axis=1) - np.fmin.reduce(shown, axis=1)
    constant = trials[(spans == 0) & (finite.sum(axis=1) > 1)]
    return ChannelSummary(
        variable=variable,
        channel=channel,
        units=units,
        lowest=float(known.min()),
        percentile_1=float(low),
        median=float(median),
        percentile_99=float(high),
        highest=float(known.max()),
        mean=float(known.mean()),
        std=float(known.std()),
        outliers_below=float(below),
        outliers_above=float(above),
        n_missing=n_missing,
        n_outliers=len(known) - len(usual),
        constant_trials=tuple(int(trial) for trial in constant),
        histogram_edges=tuple(float(edge) for edge in edges),
        histogram_counts=tuple(int(count) for count in counts),
    )


def summarize_responses(scan: SessionScan) -> ResponseSummary:
    """Return the one row on all published responses."""
    n_values = int(scan.n_values.sum())
    known = scan.n_values > 0

    def weighted(values: np.ndarray) -> float:
        return float(np.average(values[known], weights=scan.n_values[known])) if n_values else np.nan

    reliability = scan.reliability[np.isfinite(scan.reliability)]
    ratio = scan.signal_to_noise[np.isfinite(scan.signal_to_noise)]
    low, median, high = np.percentile(reliability, (10, 50, 90)) if len(reliability) else (np.nan,) * 3
    return ResponseSummary(
        n_trials=int(np.isfinite(scan.activity).sum()),
        n_neurons=len(scan.mean),
        n_dead=int((~(scan.highest > RESPONSE_FLOOR) | (scan.highest == scan.lowest)).sum()),
        active_share=weighted(scan.active_share),
        floor=RESPONSE_FLOOR,
        lowest=float(np.fmin.reduce(scan.lowest, initial=np.nan)),
        highest=float(np.fmax.reduce(scan.highest, initial=np.nan)),
        mean=weighted(scan.mean),
        reliability_median=float(median),
        reliability_10=float(low),
        reliability_90=float(high),
        signal_to_noise_median=float(np.median(ratio)) if len(ratio) else np.nan,
        n_reliable_from=len(reliability),
        n_oracle_movies=scan.n_oracle_movies,
        n_oracle_trials=scan.n_oracle_trials,
    )


def summarize_neurons(dataset: xr.Dataset, scan: SessionScan) -> pd.DataFrame:
    """Return a row a neuron.

    Returns
    -------
    pandas.DataFrame
        Columns neuron (unit id), x, y, z (micrometer), mean, std, lowest, highest, active_share, reliability and
        signal_to_noise; NaN where no response is published.
    """
    unknown = np.full(dataset.sizes["neuron"], np.nan)
    positions = {axis: dataset[axis].values if axis in dataset.coords else unknown for axis in ("x", "y", "z")}
    statistics = {
        name: getattr(scan, name)
        for name in ("mean", "std", "lowest", "highest", "active_share", "reliability", "signal_to_noise")
    }
    return pd.DataFrame({"neuron": dataset.neuron.values, **positions, **statistics})
