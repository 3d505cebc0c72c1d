"""Scores of a predictions store, in the competition's units, by session, tier and stimulus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from sensorium_data.cluster import name_for_workers, open_cluster
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.frames import FramesProfile, parse_frames_profile
from sensorium_data.predictions import predicted_sessions, predictions_attributes
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.scoring.bootstrap import Bootstrap, Resampled
from sensorium_data.scoring.correlation import (
    CorrelationAccumulator,
    correlation_to_average,
    mean_over_mice,
    mean_over_neurons,
    single_trial_correlation,
)
from sensorium_data.scoring.movie_products import MovieProducts, RepeatedMovies
from sensorium_data.scoring.table import (
    ALL_STIMULI,
    CEILINGS,
    FURTHER_SCORES,
    SCORES,
    TRUE_CEILINGS,
    RowKey,
    ScoreTable,
    make_score_table,
)
from sensorium_data.scoring.tier_sums import TierSums, TrialSums, sum_tier
from sensorium_data.scoring.trial_moments import TrialMoments
from sensorium_data.scoring.trials import ScoredSession
from sensorium_data.sessions import Session, Tier, find_sessions, sort_tiers
from sensorium_data.store import Store, StoreLike, open_store, parse_exclusions, require_trials

__all__ = [
    "ALL_STIMULI",
    "Bootstrap",
    "CorrelationAccumulator",
    "ScoreTable",
    "choose_tiers",
    "correlation_to_average",
    "mean_over_mice",
    "mean_over_neurons",
    "score_predictions",
    "single_trial_correlation",
]

Floats = npt.NDArray[np.float64]

#: More trials at once are no faster, and each takes some 60 MB.
_MOST_JOBS = 8

# Predictions whose mean is as far from the responses' as raw units are, to within the first factor, where raw units
# are off by more than the second: nobody's model is wrong by just that.
_SAME_SCALE, _OTHER_SCALE = 1.5, 3.0


def score_predictions(
    predictions: str,
    store: StoreLike,
    *,
    truth: str | None = None,
    frames: FramesProfile = "official",
    tiers: Iterable[str] | None = None,
    sessions: Iterable[str] | None = None,
    bootstrap: Bootstrap | None = None,
    jobs: int = 2,
    dask: str | None = None,
    progress: Progress = ignore_progress,
    exclude: str | Iterable[str] = (),
) -> ScoreTable:
    """Score predictions against recorded responses, in the competition's units.

    Responses are multiplied by their precision, frame by frame, as the server does; so are predictions in raw
    units. Every frame is read once. In memory are a few trials, a movie's repeats, and sums over frames: under 2 GB for
    five sessions of 8,000 neurons.

    Parameters
    ----------
    predictions : str
        Path or URL of the predictions store.
    store : Store or path
        The session stores.
    truth : str, optional
        Truth of simulated sessions. It stands in for withheld responses, and its noiseless
        rates, scored the same way, are the ceiling.
    frames : {"official", "50-298", "51-299"}
        Which frames of a trial are scored; ``official``: all but the first 50. See
        :mod:`sensorium_data.frames`.
    tiers : str or iterable of str, optional
        Tiers to score; by default all that were predicted.
    sessions : str or iterable of str, optional
        Sessions to score, by alias or full name; by default all that were predicted.
    bootstrap : Bootstrap, optional
        How intervals are made; by default from 1,000 resamples.
    jobs : int
        Trials read at once, 8 at most.
    dask : str, optional
        Address of a Dask scheduler whose workers score, a session each; they have to reach the stores under the same
        names. The scores are the same.
    progress : Progress
        Told after each trial, or after each session on a cluster.
    exclude : str or iterable of str
        Trials that are not scored, ``SESSION:TRIAL`` each, for example ``F:17``.

    Predictions of some of a session's neurons are scored on these, with a note.

    Raises
    ------
    PredictionsError
        If the predictions do not fit the recording, lack a scored frame, or lack a named tier or session.
    StoreError
        If a session is not in the store.
    TrialError
        If a trial to leave out is not in its session.
    UnknownNameError
        If a tier or the profile of frames does not exist.
    UsageError
        If there is no such cluster, or no trial is left to score where some are left out.
    """
    profile = parse_frames_profile(frames)
    how = bootstrap or Bootstrap()
    order = choose_tiers(predictions, tiers)
    n_jobs = max(1, min(jobs, _MOST_JOBS))
    opened = open_store(store)
    excluded = parse_exclusions(exclude)
    require_trials(opened, excluded)
    jobs_to_do = [
        _SessionJob(
            predictions,
            opened,
            truth,
            session,
            tuple(order),
            profile,
            how,
            n_jobs,
            excluded.get(session.name, frozenset()),
        )
        for session in _choose_sessions(predictions, sessions)
    ]
    scores = _Scores()
    for part in _score_here(jobs_to_do, progress) if dask is None else _score_there(dask, jobs_to_do, progress):
        scores.add_all(part)
    if excluded and not scores.trials:
        raise UsageError(
            "no trial is left to score",
            path=predictions,
            found="; ".join(scores.unscored),
            remedy="leave fewer trials out, or score other tiers",
        )
    return make_score_table(
        trials=scores.trials,
        resampled=scores.resampled,
        neuron_scores=scores.neuron_scores,
        unscored=scores.unscored,
        notes=scores.notes,
        doubts=scores.doubts,
        predictions=predictions,
        frames=profile,
        bootstrap=how,
        simulated=tuple(job.session.name for job in jobs_to_do if opened.is_simulated(job.session)),
    )


def _choose_sessions(predictions: str, sessions: Iterable[str] | None) -> tuple[Session, ...]:
    predicted = predicted_sessions(predictions)
    named = [sessions] if isinstance(sessions, str) else sessions
    chosen = predicted if named is None else find_sessions(named)
    absent = [session.alias for session in chosen if session not in predicted]
    if absent:
        raise PredictionsError(
            "sessions that were not predicted",
            path=predictions,
            found=", ".join(absent),
            expected=", ".join(session.alias for session in predicted),
            remedy="choose among those, or predict these into another store",
        )
    return chosen


@dataclass(frozen=True)
class _SessionJob:
    """A session to score; it travels to other processes."""

    predictions: str
    store: Store
    truth: str | None
    session: Session
    tiers: tuple[Tier, ...]
    frames: FramesProfile
    bootstrap: Bootstrap
    n_jobs: int
    exclude: frozenset[int] = frozenset()

    def for_workers(self) -> _SessionJob:
        """Return the job with paths that processes in other folders understand; a store is whole by itself."""
        truth = None if self.truth is None else name_for_workers(self.truth)
        return replace(self, predictions=name_for_workers(self.predictions), truth=truth)

    def open(self) -> ScoredSession:
        return ScoredSession(
            self.predictions, self.store, self.truth, self.session, self.tiers, self.frames, self.exclude
        )

    def score(self, source: ScoredSession, count_trial: Callable[[], None]) -> _Scores:
        scores = _Scores(unscored=list(source.unscored), notes=list(source.notes))
        means = _Means()
        # BLAS threads beside these would wait for each other by spinning.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.n_jobs, thread_name_prefix="score") as pool:
            for tier, trials in source.scorable.items():
                if trials:
                    sums = sum_tier(source, tier, pool, self.n_jobs, count_trial)
                    means.add(sums)
                    scores.notes.extend(sums.describe_missing(f"session {self.session}, {tier}"))
                    scores.add(source, tier, sums, self.bootstrap, self.n_jobs)
        doubt = means.find_doubt(self.predictions, self.session)
        if doubt is not None:
            scores.doubts.append(doubt)
        return scores


def _score_here(jobs: Sequence[_SessionJob], progress: Progress) -> Iterator[_Scores]:
    """Score the sessions one after the other, and tell of every trial."""
    sources = [job.open() for job in jobs]
    n_total = sum(len(trials) for source in sources for trials in source.scorable.values())
    n_done = 0

    def count_trial() -> None:
        nonlocal n_done
        n_done += 1
        progress("score", n_done, n_total)

    for job, source in zip(jobs, sources, strict=True):
        yield job.score(source, count_trial)


def _score_there(address: str, jobs: Sequence[_SessionJob], progress: Progress) -> Iterator[_Scores]:
    """Score the sessions on a cluster's workers, one a task; a lost worker costs the time of its sessions."""
    with open_cluster(address, progress=progress) as client:
        # Pure tasks would be taken for done when the same call is made again, even if what they read has changed.
        futures = [client.submit(_score_session, job.for_workers(), pure=False) for job in jobs]
        for n_done, future in enumerate(futures, 1):
            yield future.result()
            progress("score sessions", n_done, len(futures))


