"""What a run is trained and validated on: which trials, and their batches.

All that training asks of the loader is here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing

import torch

from models.config import TrainingConfig
from models.inputs import ModelInputs
from models.layouts import find_layout
from models.training.selection import describe_neurons
from models.windows import open_windows
from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.movies import split_by_hash, split_by_movie
from sensorium_data.sessions import Tier, find_session
from sensorium_data.statistics import describe_coverage, read_coverage
from sensorium_data.store import Store
from sensorium_data.windows import (
    EpochPlan,
    SessionTrials,
    TrialReader,
    Windows,
    choose_trials,
    plan_in_turn,
    plan_mixed,
)

__all__ = ["Split", "TrainingBatch", "TrainingBatches", "open_reader", "split_trials"]

# The same for runs of different seeds: an ensemble over folds and seeds is scored on the trials that none of a fold's
# runs has seen.
_FOLD_SEED = 0


@dataclasses.dataclass(frozen=True)
class Split:
    """Which trials are trained on, and which ones validate.

    Attributes
    ----------
    training, validation : tuple of SessionTrials
        One a session, in the run's order.
    notes : tuple of str
        What was asked for and is not there, a sentence each.
    """

    training: tuple[SessionTrials, ...]
    validation: tuple[SessionTrials, ...]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of both sides' trials."""
        sides = [[[t.session, sorted(t.trials)] for t in side] for side in (self.training, self.validation)]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingBatch:
    """A batch, of which this process has its rows.

    Attributes
    ----------
    parts : tuple of ModelInputs
        This process's windows, by session; a session may have none here.
    n_windows : mapping of str to int
        Windows of each session in the whole batch, over all processes.
    """

    parts: tuple[ModelInputs, ...]
    n_windows: Mapping[str, int]


