"""The architecture of the frame-by-frame model, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from models.readout_settings import CoreSettings, require_frame_kernels

__all__ = ["Static2dConfig"]


class Static2dConfig(CoreSettings):
    """Layers, readouts and regularizers of :class:`models.static2d.model.Static2d`.

    The defaults are the SENSORIUM 2022 model with behavior, as it has been trained on the videos of 2023.
    """

    kind: Literal["static2d"] = Field(default="static2d", description="Which model this configures.")
    n_features: PositiveInt = Field(default=64, description="Channels of each layer.")
    kernels: tuple[PositiveInt, ...] = Field(
        default=(9, 7, 7, 7),
        min_length=1,
        description="Height and width of each layer's kernel, pixels; all but the first are odd and keep the size.",
    )
    stride: PositiveInt = Field(default=1, description="Step of the first layer's kernel, pixels.")
    n_frames_ignored: NonNegativeInt = Field(
        default=18, description="First frames of a window that are not predicted, as many as factorized3d loses."
    )
    batch_norm_momentum: float = Field(
        default=0.9, gt=0, le=1, description="Weight of the newest batch in the running mean and variance."
    )
    spatial_smoothness: float = Field(
        default=6.3831, ge=0, description="Weight of the penalty on roughness of the first layer's filters."
    )
    readout_init_sigma: float = Field(
        default=0.1,
        gt=0,
        description="Bound of the factors of each neuron's position covariance at first; the frame spans -1 to 1.",
    )
    readout_sparsity: float = Field(
        default=0.0076, ge=0, description="Weight of the penalty on the readouts' weights of the core's channels."
    )

    @property
    def n_channels(self) -> int:
        """Channels of the core's maps."""
        return self.n_features

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: those that are ignored, though none is needed."""
        return self.n_frames_ignored

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size, pixels: the first layer alone changes it."""
        height, width = ((side - self.kernels[0]) // self.stride + 1 for side in (height, width))
        return height, width

    @model_validator(mode="after")
    def _kernels_fit(self) -> Static2dConfig:
        require_frame_kernels(self.kernels)
        return self
