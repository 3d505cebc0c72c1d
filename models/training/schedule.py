"""When training lowers its learning rate, goes back to its best weights, and stops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from models.config import TrainingConfig
from sensorium_data.errors import UsageError

__all__ = [
    "CosineSchedule",
    "Decision",
    "PlateauSchedule",
    "RestartSchedule",
    "Schedule",
    "make_schedule",
    "warm_up",
]


@dataclass(frozen=True)
class Decision:
    """What to do after an epoch.

    Attributes
    ----------
    improved : bool
        The weights are the best so far: keep them.
    restores_best : bool
        Go on from the best weights; the optimizer keeps its state.
    stops : bool
        Training is over.
    learning_rate : float
        For the next epoch.
    """

    improved: bool
    restores_best: bool
    stops: bool
    learning_rate: float


class Schedule(Protocol):
    """Takes the score of each epoch and says how to go on.

    Attributes
    ----------
    learning_rate : float
        For the next epoch.
    best_score : float
        That of the weights that would be kept now: the highest so far, the untrained model's included.
    best_epoch : int
        Where it was reached, from 1; 0 for the untrained model.
    """

    learning_rate: float
    best_score: float
    best_epoch: int

    def learning_rate_at(self, share: float) -> float:
        """Return the learning rate after a share, 0 to 1, of the epoch that is under way."""

    def update(self, score: float) -> Decision:
        """Take the score after an epoch and say what to do."""

    def state(self) -> dict[str, float]:
        """Return all that has changed since the beginning, for :meth:`restore`."""

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a :meth:`state`."""


def make_schedule(config: TrainingConfig, *, initial_score: float) -> Schedule:
    """Return the schedule that a recipe names.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    initial_score : float
        The untrained model's.
    """
    if config.schedule == "cosine":
        return CosineSchedule(
            initial_score=initial_score,
            learning_rate=config.learning_rate,
            min_learning_rate=config.min_learning_rate,
            max_epochs=config.max_epochs,
            warmup_epochs=config.warmup_epochs,
            constant_epochs=config.constant_epochs,
            keeps_last=config.keeps == "last",
        )
    if config.schedule == "restarts":
        return RestartSchedule(
            initial_score=initial_score,
            learning_rate=config.learning_rate,
            patience=config.early_stopping_patience,
            n_rounds=config.n_rounds,
            tolerance=config.tolerance,
            max_epochs=config.max_epochs,
            factor=config.plateau_factor,
            min_learning_rate=config.min_learning_rate,
            warmup_epochs=config.warmup_epochs,
            collapse_score=config.collapse_score,
        )
    return PlateauSchedule(
        initial_score=initial_score,
        learning_rate=config.learning_rate,
        patience=config.early_stopping_patience,
        n_rounds=config.n_rounds,
        tolerance=config.tolerance,
        max_epochs=config.max_epochs,
        plateau_factor=config.plateau_factor,
        plateau_patience=config.plateau_patience,
        min_learning_rate=config.min_learning_rate,
        warmup_epochs=config.warmup_epochs,
    )


def warm_up(config: TrainingConfig, n_steps: int) -> float:
    """Return what a learning rate is multiplied with after some steps: it rises along a line, and is 1 then.

    Parameters
    ----------
    config : TrainingConfig
        The recipe, with ``warmup_steps`` and ``warmup_start_factor``.
    n_steps : int
        How many were made.
    """
    if n_steps >= config.warmup_steps:
        return 1.0
    return 1 - (1 - n_steps / config.warmup_steps) * (1 - config.warmup_start_factor)


