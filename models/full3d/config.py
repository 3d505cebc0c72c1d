"""The architecture of the full 3D model, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from models.readout_settings import CoreSettings

__all__ = ["Full3dConfig"]


class Full3dConfig(CoreSettings):
    """Layers, readouts and regularizers of :class:`models.full3d.model.Full3d`.

    The defaults are those of the starter kit's demo notebook.
    """

    kind: Literal["full3d"] = Field(default="full3d", description="Which model this configures.")
    channels: tuple[PositiveInt, ...] = Field(
        default=(64, 64), min_length=1, description="Output channels of each layer."
    )
    spatial_kernels: tuple[PositiveInt, ...] = Field(
        default=(9, 7), description="Height and width of each layer's kernel, odd, pixels."
    )
    temporal_kernels: tuple[PositiveInt, ...] = Field(
        default=(9, 9), description="Length of each layer's kernel, frames; it looks back only."
    )
    spatial_strides: tuple[PositiveInt, ...] = Field(
        default=(1, 1), description="Step of each layer's kernel over space, pixels."
    )
    batch_norm_momentum: float = Field(
        default=0.7, gt=0, le=1, description="Weight of the newest batch in the running mean and variance."
    )
    spatial_smoothness: float = Field(
        default=0.0, ge=0, description="Weight of the penalty on roughness over space of the first layer's filters."
    )
    temporal_smoothness: float = Field(
        default=0.0, ge=0, description="Weight of the penalty on roughness over time of the first layer's filters."
    )

    @property
    def n_channels(self) -> int:
        """Channels of the core's maps."""
        return self.channels[-1]

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: the kernels look back on them."""
        return sum(length - 1 for length in self.temporal_kernels)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size, pixels."""
        for stride in self.spatial_strides:
            height, width = ((side - 1) // stride + 1 for side in (height, width))
        return height, width

    @model_validator(mode="after")
    def _layers_agree(self) -> Full3dConfig:
        by_layer = ("channels", "spatial_kernels", "temporal_kernels", "spatial_strides")
        lengths = [len(getattr(self, name)) for name in by_layer]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"{', '.join(by_layer)} need one entry a layer each, but have {', '.join(map(str, lengths))}"
            )
        if any(kernel % 2 == 0 for kernel in self.spatial_kernels):
            raise ValueError(f"spatial kernels {self.spatial_kernels} must be odd to keep the map's size")
        return self
