"""The settings of a recipe, in groups: what is trained on, what is minimized, how, for how long, and on what machine.

:class:`models.config.TrainingConfig` has them all, side by side: ``--set batch_size=4`` names one whatever its group.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from sensorium_data.sessions import Tier
from sensorium_data.store import format_exclusions, parse_exclusions
from sensorium_data.windows import NanPolicy, normalize_neurons

__all__ = [
    "DataSettings",
    "EvaluationSettings",
    "LossSettings",
    "MachineSettings",
    "OptimizerSettings",
    "Precision",
    "PredictionSettings",
    "RankSettings",
    "ScheduleSettings",
    "Settings",
]


#: Numbers that a model computes with.
Precision: TypeAlias = Literal["32-true", "bf16-mixed", "16-mixed"]


class Settings(BaseModel):
    """What every group has in common: settings are known by name, and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(Settings):
    """Which windows of which trials a model is trained on, and on which scale."""

    n_frames_window: PositiveInt = Field(default=80, description="Frames of a training window.")
    window_stride: PositiveInt = Field(default=1, description="Take every so many-th frame of the video.")
    window_position: Literal["random", "tiling"] = Field(
        default="random", description="Where windows are cut: anywhere, or one beside the other."
    )
    n_windows_per_trial: PositiveInt = Field(
        default=1, description="Windows drawn from each trial in an epoch; validation follows an epoch."
    )
    n_windows_per_session: PositiveInt | None = Field(
        default=None, description="Windows of each session in an epoch, with replacement (session_balance mixed)."
    )
    session_balance: Literal["in_turn", "mixed"] = Field(
        default="in_turn", description="One session a batch, in turn; or all sessions mixed in every batch."
    )
    batch_size: PositiveInt = Field(
        default=8, description="Windows of a batch: of one session, or of all that it mixes."
    )
    n_trials_shuffled: PositiveInt = Field(
        default=128, description="Trials, of all sessions, over which the windows of one are spread; so many are held."
    )
    tiers: tuple[Tier, ...] = Field(
        default=(Tier.TRAIN,), min_length=1, description="Tiers to train on; withheld responses cannot be."
    )
    n_folds: int | None = Field(
        default=None, ge=2, description="Parts that the tiers are split into, movies kept together; none: no split."
    )
    fold_rule: Literal["movies", "dwiseneuro"] = Field(
        default="movies",
        description="What decides a trial's fold: its movie group; or a hash of five frames, as DwiseNeuro's.",
    )
    fold: int | None = Field(
        default=None, ge=0, description="Which part is validated on in place of the oracle tier, from 0."
    )
    exclude: tuple[str, ...] = Field(default=(), description="Trials left out of everything, e.g. F:17,G:4.")
    nan_policy: str = Field(
        default="refuse",
        description="Trials with NaN in behavior or pupil center: refuse, interpolate:N (up to N frames), drop-trial.",
    )
    n_trials: PositiveInt | None = Field(
        default=None, description="Train on so many trials of each session, drawn whatever the seed; none: all."
    )
    neurons: str | None = Field(
        default=None, description="Neurons of each session: how many, or their unit ids, e.g. 1-50,73; none: all."
    )
    min_reliability: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Leave out neurons with an oracle correlation below this; none: keep all.",
    )
    input_layout: Literal["starter-kit", "dwiseneuro", "vivit", "vivit-closed-loop", "video"] = Field(
        default="starter-kit", description="Whose models' video it is: its channels beside the video, and its padding."
    )
    normalization: Literal["competition", "dwiseneuro", "vivit", "vivit-legacy", "vivit-closed-loop", "none"] = Field(
        default="competition", description="Scale of inputs and responses; competition: the archive's own statistics."
    )
    seed: int = Field(default=42, ge=0, lt=2**63, description="Seed of the weights, the windows and their order.")

    # Equal choices are written alike, so that they are the same run.

    @field_validator("exclude")
    @classmethod
    def _exclusions_have_a_form(cls, exclude: tuple[str, ...]) -> tuple[str, ...]:
        return format_exclusions(parse_exclusions(exclude))

    @field_validator("nan_policy")
    @classmethod
    def _nan_policy_exists(cls, nan_policy: str) -> str:
        return str(NanPolicy.parse(nan_policy))

    @field_validator("neurons")
    @classmethod
    def _neurons_have_a_form(cls, neurons: str | None) -> str | None:
        return None if neurons is None else normalize_neurons(neurons)

    @property
    def selects_neurons(self) -> bool:
        """Whether some neurons may be left out."""
        return self.neurons is not None or self.min_reliability is not None

    @model_validator(mode="after")
    def _windows_are_defined(self) -> DataSettings:
        if self.session_balance == "mixed" and self.n_windows_per_session is None:
            raise ValueError("session_balance mixed needs n_windows_per_session: it says how long an epoch is")
        if self.session_balance == "in_turn" and self.n_windows_per_session is not None:
            raise ValueError(
                "n_windows_per_session is for session_balance mixed: in turn, the largest session ends an epoch"
            )
        if self.window_position == "tiling" and self.n_windows_per_trial != 1:
            raise ValueError("window_position tiling covers each trial once: n_windows_per_trial must be 1")
        if len(set(self.tiers)) != len(self.tiers):
            raise ValueError("a tier is named twice")
        return self

    @model_validator(mode="after")
    def _validation_is_apart(self) -> DataSettings:
        if (self.n_folds is None) != (self.fold is None):
            raise ValueError("n_folds and fold belong together: into how many parts, and which one is validated on")
        if self.n_folds is not None and self.fold is not None and self.fold >= self.n_folds:
            raise ValueError(f"fold {self.fold} is not one of {self.n_folds}: they count from 0")
        if self.n_folds is None and Tier.ORACLE in self.tiers:
            raise ValueError("the oracle tier is validated on: to train on it, set n_folds and fold too")
        return self