class TrainingBatches:
    """The batches of each epoch, and whole trials to validate on.

    A batch is of one session where sessions take turns, or has parts of several.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    store : Store
        The session stores.
    sessions : sequence of str
        Full names.
    device : torch.device
        Where they are used.
    neurons : mapping of str to sequence of int, optional
        Unit ids of those that are trained on, by full session name; all by default.

    Attributes
    ----------
    sessions : tuple of str
        Full names.
    split : Split
        The trials.
    normalizers : mapping of str to Normalizer
        By session.
    n_batches : int
        Of an epoch.
    notes : tuple of str
        What is odd about the data, a sentence each.

    Raises
    ------
    UsageError
        If a session has no trial of an asked tier, or none on one side of the fold; if the responses of a tier are
        withheld; if a trial is shorter than a window; if trials shall be kept on a GPU that is not there.
    StoreError
        If a session cannot be opened, or a trial lacks behavior or pupil center and the policy does not allow for that.
    """

    def __init__(
        self,
        config: TrainingConfig,
        store: Store,
        sessions: Sequence[str],
        device: torch.device,
        neurons: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.sessions = tuple(sessions)
        self._config = config
        # How much is kept where is decided below.
        reader = open_reader(config, store, sessions, neurons)
        self.split = split_trials(config, reader)
        self._windows = Windows(
            config.n_frames_window, config.window_stride, config.window_position, config.n_windows_per_trial
        )
        # What the first epoch would raise is raised now, before anything is written.
        self.n_batches = len(self._plan(1))
        self.normalizers = {name: reader.open_normalizer(config.normalization, name) for name in sessions}
        tiers = config.tiers if config.n_folds is not None else (*config.tiers, Tier.ORACLE)
        used: dict[str, set[int]] = {name: set() for name in sessions}
        for trials in (*self.split.training, *self.split.validation):
            used[trials.session].update(trials.trials)
        self.notes = (
            *self.split.notes,
            *(note for name in sessions for note in reader.describe_left_out(name, tiers, used[name])),
            *describe_neurons(reader.store, neurons),
            *_describe_statistics(reader.store, (*self.split.training, *self.split.validation)),
        )
        self._source = open_windows(
            reader,
            self.normalizers,
            find_layout(config.input_layout),
            device,
            (*self.split.training, *self.split.validation),
            cache=config.cache,
            cache_bytes=config.cache_bytes,
        )

    def iter_batches(
        self, epoch: int, first_batch: int = 0, *, rank: int = 0, n_ranks: int = 1
    ) -> Generator[TrainingBatch, None, None]:
        """Yield the batches of an epoch, from some batch on.

        Parameters
        ----------
        epoch : int
            From 1. It decides the windows, whatever was drawn before.
        first_batch : int
            From 0.
        rank, n_ranks : int
            Which of several processes this is: it reads its own rows of each batch, and no others.
        """
        plan = self._plan(epoch)
        batches = self._source.iter_batches(plan, first_batch=first_batch, rank=rank, n_ranks=n_ranks)
        with closing(batches):
            for number, parts in enumerate(batches, start=first_batch):
                yield TrainingBatch(parts, {part.session: len(part) for part in plan[number].parts})

    def validation_trials(self, session: str) -> tuple[int, ...]:
        """Return the ids of a session's validation trials."""
        return next(trials.trials for trials in self.split.validation if trials.session == session)

    def iter_validation(self, session: str, only: Collection[int] | None = None) -> Generator[ModelInputs, None, None]:
        """Yield a session's validation trials whole, a batch each; all of them, or ``only`` some."""
        chosen = self.validation_trials(session)
        if only is not None:
            chosen = tuple(trial for trial in chosen if trial in only)
        yield from self._source.iter_trials(session, (*Tier, *self._config.tiers), labelled=True, only=chosen)

    def _plan(self, epoch: int) -> EpochPlan:
        config = self._config
        # Epochs count from 1 for people and from 0 for sampling.
        settings = {"batch_size": config.batch_size, "seed": config.seed, "epoch": epoch - 1}
        if config.session_balance == "in_turn":
            return plan_in_turn(
                self.split.training, self._windows, n_trials_shuffled=config.n_trials_shuffled, **settings
            )
        return plan_mixed(
            self.split.training,
            self._windows,
            n_windows_per_session=config.n_windows_per_session,
            n_trials_shuffled=config.n_trials_shuffled,
            **settings,
        )


def _describe_statistics(store: Store, trials: Sequence[SessionTrials]) -> Iterator[str]:
    """Yield a sentence for each thing that the archive's statistics lack within the frames of these trials."""
    for session in dict.fromkeys(one.session for one in trials):
        longest = max(max(one.n_frames) for one in trials if one.session == session)
        for note in describe_coverage(read_coverage(store.statistics(find_session(session)), longest)):
            yield f"Session {find_session(session)}: {note}."


def open_reader(
    config: TrainingConfig,
    store: Store,
    sessions: Sequence[str],
    neurons: Mapping[str, Sequence[int]] | None = None,
) -> TrialReader:
    """Return a reader of the trials and neurons that a recipe asks for, which keeps nothing in memory."""
    return TrialReader(
        store, sessions, cache_bytes=0, exclude=config.exclude, nan_policy=config.nan_policy, neurons=neurons
    )


def split_trials(config: TrainingConfig, reader: TrialReader) -> Split:
    """Return the trials that a recipe trains and validates on.

    Without folds, those of its tiers whose responses are published, and the oracle tier. With folds, its tiers split
    by movie: no movie is on both sides, in any session; or, if its ``fold_rule`` is DwiseNeuro's, by a hash of their
    frames. The split does not depend on the recipe's seed, nor on which
    trials are left out: those are in no fold. Of the training side, ``n_trials`` of each session are taken.

    A tier whose responses are withheld in some sessions is trained on in the others.

    Raises
    ------
    UsageError
        If a session has no valid trial of an asked tier, or no published one on one of the sides; if a tier is
        withheld in all sessions.
    """
    notes = (*_check_tiers(config, reader), *_describe_scored_tiers(config, reader))
    asked = tuple(reader.select_trials(session.name, config.tiers, labelled=True) for session in reader.sessions)
    if config.n_folds is None or config.fold is None:
        oracle = tuple(reader.select_trials(s.name, (Tier.ORACLE,), labelled=True) for s in reader.sessions)
        training, few = _choose(asked, config)
        return Split(training=training, validation=oracle, notes=(*notes, *few))
    recordings = {session.name: reader.store[session] for session in reader.sessions}
    if config.fold_rule == "dwiseneuro":
        folds = split_by_hash(recordings, config.n_folds, tiers=config.tiers)
    else:
        folds = split_by_movie(recordings, config.n_folds, seed=_FOLD_SEED, tiers=config.tiers)
    fold = folds[config.fold]
    kept = tuple(_keep(trials, fold.train[trials.session], "train", config) for trials in asked)
    training, few = _choose(kept, config)
    return Split(
        training=training,
        validation=tuple(_keep(trials, fold.validation[trials.session], "validate", config) for trials in asked),
        notes=(*notes, *few),
    )


def _choose(
    training: Sequence[SessionTrials], config: TrainingConfig
) -> tuple[tuple[SessionTrials, ...], tuple[str, ...]]:
    """Return the trials that are trained on, and a sentence for each session that has too few."""
    chosen = tuple(choose_trials(trials, config.n_trials) for trials in training)
    few = tuple(
        f"Session {find_session(trials.session)} has {count_things(len(trials), 'trial')} to train on, fewer than "
        f"{config.n_trials}: all of them are taken."
        for trials in training
        if config.n_trials is not None and len(trials) < config.n_trials
    )
    return chosen, few


def _check_tiers(config: TrainingConfig, reader: TrialReader) -> tuple[str, ...]:
    """Require every session to have trials of every tier, and every tier to be published in some session."""
    notes = []
    withholding: dict[Tier, list[str]] = {}
    for tier in config.tiers:
        for session in reader.sessions:
            trials = reader.select_trials(session.name, (tier,)).trials
            if not any(reader.has_responses(session.name, trial) for trial in trials):
                withholding.setdefault(tier, []).append(session.name)
    withheld = [tier for tier, sessions in withholding.items() if len(sessions) == len(reader.sessions)]
    if withheld:
        published = [str(tier) for tier in config.tiers if tier not in withheld]
        raise UsageError(
            f"the responses of tier {', '.join(withheld)} are withheld: they cannot be trained on",
            session=withholding[withheld[0]][0],
            path=reader.store.url,
            remedy=(f"leave out what is withheld, with --set tiers={','.join(published)}, or" if published else "")
            + " add a session that publishes it",
        )
    for tier, sessions in withholding.items():
        names = ", ".join(str(find_session(name)) for name in sessions)
        notes.append(f"The responses of tier {tier} are withheld in {names}: not trained on there.")
    return tuple(notes)


def _describe_scored_tiers(config: TrainingConfig, reader: TrialReader) -> Iterator[str]:
    """Yield a sentence if tiers are trained on that the competition scores, or that other runs are validated on."""
    scored = [tier for tier in config.tiers if tier is not Tier.TRAIN]
    trained_on = [
        str(find_session(session.name))
        for session in (reader.sessions if scored else ())
        if any(reader.has_responses(session.name, t) for t in reader.select_trials(session.name, scored).trials)
    ]
    if trained_on:
        yield (
            f"Scored tiers are trained on: {', '.join(scored)} of {', '.join(trained_on)}. Other sessions show the "
            "same movies in their scored tiers. Scores of this run on these tiers, in any session, are not scores on "
            "movies that are new to it."
        )


def _keep(trials: SessionTrials, chosen: Iterable[int], purpose: str, config: TrainingConfig) -> SessionTrials:
    chosen = set(chosen)
    kept = [(t, n) for t, n in zip(trials.trials, trials.n_frames, strict=True) if t in chosen]
    if not kept:
        raise UsageError(
            f"the fold leaves no trial to {purpose} on",
            session=trials.session,
            found=f"{count_things(len(trials), 'trial')} in {config.n_folds} folds",
            remedy="choose fewer folds",
        )
    return SessionTrials(trials.session, tuple(t for t, _ in kept), tuple(n for _, n in kept))
