"""The architecture of the factorized 3D model, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from models.readout_settings import CoreSettings
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["Factorized3dConfig"]


class Factorized3dConfig(CoreSettings):
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

    @property
    def n_channels(self) -> int:
        """Channels of the core's maps."""
        return self.channels[-1]

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: the temporal kernels look back on them."""
        return sum(length - 1 for length in self.temporal_kernels)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size, pixels; below 1 where nothing is left of it."""
        for kernel, stride in zip(self.spatial_kernels, self.spatial_strides, strict=True):
            lost = kernel - 1 - 2 * (kernel // 2) * self.pads_frames
            height, width = ((side - lost - 1) // stride + 1 for side in (height, width))
        return height, width

    @model_validator(mode="after")
    def _layers_agree(self) -> Factorized3dConfig:
        by_layer = ("channels", "spatial_kernels", "temporal_kernels", "spatial_strides")
        lengths = [len(getattr(self, name)) for name in by_layer]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"{', '.join(by_layer)} need one entry a layer each, but have {', '.join(map(str, lengths))}"
            )
        if min(self.map_size(FRAME_HEIGHT, FRAME_WIDTH)) < 1:
            raise ValueError(
                f"spatial kernels {self.spatial_kernels} leave nothing of a {FRAME_HEIGHT} × {FRAME_WIDTH} frame"
            )
        return self
