"""Checks of a session store against what is published and known of the recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import xarray as xr

from sensorium_data.counting import count_things, name_some
from sensorium_data.movies import N_FRAMES_BY_STIMULUS
from sensorium_data.quality.scan import RESPONSE_FLOOR, SessionScan
from sensorium_data.quality.summary import ChannelSummary
from sensorium_data.recorded_frames import MOST_MISSING_FRAMES
from sensorium_data.schema import VARIABLES
from sensorium_data.sessions import Session, Stimulus, Tier, sort_tiers
from sensorium_data.statistics import StatisticsCoverage, describe_coverage
from sensorium_data.store import format_range, read_list

__all__ = ["Outcome", "QualityCheck", "check_recording"]

#: Trials that are broken in the published archives, by the session's alias; their tier is live_test_bonus.
_KNOWN_BROKEN = MappingProxyType({"D": (668,), "J": (156,)})
#: How often a movie of each tier but train is shown, as counted over all real trials.
_REPEATS = range(7, 11)
_LUMINANCE = (0.0, 255.0)
# A transient spans several frames, since 8 Hz were resampled to 30 Hz: no single one outweighs all others.
_DOMINANT_SHARE = 0.5
_UNUSUAL_ACTIVITY = 10.0
_NOT_PUBLISHED = "not published"
_N_NAMED = 5


class Outcome(StrEnum):
    """What a check comes to.

    ``failed`` is a defect: the data are not what the store promises, or contradict what is known of this session.
    ``noted`` is something to know: counts that differ from the published ones, as a part of a session has them, values
    that are unusual and may be real, and what cannot be compared since nothing is published.
    """

    FAILED = "failed"
    NOTED = "noted"
    PASSED = "passed"


@dataclass(frozen=True)
class QualityCheck:
    """The outcome of one check.

    Attributes
    ----------
    check : str
        What was looked at.
    outcome : Outcome
        Whether it is as expected.
    found, expected : str
        In words.
    sentence : str
        What it means, for someone who has not read the code.
    """

    check: str
    outcome: Outcome
    found: str
    expected: str
    sentence: str


def check_recording(
    dataset: xr.Dataset,
    session: Session,
    scan: SessionScan,
    channels: Sequence[ChannelSummary],
    coverages: Sequence[StatisticsCoverage],
    statistics: xr.Dataset,
) -> tuple[QualityCheck, ...]:
    """Return every check of a session, in the order in which they are best read.

    Parameters
    ----------
    dataset : xarray.Dataset
        What :func:`sensorium_data.store.open_session` returns.
    session : Session
        What is published of it.
    scan : SessionScan
        What a pass over its large arrays found.
    channels : sequence of ChannelSummary
        What its behavior and pupil are like.
    coverages : sequence of StatisticsCoverage
        What the archive's own statistics cover.
    statistics : xarray.Dataset
        What :func:`sensorium_data.store.open_statistics` returns.
    """
    return (
        *_check_counts(dataset, session),
        *_check_stimuli(dataset, session),
        _check_broken(dataset, session),
        _check_withheld(dataset, session),
        *_check_repeats(dataset, session),
        *_check_missing(dataset, scan),
        *_check_videos(dataset, scan),
        *_check_responses(dataset, session, scan),
        *_check_recorded(dataset),
        *_check_channels(channels),
        *_check_running(dataset),
        *_check_statistics(coverages),
        *_check_response_statistics(dataset, session, scan, statistics),
        _check_reliability(scan),
        _check_positions(dataset),
    )


def _is_described(session: Session) -> bool:
    """Whether anything is published of this session to compare with."""
    return bool(session.n_trials_by_tier)


def _list_tiers(dataset: xr.Dataset) -> tuple[Tier, ...]:
    """Return SENSORIUM's tiers, and those of the session beside them."""
    return sort_tiers([*Tier, *dataset.tier.values.tolist()])


def _is_whole(dataset: xr.Dataset, session: Session, tier: Tier) -> bool:
    """Whether the tier has as many trials as published: a part of a session shows a part of the repeats."""
    return int((dataset.tier.values == str(tier)).sum()) == session.n_trials_by_tier.get(tier)


# Counts, stimuli and repeats


