"""How a model's video is composed, by name; imports no torch, since presets are looked up without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sensorium_data.errors import UnknownNameError
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["INPUT_LAYOUTS", "InputLayout", "find_layout"]


@dataclass(frozen=True)
class InputLayout:
    """How a model's video is composed.

    Attributes
    ----------
    has_behavior : bool
        Pupil dilation and running speed are two more channels, constant over space.
    has_pupil_center : bool
        The pupil's x and y are two more channels after those.
    padding : tuple of int
        Rows of zeros above and below, and columns left and right, of the video.
    fills_padding : bool
        The channels that are constant over space are so over the padding too; else they are zero there.
    """

    has_behavior: bool = True
    has_pupil_center: bool = False
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fills_padding: bool = False

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        behavior = ("pupil_dilation", "running_speed") if self.has_behavior else ()
        return ("video", *behavior, *(("pupil_x", "pupil_y") if self.has_pupil_center else ()))

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame with its padding, pixels."""
        top, bottom, left, right = self.padding
        return FRAME_HEIGHT + top + bottom, FRAME_WIDTH + left + right


#: By the name of whose models are given their inputs so; ``video`` is the video alone. Pupil center and behavior can be
#: had apart from the video whatever the layout.
INPUT_LAYOUTS: Mapping[str, InputLayout] = MappingProxyType(
    {
        "starter-kit": InputLayout(),
        "dwiseneuro": InputLayout(has_pupil_center=True, padding=(14, 14, 0, 0), fills_padding=True),
        "vivit": InputLayout(has_pupil_center=True),
        "vivit-closed-loop": InputLayout(has_pupil_center=True, padding=(2, 3, 2, 3)),
        "video": InputLayout(has_behavior=False),
    }
)


def find_layout(name: str) -> InputLayout:
    """Return a layout by its name; an :class:`UnknownNameError` names the near ones."""
    if name not in INPUT_LAYOUTS:
        raise UnknownNameError.of("input layout", name, INPUT_LAYOUTS)
    return INPUT_LAYOUTS[name]
