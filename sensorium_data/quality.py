"""Checks of a session store against what is published and known of the recordings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import xarray as xr

from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, Stimulus, Tier, find_session
from sensorium_data.stimuli import N_FRAMES_BY_STIMULUS
from sensorium_data.store import format_range, open_session

__all__ = ["QualityCheck", "QualityReport", "check_session"]

#: Trials that are broken in the published archives, by the session's alias.
_KNOWN_BROKEN = MappingProxyType({"D": (668,), "J": (156,)})
#: How often a movie of each tier but train is shown, as counted over all real trials.
_REPEATS = range(7, 11)
_LUMINANCE = (0.0, 255.0)
_N_NAMED = 5


@dataclass(frozen=True)
class QualityCheck:
    """The outcome of one check.

    Attributes
    ----------
    check : str
        What was looked at.
    passed : bool
        Whether it is as expected.
    found, expected : str
        In words.
    sentence : str
        What it means, for someone who has not read the code.
    """

    check: str
    passed: bool
    found: str
    expected: str
    sentence: str


@dataclass(frozen=True)
class QualityReport:
    """Every check of one session.

    Attributes
    ----------
    session : str
        The session's full name.
    checks : tuple of QualityCheck
        In the order in which they are best read.
    """

    session: str
    checks: tuple[QualityCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_table(self) -> pd.DataFrame:
        """Return a row a check, columns check, passed, found, expected, sentence."""
        columns = ["check", "passed", "found", "expected", "sentence"]
        return pd.DataFrame([asdict(check) for check in self.checks], columns=columns)

    def to_json(self) -> str:
        """Return the report as JSON."""
        checks = [asdict(check) for check in self.checks]
        return json.dumps({"session": self.session, "passed": self.passed, "checks": checks}, ensure_ascii=False)


def check_session(store: str, session: str, *, jobs: int = 4, progress: Progress = ignore_progress) -> QualityReport:
    """Check a session store: its counts, lengths, repeats, withheld and missing values, and silent neurons.

    Reads every response and video once, a few trials at a time.

    Parameters
    ----------
    store : str
        Path or fsspec URL of a store's root.
    session : str
        Alias or full name.
    jobs : int
        Trials read at once; each needs about 30 MB.
    progress : Progress
        Told after each trial.

    Raises
    ------
    StoreError
        If the session cannot be opened.
    """
    found = find_session(session)
    dataset = open_session(store, session)
    content = _scan_content(dataset, f"check {found.alias}", jobs, progress)
    return QualityReport(
        found.name,
        (
            *_check_counts(dataset, found),
            *_check_stimuli(dataset, found),
            _check_broken(dataset, found),
            _check_withheld(dataset, found),
            *_check_repeats(dataset),
            *_check_missing(dataset, content),
            _check_luminance(content),
            _check_silent(dataset, content),
        ),
    )


def _check_counts(dataset: xr.Dataset, session: Session) -> Iterator[QualityCheck]:
    counts = Counter(dataset.tier.values.tolist())
    for tier, expected in session.n_trials_by_tier.items():
        yield _compare(f"trials in {tier}", counts[str(tier)], expected, "Trials of this tier as published.")
    yield _compare("neurons", dataset.sizes["neuron"], session.n_neurons, "Neurons as published.")
    yield _compare(
        "padded frames", dataset.sizes["time"], session.n_frames_padded, "Length of the frame axis as published."
    )
    n_distinct = len(set(dataset.neuron.values.tolist()))
    yield _compare("distinct unit ids", n_distinct, dataset.sizes["neuron"], "No two neurons share a unit id.")


def _check_stimuli(dataset: xr.Dataset, session: Session) -> Iterator[QualityCheck]:
    valid = dataset.valid.values
    for tier in Tier:
        shown = valid & (dataset.tier.values == str(tier))
        if not shown.any():
            continue
        names = set(dataset.stimulus.values[shown].tolist())
        expected = {str(stimulus) for stimulus in session.stimuli_of(tier)}
        yield QualityCheck(
            f"stimuli in {tier}",
            names == expected,
            ", ".join(sorted(names)),
            ", ".join(sorted(expected)),
            "The classes of stimulus that the tier is known to show, told by length and appearance.",
        )
    for stimulus, lengths in N_FRAMES_BY_STIMULUS.items():
        shown = valid & (dataset.stimulus.values == str(stimulus))
        if shown.any():
            n_frames = dataset.n_frames.values[shown]
            yield QualityCheck(
                f"frames of {stimulus}",
                bool(np.isin(n_frames, lengths).all()),
                format_range(n_frames),
                format_range(np.array(lengths)),
                "Valid frames of the trials that show this class.",
            )
    unknown = dataset.trial.values[valid & (dataset.stimulus.values == str(Stimulus.UNKNOWN))]
    yield _expect_none(
        "unrecognized stimuli", unknown.tolist(), "Trials whose length fits no class that their tier is known to show."
    )


def _check_broken(dataset: xr.Dataset, session: Session) -> QualityCheck:
    broken = dataset.trial.values[~dataset.valid.values].tolist()
    known = _KNOWN_BROKEN.get(session.alias, ())
    return QualityCheck(
        "broken trials",
        set(broken) <= set(known),
        "; ".join(map(str, dataset.attrs.get("broken_trials", broken))) or "none",
        f"none but {', '.join(map(str, known))}" if known else "none",
        "Trials whose stimulus is not whole; they keep their place without a valid frame.",
    )


def _check_withheld(dataset: xr.Dataset, session: Session) -> QualityCheck:
    tested = np.array([Tier(tier).is_test for tier in dataset.tier.values.tolist()], bool)
    expected = tested & session.withholds_test_responses
    wrong = dataset.trial.values[dataset.responses_withheld.values != expected].tolist()
    return QualityCheck(
        "withheld responses",
        not wrong,
        f"{int(dataset.responses_withheld.values.sum())} trials" + (f"; unexpectedly {_name(wrong)}" if wrong else ""),
        f"{int(expected.sum())} trials",
        "The competition withholds the test tiers' responses of the new sessions, and no others.",
    )


def _check_repeats(dataset: xr.Dataset) -> Iterator[QualityCheck]:
    valid = dataset.valid.values
    for tier in Tier:
        movies = Counter(dataset.movie.values[valid & (dataset.tier.values == str(tier))].tolist())
        if not movies:
            continue
        repeats = np.array(list(movies.values()))
        allowed = range(1, 2) if tier is Tier.TRAIN else _REPEATS
        yield QualityCheck(
            f"repeats in {tier}",
            bool(np.isin(repeats, allowed).all()),
            f"{len(movies)} movies, each shown {format_range(repeats)} times",
            f"each shown {format_range(np.array(allowed))} times",
            "How often each movie is shown; the average over repeats is what the second metric scores.",
        )
    trained = dataset.tier.values == str(Tier.TRAIN)
    leaked = sorted(set(dataset.movie.values[valid & trained].tolist()) & set(dataset.movie.values[~trained].tolist()))
    yield _expect_none("training movies in other tiers", leaked, "A movie that is trained on and tested on would leak.")


def _check_missing(dataset: xr.Dataset, content: _Content) -> Iterator[QualityCheck]:
    n_frames = dataset.n_frames.values
    within = np.arange(dataset.sizes["time"]) < n_frames[:, np.newaxis]
    for variable in ("behavior", "pupil_center"):
        absent = np.isnan(dataset[variable].values).any(axis=1) & within
        yield _expect_none(
            f"missing values in {variable}",
            dataset.trial.values[absent.any(axis=1)].tolist(),
            "Trials with NaN inside their valid frames.",
        )
    yield _expect_none(
        "missing values in responses",
        dataset.trial.values[content.n_missing > 0].tolist(),
        "Trials with published responses that are NaN inside their valid frames.",
    )


def _check_luminance(content: _Content) -> QualityCheck:
    low, high = content.luminance
    return QualityCheck(
        "luminance",
        not (low < _LUMINANCE[0] or high > _LUMINANCE[1]),
        f"{low:.4g} to {high:.4g}" if np.isfinite(low) else "no valid frame",
        f"{_LUMINANCE[0]:.4g} to {_LUMINANCE[1]:.4g}",
        "Range of the pixels of all valid frames.",
    )


def _check_silent(dataset: xr.Dataset, content: _Content) -> QualityCheck:
    silent = dataset.neuron.values[~(content.highest > content.lowest)].tolist()
    return _expect_none("silent neurons", silent, "Neurons whose published responses never change.")


@dataclass(frozen=True)
class _Content:
    """What one pass over the large arrays found.

    Attributes
    ----------
    lowest, highest : np.ndarray
        (neuron,) over all published responses; NaN where there are none.
    n_missing : np.ndarray
        (trial,) NaN responses inside the valid frames of trials whose responses are published.
    luminance : tuple of float
        Lowest and highest pixel; NaN without a valid frame.
    """

    lowest: np.ndarray
    highest: np.ndarray
    n_missing: np.ndarray
    luminance: tuple[float, float]


def _scan_content(dataset: xr.Dataset, label: str, jobs: int, progress: Progress) -> _Content:
    n_trials = dataset.sizes["trial"]
    n_frames = dataset.n_frames.values.tolist()
    withheld = dataset.responses_withheld.values.tolist()

    def scan(position: int) -> tuple[np.ndarray, np.ndarray, int, float, float]:
        # fmin and fmax pass over NaN without a warning where there is nothing else.
        def read(variable: str) -> np.ndarray:
            values: np.ndarray = dataset[variable][position].data.compute(scheduler="synchronous")
            return values

        video = read("videos")[: n_frames[position]]
        low = float(np.fmin.reduce(video, axis=None, initial=np.nan))
        high = float(np.fmax.reduce(video, axis=None, initial=np.nan))
        if withheld[position]:
            nothing = np.full(dataset.sizes["neuron"], np.nan, np.float32)
            return nothing, nothing, 0, low, high
        responses = read("responses")[:, : n_frames[position]]
        return (
            np.fmin.reduce(responses, axis=1, initial=np.nan),
            np.fmax.reduce(responses, axis=1, initial=np.nan),
            int(np.isnan(responses).sum()),
            low,
            high,
        )

    lowest = np.full(dataset.sizes["neuron"], np.nan, np.float32)
    highest = lowest.copy()
    n_missing = np.zeros(n_trials, np.int64)
    dark = bright = float("nan")
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="check")
    try:
        # What comes back of a trial is a hundredth of its size, so what waits in the queue stays small.
        for position, (lows, highs, missing, low, high) in enumerate(pool.map(scan, range(n_trials))):
            np.fmin(lowest, lows, out=lowest)
            np.fmax(highest, highs, out=highest)
            n_missing[position] = missing
            dark, bright = float(np.fmin(dark, low)), float(np.fmax(bright, high))
            progress(label, position + 1, n_trials)
    finally:
        pool.shutdown(cancel_futures=True)
    return _Content(lowest, highest, n_missing, (dark, bright))


def _compare(check: str, found: int, expected: int, sentence: str) -> QualityCheck:
    return QualityCheck(check, found == expected, str(found), str(expected), sentence)


def _expect_none(check: str, found: list[object], sentence: str) -> QualityCheck:
    return QualityCheck(check, not found, _name(found) if found else "none", "none", sentence)


def _name(items: list[object]) -> str:
    shown = ", ".join(map(str, items[:_N_NAMED]))
    return shown if len(items) <= _N_NAMED else f"{shown} and {len(items) - _N_NAMED} more"
