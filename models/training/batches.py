"""What a run is trained and validated on: which trials, and their batches.

All that training asks of the loader is here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import closing
from typing import cast

from models.config import TrainingConfig
from sensorium_data.errors import UsageError
from sensorium_data.folds import split_by_movie
from sensorium_data.loader import Batch, WindowLoader
from sensorium_data.normalizations import open_normalizer
from sensorium_data.sampling import SessionTrials, plan_batch
from sensorium_data.sessions import Tier, find_session
from sensorium_data.store import open_session
from sensorium_data.trial_reader import TrialReader

__all__ = ["Split", "TrainingBatches", "split_trials", "take_rows"]

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


class TrainingBatches:
    """The batches of each epoch, and whole trials to validate on.

    A batch is a tuple of parts, each of one session: one part where sessions take turns.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    store : str
        Path or URL of the session store.
    sessions : sequence of str
        Full names.

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

    Raises
    ------
    UsageError
        If a session has no trial of an asked tier, or none on one side of the fold; if the responses of a tier are
        withheld; if a trial is shorter than a window.
    StoreError
        If a session cannot be opened.
    """

    def __init__(self, config: TrainingConfig, store: str, sessions: Sequence[str]) -> None:
        _require_supported(config)
        self.sessions = tuple(sessions)
        self._config = config
        reader = TrialReader(store, sessions, cache_bytes=0 if config.cache == "none" else config.cache_bytes)
        self.split = split_trials(config, reader)
        for trials in self.split.training:
            # What the first epoch would raise is raised now, before anything is written.
            plan_batch(
                trials, 0, n_frames=config.n_frames_window, batch_size=config.batch_size, seed=config.seed, epoch=0
            )
        self.normalizers = {name: open_normalizer(config.normalization, store, name) for name in sessions}
        self._training = WindowLoader(_Selection.of(reader, self.split.training), self.normalizers)
        self._validation = WindowLoader(_Selection.of(reader, self.split.validation), self.normalizers)
        self.n_batches = self._training.count_batches(
            config.tiers, batch_size=config.batch_size, n_windows_per_trial=config.n_windows_per_trial
        )

    def iter_batches(self, epoch: int, first_batch: int = 0) -> Generator[tuple[Batch, ...], None, None]:
        """Yield the batches of an epoch, from some batch on.

        Parameters
        ----------
        epoch : int
            From 1. It decides the windows, whatever was drawn before.
        first_batch : int
            From 0.
        """
        with closing(
            self._training.iter_batches(
                self._config.tiers,
                n_frames=self._config.n_frames_window,
                batch_size=self._config.batch_size,
                seed=self._config.seed,
                # Epochs count from 1 for people and from 0 for sampling.
                epoch=epoch - 1,
                n_windows_per_trial=self._config.n_windows_per_trial,
            )
        ) as batches:
            for batch in itertools.islice(batches, first_batch, None):
                yield (batch,)

    def validation_trials(self, session: str) -> tuple[int, ...]:
        """Return the ids of a session's validation trials."""
        return next(trials.trials for trials in self.split.validation if trials.session == session)

    def iter_validation(self, session: str, only: Collection[int] | None = None) -> Generator[Batch, None, None]:
        """Yield a session's validation trials whole, a batch each; all of them, or ``only`` some."""
        yield from self._validation.iter_trials(session, self._config.tiers, labelled=True, only=only)


