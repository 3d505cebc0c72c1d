"""The training loop: epochs of steps, an evaluation after each, a checkpoint now and then."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any, NoReturn

import torch

from models.config import TrainingConfig
from models.registry import build_model
from models.response_model import ResponseModel
from models.runs import Checkpoint, Checkpoints, EpochMetrics, Position, RunData, copy_weights
from models.training.batches import TrainingBatches
from models.training.distillation import Distillation
from models.training.evaluation import Evaluation, evaluate
from models.training.interruption import Interruption
from models.training.objective import Objective, SessionCount
from models.training.optimization import Optimization
from models.training.ranks import Ranks
from models.training.schedule import Schedule, make_schedule, warm_up
from models.training.scores import deciding_score
from sensorium_data.errors import RunError
from sensorium_data.progress import Progress, ignore_progress

__all__ = ["EpochSums", "Trainer"]


@dataclasses.dataclass
class EpochSums:
    """What has been added up of the epoch that is under way, on this rank.

    Attributes
    ----------
    loss : float
        Poisson loss, summed over windows, neurons and frames.
    n_values : int
        How many those are.
    regularizer : float
        Summed over batches.
    n_windows : int
        Windows trained on, over all ranks.
    training_s, waited_s : float
        Time in all but for the evaluation, and that spent waiting for batches.
    n_skipped_steps : int
        Steps at the epoch's start that had been skipped, of all epochs.
    """

    loss: float = 0.0
    n_values: int = 0
    regularizer: float = 0.0
    n_windows: int = 0
    training_s: float = 0.0
    waited_s: float = 0.0
    n_skipped_steps: int = 0


class Trainer:
    """A model in training.

    Weights and the readouts' samples are drawn from torch's global random state, which the caller seeds.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    data : RunData
        What the model is built for.
    batches : TrainingBatches
        Of the same sessions.
    device : torch.device
        Where to train.
    ranks : Ranks, optional
        This process among others; alone by default.
    teacher : ResponseModel, optional
        The model that the recipe learns from, in evaluation mode, on ``device``.

    Attributes
    ----------
    model : ResponseModel
        Its weights change in place.
    schedule : Schedule
        What decides on learning rate and end.
    position : Position
        How far training is.
    metrics : list of EpochMetrics
        Of all epochs so far.
    best_correlation : float
        Single-trial correlation of the best weights, over all neurons.
    is_finished : bool
        Whether all epochs are done; the model has the best weights then.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: RunData,
        batches: TrainingBatches,
        device: torch.device,
        *,
        ranks: Ranks | None = None,
        teacher: ResponseModel | None = None,
    ) -> None:
        self._config = config
        self._batches = batches
        self._device = device
        self._ranks = ranks or Ranks()
        self.model = build_model(config, data.neurons)
        self._initialize_biases()
        self.model.to(device)
        if config.compile:
            # The core alone: all sessions share it, and each readout would be compiled anew.
            self.model.core.compile()
        if not self._ranks.is_first:
            # The weights are everybody's; what is drawn from here on is each rank's own.
            torch.manual_seed(config.seed + self._ranks.rank)
        self._optimization = Optimization(
            config,
            self.model,
            Objective(config, _count_trials(data, batches)),
            {session: info.n_neurons for session, info in data.neurons.items()},
            device,
            self._ranks,
            None
            if teacher is None or config.distillation_ratio is None
            else Distillation(teacher, batches.sessions, config.distillation_ratio),
        )
        per_step = config.n_batches_per_step
        in_turn = config.session_balance == "in_turn"
        self._n_batches_per_step = per_step or (len(batches.sessions) if in_turn else 1)

        self.schedule: Schedule = make_schedule(config, initial_score=float("-inf"))
        self.position = Position()
        self.metrics: list[EpochMetrics] = []
        self.best_correlation = float("nan")
        self.is_finished = False
        self._sums = EpochSums()
        self._best_weights: Mapping[str, torch.Tensor] = {}

    def fit(
        self,
        progress: Progress = ignore_progress,
        *,
        checkpoints: Checkpoints | None = None,
        interruption: Interruption | None = None,
    ) -> Iterator[EpochMetrics]:
        """Train to the end, yielding each epoch; afterwards the model has the best epoch's weights.

        Parameters
        ----------
        progress : Progress
            Told after every optimizer step, of those that all epochs would take.
        checkpoints : Checkpoints, optional
            Where to save what an interrupted run goes on from. An epoch is saved before it is yielded.
        interruption : Interruption, optional
            Asked after every step and before every trial of an evaluation.

        Raises
        ------
        RunError
            If the loss stops being a number, or a signal asks to stop; a checkpoint was saved then.
        """
        saver = _Saver(self, checkpoints, interruption, self._ranks, self._config.checkpoint_every_steps)
        if not self.position.epoch:
            evaluation = self._evaluate(saver)
            self.schedule.best_score = evaluation.scores[deciding_score(self._config)]
            self.best_correlation = evaluation.pooled
            self._best_weights = copy_weights(self.model)
            self.position = Position(epoch=1)
            saver.save(best_epoch=0)
        while not self.is_finished:
            yield self._run_epoch(progress, saver)

    def train_epoch(self, progress: Progress = ignore_progress, saver: _Saver | None = None) -> EpochSums:
        """Train on the remaining batches of the epoch that is under way; by itself, of the first one.

        The gradients of several batches are summed, each of the scaled loss and the regularizer; then the weights
        move.
        """
        self.model.train()
        epoch, n_batches = max(1, self.position.epoch), self._batches.n_batches
        first = self.position.n_batches
        if not first:
            self._sums = EpochSums(n_skipped_steps=self._optimization.n_skipped_steps)
        started = time.perf_counter()
        ranks = self._ranks
        with closing(self._batches.iter_batches(epoch, first, rank=ranks.rank, n_ranks=ranks.n_ranks)) as batches:
            for index in range(first, n_batches):
                asked = time.perf_counter()
                batch = next(batches)
                self._sums.waited_s += time.perf_counter() - asked

                result = self._optimization.accumulate(batch, seed=(self._config.seed, epoch, index))
                self._sums.loss += result.loss
                self._sums.n_values += result.n_values
                self._sums.regularizer += result.regularizer
                self._sums.n_windows += sum(batch.n_windows.values())
                n_done = index + 1
                if n_done % self._n_batches_per_step and n_done < n_batches:
                    continue
                step_start = index - index % self._n_batches_per_step
                rate = self.schedule.learning_rate_at(step_start / n_batches)
                self._optimization.step(rate * warm_up(self._config, self.position.n_steps))
                self._sums.training_s += time.perf_counter() - started
                started = time.perf_counter()
                self.position = Position(epoch=epoch, n_batches=n_done, n_steps=self.position.n_steps + 1)
                if self._ranks.is_first:
                    progress("train", (epoch - 1) * n_batches + n_done, self._config.max_epochs * n_batches)
                if saver is not None:
                    saver.after_step()
        return self._sums

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor that training depends on from here, those of all ranks; to be called on each."""
        tensors = self._optimization.tensors()
        for rank, states in enumerate(self._ranks.gather(_random_states(self._device))):
            tensors |= {f"random/{rank}/{kind}": state for kind, state in states.items()}
        return tensors

    def state(self) -> dict[str, Any]:
        """Return what else it depends on, as JSON has it; to be called on each rank."""
        return {
            "optimization": self._optimization.state(),
            "schedule": self.schedule.state(),
            "sums": [dataclasses.asdict(sums) for sums in self._ranks.gather(self._sums)],
            "metrics": [dataclasses.asdict(epoch) for epoch in self.metrics],
            "best_correlation": self.best_correlation,
            "is_finished": self.is_finished,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        RunError
            If it is of another model, or was changed.
        """
        try:
            self._restore(checkpoint)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            # Of a version whose checkpoints held no digest of themselves.
            raise RunError(
                "the checkpoint was changed, or written by another version",
                found=f"{type(error).__name__}: {error}",
                remedy="restart the run, which throws the checkpoint away",
            ) from error

    @property
    def best_weights(self) -> Mapping[str, torch.Tensor]:
        """The weights of the best epoch so far."""
        return self._best_weights

    def _restore(self, checkpoint: Checkpoint) -> None:
        random = {name: state for name, state in checkpoint.tensors.items() if name.startswith("random/")}
        self._optimization.restore(
            {name: tensor for name, tensor in checkpoint.tensors.items() if name not in random},
            checkpoint.state["optimization"],
        )
        own = f"random/{self._ranks.rank}"
        torch.set_rng_state(random[f"{own}/cpu"])
        if self._device.type == "cuda" and f"{own}/cuda" in random:
            torch.cuda.set_rng_state(random[f"{own}/cuda"], self._device)
        self.schedule.restore(checkpoint.state["schedule"])
        self.position = checkpoint.position
        self.metrics = [EpochMetrics(**epoch) for epoch in checkpoint.state["metrics"]]
        self.best_correlation = checkpoint.state["best_correlation"]
        self.is_finished = checkpoint.state["is_finished"]
        self._sums = EpochSums(**checkpoint.state["sums"][self._ranks.rank])
        self._best_weights = {name: tensor.to(self._device) for name, tensor in checkpoint.best_weights.items()}

    def _run_epoch(self, progress: Progress, saver: _Saver) -> EpochMetrics:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        sums = self.train_epoch(progress, saver)
        evaluated = time.perf_counter()
        evaluation = self._evaluate(saver)
        last_step = max(0, self._batches.n_batches - self._n_batches_per_step)
        learning_rate = self.schedule.learning_rate_at(last_step / self._batches.n_batches)
        learning_rate *= warm_up(self._config, self.position.n_steps - 1)
        decision = self.schedule.update(evaluation.scores[deciding_score(self._config)])
        if decision.improved:
            self.best_correlation = evaluation.pooled
            self._best_weights = dict(self._kept_weights())
        if decision.restores_best:
            # The weights alone: the optimizer keeps its moments, as the starter kit's does.
            self.model.load_state_dict(self._best_weights)
            if self._optimization.average is not None:
                self._optimization.average.reset(self._best_weights)
        of_all_ranks = self._ranks.gather(sums)
        metrics = EpochMetrics(
            epoch=self.position.epoch,
            train_loss=sum(s.loss for s in of_all_ranks) / sum(s.n_values for s in of_all_ranks),
            regularizer=sum(s.regularizer for s in of_all_ranks) / self._batches.n_batches,
            validation_loss=evaluation.loss,
            correlation=evaluation.pooled,
            correlations=evaluation.by_session,
            learning_rate=learning_rate,
            improved=decision.improved,
            duration_s=sums.training_s + time.perf_counter() - evaluated,
            windows_per_s=sums.n_windows / sums.training_s,
            data_wait_share=sums.waited_s / sums.training_s,
            scores=dict(evaluation.scores),
            gpu_memory_bytes=torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0,
            n_skipped_steps=self._optimization.n_skipped_steps - sums.n_skipped_steps,
        )
        self.metrics.append(metrics)
        self.position = Position(epoch=self.position.epoch + 1, n_steps=self.position.n_steps)
        self.is_finished = decision.stops
        saver.save(best_epoch=metrics.epoch if decision.improved else None)
        return metrics

    def _kept_weights(self) -> Mapping[str, torch.Tensor]:
        average = self._optimization.average
        if average is None:
            return copy_weights(self.model)
        return {name: tensor.clone() for name, tensor in average.weights.items()}

    def _evaluate(self, saver: _Saver) -> Evaluation:
        average = self._optimization.average
        try:
            with nullcontext() if average is None else average.applied_to(self.model):
                return evaluate(
                    self.model,
                    self._batches,
                    self._config,
                    ranks=self._ranks,
                    before_trial=saver.before_trial,
                )
        except _StopRequestedError:
            # Only now the model has its own weights again.
            saver.save_and_stop()

    def _initialize_biases(self) -> None:
        """Set each readout's bias from the mean activity in its session's first batch, as the starter kit does."""
        waiting = set(self._batches.sessions)
        with closing(self._batches.iter_batches(epoch=1)) as batches:
            while waiting:
                for part in next(batches).parts:
                    if part.session in waiting:
                        self.model.initialize_readout_bias(part.session, part.responses.mean(dim=(0, 2)).cpu())
                        waiting.discard(part.session)


