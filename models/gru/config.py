"""The architecture of the recurrent models, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from models.readout_settings import CoreSettings, require_frame_kernels

__all__ = ["GruConfig"]


class GruConfig(CoreSettings):
    """Layers, readouts and regularizers of :class:`models.gru.model.Gru`.

    The defaults are the first model of the starter kit's demo notebook; with ``n_features`` 8, ``n_rotations`` 8 and
    ``gru_kernel`` 9 it is the GRU benchmark of SENSORIUM 2023.
    """

    kind: Literal["gru"] = Field(default="gru", description="Which model this configures.")
    n_features: PositiveInt = Field(default=64, description="Features of each layer; their rotations come on top.")
    n_rotations: PositiveInt | None = Field(
        default=None,
        description="Angles at which each feature is seen, by filters made of Hermite functions; none: plain filters.",
    )
    kernels: tuple[PositiveInt, ...] = Field(
        default=(9, 7, 7, 7),
        min_length=1,
        description="Height and width of each layer's kernel, pixels; all but the first are odd and keep the size.",
    )
    stride: PositiveInt = Field(default=1, description="Step of the first layer's kernel, pixels.")
    gru_kernel: PositiveInt = Field(
        default=7, description="Height and width of the recurrent layer's kernels, odd, pixels."
    )
    batch_norm_momentum: float = Field(
        default=0.9, gt=0, le=1, description="Weight of the newest batch in the running mean and variance."
    )
    spatial_smoothness: float = Field(
        default=500.0, ge=0, description="Weight of the penalty on roughness of the first layer's filters."
    )
    filter_sparsity: float = Field(
        default=500_000.0, ge=0, description="Weight of the penalty on the length of all other layers' filters."
    )

    @property
    def n_channels(self) -> int:
        """Channels of every map: features at all angles."""
        return self.n_features * (self.n_rotations or 1)

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: none, a state begins with zeros."""
        return 0

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size, pixels: the first layer alone changes it."""
        height, width = ((side - self.kernels[0]) // self.stride + 1 for side in (height, width))
        return height, width

    @model_validator(mode="after")
    def _kernels_fit(self) -> GruConfig:
        require_frame_kernels(self.kernels)
        if self.gru_kernel % 2 == 0:
            raise ValueError(f"gru_kernel {self.gru_kernel} must be odd to keep the map's size")
        return self
