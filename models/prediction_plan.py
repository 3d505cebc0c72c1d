"""What a prediction comes to before anything is predicted: which trials of which sessions, and whether that is done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.runs import Run, load_run, require_model_inputs
from models.settings import Precision
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError, UsageError
from sensorium_data.predictions import PredictionsWriter, choose_weights, create_predictions, find_predictions
from sensorium_data.sessions import Session, Tier, find_sessions
from sensorium_data.store import Store, StoreLike, expand_tiers, format_exclusions, open_store, parse_exclusions
from sensorium_data.windows import NanPolicy, TrialReader

__all__ = ["PredictionPlan", "PredictionReport", "plan_prediction"]


@dataclass(frozen=True)
class PredictionReport:
    """What :func:`models.prediction.predict` did.

    Attributes
    ----------
    predictions : str
        Path or URL of the predictions store.
    status : str
        ``"predicted"``, or ``"already done"`` if these predictions existed.
    runs : tuple of str
        Paths of the runs; several are an ensemble.
    sessions : tuple of str
        Full names.
    tiers : tuple of str
    n_trials : int
        Trials predicted now; fewer than the tiers hold if an interrupted store was continued.
    duration_s : float
    notes : tuple of str
        Which sessions and trials were left out, which trials were filled, of which sessions some neurons are predicted,
        and whose code has changed since they were trained, a sentence each.
    """

    predictions: str
    status: str
    runs: tuple[str, ...]
    sessions: tuple[str, ...]
    tiers: tuple[str, ...]
    n_trials: int
    duration_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictionPlan:
    """What is to be predicted; made by :func:`plan_prediction`.

    Attributes
    ----------
    out : str
        Path or URL of the predictions store.
    runs : tuple of Run
        Several are an ensemble.
    shares : tuple of float
        How much each of them counts; they sum to 1.
    reader : TrialReader
        Where stimuli come from.
    sessions : tuple of str
        Full names.
    tiers : tuple of Tier
    left_out : mapping of str to list of int
        The ids of the trials of these tiers that are left out, by session.
    identity : str
        A digest of everything that the predictions depend on.
    attributes : dict
        What the predictions store says of itself beside the rest.
    notes : tuple of str
        As the report has them.
    begun_s : float
        When it was made, by :func:`time.perf_counter`.
    """

    out: str
    runs: tuple[Run, ...]
    shares: tuple[float, ...]
    reader: TrialReader
    sessions: tuple[str, ...]
    tiers: tuple[Tier, ...]
    left_out: Mapping[str, list[int]]
    identity: str
    attributes: dict[str, Any]
    notes: tuple[str, ...]
    begun_s: float = field(default_factory=time.perf_counter)

    def n_trials(self, session: str) -> int:
        """Return how many trials of a session are predicted."""
        return len(self.reader.select_trials(session, self.tiers))

    def is_finished(self) -> bool:
        """Whether these predictions are there.

        Raises
        ------
        PredictionsError
            If something else lies there, or what is there is damaged.
        """
        return find_predictions(
            self.out,
            self.identity,
            tiers=[str(tier) for tier in self.tiers],
            sessions=self.sessions,
            shares={run.digest: share for run, share in zip(self.runs, self.shares, strict=True)},
            precision=self.attributes.get("precision", "32-true"),
        )

    def member_names(self) -> list[str]:
        """Return what the predictions of single runs are called, which differ also where runs have one name."""
        names = [run.name for run in self.runs]
        return [
            name if names.count(name) == 1 else f"{name}-{run.digest[:8]}"
            for name, run in zip(names, self.runs, strict=True)
        ]

    def open_labelled_reader(self, exclude: str | Iterable[str] = ()) -> TrialReader:
        """Return a reader of the same sessions and neurons that reads responses too."""
        return TrialReader(
            self.reader.store,
            self.sessions,
            cache_bytes=0,
            exclude=format_exclusions(parse_exclusions(exclude)),
            nan_policy=self.reader.nan_policy,
            neurons={name: self.reader.unit_ids(name).tolist() for name in self.sessions},
        )

    def create(self, *, lock: bool = True) -> PredictionsWriter:
        """Return a writer of the predictions, which locks them in an object store if it is to."""
        return create_predictions(
            self.out,
            store=self.reader.store,
            sessions=self.sessions,
            tiers=[str(tier) for tier in self.tiers],
            response_units="standardized",
            runs=[run.digest for run in self.runs],
            identity=self.identity,
            attributes=self.attributes,
            left_out=self.left_out,
            neurons={name: self.reader.unit_ids(name).tolist() for name in self.sessions},
            lock=lock,
        )

    def report(self, status: str, n_trials: int) -> PredictionReport:
        """Return the report of a prediction that ends now, in which so many trials were predicted."""
        return PredictionReport(
            predictions=self.out,
            status=status,
            runs=tuple(run.location for run in self.runs),
            sessions=self.sessions,
            tiers=tuple(str(tier) for tier in self.tiers),
            n_trials=n_trials,
            duration_s=time.perf_counter() - self.begun_s,
            notes=self.notes,
        )


def plan_prediction(
    runs: Sequence[str],
    store: StoreLike,
    tiers: Sequence[str],
    out: str,
    *,
    sessions: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    exclude: str | Iterable[str] = (),
    nan_policy: str | None = None,
    precision: Precision = "32-true",
) -> PredictionPlan:
    """Return what :func:`models.prediction.predict` predicts, for arguments as it takes and errors as it raises."""
    begun_s = time.perf_counter()
    loaded = _load_runs(runs)
    given = choose_weights(weights, len(loaded), of="runs")
    shares = [weight / sum(given) for weight in given]
    chosen = loaded[0].sessions if sessions is None else find_sessions(sessions)
    opened = open_store(store)
    chosen_tiers = expand_tiers(tiers, opened, chosen)
    if not chosen or not chosen_tiers:
        raise UsageError("no session or no tier to predict", path=out, remedy="name at least one of each")
    notes: list[str] = []
    if set(tiers) <= {"all", "test"}:
        # A tier that is named is expected of every session, and those of a group are not.
        chosen, lacking = _separate_sessions(opened, chosen, chosen_tiers)
        notes += [f"Session {session} has no trial of these tiers and is not predicted." for session in lacking]
    names = [session.name for session in chosen]
    for session in chosen:
        require_model_inputs(opened[session], session, opened.url)
    # The stimuli alone are read; the responses are what is to be predicted.
    for run in loaded:
        for name in names:
            run.require_session(opened[name], name)
    reader = TrialReader(
        opened,
        names,
        reads_responses=False,
        cache_bytes=0,
        exclude=format_exclusions(parse_exclusions(exclude)),
        nan_policy=_choose_policy(loaded, nan_policy),
        neurons={name: _find_neurons(loaded, name) for name in names},
    )
    for name in names:
        # A session without a trial to predict is refused.
        reader.select_trials(name, chosen_tiers)
    left_out = {name: sorted(_of_tiers(reader, name, chosen_tiers) & reader.left_out(name)) for name in names}
    notes += [note for name in names for note in reader.describe_left_out(name, chosen_tiers)]
    for session in chosen:
        n_neurons, n_predicted_neurons = opened[session].sizes["neuron"], len(reader.unit_ids(session.name))
        if n_predicted_neurons < n_neurons:
            notes.append(f"Session {session}: {n_predicted_neurons} of {n_neurons} neurons are predicted.")
    notes += _describe_trained_tiers(loaded, chosen_tiers)
    notes += [
        f"Run {run.name} predicts with the code that it keeps: {path} has changed since."
        for run in loaded
        for path in run.find_changed_code()
    ]
    trained_tiers = sorted({str(tier) for run in loaded for tier in run.config.tiers if tier is not Tier.TRAIN})
    return PredictionPlan(
        out=out,
        runs=tuple(loaded),
        shares=tuple(shares),
        reader=reader,
        sessions=tuple(names),
        tiers=tuple(chosen_tiers),
        left_out=left_out,
        identity=_identify(
            loaded, shares, reader.store, chosen, chosen_tiers, left_out, str(reader.nan_policy), precision
        ),
        attributes=({} if weights is None else {"weights": list(given)})
        | ({"trained_tiers": trained_tiers} if trained_tiers else {})
        | ({} if precision == "32-true" else {"precision": precision}),
        notes=tuple(notes),
        begun_s=begun_s,
    )


def _load_runs(runs: Sequence[str]) -> list[Run]:
    if not runs:
        raise UsageError("no run to predict with", remedy="give at least one run's folder")
    loaded = [load_run(path) for path in runs]
    by_digest: dict[str, Run] = {}
    for run in loaded:
        if run.digest in by_digest:
            raise UsageError(
                "the ensemble has the same run twice",
                path=run.location,
                found=f"the weights of {by_digest[run.digest].location}",
                remedy="name each run once",
            )
        by_digest[run.digest] = run
    return loaded


def _describe_trained_tiers(runs: Sequence[Run], tiers: Sequence[Tier]) -> Iterator[str]:
    """Yield a sentence for each set of predicted tiers that runs were trained on."""
    by_tiers: dict[str, list[str]] = {}
    for run in runs:
        trained = [str(tier) for tier in tiers if tier in run.config.tiers and tier is not Tier.TRAIN]
        if trained:
            by_tiers.setdefault(", ".join(trained), []).append(run.name)
    for trained_on, names in by_tiers.items():
        yield (
            f"Trained on {trained_on}: {', '.join(names)}. Scores of these predictions on these tiers are not scores "
            "on movies that are new to the model."
        )


def _separate_sessions(
    store: Store, sessions: Sequence[Session], tiers: Sequence[Tier]
) -> tuple[tuple[Session, ...], tuple[Session, ...]]:
    """Return the sessions with a valid trial of some tiers, or all if there is none, and the others."""
    with_trials = []
    for session in sessions:
        recording = store[session]
        if (np.isin(recording["tier"].values, [str(tier) for tier in tiers]) & recording["valid"].values).any():
            with_trials.append(session)
    return (
        (tuple(with_trials), tuple(s for s in sessions if s not in with_trials))
        if with_trials
        else (tuple(sessions), ())
    )


def _choose_policy(runs: Sequence[Run], given: str | None) -> str:
    """Return the policy for missing behavior and pupil center: the one that is given, or that of all runs."""
    policies = dict.fromkeys(run.config.nan_policy for run in runs)
    if given is not None:
        return str(NanPolicy.parse(given))
    if len(policies) > 1:
        raise UsageError(
            "the runs were trained with different policies for NaN in behavior and pupil center",
            found=", ".join(f"{run.config.nan_policy} ({run.location})" for run in runs),
            expected="one policy for all",
            remedy="choose one with --nan",
        )
    return next(iter(policies))


def _find_neurons(runs: Sequence[Run], session: str) -> tuple[int, ...]:
    """Return the unit ids that all runs predict of a session."""
    by_run = [next(one.unit_ids for one in run.data.sessions if one.name == session) for run in runs]
    for run, unit_ids in zip(runs, by_run, strict=True):
        if unit_ids != by_run[0]:
            raise RunError(
                "the runs of the ensemble predict different neurons",
                session=session,
                path=run.location,
                found=count_things(len(unit_ids), "neuron"),
                expected=f"the {len(by_run[0])} of {runs[0].location}, {len(set(unit_ids) & set(by_run[0]))} of which "
                "it predicts",
                remedy="choose runs that were trained on the same neurons",
            )
    return by_run[0]


def _of_tiers(reader: TrialReader, session: str, tiers: Sequence[Tier]) -> frozenset[int]:
    """Return the ids of a session's valid trials of some tiers, also of those that are left out."""
    coordinates = reader.coordinates(session)
    chosen = np.isin(coordinates["tier"].values.astype(str), [str(tier) for tier in tiers])
    return frozenset(coordinates["trial"].values[chosen & coordinates["valid"].values].tolist())


def _identify(
    runs: Sequence[Run],
    shares: Sequence[float],
    store: Store,
    sessions: Sequence[Session],
    tiers: Sequence[Tier],
    left_out: Mapping[str, Sequence[int]],
    nan_policy: str,
    precision: Precision,
) -> str:
    parts = {
        "runs": sorted((run.digest, share) for run, share in zip(runs, shares, strict=True)),
        "tiers": sorted(tiers),
        "data": {session.name: store.digest(session) for session in sessions},
    }
    # Absent where nothing is asked for: what earlier versions predicted is recognized.
    if any(left_out.values()):
        parts["left_out"] = {name: list(trials) for name, trials in left_out.items() if trials}
    if nan_policy.startswith("interpolate"):
        parts["nan_policy"] = nan_policy
    if precision != "32-true":
        parts["precision"] = precision
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