def split_trials(config: TrainingConfig, reader: TrialReader) -> Split:
    """Return the trials that a recipe trains and validates on.

    Without folds, those of its tiers whose responses are published, and the oracle tier. With folds, its tiers split
    by movie: no movie is on both sides, in any session. The split does not depend on the recipe's seed.

    A tier whose responses are withheld in some sessions is trained on in the others.

    Raises
    ------
    UsageError
        If a session has no valid trial of an asked tier, or no published one on one of the sides; if a tier is
        withheld in all sessions.
    """
    notes = _check_tiers(config, reader)
    asked = tuple(reader.select_trials(session.name, config.tiers, labelled=True) for session in reader.sessions)
    if config.n_folds is None or config.fold is None:
        oracle = tuple(reader.select_trials(s.name, (Tier.ORACLE,), labelled=True) for s in reader.sessions)
        return Split(training=asked, validation=oracle, notes=notes)
    recordings = {session.name: open_session(reader.store, session.name) for session in reader.sessions}
    fold = split_by_movie(recordings, config.n_folds, seed=_FOLD_SEED, tiers=config.tiers)[config.fold]
    return Split(
        training=tuple(_keep(trials, fold.train[trials.session], "train", config) for trials in asked),
        validation=tuple(_keep(trials, fold.validation[trials.session], "validate", config) for trials in asked),
        notes=notes,
    )


def take_rows(batch: Batch, rows: slice) -> Batch:
    """Return some windows of a batch."""
    return dataclasses.replace(
        batch,
        trials=batch.trials[rows],
        first_frames=batch.first_frames[rows],
        videos=batch.videos[rows],
        responses=None if batch.responses is None else batch.responses[rows],
        behavior=batch.behavior[rows],
        pupil_center=batch.pupil_center[rows],
    )


def _check_tiers(config: TrainingConfig, reader: TrialReader) -> tuple[str, ...]:
    """Require every session to have trials of every tier, and every tier to be published in some session."""
    notes = []
    for tier in config.tiers:
        withholding = []
        for session in reader.sessions:
            trials = reader.select_trials(session.name, (tier,)).trials
            if not any(reader.has_responses(session.name, trial) for trial in trials):
                withholding.append(session.name)
        if len(withholding) == len(reader.sessions):
            raise UsageError(
                f"the responses of tier {tier} are withheld: they cannot be trained on",
                session=withholding[0],
                path=reader.store,
                remedy="leave the tier out, or add a session that publishes it",
            )
        if withholding:
            names = ", ".join(str(find_session(name)) for name in withholding)
            notes.append(f"The responses of tier {tier} are withheld in {names}: not trained on there.")
    return tuple(notes)


def _keep(trials: SessionTrials, chosen: Iterable[int], purpose: str, config: TrainingConfig) -> SessionTrials:
    chosen = set(chosen)
    kept = [(t, n) for t, n in zip(trials.trials, trials.n_frames, strict=True) if t in chosen]
    if not kept:
        raise UsageError(
            f"the fold leaves no trial to {purpose} on",
            session=trials.session,
            found=f"{len(trials)} trials in {config.n_folds} folds",
            remedy="choose fewer folds",
        )
    return SessionTrials(trials.session, tuple(t for t, _ in kept), tuple(n for _, n in kept))


class _Selection:
    """A reader of which some trials are chosen already; the blocks it keeps in memory are the reader's own."""

    def __init__(self, reader: TrialReader, trials: Iterable[SessionTrials]) -> None:
        self._reader = reader
        self._trials = {selected.session: selected for selected in trials}

    @classmethod
    def of(cls, reader: TrialReader, trials: Iterable[SessionTrials]) -> TrialReader:
        return cast(TrialReader, cls(reader, trials))

    def select_trials(self, session: str, tiers: Iterable[Tier], *, labelled: bool = False) -> SessionTrials:
        return self._trials[session]

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)


def _require_supported(config: TrainingConfig) -> None:
    """Refuse what the loader cannot do."""
    for name, only in (
        ("window_stride", 1),
        ("window_position", "random"),
        ("session_balance", "in_turn"),
        ("n_trials_buffered", None),
    ):
        if getattr(config, name) != only:
            raise UsageError(
                f"the loader cannot do {name} {getattr(config, name)}", expected=only, remedy=f"leave {name} as it is"
            )
    if config.cache == "device":
        raise UsageError("the loader keeps no trials on a GPU", found="cache device", remedy="choose cache memory")
