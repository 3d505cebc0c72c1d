"""The architecture of the factorized 3D model, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from models.model_config import ModelConfig
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["Factorized3dConfig"]


class Factorized3dConfig(ModelConfig):
    """Layers, readouts and regularizers of :class:`models.factorized3d.model.Factorized3d`.

    The defaults are the benchmark of the SENSORIUM 2023 starter kit.
    """

    kind: Literal["factorized3d"] = Field(default="factorized3d", description="Which model this configures.")
    channels: tuple[PositiveInt, ...] = Field(
        default=(32, 64, 128), min_length=1, description="Output channels of each layer."
    )
    spatial_kernels: tuple[PositiveInt, ...] = Field(
        default=(11, 5, 5), description="Height and width of each layer's spatial kernel, pixels."
    )
    temporal_kernels: tuple[PositiveInt, ...] = Field(
        default=(11, 5, 5), description="Length of each layer's temporal kernel, frames; it looks back only."
    )
    spatial_strides: tuple[PositiveInt, ...] = Field(
        default=(1, 1, 1), description="Step of each layer's spatial kernel, pixels."
    )
    pads_frames: bool = Field(
        default=False, description="Pad frames with zeros, by half a kernel on each side; time is never padded."
    )
    batch_norm_momentum: float = Field(
        default=0.7, gt=0, le=1, description="Weight of the newest batch in the running mean and variance."
    )
    spatial_smoothness: float = Field(
        default=10.0, ge=0, description="Weight of the penalty on roughness of the first layer's spatial filters."
    )
    temporal_smoothness: float = Field(
        default=0.01, ge=0, description="Weight of the penalty on roughness of the first layer's temporal filters."
    )
    readout_init_sigma: float = Field(
        default=1.0,
        gt=0,
        description="Bound of the factors of each neuron's position covariance at first; the frame spans -1 to 1.",
    )
    readout_units: PositiveInt = Field(
        default=30, description="Hidden units that predict a neuron's place in the frame from its place in the cortex."
    )
    starts_at_mean_response: bool = Field(
        default=False,
        description="Start from predictions of the mean response, instead of about 1 above it as the starter kit does.",
    )
    shifter_units: PositiveInt = Field(
        default=5, description="Hidden units that predict the shift of the frame from the pupil's center."
    )

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: the temporal kernels look back on them."""
        return sum(length - 1 for length in self.temporal_kernels)

    @model_validator(mode="after")
    def _layers_agree(self) -> Factorized3dConfig:
        by_layer = ("channels", "spatial_kernels", "temporal_kernels", "spatial_strides")
        lengths = [len(getattr(self, name)) for name in by_layer]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"{', '.join(by_layer)} need one entry a layer each, but have {', '.join(map(str, lengths))}"
            )
        size = min(FRAME_HEIGHT, FRAME_WIDTH)
        for kernel, stride in zip(self.spatial_kernels, self.spatial_strides, strict=True):
            size += 2 * (kernel // 2) * self.pads_frames - kernel
            if size < 0:
                raise ValueError(
                    f"spatial kernels {self.spatial_kernels} leave nothing of a {FRAME_HEIGHT} × {FRAME_WIDTH} frame"
                )
            size = size // stride + 1
        return self
