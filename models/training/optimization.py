"""One model and its optimizer: gradients of batches are added up, then the weights move.

Shape suffixes: B windows of a batch, C channels, N neurons, T frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from models.config import TrainingConfig
from models.inputs import ModelInputs
from models.response_model import ResponseModel, require_penalty, require_predictions
from models.training.batches import TrainingBatch
from models.training.clipping import PercentileClipping, make_clipping
from models.training.cutmix import CutMix
from models.training.distillation import Distillation
from models.training.ema import WeightAverage
from models.training.objective import Objective
from models.training.ranks import Ranks
from models.training.schedule_free import ScheduleFreeAverage
from sensorium_data.errors import RunError, UsageError

if TYPE_CHECKING:
    from lightning_fabric.plugins import Precision

__all__ = ["BatchLoss", "Optimization"]


@dataclass(frozen=True)
class BatchLoss:
    """What a batch came to, on this rank.

    Attributes
    ----------
    loss : float
        Poisson loss of the recorded responses, summed over windows, neurons and frames.
    n_values : int
        How many those are.
    regularizer : float
        As added; 0 on all ranks but the first.
    """

    loss: float
    n_values: int
    regularizer: float


class Optimization:
    """Moves a model's weights as a recipe says.

    Parameters
    ----------
    config : TrainingConfig
        The recipe.
    model : ResponseModel
        On ``device``; its weights change in place.
    objective : Objective
        What is minimized.
    n_neurons : mapping of str to int
        Of each session.
    device : torch.device
        Where.
    ranks : Ranks
        This process among others.
    distillation : Distillation, optional
        The teacher, if there is one.

    Attributes
    ----------
    average : WeightAverage, ScheduleFreeAverage or None
        The running mean of the weights, if the recipe has one, or the optimizer.
    n_skipped_steps : int
        Steps that 16-bit gradients were too large for, so that the weights stayed. The next ones are scaled down.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: ResponseModel,
        objective: Objective,
        n_neurons: Mapping[str, int],
        device: torch.device,
        ranks: Ranks,
        distillation: Distillation | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._objective = objective
        self._n_neurons = dict(n_neurons)
        self._ranks = ranks
        self._distillation = distillation
        self._cutmix = CutMix(config.cutmix_probability, config.cutmix_alpha) if config.cutmix_probability > 0 else None
        self._clipping = make_clipping(config)
        self._scaler = torch.amp.GradScaler(device.type) if config.precision == "16-mixed" else None
        # Fabric takes longer to import than torch: only those who train wait for it.
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import SingleDeviceStrategy

        self._fabric = Fabric(
            accelerator=device.type,
            strategy=SingleDeviceStrategy(device, precision=_make_precision(config, device, self._scaler)),
        )
        self._parameters = dict(model.named_parameters())
        self.average: WeightAverage | ScheduleFreeAverage | None = None
        self._optimizer: torch.optim.Optimizer
        if config.optimizer == "schedule-free-adamw":
            from schedulefree import AdamWScheduleFree

            self._optimizer = AdamWScheduleFree(
                self._group_parameters(), betas=config.betas, warmup_steps=config.schedule_free_warmup_steps
            )
            self.average = ScheduleFreeAverage(model, self._optimizer)
        else:
            self._optimizer = torch.optim.AdamW(self._group_parameters(), betas=config.betas)
            if config.ema_decay is not None:
                self.average = WeightAverage(model, config.ema_decay)
        self.n_skipped_steps = 0

    def accumulate(self, batch: TrainingBatch, *, seed: tuple[int, ...]) -> BatchLoss:
        """Add a batch's gradient to those that wait for :meth:`step`.

        Parameters
        ----------
        batch : TrainingBatch
            This rank's rows of it.
        seed : tuple of int
            Of what is drawn for this batch.

        Raises
        ------
        RunError
            If the loss is not a finite number; the message names the session, the trial and the frame.
        UsageError
            If the model returns another shape than it should.
        """
        weights = self._objective.weigh(batch.n_windows)
        missing_weight = 0.0
        if self._distillation is not None:
            weights, missing_weight = self._distillation.share_weights(weights, batch.n_windows)
        own = batch.parts
        if not own:
            # With fewer rows than ranks there is nothing to do here but to take part in the others' sums.
            self._join_correlations(batch.n_windows)
            return BatchLoss(0.0, 0, 0.0)
        parts = [self._change(part, (*seed, index, self._ranks.rank)) for index, part in enumerate(own)]
        videos_BCTHW = torch.cat([part.videos for part in parts]) if len(parts) > 1 else parts[0].videos
        pupil_B2T = torch.cat([part.pupil_center for part in parts]) if len(parts) > 1 else parts[0].pupil_center
        wanted = list(zip([part.session for part in own], _row_slices(parts), strict=True))
        untold = [
            (other, part_rows)
            for session, part_rows in wanted
            for other in (self._distillation.list_missing(session) if self._distillation is not None else ())
        ]
        with self._fabric.autocast():
            predictions = self._model.predict_rows(videos_BCTHW, pupil_B2T, wanted + untold)
            for (session, rows), prediction in zip(wanted + untold, predictions, strict=True):
                require_predictions(
                    prediction,
                    session=session,
                    n_rows=rows.stop - rows.start,
                    n_neurons=self._n_neurons[session],
                    n_frames=videos_BCTHW.shape[2] - self._model.n_frames_lost,
                )
            taught = self._distillation.predict(videos_BCTHW, pupil_B2T, untold) if self._distillation else []

        total = videos_BCTHW.new_zeros(())
        loss, n_values = 0.0, 0
        by_session = dict(zip([part.session for part in own], range(len(own)), strict=True))
        for session in batch.n_windows:
            if session not in by_session:
                self._join_correlations([session])
                continue
            index = by_session[session]
            prediction_BNT, responses_BNT = predictions[index].float(), parts[index].responses
            poisson = self._objective.poisson(prediction_BNT, responses_BNT)
            value = float(poisson.detach())
            if not math.isfinite(value):
                raise _explain_loss(value, parts[index], prediction_BNT)
            loss += value
            n_values += prediction_BNT.numel()
            correlation = self._objective.correlation(prediction_BNT, responses_BNT, sum_over_ranks=self._ranks.sum)
            # The scale first: in one process with one session, this is the sum that the references form.
            total = total + weights[session] * (poisson if correlation is None else poisson + correlation)
        for student_BNT, teacher_BNT in zip(predictions[len(wanted) :], taught, strict=True):
            n_frames = min(student_BNT.shape[-1], teacher_BNT.shape[-1])
            total = total + missing_weight * self._objective.poisson(
                student_BNT[..., -n_frames:].float(), teacher_BNT[..., -n_frames:].float()
            )
        regularizer = 0.0
        if self._ranks.is_first:
            penalty = require_penalty(self._model.regularizer())
            for session in batch.n_windows:
                own_penalty = self._model.session_regularizer(session)
                penalty = penalty if own_penalty is None else penalty + require_penalty(own_penalty)
            total = total + penalty
            regularizer = float(penalty.detach())
        if not total.requires_grad:
            raise UsageError(
                "the predictions of the model do not depend on its weights",
                remedy="look for detach(), torch.no_grad() or NumPy in what the model computes",
            )
        self._fabric.backward(total)
        return BatchLoss(loss, n_values, regularizer)

    def step(self, learning_rate: float) -> None:
        """Move the weights along the gradients that were added up over batches and ranks.

        Parameters
        ----------
        learning_rate : float
            Of the readouts; the core's is multiplied with its factor.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate
        self._ranks.sum_gradients(self._parameters.values())
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        if self._clipping is not None:
            self._clipping.clip(self._parameters.values())
        if self._scaler is None:
            self._optimizer.step()
        else:
            scale = self._scaler.get_scale()
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self.n_skipped_steps += self._scaler.get_scale() < scale
        self._optimizer.zero_grad()
        self._ranks.average_buffers(self._model)
        if self.average is not None:
            self.average.update(self._model)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor that the next step depends on, by name."""
        tensors = {f"model/{name}": tensor for name, tensor in self._model.state_dict().items()}
        for name, parameter in self._parameters.items():
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{moment}/{name}"] = value
        if isinstance(self.average, WeightAverage):
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.weights.items()}
        if isinstance(self._clipping, PercentileClipping):
            tensors["clipping/norms"] = self._clipping.norms
        return tensors

    def state(self) -> dict[str, Any]:
        """Return what else it depends on, as JSON has it."""
        scaler = {} if self._scaler is None else self._scaler.state_dict()
        counted = {"schedule_free": self.average.state()} if isinstance(self.average, ScheduleFreeAverage) else {}
        return {"scaler": scaler, "n_skipped_steps": self.n_skipped_steps, **counted}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Go on from :meth:`tensors` and :meth:`state`.

        Raises
        ------
        RunError
            If they are of another model.
        """
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = tensor
        require_same_weights(self._model, groups.get("model", {}))
        self._model.load_state_dict(groups["model"])
        self._optimizer.state.clear()
        for name, value in groups.get("optimizer", {}).items():
            moment, _, parameter_name = name.partition("/")
            parameter = self._parameters[parameter_name]
            # AdamW counts steps on the CPU.
            place = value if moment == "step" else value.to(parameter.device)
            self._optimizer.state[parameter][moment] = place
        if isinstance(self.average, WeightAverage):
            self.average.reset(groups["average"])
        elif self.average is not None:
            self.average.restore(state["schedule_free"])
        if isinstance(self._clipping, PercentileClipping):
            self._clipping.norms = groups["clipping"]["norms"]
        if self._scaler is not None:
            self._scaler.load_state_dict(dict(state["scaler"]))
        self.n_skipped_steps = state["n_skipped_steps"]

    def _group_parameters(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups: the core, and what each session has of its own."""
        config = self._config
        in_core = set(self._model.core.parameters())
        others = [parameter for parameter in self._model.parameters() if parameter not in in_core]
        core_decay = config.weight_decay if config.core_weight_decay is None else config.core_weight_decay
        factor, rate = config.core_learning_rate_factor, config.learning_rate
        return [
            {
                "params": list(self._model.core.parameters()),
                "factor": factor,
                "lr": factor * rate,
                "weight_decay": core_decay,
            },
            {"params": others, "factor": 1.0, "lr": rate, "weight_decay": config.weight_decay},
        ]

    def _change(self, inputs: ModelInputs, seed: tuple[int, ...]) -> ModelInputs:
        return inputs if self._cutmix is None else self._cutmix.mix(inputs, seed)

    def _join_correlations(self, sessions: Iterable[str]) -> None:
        """Take part in the sums over ranks of the correlation loss with no row."""
        if self._ranks.n_ranks == 1 or self._config.loss != "poisson-correlation":
            return
        device = next(iter(self._parameters.values())).device
        n_frames = self._config.n_frames_window - self._model.n_frames_lost
        for session in sessions:
            empty_BNT = torch.empty((0, self._n_neurons[session], n_frames), device=device)
            self._objective.correlation(empty_BNT, empty_BNT, sum_over_ranks=self._ranks.sum)