def _score_session(job: _SessionJob) -> _Scores:
    return job.score(job.open(), lambda: None)


def choose_tiers(predictions: str, tiers: Iterable[str] | None) -> list[Tier]:
    """Return the tiers of a predictions store to score, in the catalogue's order.

    Parameters
    ----------
    predictions : str
        Path or URL of the predictions store.
    tiers : iterable of str or None
        Which ones; by default all that were predicted.

    Raises
    ------
    PredictionsError
        If one was not predicted.
    UnknownNameError
        If one does not exist.
    """
    predicted = [Tier(tier) for tier in predictions_attributes(predictions)["tiers"]]
    named = [tiers] if isinstance(tiers, str) else tiers
    chosen = predicted if named is None else [Tier.parse(tier, predicted) for tier in named]
    absent = [tier for tier in chosen if tier not in predicted]
    if absent:
        raise PredictionsError(
            "tiers that were not predicted",
            path=predictions,
            found=", ".join(absent),
            expected=", ".join(predicted),
            remedy="choose among those, or predict these into another store",
        )
    return list(sort_tiers(chosen))


@dataclass(eq=False)
class _Scores:
    """What a score table is made of."""

    trials: dict[RowKey, tuple[int, ...]] = field(default_factory=dict)
    resampled: dict[RowKey, dict[str, Resampled]] = field(default_factory=dict)
    neuron_scores: dict[RowKey, pd.DataFrame] = field(default_factory=dict)
    doubts: list[PredictionsError] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_all(self, other: _Scores) -> None:
        """Add another session's."""
        self.trials |= other.trials
        self.resampled |= other.resampled
        self.neuron_scores |= other.neuron_scores
        self.doubts += other.doubts
        self.unscored += other.unscored
        self.notes += other.notes

    def add(self, source: ScoredSession, tier: Tier, sums: TierSums, how: Bootstrap, jobs: int) -> None:
        """Score a tier as a whole, and by stimulus where it shows several, or others in other sessions: bonus tiers."""
        stimuli = list(dict.fromkeys(sums.stimuli))
        self._add_row(source, tier, ALL_STIMULI, sums, how, jobs)
        if len(stimuli) > 1:
            for stimulus in stimuli:
                self._add_row(source, tier, stimulus, sums, how, jobs)
        elif tier.is_bonus:
            whole, alone = ((source.session.name, str(tier), one) for one in (ALL_STIMULI, stimuli[0]))
            self.trials[alone] = self.trials[whole]
            self.resampled[alone] = self.resampled[whole]
            self.neuron_scores[alone] = self.neuron_scores[whole]

    def _add_row(
        self, source: ScoredSession, tier: Tier, stimulus: str, sums: TierSums, how: Bootstrap, jobs: int
    ) -> None:
        key = (source.session.name, str(tier), stimulus)
        is_chosen = [stimulus in (ALL_STIMULI, one) for one in sums.stimuli]
        trials = [trial for trial, chosen in zip(sums.trials, is_chosen, strict=True) if chosen]
        movies = [(movie, of_rates) for one, movie, of_rates in sums.movies if stimulus in (ALL_STIMULI, one)]
        # In the order of their ids, so that the same seed draws the same trials however movies are grouped.
        trials.sort(key=lambda one: one.trial)
        self.trials[key] = tuple(one.trial for one in trials)
        self.resampled[key], scores = _score_row(trials, movies, how, key, jobs)
        cells = source.recording
        # Where the recording has no positions the columns are there, and hold none.
        unknown = np.full(len(source.neurons), np.nan)
        columns = {name: cells[name].values if name in cells.coords else unknown for name in ("x", "y", "z")} | scores
        self.neuron_scores[key] = pd.DataFrame(columns, index=pd.Index(source.neurons, name="neuron"))