class _Saver:
    """When checkpoints are saved, and when training stops on demand."""

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints | None,
        interruption: Interruption | None,
        ranks: Ranks,
        every_steps: int,
    ) -> None:
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._interruption = interruption
        self._ranks = ranks
        self._every_steps = every_steps

    def save(self, best_epoch: int | None = None) -> None:
        """Save a checkpoint; with an epoch, its weights are the best and are saved too. To be called on each rank."""
        trainer = self._trainer
        tensors, state = trainer.tensors(), trainer.state()
        if self._checkpoints is not None and self._ranks.is_first:
            if best_epoch is not None:
                self._checkpoints.save_best(trainer.best_weights, best_epoch)
            self._checkpoints.save(trainer.position, tensors, state)

    def after_step(self) -> None:
        """Save a checkpoint if it is time, or if training is to stop, which raises then."""
        if self._ranks.any(self._is_asked_to_stop):
            self.save_and_stop()
        if self._trainer.position.n_steps % self._every_steps == 0:
            self.save()

    def before_trial(self) -> None:
        """Raise if training is to stop."""
        # Ranks have different numbers of trials: they cannot agree here, and stop after the next step.
        if self._ranks.n_ranks == 1 and self._is_asked_to_stop:
            raise _StopRequestedError

    def save_and_stop(self) -> NoReturn:
        """Save a checkpoint, and raise what the signal stands for."""
        if self._trainer.position.epoch:
            self.save()
        if self._interruption is not None:
            self._interruption.raise_if_requested()
        raise KeyboardInterrupt  # Another rank was asked to.

    @property
    def _is_asked_to_stop(self) -> bool:
        return self._interruption is not None and self._interruption.is_requested


class _StopRequestedError(Exception):
    """Ends an evaluation."""


def _count_trials(data: RunData, batches: TrainingBatches) -> dict[str, SessionCount]:
    n_training = {trials.session: len(trials) for trials in batches.split.training}
    return {s.name: SessionCount(n_trials=s.n_trials, n_training_trials=n_training[s.name]) for s in data.sessions}


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
