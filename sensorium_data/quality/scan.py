"""One pass over the large arrays of a session: everything the quality report counts in videos and responses."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sensorium_data.ordered_map import map_ahead
from sensorium_data.progress import Progress
from sensorium_data.recorded_frames import count_recorded_frames, count_usable_frames
from sensorium_data.scoring import OracleReliability, RepeatMoments
from sensorium_data.sessions import Stimulus, Tier

__all__ = ["RESPONSE_FLOOR", "SessionScan", "StimulusSample", "scan_session"]

#: Responses up to this magnitude are the deconvolution's numerical noise around zero.
RESPONSE_FLOOR = 1e-6

_N_FRAMES_SHOWN = 8
# Luminance that a frame of one shade, or a frame equal to the one before, may differ by: resampling rounds.
_BLANK_RANGE = 1.0
_STILL_CHANGE = 0.5


@dataclass(frozen=True, eq=False)
class StimulusSample:
    """A few frames of one trial, to be looked at.

    Attributes
    ----------
    stimulus, tier : str
        What the trial shows, and what it is for.
    trial : int
        The trial's id.
    frames : tuple of int
        Which frames.
    pixels : np.ndarray
        (frame, height, width) uint8, luminance rounded.
    """

    stimulus: str
    tier: str
    trial: int
    frames: tuple[int, ...]
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class SessionScan:
    """What one pass over a session found.

    Attributes
    ----------
    finite_end : mapping of str to np.ndarray
        (trial,) by variable: the frame after the last one that holds a finite value; -1 for withheld responses, which
        are not read.
    n_missing : mapping of str to np.ndarray
        (trial,) by variable: NaN and infinite values inside the valid frames, but for those of ``n_missing_frames``.
    n_missing_frames : mapping of str to np.ndarray
        (trial,) by variable: frames by which it ends before the video, at most
        :data:`~sensorium_data.recorded_frames.MOST_MISSING_FRAMES`.
    luminance : np.ndarray
        (trial, 4): lowest, highest, mean and standard deviation over pixels and valid frames.
    blank_share, still_share : np.ndarray
        (trial,) share of the valid frames that are of one shade, and that equal the frame before.
    activity : np.ndarray
        (trial,) mean response over neurons and valid frames; NaN where withheld.
    n_values : np.ndarray
        (neuron,) published responses.
    mean, std, lowest, highest : np.ndarray
        (neuron,) of them; NaN where there are none.
    active_share : np.ndarray
        (neuron,) share of them above :data:`RESPONSE_FLOOR`.
    reliability, signal_to_noise : np.ndarray
        (neuron,), see :mod:`sensorium_data.scoring.reliability`.
    n_oracle_movies, n_oracle_trials : int
        What the reliability was computed from.
    samples : tuple of StimulusSample
        One for each class of stimulus shown.
    """

    finite_end: Mapping[str, np.ndarray]
    n_missing: Mapping[str, np.ndarray]
    n_missing_frames: Mapping[str, np.ndarray]
    luminance: np.ndarray
    blank_share: np.ndarray
    still_share: np.ndarray
    activity: np.ndarray
    n_values: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    active_share: np.ndarray
    reliability: np.ndarray
    signal_to_noise: np.ndarray
    n_oracle_movies: int
    n_oracle_trials: int
    samples: tuple[StimulusSample, ...]


def scan_session(dataset: xr.Dataset, label: str, *, jobs: int, progress: Progress) -> SessionScan:
    """Read every video and every published response once.

    Results do not depend on ``jobs``: what trials contribute is added up in one order.

    Parameters
    ----------
    dataset : xarray.Dataset
        What :func:`sensorium_data.store.open_session` returns.
    label : str
        What progress calls this work.
    jobs : int
        Trials read at once; each needs about 50 MB at 8,000 neurons.
    progress : Progress
        Told after each trial.
    """
    n_trials, n_neurons, n_padded = dataset.sizes["trial"], dataset.sizes["neuron"], dataset.sizes["time"]
    n_frames = dataset.n_frames.values
    # Other labs' recordings may lack one or both.
    recorded = [name for name in ("behavior", "pupil_center") if name in dataset]
    sampled = _choose_samples(dataset)
    groups = _group_oracle_trials(dataset)
    in_oracle = {position for group in groups for position in group}

    def scan_trial(position: int) -> tuple[_VideoScan, _ResponseScan | None]:
        length = int(n_frames[position])
        video = _scan_video(_read(dataset, "videos", position), length, keeps_frames=position in sampled)
        if dataset.responses_withheld.values[position]:
            return video, None
        responses = _read(dataset, "responses", position)
        return video, _scan_responses(responses, length, keeps_values=position in in_oracle)

    ends = {"videos": np.zeros(n_trials, np.int64), "responses": np.full(n_trials, -1)}
    missing = {"videos": np.zeros(n_trials, np.int64), "responses": np.zeros(n_trials, np.int64)}
    early = {name: np.zeros(n_trials, np.int64) for name in ("responses", *recorded)}
    luminance = np.full((n_trials, 4), np.nan)
    blank, still, activity = np.full((3, n_trials), np.nan)
    totals = _NeuronTotals(n_neurons)
    reliability = OracleReliability(n_neurons)
    samples: dict[int, StimulusSample] = {}
    n_done = 0

    def take(position: int, video: _VideoScan, responses: _ResponseScan | None) -> None:
        nonlocal n_done
        ends["videos"][position], missing["videos"][position] = video.finite_end, video.n_missing
        luminance[position] = video.luminance
        blank[position], still[position] = video.blank_share, video.still_share
        if position in sampled:
            trial = dataset.isel(trial=position)
            samples[position] = StimulusSample(
                str(trial.stimulus.values), str(trial.tier.values), int(trial.trial), video.frames, video.pixels
            )
        if responses is not None:
            ends["responses"][position], missing["responses"][position] = responses.finite_end, responses.n_missing
            early["responses"][position] = responses.n_missing_frames
            totals.add(responses)
            if (n_values := int(responses.n_values.sum())) > 0:
                activity[position] = responses.sums.sum() / n_values
        n_done += 1
        progress(label, n_done, n_trials)

    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="check")
    try:
        # Movie by movie, so that the sums over the repeats of one movie alone are in memory.
        for group in groups:
            moments = RepeatMoments(n_neurons, min(int(n_frames[group].min()), n_padded))
            for position, (video, responses) in map_ahead(pool, scan_trial, group, jobs):
                take(position, video, responses)
                if responses is not None and responses.values is not None:
                    moments.add(responses.values)
            reliability.add(moments)
        others = [position for position in range(n_trials) if position not in in_oracle]
        for position, (video, responses) in map_ahead(pool, scan_trial, others, jobs):
            take(position, video, responses)
    finally:
        pool.shutdown(cancel_futures=True)

    for variable in recorded:
        finite = np.isfinite(dataset[variable].values)
        ends[variable] = _finite_end(finite.any(axis=1))
        pairs = zip(dataset[variable].values, n_frames.tolist(), strict=True)
        usable = np.array([_count_usable(values, n) for values, n in pairs], np.int64)
        early[variable] = n_frames - usable
        within = np.arange(n_padded) < usable[:, np.newaxis]
        missing[variable] = (~finite & within[:, np.newaxis]).sum(axis=(1, 2))
    return SessionScan(
        finite_end=ends,
        n_missing=missing,
        n_missing_frames=early,
        luminance=luminance,
        blank_share=blank,
        still_share=still,
        activity=activity,
        n_values=totals.n_values,
        mean=totals.mean(),
        std=totals.std(),
        lowest=totals.lowest,
        highest=totals.highest,
        active_share=totals.active_share(),
        reliability=reliability.correlation(),
        signal_to_noise=reliability.signal_to_noise(),
        n_oracle_movies=reliability.n_movies,
        n_oracle_trials=reliability.n_trials,
        samples=tuple(samples[position] for position in sampled),
    )


# One trial


@dataclass(frozen=True, eq=False)
class _VideoScan:
    finite_end: int
    n_missing: int
    luminance: tuple[float, float, float, float]
    blank_share: float
    still_share: float
    frames: tuple[int, ...]
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class _ResponseScan:
    """Of one trial; all but the first three (neuron,), over its valid frames."""

    finite_end: int
    n_missing: int
    n_missing_frames: int
    n_values: np.ndarray
    n_active: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    #: (neuron, time), where the trial is one of several repeats.
    values: np.ndarray | None


def _scan_video(stored: np.ndarray, n_frames: int, *, keeps_frames: bool) -> _VideoScan:
    finite = np.isfinite(stored)
    end = int(_finite_end(finite.any(axis=(1, 2))))
    n_missing = int((~finite[:n_frames]).sum())
    video = stored[:n_frames].astype(np.float32, copy=False)
    if n_missing:
        video = np.where(finite[:n_frames], video, np.nan)
    if n_missing == video.size:
        nothing = np.zeros((0, *video.shape[1:]), np.uint8)
        return _VideoScan(end, n_missing, (np.nan,) * 4, np.nan, np.nan, (), nothing)
    # fmin and fmax pass over NaN without a warning where there is nothing else.
    lows = np.fmin.reduce(video, axis=(1, 2))
    highs = np.fmax.reduce(video, axis=(1, 2))
    blank = highs - lows < _BLANK_RANGE
    known = video if n_missing == 0 else video[finite[:n_frames]]
    changes = np.fmax.reduce(np.abs(np.diff(video, axis=0)), axis=(1, 2), initial=0.0)
    return _VideoScan(
        finite_end=end,
        n_missing=n_missing,
        luminance=(
            float(np.fmin.reduce(lows)),
            float(np.fmax.reduce(highs)),
            float(known.mean(dtype=np.float64)),
            float(known.std(dtype=np.float64)),
        ),
        blank_share=float(blank.mean()),
        still_share=float((changes <= _STILL_CHANGE).sum() / max(1, n_frames - 1)),
        frames=(frames := _choose_frames(blank) if keeps_frames else ()),
        pixels=np.nan_to_num(video[list(frames)]).round().clip(0, 255).astype(np.uint8),
    )


def _scan_responses(stored: np.ndarray, n_frames: int, *, keeps_values: bool) -> _ResponseScan:
    finite = np.isfinite(stored)
    end = int(_finite_end(finite.any(axis=0)))
    usable = _count_usable(stored, n_frames)
    n_missing_frames, n_frames = n_frames - usable, usable
    values = stored[:, :n_frames]
    n_values = finite[:, :n_frames].sum(axis=1)
    n_missing = values.size - int(n_values.sum())
    known = values if n_missing == 0 else np.where(finite[:, :n_frames], values, np.nan)
    summed = known if n_missing == 0 else np.nan_to_num(known)
    return _ResponseScan(
        finite_end=end,
        n_missing=n_missing,
        n_missing_frames=n_missing_frames,
        n_values=n_values,
        n_active=(summed > RESPONSE_FLOOR).sum(axis=1),
        sums=summed.sum(axis=1, dtype=np.float64),
        squares=np.einsum("nt,nt->n", summed, summed, dtype=np.float64),
        lowest=np.fmin.reduce(known, axis=1, initial=np.nan),
        highest=np.fmax.reduce(known, axis=1, initial=np.nan),
        values=known if keeps_values else None,
    )


def _count_usable(values: np.ndarray, n_frames: int) -> int:
    return count_usable_frames(count_recorded_frames(values, n_frames), n_frames)


class _NeuronTotals:
    def __init__(self, n_neurons: int) -> None:
        self.n_values, self._n_active = np.zeros((2, n_neurons), np.int64)
        self._sums, self._squares = np.zeros((2, n_neurons))
        self.lowest, self.highest = np.full((2, n_neurons), np.nan)

    def add(self, trial: _ResponseScan) -> None:
        self.n_values += trial.n_values
        self._n_active += trial.n_active
        self._sums += trial.sums
        self._squares += trial.squares
        np.fmin(self.lowest, trial.lowest, out=self.lowest)
        np.fmax(self.highest, trial.highest, out=self.highest)

    def mean(self) -> np.ndarray:
        return self._per_value(self._sums)

    def std(self) -> np.ndarray:
        variance = self._per_value(self._squares) - self.mean() ** 2
        # What rounding leaves may be negative, or more than the nothing that a constant trace varies by.
        return np.where(self.lowest == self.highest, 0.0, np.sqrt(np.maximum(variance, 0.0)))

    def active_share(self) -> np.ndarray:
        return self._per_value(self._n_active)

    def _per_value(self, sums: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.full(len(sums), np.nan)
        np.divide(sums, self.n_values, out=result, where=self.n_values > 0)
        return result


# What to read, and how


def _choose_samples(dataset: xr.Dataset) -> tuple[int, ...]:
    """Return the position of the first valid trial of each class of stimulus, in the classes' order."""
    shown = np.where(dataset.valid.values & (dataset.n_frames.values > 0), dataset.stimulus.values, "")
    found = [np.flatnonzero(shown == str(stimulus)) for stimulus in Stimulus]
    return tuple(int(positions[0]) for positions in found if len(positions))