def require_same_weights(model: ResponseModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that weights are those of a model by names and shapes.

    Raises
    ------
    RunError
        If they are not; the message names the first one.
    """
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        shapes = [tuple(side[name].shape) if name in side else "nothing" for side in (weights, wanted)]
        if shapes[0] != shapes[1]:
            raise RunError(
                f"the checkpoint is of another model: {name}",
                found=shapes[0],
                expected=shapes[1],
                remedy="use the version of this package that saved it, or restart the run",
            )


def _make_precision(config: TrainingConfig, device: torch.device, scaler: torch.amp.GradScaler | None) -> Precision:
    from lightning_fabric.plugins import MixedPrecision, Precision

    if config.precision == "32-true":
        return Precision()
    return MixedPrecision(config.precision, device.type, scaler=scaler)


def _row_slices(parts: Sequence[ModelInputs]) -> list[slice]:
    """Return each part's rows in the parts joined."""
    slices, start = [], 0
    for part in parts:
        slices.append(slice(start, start + len(part.videos)))
        start += len(part.videos)
    return slices


def _explain_loss(value: float, inputs: ModelInputs, predictions_BNT: torch.Tensor) -> RunError:
    """Return the error that says where the numbers stopped being finite."""
    predictions_BNT = predictions_BNT.detach()
    n_lost = inputs.n_frames - predictions_BNT.shape[-1]
    if (predictions_BNT < 0).any():
        return RunError(
            "the model predicts negative responses, of which there is no Poisson loss",
            session=inputs.session,
            trial=inputs.trials[int((predictions_BNT < 0).flatten(1).any(dim=1).nonzero()[0])],
            found=f"{float(predictions_BNT.min()):.4g}",
            expected="0 or more",
            remedy="let the model end in ELU + 1 (models.layers.elu1) or softplus",
        )
    for what, tensor, first in (
        ("the video", inputs.videos.transpose(1, 2), 0),
        ("the pupil's center", inputs.pupil_center.transpose(1, 2), 0),
        ("the responses", inputs.responses.transpose(1, 2), 0),
        ("the predictions", predictions_BNT.transpose(1, 2), n_lost),
    ):
        # Each is (batch, time, …) now.
        bad_BT = ~torch.isfinite(tensor.flatten(2)).all(dim=2)
        if bad_BT.any():
            window, frame = (int(index) for index in bad_BT.nonzero()[0])
            is_data = what != "the predictions"
            return RunError(
                f"{what} of a batch holds what is no number" if is_data else "the loss is no longer a number",
                session=inputs.session,
                trial=inputs.trials[window],
                found=f"{value:.4g} in {what}, first at frame "
                f"{inputs.first_frames[window] + inputs.stride * (first + frame)}",
                remedy="verify the store"
                if is_data
                else "lower the learning rate, clip gradients, or train in 32-bit precision",
            )
    return RunError(
        "the loss is no longer a number",
        session=inputs.session,
        trial=inputs.trials[0],
        found=f"{value:.4g} of finite predictions and responses",
        remedy="lower the learning rate, or train in 32-bit precision",
    )
