"""What scoring keeps of a session's tier: sums over frames, and the products of repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sensorium_data.counting import count_things
from sensorium_data.ordered_map import map_ahead
from sensorium_data.scoring.movie_products import MovieProducts
from sensorium_data.scoring.trial_moments import sum_differences, sum_trial
from sensorium_data.scoring.trials import RepeatGroup, ScoredSession, TrialSignals
from sensorium_data.sessions import Tier

__all__ = ["TierSums", "TrialSums", "sum_tier"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrialSums:
    """What remains of a trial; the signals only where its movie has repeats, whose products they are needed for."""

    trial: int
    n_frames: int
    of_prediction: Floats
    of_differences: Floats
    of_rate: Floats | None
    mean_raw_response: float
    n_missing_frames: int
    signals: TrialSignals | None


@dataclass(eq=False)
class TierSums:
    """What remains of a session's tier."""

    trials: list[TrialSums] = field(default_factory=list)
    #: Of each trial.
    stimuli: list[str] = field(default_factory=list)
    #: Of each movie with repeats: its stimulus, and the products of responses with predictions, and with rates.
    movies: list[tuple[str, MovieProducts, MovieProducts | None]] = field(default_factory=list)

    def describe_missing(self, where: str) -> Iterator[str]:
        """Yield a sentence on the trials whose responses end before the video, if there are any."""
        missing = [one.n_missing_frames for one in self.trials if one.n_missing_frames]
        if missing:
            yield (
                f"{where}: responses of {len(missing)} of {len(self.trials)} trials end before the video, by up to "
                f"{count_things(max(missing), 'frame')}, which are not scored"
            )


def sum_tier(
    source: ScoredSession, tier: Tier, pool: ThreadPoolExecutor, jobs: int, count_trial: Callable[[], None]
) -> TierSums:
    """Read a tier's trials, movie by movie, and keep their sums."""
    groups = source.group_repeats(tier)
    repeated = {trial for group in groups if len(group.trials) > 1 for trial in group.trials}
    last = {group.trials[-1]: group for group in groups}

    def sum_one(trial: int) -> TrialSums:
        signals = source.read_trial(trial)
        return TrialSums(
            trial=trial,
            n_frames=signals.response.shape[1],
            of_prediction=sum_trial(signals.response, signals.prediction),
            of_differences=sum_differences(signals.response, signals.prediction),
            of_rate=None if signals.rate is None else sum_trial(signals.response, signals.rate),
            mean_raw_response=signals.mean_raw_response,
            n_missing_frames=signals.n_missing_frames,
            signals=signals if trial in repeated else None,
        )

    tier_sums = TierSums()
    repeats: list[TrialSignals] = []
    pending: Future[tuple[str, MovieProducts, MovieProducts | None]] | None = None
    trials = [trial for group in groups for trial in group.trials]
    for trial, sums in map_ahead(pool, sum_one, trials, jobs + 1):
        if sums.signals is not None:
            repeats.append(sums.signals)
        tier_sums.trials.append(replace(sums, signals=None))
        group = last.get(trial)
        if group is not None:
            tier_sums.stimuli.extend([group.stimulus] * len(group.trials))
            if repeats:
                if pending is not None:
                    # One movie's repeats at a time, besides those being read.
                    tier_sums.movies.append(pending.result())
                pending = pool.submit(_multiply_repeats, group, repeats)
                repeats = []
        count_trial()
    if pending is not None:
        tier_sums.movies.append(pending.result())
    return tier_sums


def _multiply_repeats(
    group: RepeatGroup, repeats: Sequence[TrialSignals]
) -> tuple[str, MovieProducts, MovieProducts | None]:
    responses = [signals.response for signals in repeats]
    rates = [signals.rate for signals in repeats if signals.rate is not None]
    return (
        group.stimulus,
        MovieProducts(responses, [signals.prediction for signals in repeats]),
        MovieProducts(responses, rates) if rates else None,
    )
