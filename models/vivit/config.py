"""The architecture of ViV1T, as a form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, model_validator

from models.model_config import Depth, Kernel, Width
from models.readout_settings import CoreSettings
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["VivitConfig"]


class VivitConfig(CoreSettings):
    """Patches, attention, readouts of :class:`models.vivit.model.Vivit`.

    The defaults are ViV1T of 2023; its later, causal version is the preset ``vivit-causal``.
    """

    kind: Literal["vivit"] = Field(default="vivit", description="Which model this configures.")
    patch_frames: Kernel = Field(default=25, description="Frames of a patch; it looks back.")
    patch_size: Kernel = Field(default=7, description="Height and width of a patch, pixels.")
    patch_stride: Kernel = Field(default=2, description="From one patch of a frame to the next, pixels.")
    pads_time: bool = Field(
        default=False, description="Put frames of zeros before the first one, so that no frame is lost."
    )
    embedding_size: Width = Field(default=112, description="Numbers that a patch becomes.")
    n_spatial_blocks: Depth = Field(default=3, description="Blocks that attend over the patches of a frame.")
    n_temporal_blocks: Depth = Field(default=5, description="Blocks that attend over the frames of a place.")
    n_heads: Depth = Field(default=11, description="Heads of an attention.")
    head_size: Width = Field(default=48, description="Numbers of a head; even with positions rotary.")
    hidden_units: Width = Field(default=136, description="Hidden units beside the attention of a block.")
    activation: Literal["gelu", "relu"] = Field(default="gelu", description="Of the hidden units.")
    is_causal: bool = Field(
        default=False, description="A frame attends to itself and those before it, and to no other."
    )
    positions: Literal["learned", "rotary"] = Field(
        default="learned",
        description="Where a patch is: learned numbers added to it, or a rotation of what attention compares.",
    )
    max_frames: Width = Field(
        default=300,
        description="Frames that positions are made for; longer trials take windows (learned), or move the center.",
    )
    n_registers: NonNegativeInt = Field(
        default=0, description="Learned tokens beside those of a frame, and beside those of a place."
    )
    patch_dropout: float = Field(
        default=0.1338, ge=0, lt=1, description="Share of the numbers of patches' tokens zeroed in training."
    )
    token_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of whole tokens of patches zeroed in training."
    )
    attention_dropout: float = Field(
        default=0.358, ge=0, lt=1, description="Share of the attention's outputs zeroed in training."
    )
    hidden_dropout: float = Field(default=0.0592, ge=0, lt=1, description="Share of hidden units zeroed in training.")
    drop_path: float = Field(
        default=0.0505, ge=0, lt=1, description="Share of frames, or places, that skip a block's half in training."
    )
    encodes_state: bool = Field(
        default=True, description="Readouts add what they make of dilation, speed and pupil center to a frame."
    )
    output: Literal["exp", "elu1"] = Field(default="exp", description="What makes responses positive.")

    @property
    def n_channels(self) -> int:
        """Channels of the core's maps."""
        return self.embedding_size

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction: a patch looks back on them."""
        return 0 if self.pads_time else self.patch_frames - 1

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size: patches down and across."""
        down, across = ((side - self.patch_size) // self.patch_stride + 1 for side in (height, width))
        return down, across

    @model_validator(mode="after")
    def _sizes_fit(self) -> VivitConfig:
        if min(self.map_size(FRAME_HEIGHT, FRAME_WIDTH)) < 1:
            raise ValueError(f"patches of {self.patch_size} pixels do not fit a {FRAME_HEIGHT} × {FRAME_WIDTH} frame")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"head_size {self.head_size} must be even for positions rotary")
        if self.max_frames <= self.n_frames_lost:
            raise ValueError(
                f"max_frames {self.max_frames} leave nothing to predict: the model loses {self.n_frames_lost}"
            )
        if self.encodes_state and self.readout != "gaussian":
            raise ValueError("encodes_state needs readout gaussian: masks have no features of a frame to add to")
        return self
