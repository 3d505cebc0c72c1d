"""The formats of checkpoints that are known, and the models that have files of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from models.checkpoints.layout import CheckpointLayout
from models.kinds import MODEL_KINDS
from models.model_config import ModelConfig
from sensorium_data.errors import RunError, UnknownNameError, UsageError

__all__ = ["CHECKPOINT_FORMATS", "CheckpointFormat", "find_format"]


@dataclass(frozen=True)
class CheckpointFormat:
    """A format of checkpoints.

    Attributes
    ----------
    name : str
        What commands call it.
    title : str
        Whose files they are.
    arguments : str or None
        The name of a file of arguments beside the weights, which tells settings; None where there is none.
    has_numpy_scalars : bool
        Whether its files may hold numbers of NumPy beside the weights.
    """

    name: str
    title: str
    arguments: str | None = None
    has_numpy_scalars: bool = False

    def layouts(self) -> tuple[CheckpointLayout, ...]:
        """Return the layouts of all models that have files of this format; the models are imported."""
        return tuple(layout for kind in MODEL_KINDS.values() for layout in kind.find("CHECKPOINTS").get(self.name, ()))

    def recognize(self, state: Mapping[str, torch.Tensor], *, path: object) -> CheckpointLayout:
        """Return the layout that weights have.

        Raises
        ------
        RunError
            If they are of no model of this format.
        """
        for layout in self.layouts():
            if layout.recognizes(state):
                return layout
        names = list(state)
        raise RunError(
            f"not the weights of a model of {self.title}",
            path=path,
            found=f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}",
            expected=f"the weights of {', '.join(layout.title for layout in self.layouts())}",
            remedy=f"give a file of the format {self.name}",
        )

    def layout_of(self, config: ModelConfig) -> CheckpointLayout:
        """Return the layout that files of a model with some settings have.

        Raises
        ------
        UsageError
            If the format has no such model.
        """
        for layout in self.layouts():
            if layout.kind == config.kind and layout.takes(config):
                return layout
        raise UsageError(
            f"the format {self.name} has no files of this model",
            found=config.kind,
            expected=" or ".join(dict.fromkeys(layout.title for layout in self.layouts())),
            remedy="choose the format of the model, or other settings of it",
        )


#: By name. Another format is one more entry here, and a layout in the folder of each model that has files of it.
CHECKPOINT_FORMATS: Mapping[str, CheckpointFormat] = MappingProxyType(
    {
        "starter-kit": CheckpointFormat("starter-kit", "the SENSORIUM 2023 starter kit"),
        "argus": CheckpointFormat("argus", "lRomul/sensorium, whose models argus saves"),
        "dynamic-v1fm": CheckpointFormat("dynamic-v1fm", "Dynamic-V1FM, the second place of SENSORIUM 2023"),
        "vivit": CheckpointFormat("vivit", "bryanlimy/ViV1T, of 2023", arguments="args.yaml", has_numpy_scalars=True),
        "vivit-closed-loop": CheckpointFormat(
            "vivit-closed-loop", "bryanlimy/ViV1T-closed-loop", arguments="args.yaml"
        ),
    }
)


def find_format(name: str) -> CheckpointFormat:
    """Return a format by its name; an :class:`UnknownNameError` names the near ones."""
    if name not in CHECKPOINT_FORMATS:
        raise UnknownNameError.of("checkpoint format", name, CHECKPOINT_FORMATS)
    return CHECKPOINT_FORMATS[name]