class LossSettings(Settings):
    """What is minimized, and what the batches are changed by before."""

    loss: Literal["poisson", "poisson-correlation"] = Field(
        default="poisson", description="Poisson loss; or that and the neurons' correlations, as ViV1T of 2023."
    )
    correlation_weight: float = Field(
        default=1000.0, ge=0, description="Weight of one neuron's correlation (loss poisson-correlation)."
    )
    loss_scale: Literal["starter-kit", "dwiseneuro", "dynamic-v1fm", "vivit", "vivit-closed-loop"] = Field(
        default="starter-kit", description="Whose rule weighs batches and sessions; models/training/objective.py."
    )
    loss_epsilon: float | None = Field(
        default=None, gt=0, description="Keeps logarithms finite; by default that of the rule's reference."
    )
    cutmix_probability: float = Field(
        default=0.0, ge=0, le=1, description="Share of windows that get a box of another window's video."
    )
    cutmix_alpha: float = Field(default=1.0, gt=0, description="The boxes' areas follow Beta(alpha, alpha).")
    teacher: str | None = Field(
        default=None, description="Folder of a finished run whose predictions are learned for the other sessions."
    )
    distillation_ratio: float | None = Field(
        default=None, gt=0, lt=1, description="Share of the loss's weight that the teacher's predictions have."
    )

    @model_validator(mode="after")
    def _losses_go_together(self) -> LossSettings:
        # A ratio alone is a preset that waits for its teacher; training asks for it.
        if self.teacher is not None and self.distillation_ratio is None:
            raise ValueError("a teacher needs a distillation_ratio; DwiseNeuro's is 0.36")
        if self.teacher is not None and self.loss != "poisson":
            raise ValueError(f"distillation weighs single windows, which loss {self.loss} cannot: choose poisson")
        return self


