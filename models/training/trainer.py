"""The training loop.

Shape suffixes: B trials of a batch, N neurons, T frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from models.config import TrainingConfig
from models.inputs import to_tensors
from models.registry import build_model
from models.training.checkpointing import copy_weights
from models.training.evaluation import Evaluation, evaluate
from models.training.metrics import EpochMetrics
from models.training.objective import poisson_loss, scale_for_batch
from models.training.run import RunData
from models.training.schedule import Schedule, make_schedule
from sensorium_data.errors import RunError
from sensorium_data.loader import Batch, WindowLoader
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sampling import plan_batch
from sensorium_data.sessions import Tier

__all__ = ["TrainedEpoch", "Trainer"]

_TRAINED_ON = (Tier.TRAIN,)
_VALIDATED_ON = (Tier.ORACLE,)


@dataclass(frozen=True)
class TrainedEpoch:
    """What :meth:`Trainer.train_epoch` measured.

    Attributes
    ----------
    loss : float
        Poisson loss per neuron and frame.
    regularizer : float
        Mean over the batches.
    n_windows : int
        Windows trained on.
    duration_s, waited_s : float
        Time in all, and that spent waiting for batches.
    """

    loss: float
    regularizer: float
    n_windows: int
    duration_s: float
    waited_s: float


class Trainer:
    """A model, its optimizer, and an epoch at a time.

    Weights and the readouts' samples are drawn from torch's global random state, which the caller seeds.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    data : RunData
        What the model is built for.
    loader : WindowLoader
        Of the same sessions.
    device : torch.device
        Where to train.

    Attributes
    ----------
    model : ResponseModel
        Its weights change in place.
    schedule : Schedule
        From :meth:`fit` on.
    n_trials : int
        Training trials of all sessions.

    Raises
    ------
    UsageError
        If a session has no trials to train or validate on, or if its trials are shorter than the windows.
    """

    def __init__(self, config: TrainingConfig, data: RunData, loader: WindowLoader, device: torch.device) -> None:
        self._config = config
        self._loader = loader
        self._n_trials_by_session = {session.name: session.n_trials for session in data.sessions}
        trained_on = [loader.reader.select_trials(s.name, _TRAINED_ON, labelled=True) for s in data.sessions]
        for trials in trained_on:
            # What the first epoch would raise is raised now, before anything is written.
            plan_batch(
                trials,
                0,
                n_frames=config.n_frames_window,
                batch_size=config.batch_size,
                seed=config.seed,
                epoch=0,
            )
            loader.reader.select_trials(trials.session, _VALIDATED_ON, labelled=True)
        self.n_trials = sum(len(trials) for trials in trained_on)

        self._fabric = Fabric(accelerator=device.type, devices=1, precision=config.precision)
        self.model = build_model(config, data.neurons)
        self._initialize_biases()
        optimizer = torch.optim.AdamW(self._group_parameters(), weight_decay=config.weight_decay)
        self._prepared_model, self._optimizer = self._fabric.setup(self.model, optimizer)
        self.schedule: Schedule

    def fit(self, progress: Progress = ignore_progress) -> Iterator[EpochMetrics]:
        """Train to the end, yielding each epoch; afterwards the model has the best epoch's weights.

        Parameters
        ----------
        progress : Progress
            Told after every optimizer step, of those that all epochs would take.

        Raises
        ------
        RunError
            If the loss stops being a number.
        """
        config = self._config
        self.schedule = make_schedule(config, initial_score=self._evaluate().pooled)
        best_weights = copy_weights(self.model)
        for epoch in range(1, config.max_epochs + 1):
            started = time.perf_counter()
            learning_rate = self.schedule.learning_rate
            trained = self.train_epoch(epoch, progress)
            evaluation = self._evaluate()
            decision = self.schedule.update(evaluation.pooled)
            if decision.improved:
                best_weights = copy_weights(self.model)
            if decision.restores_best:
                # The weights alone: the optimizer keeps its moments, as the starter kit's does.
                self.model.load_state_dict(best_weights)
            self._set_learning_rate(decision.learning_rate)
            yield EpochMetrics(
                epoch=epoch,
                train_loss=trained.loss,
                regularizer=trained.regularizer,
                validation_loss=evaluation.loss,
                correlation=evaluation.pooled,
                correlations=evaluation.by_session,
                learning_rate=learning_rate,
                improved=decision.improved,
                duration_s=time.perf_counter() - started,
                windows_per_s=trained.n_windows / trained.duration_s,
                data_wait_share=trained.waited_s / trained.duration_s,
            )
            if decision.stops:
                return

    def train_epoch(self, epoch: int, progress: Progress = ignore_progress) -> TrainedEpoch:
        """Train on every batch of an epoch, counted from 1.

        The gradients of one batch of every session are summed, each of the scaled loss and the
        regularizer; then the weights move.

        Parameters
        ----------
        epoch : int
            Which one; it decides the windows.
        progress : Progress
            As in :meth:`fit`.
        """
        self._prepared_model.train()
        device = self._fabric.device
        n_sessions = len(self._loader.reader.sessions)
        n_batches = self._loader.count_batches(
            _TRAINED_ON,
            batch_size=self._config.batch_size,
            n_windows_per_trial=self._config.n_windows_per_trial,
        )
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        regularizer_sum = torch.zeros((), dtype=torch.float64, device=device)
        n_values = n_windows = 0
        waited_s = 0.0
        started = time.perf_counter()
        with closing(self._iter_batches(epoch)) as batches:
            for n_done in range(1, n_batches + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited_s += time.perf_counter() - asked

                inputs = to_tensors(batch, device)
                predictions_BNT = self._prepared_model(inputs.videos, inputs.pupil_center, batch.session)
                loss = poisson_loss(predictions_BNT, inputs.responses)
                regularizer = self.model.regularizer()
                scale = scale_for_batch(self._n_trials_by_session[batch.session], len(batch))
                self._fabric.backward(scale * loss + regularizer)
                if n_done % n_sessions == 0:
                    self._optimizer.step()
                    self._optimizer.zero_grad()
                    progress("train", (epoch - 1) * n_batches + n_done, self._config.max_epochs * n_batches)

                loss_sum += loss.detach()
                regularizer_sum += regularizer.detach()
                n_values += predictions_BNT.numel()
                n_windows += len(batch)
        loss_per_value = float(loss_sum) / n_values
        if not math.isfinite(loss_per_value):
            raise RunError(
                "the loss is no longer a number",
                found=f"{loss_per_value} in epoch {epoch}",
                remedy="lower the learning rate, or train in 32-bit precision",
            )
        return TrainedEpoch(
            loss=loss_per_value,
            regularizer=float(regularizer_sum) / n_batches,
            n_windows=n_windows,
            duration_s=time.perf_counter() - started,
            waited_s=waited_s,
        )

    def _group_parameters(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups: the core, and what each session has of its own."""
        in_core = set(self.model.core.parameters())
        others = [parameter for parameter in self.model.parameters() if parameter not in in_core]
        factor, learning_rate = self._config.core_learning_rate_factor, self._config.learning_rate
        return [
            {"params": list(self.model.core.parameters()), "factor": factor, "lr": factor * learning_rate},
            {"params": others, "factor": 1.0, "lr": learning_rate},
        ]

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate

    def _evaluate(self) -> Evaluation:
        return evaluate(
            self._prepared_model,
            self._loader,
            _VALIDATED_ON,
            n_frames_skipped=self._config.skip_frames,
            device=self._fabric.device,
        )

    def _initialize_biases(self) -> None:
        """Set each readout's bias from the mean activity in its session's first batch, as the starter kit does."""
        with closing(self._iter_batches(epoch=1)) as batches:
            for _ in self._loader.reader.sessions:
                batch = next(batches)
                mean_N = torch.from_numpy(batch.responses).mean(dim=(0, 2))
                self.model.initialize_readout_bias(batch.session, mean_N)

    def _iter_batches(self, epoch: int) -> Generator[Batch, None, None]:
        # Epochs count from 1 for people and from 0 for sampling.
        return self._loader.iter_batches(
            _TRAINED_ON,
            n_frames=self._config.n_frames_window,
            batch_size=self._config.batch_size,
            seed=self._config.seed,
            epoch=epoch - 1,
            n_windows_per_trial=self._config.n_windows_per_trial,
        )