def _score_row(
    trials: Sequence[TrialSums],
    movies: Sequence[tuple[MovieProducts, MovieProducts | None]],
    how: Bootstrap,
    key: RowKey,
    jobs: int,
) -> tuple[dict[str, Resampled], dict[str, Floats]]:
    """Return scores' means over neurons, resampled, and every metric of the neurons, (neuron,) each."""
    single, average = SCORES
    per_movie, normalized, of_differences = FURTHER_SCORES
    n_frames = [one.n_frames for one in trials]
    moments = TrialMoments(n_frames, [one.of_prediction for one in trials])
    unknown = np.full(moments.n_neurons, np.nan)
    resampled: dict[str, Resampled] = {}
    scores: dict[str, Floats] = {}
    resampled[single], low, high = moments.bootstrap(how, *key, jobs=jobs)
    scores |= {single: moments.correlation(), f"{single}_low": low, f"{single}_high": high}
    if movies:
        repeated = RepeatedMovies([movie for movie, _ in movies])
        (resampled[average], resampled[per_movie]), low, high = repeated.bootstrap_readings(how, *key, jobs=jobs)
        scores |= {average: repeated.correlation(), f"{average}_low": low, f"{average}_high": high}
        scores |= {per_movie: repeated.correlation_per_movie(), normalized: repeated.normalized_correlation()}
        reliability = repeated.reliability()
        # As everywhere, a trace that is not finite counts as 0.
        scores["oracle_correlation"] = np.nan_to_num(reliability.correlation())
        scores["explainable_variance"] = np.nan_to_num(reliability.explainable_variance())
        attainable = np.nan_to_num(reliability.attainable_correlation())
        scores["attainable_correlation_to_average"] = attainable
        scores["fraction_of_attainable"] = np.divide(
            scores[average], attainable, out=unknown.copy(), where=attainable > 0
        )
    else:
        of_repeats = (average, f"{average}_low", f"{average}_high", per_movie, normalized, *CEILINGS)
        scores |= dict.fromkeys((*of_repeats, "fraction_of_attainable"), unknown)
    n_differences = [n - 1 for n in n_frames]
    if sum(n_differences):
        differences = TrialMoments(n_differences, [one.of_differences for one in trials])
        resampled[of_differences] = differences.bootstrap_mean(how, *key, jobs=jobs)
        scores[of_differences] = differences.correlation()
    else:
        scores[of_differences] = unknown
    of_rates = [one.of_rate for one in trials if one.of_rate is not None]
    repeated_rates = [movie for _, movie in movies if movie is not None]
    scores[TRUE_CEILINGS[0]] = TrialMoments(n_frames, of_rates).correlation() if of_rates else unknown
    scores[TRUE_CEILINGS[1]] = RepeatedMovies(repeated_rates).correlation() if repeated_rates else unknown
    return resampled, scores