def _check_counts(dataset: xr.Dataset, session: Session) -> Iterator[QualityCheck]:
    counts = Counter(dataset.tier.values.tolist())
    for tier in _list_tiers(dataset):
        published = session.n_trials_by_tier.get(tier)
        if published is not None or counts[str(tier)]:
            yield _compare_count(f"trials in {tier}", counts[str(tier)], published, "Trials of this tier as published.")
    yield _compare_count("neurons", dataset.sizes["neuron"], session.n_neurons or None, "Neurons as published.")
    yield _compare_count(
        "padded frames",
        dataset.sizes["time"],
        session.n_frames_padded or None,
        "Length of the frame axis as published.",
    )
    n_neurons, n_distinct = dataset.sizes["neuron"], len(set(dataset.neuron.values.tolist()))
    yield QualityCheck(
        "distinct unit ids",
        _fails_if(n_distinct != n_neurons),
        f"{n_distinct:,}",
        f"{n_neurons:,}",
        "No two neurons share a unit id.",
    )


def _check_stimuli(dataset: xr.Dataset, session: Session) -> Iterator[QualityCheck]:
    valid = dataset.valid.values
    worst = Outcome.FAILED if _is_described(session) else Outcome.NOTED
    for tier in _list_tiers(dataset):
        shown = valid & (dataset.tier.values == str(tier))
        if not shown.any():
            continue
        names = set(dataset.stimulus.values[shown].tolist())
        expected = {str(stimulus) for stimulus in session.stimuli_of(tier)}
        # A part of a tier need not show both of its classes.
        partial = bool(names) and names < expected and not _is_whole(dataset, session, tier)
        yield QualityCheck(
            f"stimuli in {tier}",
            Outcome.NOTED if partial or not expected else _fails_if(names != expected),
            ", ".join(sorted(names)),
            ", ".join(sorted(expected)) or _NOT_PUBLISHED,
            "The classes of stimulus that the tier is known to show, told by length and appearance.",
        )
    for stimulus, lengths in N_FRAMES_BY_STIMULUS.items():
        shown = valid & (dataset.stimulus.values == str(stimulus))
        if shown.any():
            n_frames = dataset.n_frames.values[shown]
            yield QualityCheck(
                f"frames of {stimulus}",
                Outcome.PASSED if np.isin(n_frames, lengths).all() else worst,
                format_range(n_frames),
                format_range(np.array(lengths)),
                "Valid frames of the trials that show this class.",
            )
    unknown = dataset.trial.values[valid & (dataset.stimulus.values == str(Stimulus.UNKNOWN))]
    yield _expect_none(
        "unrecognized stimuli",
        unknown.tolist(),
        "Trials that fit no class that their tier is known to show.",
        worst=worst,
    )


def _check_broken(dataset: xr.Dataset, session: Session) -> QualityCheck:
    broken = dataset.trial.values[~dataset.valid.values].tolist()
    known = _KNOWN_BROKEN.get(session.alias, ())
    if set(broken) <= set(known):
        outcome = Outcome.PASSED
    elif not _is_described(session):
        outcome = Outcome.NOTED
    else:
        # Where trials are fewer than published, their ids may be others.
        renumbered = len(broken) <= len(known) and not _is_whole(dataset, session, Tier.LIVE_TEST_BONUS)
        outcome = Outcome.NOTED if renumbered else Outcome.FAILED
    reasons = [str(reason) for reason in read_list(dataset.attrs, "broken_trials") or broken]
    return QualityCheck(
        "broken trials",
        outcome,
        _name(reasons, "; ") if reasons else "none",
        f"none but {', '.join(map(str, known))}" if known else "none",
        "Trials whose stimulus is not whole; they keep their place without a valid frame.",
    )


def _check_withheld(dataset: xr.Dataset, session: Session) -> QualityCheck:
    withheld = dataset.responses_withheld.values
    found = count_things(int(withheld.sum()), "trial")
    sentence = (
        "The competition withholds the test tiers' responses of the new sessions. "
        "Others that are withheld were not in the archive: they cannot be trained on or scored."
    )
    if not _is_described(session):
        outcome = Outcome.NOTED if withheld.any() else Outcome.PASSED
        return QualityCheck("withheld responses", outcome, found, _NOT_PUBLISHED, sentence)
    tested = np.array([Tier(tier).is_test for tier in dataset.tier.values.tolist()], bool)
    expected = tested & session.withholds_test_responses
    lacking = Counter(dataset.tier.values[withheld & ~expected].tolist())
    if lacking:
        found += f"; not in the archive: {', '.join(f'{lacking[tier]} of {tier}' for tier in sort_tiers(lacking))}"
    published = dataset.trial.values[~withheld & expected].tolist()
    if published:
        found += f"; unexpectedly published: {_name(published)}"
    outcome = Outcome.FAILED if published else Outcome.NOTED if lacking else Outcome.PASSED
    return QualityCheck("withheld responses", outcome, found, count_things(int(expected.sum()), "trial"), sentence)