class _ScoredEpochs:
    """What every schedule keeps: how many epochs there were, and which was the best."""

    def __init__(self, initial_score: float, learning_rate: float, warmup_epochs: int) -> None:
        self.best_score = initial_score
        self.best_epoch = 0
        self.learning_rate = learning_rate
        self._warmup_epochs = warmup_epochs
        self._epoch = 0

    def learning_rate_at(self, share: float) -> float:
        """Return the learning rate after a share, 0 to 1, of the epoch that is under way."""
        n_epochs = self._epoch + share
        if n_epochs < self._warmup_epochs:
            return self.learning_rate * n_epochs / self._warmup_epochs
        return self.learning_rate

    def state(self) -> dict[str, float]:
        """Return all that has changed since the beginning, for :meth:`restore`."""
        return {name: getattr(self, name) for name in self._changing}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a :meth:`state`."""
        for name in self._changing:
            setattr(self, name, state[name])

    @property
    def _changing(self) -> tuple[str, ...]:
        return ("best_score", "best_epoch", "learning_rate", "_epoch")


class CosineSchedule(_ScoredEpochs):
    """A learning rate that falls along half a cosine; the weights that are kept are restored at the end.

    It falls from step to step. If there is a warm-up, the rate rises from 0 along a line before; then it may stay for
    some epochs.

    Parameters
    ----------
    initial_score : float
        The untrained model's score: a model that never beats it is not kept.
    learning_rate, min_learning_rate : float
        Of the first epoch, and what it would reach after the last.
    max_epochs : int
        All of them are trained.
    warmup_epochs : int
        How many of them the rate rises in.
    constant_epochs : int
        How many it stays in after that; with as many as there are epochs, it never falls.
    keeps_last : bool
        Keep the last epoch's weights, whatever its score: each epoch counts as the best so far. Only a score that is no
        number does not.

    Raises
    ------
    UsageError
        If a number is out of range.
    """

    def __init__(
        self,
        *,
        initial_score: float,
        learning_rate: float,
        min_learning_rate: float,
        max_epochs: int,
        warmup_epochs: int = 0,
        constant_epochs: int = 0,
        keeps_last: bool = False,
    ) -> None:
        if not 0 <= warmup_epochs < max_epochs:
            raise UsageError(
                "training needs epochs after its warm-up", found=max_epochs, expected=f"at least {warmup_epochs + 1}"
            )
        if min_learning_rate > learning_rate:
            raise UsageError(
                "the learning rate cannot fall to a higher one",
                found=f"from {learning_rate} to {min_learning_rate}",
                remedy="lower min_learning_rate",
            )
        super().__init__(initial_score, learning_rate, warmup_epochs)
        self._highest = learning_rate
        self._lowest = min_learning_rate
        self._max_epochs = max_epochs
        self._n_before = warmup_epochs + constant_epochs
        self._keeps_last = keeps_last
        self.learning_rate = self.learning_rate_at(0.0)

    def learning_rate_at(self, share: float) -> float:
        """Return the learning rate after a share, 0 to 1, of the epoch that is under way."""
        n_epochs = self._epoch + share
        if n_epochs < self._warmup_epochs:
            return self._highest * n_epochs / self._warmup_epochs
        if n_epochs < self._n_before:
            return self._highest
        n_falling = max(1, self._max_epochs - self._n_before)
        height = 0.5 * (1 + math.cos(math.pi * min(1.0, (n_epochs - self._n_before) / n_falling)))
        return self._lowest + height * (self._highest - self._lowest)

    def update(self, score: float) -> Decision:
        """Take the score after an epoch and say what to do."""
        self._epoch += 1
        improved = math.isfinite(score) if self._keeps_last else score > self.best_score
        if improved:
            self.best_score = score
            self.best_epoch = self._epoch
        self.learning_rate = self.learning_rate_at(0.0)
        stops = self._epoch >= self._max_epochs
        return Decision(improved=improved, restores_best=stops, stops=stops, learning_rate=self.learning_rate)


class PlateauSchedule(_ScoredEpochs):
    """The starter kit's early stopping in rounds, beside its learning rate that falls on a plateau.

    Two counters run side by side. *Early stopping* counts epochs without an improvement; when they reach
    ``patience``, the best weights are restored and a new round begins, and after ``n_rounds`` rounds training
    stops. The *plateau* counter lowers the learning rate when epochs without improvement
    exceed ``plateau_patience``, so with equal patience it acts an epoch after the round has ended, and its
    count runs on across rounds. If nothing improves after the first epoch, the starter kit's numbers give
    6 epochs at 0.005, restore, 1 at 0.005 and 4 at 0.0015, restore, 2 at 0.0015 and 3 at 0.00045, restore, 3
    at 0.00045 and 2 at 0.000135, stop. A score that is no number ends training at once, on the best weights.

    Parameters
    ----------
    initial_score : float
        The untrained model's score: a model that never beats it is not kept.
    learning_rate : float
        To begin with.
    patience : int
        Epochs without improvement that end a round.
    n_rounds : int
        Rounds before training stops.
    tolerance : float
        What a score must exceed the best one by to count as better.
    max_epochs : int
        Training stops after these in any case.
    plateau_factor, plateau_patience, min_learning_rate
        Of the learning rate: what it is multiplied with, after more than how many epochs without
        improvement, and where it ends.
    warmup_epochs : int
        Epochs at first in which the rate rises from 0 along a line, step by step.

    Raises
    ------
    UsageError
        If a number is out of range.

    Notes
    -----
    ``early_stopping`` of neuralpredictors with torch's ``ReduceLROnPlateau(mode="max",
    threshold_mode="abs")`` as its scheduler, stepped with the same score.
    """

    def __init__(
        self,
        *,
        initial_score: float,
        learning_rate: float,
        patience: int,
        n_rounds: int,
        tolerance: float,
        max_epochs: int,
        plateau_factor: float,
        plateau_patience: int,
        min_learning_rate: float,
        warmup_epochs: int = 0,
    ) -> None:
        _require_rounds("early stopping needs", patience, n_rounds, max_epochs)
        _require_lowering("the plateau factor", plateau_factor)
        super().__init__(initial_score, learning_rate, warmup_epochs)
        self._patience = patience
        self._n_rounds = n_rounds
        self._tolerance = tolerance
        self._max_epochs = max_epochs
        self._plateau_factor = plateau_factor
        self._plateau_patience = plateau_patience
        self._min_learning_rate = min_learning_rate
        self._round = 0
        self._n_bad_in_round = 0
        # The plateau's own best starts below every score: unlike early stopping, it does not know the untrained model.
        self._plateau_best = float("-inf")
        self._n_bad_on_plateau = 0

    @property
    def _changing(self) -> tuple[str, ...]:
        return (*super()._changing, "_round", "_n_bad_in_round", "_plateau_best", "_n_bad_on_plateau")

    def update(self, score: float) -> Decision:
        """Take the score after an epoch and say what to do."""
        self._epoch += 1
        if not math.isfinite(score):
            # No later epoch can come back from such weights.
            return Decision(improved=False, restores_best=True, stops=True, learning_rate=self.learning_rate)
        self._lower_learning_rate_on_plateau(score)
        improved = score > self.best_score + self._tolerance
        if improved:
            self.best_score = score
            self.best_epoch = self._epoch
            self._n_bad_in_round = 0
        else:
            self._n_bad_in_round += 1
        round_ended = self._n_bad_in_round >= self._patience
        if round_ended:
            self._round += 1
            self._n_bad_in_round = 0
        stops = self._epoch >= self._max_epochs or self._round >= self._n_rounds
        return Decision(
            improved=improved,
            restores_best=round_ended or stops,
            stops=stops,
            learning_rate=self.learning_rate,
        )

    def _lower_learning_rate_on_plateau(self, score: float) -> None:
        if score > self._plateau_best + self._tolerance:
            self._plateau_best = score
            self._n_bad_on_plateau = 0
        else:
            self._n_bad_on_plateau += 1
        if self._n_bad_on_plateau > self._plateau_patience:
            self.learning_rate = max(self.learning_rate * self._plateau_factor, self._min_learning_rate)
            self._n_bad_on_plateau = 0


class RestartSchedule(_ScoredEpochs):
    """ViV1T's rule: where the score stops growing, go on from the best weights with a lower learning rate.

    A better score starts the count anew, and the count of restarts too. After ``patience`` epochs without one, the best
    weights are restored and the rate falls; the ``n_rounds``-th time in a row, training stops on the best weights. With
    one round it stops the first time.

    Parameters
    ----------
    initial_score : float
        The untrained model's score: a model that never beats it is not kept.
    learning_rate : float
        To begin with.
    patience, n_rounds : int
        Epochs without improvement before a restart, and how many restarts in a row end training, the last one counted.
    tolerance : float
        What a score must exceed the best one by to count as better; ViV1T's is 0.
    max_epochs : int
        Training stops after these in any case.
    factor, min_learning_rate : float
        What the learning rate is multiplied with at a restart, and where it ends.
    warmup_epochs : int
        Epochs at first in which the rate rises from 0 along a line, step by step.
    collapse_score : float, optional
        If the best score is at least this, an epoch whose score is 0.00 or less, rounded, is taken back: the best
        weights are restored, and the epoch is not counted. ViV1T's is 0.05.

    Raises
    ------
    UsageError
        If a number is out of range.

    Notes
    -----
    ``Scheduler`` of https://github.com/bryanlimy/ViV1T (``max_reduce=3``, ``lr_patience=5``, ``factor=0.3``).
    """

    def __init__(
        self,
        *,
        initial_score: float,
        learning_rate: float,
        patience: int,
        n_rounds: int,
        tolerance: float,
        max_epochs: int,
        factor: float,
        min_learning_rate: float,
        warmup_epochs: int = 0,
        collapse_score: float | None = None,
    ) -> None:
        _require_rounds("restarts need", patience, n_rounds, max_epochs)
        _require_lowering("a restart", factor)
        super().__init__(initial_score, learning_rate, warmup_epochs)
        self._patience = patience
        self._n_rounds = n_rounds
        self._tolerance = tolerance
        self._max_epochs = max_epochs
        self._factor = factor
        self._min_learning_rate = min_learning_rate
        self._collapse_score = math.inf if collapse_score is None else collapse_score
        self._n_bad = 0
        self._n_restarts = 0

    @property
    def _changing(self) -> tuple[str, ...]:
        return (*super()._changing, "_n_bad", "_n_restarts")

    def update(self, score: float) -> Decision:
        """Take the score after an epoch and say what to do."""
        self._epoch += 1
        if not math.isfinite(score):
            # No later epoch can come back from such weights.
            return Decision(improved=False, restores_best=True, stops=True, learning_rate=self.learning_rate)
        improved = score > self.best_score + self._tolerance
        restarts = stops = False
        if improved:
            self.best_score = score
            self.best_epoch = self._epoch
            self._n_bad = self._n_restarts = 0
        elif self.best_score >= self._collapse_score and round(score, 2) <= 0:
            restarts = True
        else:
            self._n_bad += 1
            if self._n_bad >= self._patience:
                self._n_bad = 0
                self._n_restarts += 1
                restarts = True
                stops = self._n_restarts >= self._n_rounds
                self.learning_rate = max(self.learning_rate * self._factor, self._min_learning_rate)
        stops = stops or self._epoch >= self._max_epochs
        return Decision(
            improved=improved, restores_best=restarts or stops, stops=stops, learning_rate=self.learning_rate
        )


def _require_rounds(what: str, patience: int, n_rounds: int, max_epochs: int) -> None:
    if patience < 1 or n_rounds < 1 or max_epochs < 1:
        raise UsageError(
            f"{what} patience, rounds and epochs",
            found=f"patience {patience}, rounds {n_rounds}, epochs {max_epochs}",
            expected="at least 1 of each",
        )


def _require_lowering(what: str, factor: float) -> None:
    if not 0 < factor < 1:
        raise UsageError(f"{what} must lower the rate", found=factor, expected="between 0 and 1")
