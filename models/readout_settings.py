"""The settings of readouts and shifters, as a form; imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from models.model_config import ModelConfig
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["CoreSettings", "ReadoutSettings", "require_frame_kernels"]


class ReadoutSettings(ModelConfig):
    """What models of a core and readouts have in common: :class:`models.core_readout_model.CoreReadoutModel`.

    The defaults are those of the SENSORIUM 2023 starter kit.
    """

    readout: Literal["gaussian", "factorized"] = Field(
        default="gaussian",
        description="What a neuron sees of the core's map: one place of it, which follows the eye; or a mask over it.",
    )
    readout_init_sigma: float = Field(
        default=1.0,
        gt=0,
        description="Bound of the factors of each neuron's position covariance at first; the frame spans -1 to 1.",
    )
    readout_units: PositiveInt = Field(
        default=30, description="Hidden units that predict a neuron's place in the frame from its place in the cortex."
    )
    readout_sparsity: float = Field(
        default=0.0, ge=0, description="Weight of the penalty on the readouts' weights of the core's channels."
    )
    starts_at_mean_response: bool = Field(
        default=False,
        description="Start from predictions of the mean response, instead of about 1 above it as the starter kit does.",
    )
    shifter_units: PositiveInt = Field(
        default=5, description="Hidden units that predict the shift of the frame from the pupil's center."
    )


class CoreSettings(ReadoutSettings, ABC):
    """What else the settings of a core tell whose maps follow from them alone."""

    @property
    @abstractmethod
    def n_channels(self) -> int:
        """Channels of the core's maps."""

    @abstractmethod
    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the map of a frame of some size, pixels."""


def require_frame_kernels(kernels: Sequence[int]) -> None:
    """Check the kernels of layers that see frames: the first one is not padded, all others keep the map's size.

    Parameters
    ----------
    kernels : sequence of int
        Height and width of each layer's, pixels.

    Raises
    ------
    ValueError
        If a later one is even, or nothing is left of a frame.
    """
    if any(kernel % 2 == 0 for kernel in kernels[1:]):
        raise ValueError(f"kernels {tuple(kernels)}: all but the first must be odd to keep the map's size")
    if kernels[0] > min(FRAME_HEIGHT, FRAME_WIDTH):
        raise ValueError(f"kernels {tuple(kernels)} leave nothing of a {FRAME_HEIGHT} × {FRAME_WIDTH} frame")