def _choose_frames(blank: np.ndarray) -> tuple[int, ...]:
    """Return frames evenly spaced over a video, each moved on to the next that is not of one shade."""
    n_frames = len(blank)
    chosen = []
    for frame in np.linspace(0, n_frames, _N_FRAMES_SHOWN, endpoint=False).astype(int).tolist():
        after = np.flatnonzero(~blank[frame:])
        chosen.append(frame + int(after[0]) if len(after) else frame)
    return tuple(chosen)


def _group_oracle_trials(dataset: xr.Dataset) -> list[list[int]]:
    """Return the positions of each oracle movie's trials, of the movies with at least two whose responses are known."""
    usable = dataset.valid.values & ~dataset.responses_withheld.values & (dataset.tier.values == str(Tier.ORACLE))
    groups: dict[str, list[int]] = {}
    for position in np.flatnonzero(usable).tolist():
        groups.setdefault(str(dataset.movie_group.values[position]), []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _read(dataset: xr.Dataset, variable: str, position: int) -> np.ndarray:
    values: Any = dataset[variable][position].data
    # Zarr's own threads decode; a dask scheduler inside each of ours would only add more.
    read: np.ndarray = values.compute(scheduler="synchronous")
    return read


def _finite_end(finite: np.ndarray) -> np.ndarray:
    """Return, along the last axis, the position after the last true value; 0 without any."""
    n_frames = finite.shape[-1]
    last = n_frames - finite[..., ::-1].argmax(axis=-1)
    return np.where(finite.any(axis=-1), last, 0)
