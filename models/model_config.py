"""The architecture of a model, as a form; what all of them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Depth", "ForeignModelConfig", "Kernel", "ModelConfig", "Width"]

# A slip of a digit is told at once, instead of after the machine's memory is full.
#: Channels, units, or other numbers beside each other.
Width = Annotated[int, Field(gt=0, le=65_536)]
#: Side of a filter, a patch or a step, pixels or frames.
Kernel = Annotated[int, Field(gt=0, le=255)]
#: Layers after each other, or heads beside each other.
Depth = Annotated[int, Field(gt=0, le=256)]


class ModelConfig(BaseModel):
    """The settings of a model, which belong to a recipe as its group ``model``.

    A model's own config derives from this one. It has a description and a default for each setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = Field(default="", description="Which model this configures.")
    code: Mapping[str, str] = Field(
        default={},
        description="SHA-256 of each source file of the model, by its path; none for the models of this package.",
    )

    @property
    def required_window(self) -> int | None:
        """Frames of the only windows that the model takes; None where windows may be longer than the frames lost."""
        return None

    @property
    def n_frames_lost(self) -> int:
        """Frames at the start of a window that have no prediction, as far as the settings tell."""
        return 0


class ForeignModelConfig(ModelConfig):
    """The settings of a model whose code is not loaded: what a run's folder has of them, unchecked."""

    model_config = ConfigDict(extra="allow")