class _Means:
    """A session's means over neurons and frames, which tell the units that predictions are in."""

    def __init__(self) -> None:
        self._n_frames = 0
        self._response, self._prediction, self._raw_response = 0.0, 0.0, 0.0

    def add(self, sums: TierSums) -> None:
        for one in sums.trials:
            response, prediction = (float(mean) for mean in one.of_prediction[:2].mean(axis=1))
            self._n_frames += one.n_frames
            self._response += one.n_frames * response
            self._prediction += one.n_frames * prediction
            self._raw_response += one.n_frames * one.mean_raw_response

    def find_doubt(self, predictions: str, session: Session) -> PredictionsError | None:
        """Return an error if the predictions seem to be in other units than their store says."""
        if not min(self._response, self._prediction, self._raw_response) > 0:
            return None
        units = predictions_attributes(predictions)["response_units"]
        raw_over_standardized = self._raw_response / self._response
        expected = raw_over_standardized if units == "standardized" else 1 / raw_over_standardized
        found = self._prediction / self._response
        far = max(found, 1 / found) > _OTHER_SCALE
        if not far or not 1 / _SAME_SCALE < found / expected < _SAME_SCALE:
            return None
        others = "raw" if units == "standardized" else "standardized"
        return PredictionsError(
            f"the predictions seem to be in {others} units, though their store says {units}",
            session=session,
            path=predictions,
            found=f"a mean {found:.3g} times the responses', once both are standardized",
            expected=f"about 1 ({others} units would make it {expected:.3g})",
            remedy=f"if so, write them again with response_units={others!r}",
        )
