"""The architecture of Dynamic-V1FM, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from models.model_config import Depth, Kernel, Width
from models.readout_settings import CoreSettings

__all__ = ["LEVELS", "DynamicV1fmConfig"]

#: How many neurons share a weight at each coarse level of a readout.
LEVELS = (2, 4, 8, 16)

_Sizes = tuple[Kernel, Kernel, Kernel]


class DynamicV1fmConfig(CoreSettings):
    """Layers and readouts of :class:`models.dynamic_v1fm.model.DynamicV1fm`.

    The defaults are the plain one of the 31 models that were second in SENSORIUM 2023.
    """

    kind: Literal["dynamic-v1fm"] = Field(default="dynamic-v1fm", description="Which model this configures.")
    n_frames: Width = Field(
        default=30, description="Frames of the windows that the model takes; no others, also in predictions."
    )
    channels: Width = Field(default=224, description="Channels of the core; a multiple of heads.")
    patch_size: _Sizes = Field(
        default=(2, 2, 2), description="Frames, rows and columns of the video that make a token; the core's maps."
    )
    window_size: _Sizes = Field(
        default=(8, 7, 7), description="Steps, rows and columns of tokens that see each other in attention."
    )
    n_blocks: Depth = Field(default=4, description="Blocks of attention and a perceptron.")
    n_heads: Depth = Field(default=4, description="Heads of the attention.")
    perceptron_units: Width = Field(
        default=488, description="Hidden units of the perceptrons, which see the tokens around their own."
    )
    readout: Literal["gaussian"] = Field(
        default="gaussian", description="What a neuron sees of the core's map: a place."
    )
    readout_init_sigma: float = Field(
        default=0.2,
        gt=0,
        description="Bound of the factors of each neuron's position covariance at first; the frame spans -1 to 1.",
    )
    readout_units: PositiveInt = Field(
        default=32, description="Hidden units that predict a neuron's place in the frame from its place in the cortex."
    )
    shifter_units: PositiveInt = Field(
        default=16, description="Hidden units that predict the shift of the frame from the pupil's center."
    )
    levels: tuple[PositiveInt, ...] = Field(
        default=(), description="Coarse levels whose responses are fused with the neurons' own, of 2, 4, 8, 16."
    )
    fusion: Literal["mean", "adaptive"] = Field(
        default="mean", description="How levels are fused: their mean, or a sum of weights that their means decide."
    )

    @property
    def n_channels(self) -> int:
        """Channels of the core's maps."""
        return self.channels

    @property
    def required_window(self) -> int:
        """Frames of the only windows that the model takes."""
        return self.n_frames

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: a token of two frames stands for one of the last."""
        return self.n_frames - self.n_frames // self.patch_size[0]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size: how many patches it takes."""
        return -(-height // self.patch_size[1]), -(-width // self.patch_size[2])

    @model_validator(mode="after")
    def _sizes_fit(self) -> DynamicV1fmConfig:
        if self.n_frames % self.patch_size[0]:
            raise ValueError(
                f"n_frames {self.n_frames} must be a multiple of the {self.patch_size[0]} frames of a patch"
            )
        if self.channels % self.n_heads or self.channels % self.patch_size[0]:
            raise ValueError(
                f"channels {self.channels} must be a multiple of n_heads, {self.n_heads}, and of the frames of a "
                f"patch, {self.patch_size[0]}"
            )
        if self.levels != tuple(level for level in LEVELS if level in self.levels):
            raise ValueError(f"levels {self.levels} must be some of {LEVELS}, in this order")
        return self