def _count_times(counts: np.ndarray) -> str:
    return "once" if (counts == 1).all() else f"{format_range(counts)} times"


def _check_repeats(dataset: xr.Dataset, session: Session) -> Iterator[QualityCheck]:
    valid = dataset.valid.values
    for tier in _list_tiers(dataset):
        movies = Counter(dataset.movie_group.values[valid & (dataset.tier.values == str(tier))].tolist())
        if not movies:
            continue
        repeats = np.array(list(movies.values()))
        allowed = range(1, 2) if tier is Tier.TRAIN else _REPEATS
        # A part of a tier has fewer repeats; it cannot have a training movie twice.
        excused = not _is_described(session) or (
            tier is not Tier.TRAIN and bool((repeats < _REPEATS.stop).all()) and not _is_whole(dataset, session, tier)
        )
        outcome = Outcome.PASSED if np.isin(repeats, allowed).all() else Outcome.NOTED if excused else Outcome.FAILED
        yield QualityCheck(
            f"repeats in {tier}",
            outcome,
            f"{count_things(len(movies), 'movie')}, each shown {_count_times(repeats)}",
            f"each shown {_count_times(np.array(allowed))}",
            "How often each movie is shown; the average over repeats is what the second metric scores.",
        )
    trained = dataset.tier.values == str(Tier.TRAIN)
    groups = dataset.movie_group.values
    leaked = sorted(set(groups[valid & trained].tolist()) & set(groups[~trained].tolist()))
    yield _expect_none("training movies in other tiers", leaked, "A movie that is trained on and tested on would leak.")


# Values


#: Variables whose gaps a policy for NaN fills.
_MAY_BE_FILLED = ("behavior", "pupil_center")


def _check_missing(dataset: xr.Dataset, scan: SessionScan) -> Iterator[QualityCheck]:
    trials = dataset.trial.values
    for variable, n_missing in scan.n_missing.items():
        yield _expect_none(
            f"missing values in {variable}",
            trials[n_missing > 0].tolist(),
            "Trials with NaN or infinite values inside their valid frames"
            + (", where responses are published." if variable == "responses" else ".")
            + (" --exclude leaves them out, --nan fills short gaps." if variable in _MAY_BE_FILLED else ""),
        )
    early = {variable: n for variable, n in scan.n_missing_frames.items() if n.any()}
    yield QualityCheck(
        "modalities that end before the video",
        Outcome.NOTED if early else Outcome.PASSED,
        "; ".join(
            f"{name} in {_name(trials[n > 0].tolist())}, by up to {count_things(int(n.max()), 'frame')}"
            for name, n in early.items()
        )
        or "none",
        "none",
        f"Trials in which a modality lacks up to {MOST_MISSING_FRAMES} of the last valid frames. The trials are used; "
        "training windows and scores leave these frames out.",
    )
    late = np.zeros(len(trials), bool)
    for end in scan.finite_end.values():
        late |= end > dataset.n_frames.values
    yield _expect_none(
        "values past the valid frames",
        trials[late].tolist(),
        "Trials with finite values after their last valid frame, where a store holds NaN.",
    )


def _check_videos(dataset: xr.Dataset, scan: SessionScan) -> Iterator[QualityCheck]:
    low = float(np.fmin.reduce(scan.luminance[:, 0], initial=np.nan))
    high = float(np.fmax.reduce(scan.luminance[:, 1], initial=np.nan))
    yield QualityCheck(
        "luminance",
        _fails_if(low < _LUMINANCE[0] or high > _LUMINANCE[1]),
        f"{low:.4g} to {high:.4g}" if np.isfinite(low) else "no valid frame",
        f"{_LUMINANCE[0]:.4g} to {_LUMINANCE[1]:.4g}",
        "Range of the pixels of all valid frames.",
    )
    several = dataset.valid.values & (dataset.n_frames.values > 1)
    frozen = dataset.trial.values[several & ((scan.still_share == 1) | (scan.blank_share == 1))].tolist()
    yield _expect_none(
        "constant videos", frozen, "Valid trials whose video never changes, or shows one shade in every frame."
    )


