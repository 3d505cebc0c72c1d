"""What the files of all models of the SENSORIUM 2023 starter kit have in common.

The starter kit saves a bare ``state_dict``: a core, and readouts and shifters by the sessions' full names. Names were
read in https://github.com/ecker-lab/sensorium_2023 and https://github.com/sinzlab/neuralpredictors.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch

from models.checkpoints.layout import CheckpointLayout, Structure, read_positions, shape_of
from models.checkpoints.weight_name import WeightName
from models.layers import SPATIAL_LAPLACIAN
from models.model_config import ModelConfig
from sensorium_data.errors import RunError

__all__ = ["StarterKitLayout", "list_norm"]

_LAYER = re.compile(r"core\.features\.layer(\d{1,9})\.")
_SESSION = re.compile(r"(?:readout|shifter)\.([^.]+)\.")
#: A file that has more layers lacks all weights of those between.
_MOST_LAYERS = 100
#: By the number of the video's channels: how the starter kit's loader composes it.
_INPUT_LAYOUTS = MappingProxyType({1: "video", 3: "starter-kit"})


class StarterKitLayout(CheckpointLayout):
    """A core, and readouts and shifters as the starter kit names them.

    Subclasses name the core's weights.

    Attributes
    ----------
    laplacians : mapping of str to tuple
        Kernels of regularizers, which the starter kit saves as buffers, by name.
    """

    laplacians: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "core._input_weights_regularizer.laplace.filter": SPATIAL_LAPLACIAN
    }

    @abstractmethod
    def list_core(self, n_layers: int) -> Iterator[WeightName]:
        """Yield the core's weights, layer by layer."""

    @abstractmethod
    def read_core(self, state: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Any]:
        """Return the settings of the core, and ``n_input_channels``."""

    @abstractmethod
    def count_layers(self, config: ModelConfig) -> int:
        """Return how many layers the core of a model with some settings has."""

    def takes(self, config: ModelConfig) -> bool:
        return config.kind == self.kind

    def read_structure(self, state: Mapping[str, torch.Tensor]) -> Structure:
        layers = [int(match[1]) for name in state if (match := _LAYER.match(name))]
        sessions = dict.fromkeys(match[1] for name in state if (match := _SESSION.match(name)))
        is_factorized = any(name.endswith(".spatial") for name in state if name.startswith("readout."))
        return Structure(
            n_layers=min(max(layers, default=0), _MOST_LAYERS) + 1,
            sessions={session: session for session in sessions or ("<session>",)},
            readout="factorized" if is_factorized else "gaussian",
        )

    def structure_of(self, config: ModelConfig, sessions: Mapping[str, str]) -> Structure:
        readout: Literal["gaussian", "factorized"] = getattr(config, "readout", "gaussian")
        return Structure(self.count_layers(config), sessions, readout)

    def list_weights(self, structure: Structure) -> Iterator[WeightName]:
        yield from self.list_core(structure.n_layers)
        for key, session in structure.sessions.items():
            here, there = f"readouts.{session}", f"readout.{key}"
            if structure.readout == "factorized":
                yield WeightName(f"{here}.features", f"{there}._features", is_transposed=True)
                yield WeightName(f"{here}.mask", f"{there}.spatial")
                yield WeightName(f"{here}.bias", f"{there}.bias", is_optional=True)
                continue
            yield WeightName(f"{here}.sigma", f"{there}.sigma", unit_axes=(0,))
            yield WeightName(f"{here}.features", f"{there}._features", unit_axes=(0, 2))
            yield WeightName(f"{here}.bias", f"{there}.bias")
            yield WeightName(f"{here}.cortical_positions", f"{there}.source_grid")
            for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
                yield WeightName(f"{here}.position_predictor.{part}", f"{there}.mu_transform.{part}")
        for key, session in structure.sessions.items() if structure.readout == "gaussian" else ():
            for part in ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"):
                yield WeightName(f"shifters.{session}.mlp.{part}", f"shifter.{key}.mlp.{part}")

    def is_constant(self, name: str) -> bool:
        return name in self.laplacians

    def make_constants(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(kernel)[None, None] for name, kernel in self.laplacians.items()}

    def read_settings(self, state: Mapping[str, torch.Tensor], structure: Structure) -> dict[str, Any]:
        core = self.read_core(state, structure.n_layers)
        n_input_channels = core.pop("n_input_channels")
        if n_input_channels not in _INPUT_LAYOUTS:
            raise RunError(
                "the model takes another video than the starter kit's loader gives",
                found=f"{n_input_channels} channels",
                expected="1, the video, or 3, with pupil dilation and running speed",
            )
        settings = {f"model.{name}": value for name, value in core.items()}
        settings |= {"input_layout": _INPUT_LAYOUTS[n_input_channels], "model.readout": structure.readout}
        if structure.readout == "gaussian":
            first = next(iter(structure.sessions))
            settings["model.readout_units"] = shape_of(state, f"readout.{first}.mu_transform.0.weight", 2)[0]
            settings["model.shifter_units"] = shape_of(state, f"shifter.{first}.mlp.0.weight", 2)[0]
        return settings

    def read_neurons(self, state: Mapping[str, torch.Tensor], session: str) -> tuple[int, torch.Tensor | None]:
        if f"readout.{session}.spatial" in state:
            return shape_of(state, f"readout.{session}.spatial", 3)[0], None
        return read_positions(state, f"readout.{session}.source_grid")


def list_norm(here: str, there: str) -> Iterator[WeightName]:
    """Yield the weights of a batch norm, by what it is called here and in the file."""
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield WeightName(f"{here}.{part}", f"{there}.{part}")