class OptimizerSettings(Settings):
    """How the weights move."""

    optimizer: Literal["adamw", "schedule-free-adamw"] = Field(
        default="adamw", description="AdamW; or the one that averages its weights and needs no falling learning rate."
    )
    schedule_free_warmup_steps: int = Field(
        default=400, ge=0, description="Steps in which the learning rate rises (optimizer schedule-free-adamw)."
    )
    learning_rate: float = Field(default=0.005, gt=0, description="Learning rate of AdamW at first.")
    core_learning_rate_factor: float = Field(
        default=1.0, gt=0, description="What the core's learning rate is multiplied with; the readouts' is not."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Weight decay of AdamW, on every parameter.")
    core_weight_decay: float | None = Field(
        default=None, ge=0, description="Another weight decay for the core; by default the same."
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Decay of AdamW's two moments.")
    n_batches_per_step: PositiveInt | None = Field(
        default=None,
        description="Batches whose gradients are summed for a step; by default one of each session, or one mixed.",
    )
    max_gradient_norm: float | None = Field(
        default=None, gt=0, description="Longer gradients are shortened to this norm."
    )
    gradient_norm_percentile: float | None = Field(
        default=None, gt=0, le=100, description="The same to this percentile of all norms so far (AutoClip)."
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="Validate and keep a running mean of the weights, of this decay a step."
    )
    precision: Precision = Field(default="32-true", description="Numbers that the model computes with.")

    @model_validator(mode="after")
    def _moments_and_clipping_make_sense(self) -> OptimizerSettings:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must be at least 0 and below 1")
        if self.max_gradient_norm is not None and self.gradient_norm_percentile is not None:
            raise ValueError("gradients are clipped by max_gradient_norm or by gradient_norm_percentile, not by both")
        if self.optimizer == "schedule-free-adamw" and self.ema_decay is not None:
            raise ValueError("optimizer schedule-free-adamw averages the weights itself: leave ema_decay unset")
        if self.optimizer == "schedule-free-adamw" and not self.betas[0]:
            raise ValueError("optimizer schedule-free-adamw needs a first beta above 0")
        return self


class ScheduleSettings(Settings):
    """How long training takes, and how the learning rate goes meanwhile."""

    schedule: Literal["plateau", "restarts", "cosine"] = Field(
        default="plateau",
        description="How the learning rate falls: when the score stops growing; then, and with the best weights back; "
        "or along half a cosine.",
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="Epochs at first in which the learning rate rises from 0, step by step."
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="The same in steps, from warmup_start_factor on; on top of the schedule."
    )
    warmup_start_factor: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the learning rate that the first of warmup_steps has."
    )
    constant_epochs: int = Field(
        default=0,
        ge=0,
        description="Epochs after the warm-up before the learning rate falls, if any come then (schedule cosine).",
    )
    max_epochs: PositiveInt = Field(default=200, description="Epochs after which training stops in any case.")
    early_stopping_patience: PositiveInt = Field(
        default=5,
        description="Epochs without a better score after which the best weights are restored (plateau, restarts).",
    )
    n_rounds: PositiveInt = Field(
        default=4,
        description="How often that may happen before training stops: in all (plateau), or since the last better score "
        "(restarts).",
    )
    tolerance: float = Field(default=1e-6, ge=0, description="By how much a score must be better to count as better.")
    plateau_factor: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="What the learning rate is multiplied with on a plateau, or at a restart.",
    )
    plateau_patience: int = Field(
        default=5,
        ge=0,
        description="Epochs without a better score that are no plateau yet; one more is (schedule plateau).",
    )
    collapse_score: float | None = Field(
        default=None,
        gt=0,
        description="Restore the best weights after an epoch with a score of 0.00 or less once the best one was at "
        "least this; none: never (schedule restarts).",
    )
    min_learning_rate: float = Field(default=1e-4, ge=0, description="The learning rate never falls below this.")
    keeps: Literal["best", "last"] = Field(
        default="best", description="Whose weights are kept: the epoch's of the best score, or the last one's (cosine)."
    )

    @model_validator(mode="after")
    def _what_is_kept_makes_sense(self) -> ScheduleSettings:
        if self.keeps == "last" and self.schedule != "cosine":
            raise ValueError(
                f"schedule {self.schedule} goes back to the best weights: keeps last needs schedule cosine"
            )
        if self.collapse_score is not None and self.schedule != "restarts":
            raise ValueError(f"collapse_score is for schedule restarts, not {self.schedule}")
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> ScheduleSettings:
        if self.warmup_epochs >= self.max_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} leave none of max_epochs {self.max_epochs} for the schedule: "
                f"set warmup_epochs to {self.max_epochs - 1} or less"
            )
        return self

    @model_validator(mode="after")
    def _constant_epochs_make_sense(self) -> ScheduleSettings:
        if self.constant_epochs and self.schedule != "cosine":
            raise ValueError(f"constant_epochs are for schedule cosine, not {self.schedule}")
        return self


class EvaluationSettings(Settings):
    """What an epoch is judged by."""

    skip_frames: int = Field(
        default=50, ge=0, description="Frames at the start of a trial that validation does not score."
    )
    score: Literal["pooled", "session_mean", "reference"] = Field(
        default="pooled",
        description="The score that schedule and best weights follow: single-trial correlation over all neurons, the "
        "mean of the sessions' means, or what the normalization's own reference computes.",
    )


class PredictionSettings(Settings):
    """How a model that was trained on windows predicts whole trials."""

    prediction_windows: Literal["whole", "sliding"] = Field(
        default="whole",
        description="A trial at once; or windows as long as in training, averaged where they overlap.",
    )
    prediction_hop: PositiveInt = Field(
        default=1, description="Frames from the start of a sliding window to that of the next."
    )
    prediction_offset: int = Field(
        default=0,
        ge=0,
        description="Frame that the first sliding window starts at; other windows fill in what these leave.",
    )
    validation_hop: PositiveInt | None = Field(
        default=None, description="Another hop for validation, which follows every epoch; none: the same."
    )


class RankSettings(Settings):
    """Over how many processes batches are spread."""

    # Not with the machine: batch norm sees the rows of one process alone, so this changes what is learned.
    n_devices: PositiveInt = Field(
        default=1, description="Devices to train on, a process each; more than one are started by torchrun."
    )


class MachineSettings(Settings):
    """What changes how fast a run is and what it needs, and not what it learns: no part of what a run is known by."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto takes a GPU if there is one."
    )
    compile: bool = Field(default=False, description="Compile the core with torch.compile: slower at first.")
    cache: Literal["auto", "none", "memory", "device"] = Field(
        default="auto", description="Where trials are kept that were read: nowhere, in memory, or on the GPU."
    )
    cache_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Memory for trials that are kept; by default a quarter of the machine's, or half of the GPU's.",
    )
    checkpoint_every_steps: PositiveInt = Field(
        default=500, description="Optimizer steps between two checkpoints; the end of an epoch gets one too."
    )
    keep_checkpoints: PositiveInt = Field(default=2, description="How many of the last checkpoints are kept.")
