"""The architecture of DwiseNeuro, as a form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from models.model_config import Depth, Kernel, ModelConfig, Width

__all__ = ["BlockShape", "DwiseNeuroConfig"]


@dataclass(frozen=True)
class BlockShape:
    """What differs between the blocks of a core.

    Attributes
    ----------
    n_in, n_hidden, n_squeezed, n_out : int
        Channels of its input, between its convolutions, of the squeeze-and-excitation, and of its output.
    stride : int
        Step of the spatial filters, pixels.
    drop_path : float
        Share of windows that skip it in training.
    """

    n_in: int
    n_hidden: int
    n_squeezed: int
    n_out: int
    stride: int
    drop_path: float


class DwiseNeuroConfig(ModelConfig):
    """Blocks, cortex and readouts of :class:`models.dwiseneuro.model.DwiseNeuro`.

    The defaults are the basic stage of the winner's solution; the distilled stage has ``expansion`` 6.
    """

    kind: Literal["dwiseneuro"] = Field(default="dwiseneuro", description="Which model this configures.")
    channels: tuple[Width, ...] = Field(
        default=(64, 64, 64, 64, 128, 128, 128, 256, 256, 256),
        min_length=2,
        description="Channels of the stem, then of each block's output.",
    )
    strides: tuple[Kernel, ...] = Field(
        default=(2, 1, 1, 1, 2, 1, 1, 2, 1), description="Step of each block's spatial filters, pixels."
    )
    expansion: Depth = Field(default=7, description="Channels inside of a block for each of its input.")
    spatial_kernel: Kernel = Field(default=3, description="Height and width of the spatial filters, odd, pixels.")
    temporal_kernel: Kernel = Field(default=5, description="Length of the temporal filters, odd, frames.")
    squeeze_reduction: Width = Field(
        default=32, description="Channels inside of a block for each of its squeeze-and-excitation."
    )
    drop_path: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of windows that skip a layer of the cortex in training; in the core it rises from 0 to it.",
    )
    cortex_channels: tuple[Width, ...] = Field(
        default=(1024, 2048, 4096),
        min_length=1,
        description="Channels of each layer between the blocks and the readouts.",
    )
    cortex_groups: Depth = Field(
        default=2, description="Parts that the channels of these layers, and of the readouts, are divided into."
    )
    readout_dropout: float = Field(
        default=0.4, ge=0, lt=1, description="Share of the cortex's channels that a readout does not get in training."
    )
    softplus_beta: float = Field(default=0.07, ge=1e-4, le=1e4, description="How sharply the output bends at 0.")
    starts_at_mean_response: bool = Field(
        default=False, description="Start readouts from the mean responses, instead of ln 2 / beta as the reference."
    )

    def list_blocks(self) -> Iterator[BlockShape]:
        """Yield the shape of each block."""
        n_blocks = len(self.strides)
        for number, stride in enumerate(self.strides):
            n_in, n_out = self.channels[number : number + 2]
            n_hidden = n_in * self.expansion
            yield BlockShape(
                n_in=n_in,
                n_hidden=n_hidden,
                n_squeezed=max(1, n_hidden // self.squeeze_reduction),
                n_out=n_out,
                stride=stride,
                drop_path=self.drop_path * number / n_blocks,
            )

    @model_validator(mode="after")
    def _blocks_fit(self) -> DwiseNeuroConfig:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"strides {self.strides} must be one for each block, of which channels {self.channels} make "
                f"{len(self.channels) - 1}"
            )
        for name in ("spatial_kernel", "temporal_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} {getattr(self, name)} must be odd to keep the size")
        for n_channels in (self.channels[-1], *self.cortex_channels):
            if n_channels % self.cortex_groups:
                raise ValueError(f"cortex_groups {self.cortex_groups} do not divide {n_channels} channels")
        return self