def _check_responses(dataset: xr.Dataset, session: Session, scan: SessionScan) -> Iterator[QualityCheck]:
    worst = Outcome.FAILED if _is_described(session) else Outcome.NOTED
    neurons = dataset.neuron.values
    lowest = float(np.fmin.reduce(scan.lowest, initial=np.nan))
    negative = int((scan.lowest < -RESPONSE_FLOOR).sum())
    found = "no published response" if np.isnan(lowest) else f"lowest {lowest:.3g}"
    yield QualityCheck(
        "negative responses",
        worst if negative else Outcome.PASSED,
        f"{found} in {count_things(negative, 'neuron')}" if negative else found,
        f"at least -{RESPONSE_FLOOR:g}",
        "Deconvolved activity is not negative, but for numerical noise around zero.",
    )
    changing = (scan.highest > scan.lowest) & (scan.highest > RESPONSE_FLOOR)
    yield _expect_none(
        "dead neurons",
        neurons[~changing].tolist(),
        f"Neurons whose published responses never change, or never exceed {RESPONSE_FLOOR:g}.",
        worst=worst,
    )
    yield _expect_none(
        "identical neurons",
        neurons[_find_identical(scan) & changing].tolist(),
        "Neurons whose responses have the same mean, spread and range as another's to the last digit.",
        worst=Outcome.NOTED,
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        dominance = (scan.highest - scan.mean) ** 2 / (scan.n_values * scan.std**2)
    yield _expect_none(
        "outliers in responses",
        neurons[changing & (dominance > _DOMINANT_SHARE)].tolist(),
        "Neurons with one frame that makes up more than half of their variance; a transient spans several frames.",
        worst=Outcome.NOTED,
    )
    known = np.isfinite(scan.activity)
    usual = float(np.median(scan.activity[known])) if known.any() else np.nan
    with np.errstate(invalid="ignore"):
        unusual = (scan.activity > usual * _UNUSUAL_ACTIVITY) | (scan.activity < usual / _UNUSUAL_ACTIVITY)
    yield _expect_none(
        "trials of unusual activity",
        dataset.trial.values[known & unusual].tolist(),
        f"Trials whose mean response is {_UNUSUAL_ACTIVITY:g} times the median trial's, or less than a tenth of it.",
        worst=Outcome.NOTED,
    )


def _find_identical(scan: SessionScan) -> np.ndarray:
    """Return (neuron,) whether another neuron has the same statistics, which means the same responses."""
    known = scan.n_values > 0
    statistics = np.stack([scan.mean, scan.std, scan.lowest, scan.highest], axis=1)
    _, inverse, counts = np.unique(statistics, axis=0, return_inverse=True, return_counts=True)
    identical: np.ndarray = known & (counts[inverse.reshape(-1)] > 1)
    return identical


def _check_recorded(dataset: xr.Dataset) -> Iterator[QualityCheck]:
    """Note what other labs' recordings lack; the published sessions have everything."""
    absent = [variable.replace("_", " ") for variable in VARIABLES if variable not in dataset]
    if absent:
        sentence = "What was not recorded is not in the store; what needs it leaves it out, or says that it is missing."
        yield QualityCheck("modalities not recorded", Outcome.NOTED, ", ".join(absent), "none", sentence)


def _check_channels(channels: Sequence[ChannelSummary]) -> Iterator[QualityCheck]:
    for channel in channels:
        name = channel.channel.replace("_", " ")
        yield QualityCheck(
            f"outliers in {name}",
            Outcome.NOTED if channel.n_outliers else Outcome.PASSED,
            count_things(channel.n_outliers, "value") if channel.n_outliers else "none",
            f"{channel.outliers_below:.4g} to {channel.outliers_above:.4g}",
            "Values farther from the median than five times the 1st or 99th percentile is.",
        )
    constant = [f"{channel.channel} in {_name(list(channel.constant_trials))}" for channel in channels
                if channel.constant_trials and channel.channel != "running_speed"]  # fmt: skip
    if not channels:
        return
    yield QualityCheck(
        "constant pupil",
        Outcome.NOTED if constant else Outcome.PASSED,
        "; ".join(constant) or "none",
        "none",
        "Trials in which the pupil's size or position never changes: it was not tracked.",
    )


def _check_running(dataset: xr.Dataset) -> Iterator[QualityCheck]:
    if "behavior" not in dataset:
        return
    speeds = dataset["behavior"].sel(behavior_channel="running_speed").values
    within = np.arange(dataset.sizes["time"]) < dataset.n_frames.values[:, np.newaxis]
    known = np.isfinite(speeds) & within
    if not known.any():
        return
    is_still = known.any(axis=1) & ~(known & (speeds != 0)).any(axis=1)
    never_runs = not speeds[known].any()
    yield QualityCheck(
        "running",
        Outcome.NOTED if never_runs else Outcome.PASSED,
        "a speed of 0 in every frame" if never_runs else f"up to {speeds[known].max():.4g}",
        "a speed above 0 in some frame",
        "A mouse that never runs, or whose running speed was not recorded.",
    )
    if not never_runs:
        yield _expect_none(
            "trials without running",
            dataset.trial.values[is_still].tolist(),
            "Trials with a running speed of 0 in every frame: the mouse sat still, or its speed was not recorded.",
            worst=Outcome.NOTED,
        )


def _check_statistics(coverages: Sequence[StatisticsCoverage]) -> Iterator[QualityCheck]:
    for one in coverages:
        found = [*describe_coverage([one])]
        if one.is_constant:
            found.append("every standard deviation is zero")
        else:
            if one.n_rows_constant:
                found.append(f"the standard deviation is zero throughout in {one.n_rows_constant} of {one.n_rows} rows")
            if one.n_frames_constant:
                found.append(f"all standard deviations are zero at {count_things(one.n_frames_constant, 'frame')}")
        is_defect = not one.is_known or one.is_constant
        yield QualityCheck(
            f"statistics of {one.variable}",
            Outcome.FAILED if is_defect else Outcome.NOTED if found else Outcome.PASSED,
            "; ".join(found) or count_things(one.n_frames, "frame"),
            count_things(one.n_frames, "frame"),
            "The archive's means and standard deviations, up to the last frame of the longest trial. Normalizations "
            "take the last known frame's where they are missing, and do not divide by a standard deviation of zero.",
        )


def _check_response_statistics(
    dataset: xr.Dataset, session: Session, scan: SessionScan, statistics: xr.Dataset
) -> Iterator[QualityCheck]:
    if "responses" not in statistics:
        return
    n_frames = int(dataset.n_frames.max()) if dataset.sizes["trial"] else 0
    active = scan.std > 0
    for statistic, name in (("mean", "mean"), ("std", "standard deviation")):
        values = statistics["responses"].sel(statistic=statistic).values[:, :n_frames]
        usable = (np.isfinite(values) & (values != 0)).any(axis=1)
        yield _expect_none(
            f"{name} of responses that is NaN or zero",
            dataset.neuron.values[active & ~usable].tolist(),
            f"Neurons that respond, and whose {name} in the archive's statistics is NaN or zero in every frame: "
            "their standardized responses are wrong.",
            worst=Outcome.FAILED if _is_described(session) else Outcome.NOTED,
        )


def _check_reliability(scan: SessionScan) -> QualityCheck:
    known = scan.reliability[np.isfinite(scan.reliability)]
    median = float(np.median(known)) if len(known) else np.nan
    return QualityCheck(
        "oracle reliability",
        Outcome.PASSED if median > 0 else Outcome.NOTED,
        f"median {median:z.3f} over {count_things(len(known), 'neuron')}"
        if len(known)
        else "no movie repeated in the oracle tier",
        "median above 0",
        "Correlation of a trial with the mean over the movie's other repeats; without any, movies may be misgrouped.",
    )


def _check_positions(dataset: xr.Dataset) -> QualityCheck:
    if "x" not in dataset.coords:
        sentence = "Depth and place of the neurons are not in the recording: what needs them is left out."
        return QualityCheck("neurons without a position", Outcome.NOTED, "all", "none", sentence)
    positions = np.stack([dataset[axis].values for axis in ("x", "y", "z")], axis=1)
    return _expect_none(
        "neurons without a position",
        dataset.neuron.values[~np.isfinite(positions).all(axis=1)].tolist(),
        "Neurons whose place in the cortex is NaN.",
    )


# In words


def _fails_if(wrong: bool) -> Outcome:
    return Outcome.FAILED if wrong else Outcome.PASSED


def _compare_count(check: str, found: int, published: int | None, sentence: str) -> QualityCheck:
    outcome = Outcome.PASSED if found == published else Outcome.NOTED
    expected = _NOT_PUBLISHED if published is None else f"{published:,}"
    return QualityCheck(check, outcome, f"{found:,}", expected, sentence)


def _expect_none(
    check: str, found: Sequence[object], sentence: str, *, worst: Outcome = Outcome.FAILED
) -> QualityCheck:
    return QualityCheck(check, worst if found else Outcome.PASSED, _name(found) if found else "none", "none", sentence)


def _name(items: Sequence[object], separator: str = ", ") -> str:
    return name_some(items, most=_N_NAMED, separator=separator)
