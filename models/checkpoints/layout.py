"""How a format names the weights of one model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from models.checkpoints.weight_name import WeightName
from models.model_config import ModelConfig
from sensorium_data.errors import RunError
from sensorium_data.sessions import Session

__all__ = ["CheckpointLayout", "Structure", "read_positions", "shape_of"]


@dataclass(frozen=True)
class Structure:
    """What decides which weights a model has, whatever their sizes.

    Attributes
    ----------
    n_layers : int
        Of the core.
    sessions : mapping of str to str
        What the readouts are called here, by what they are called in a file.
    readout : str
        Their kind.
    n_later_layers : int
        Of what all sessions share between the core and the readouts.
    """

    n_layers: int
    sessions: Mapping[str, str] = field(hash=False)
    readout: Literal["gaussian", "factorized"] = "gaussian"
    n_later_layers: int = 0


class CheckpointLayout(ABC):
    """The weights of one model in the files of one format.

    A model's folder offers its layouts as ``CHECKPOINTS``, by the format's name.

    Attributes
    ----------
    kind : str
        :attr:`models.model_config.ModelConfig.kind` of the model.
    title : str
        What messages call the model.
    untold : tuple of str
        Settings of the model that decide its predictions and that no weight tells: a preset has them.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    untold: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        """Whether these look like weights of this model."""

    @abstractmethod
    def takes(self, config: ModelConfig) -> bool:
        """Whether a model of this kind with these settings has weights of this layout."""

    def with_parameters(self, beside: Mapping[str, object]) -> CheckpointLayout:
        """Return the layout of one file's weights, given what its dictionary holds beside them.

        Parameters
        ----------
        beside : mapping of str to object
            As the file has it: nothing in it can be relied on.
        """
        return self

    def wrap(self, weights: Mapping[str, torch.Tensor], n_neurons: Mapping[str, int]) -> Mapping[str, object]:
        """Return what a file holds, from its weights by name; by default these alone.

        Parameters
        ----------
        weights : mapping of str to Tensor
            As :meth:`convert` returns them, with the constants.
        n_neurons : mapping of str to int
            Of each session, by full name.
        """
        return weights

    @abstractmethod
    def read_structure(self, state: Mapping[str, torch.Tensor]) -> Structure:
        """Return the structure that the names in a file tell; names that are missing may hide a part of it."""

    @abstractmethod
    def structure_of(self, config: ModelConfig, sessions: Mapping[str, str]) -> Structure:
        """Return the structure of a model here, with sessions as :attr:`Structure.sessions`."""

    @abstractmethod
    def list_weights(self, structure: Structure) -> Iterator[WeightName]:
        """Yield all weights, in the order in which the format saves them."""

    @abstractmethod
    def is_constant(self, name: str) -> bool:
        """Whether a name in a file is that of numbers that follow from the settings."""

    @abstractmethod
    def make_constants(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        """Return the numbers that the format saves though they follow from the settings; files may lack them."""

    def make_session_constants(self, config: ModelConfig, session: str) -> dict[str, torch.Tensor]:
        """Return those that the format saves for each session, by what the file calls it; by default none."""
        return {}

    def call_session(self, session: Session) -> str:
        """Return what the format calls a session; by default its full name."""
        return session.name

    @abstractmethod
    def read_settings(self, state: Mapping[str, torch.Tensor], structure: Structure) -> dict[str, Any]:
        """Return the settings that the weights tell.

        Those of the model are named ``model.channels`` and so on.

        Raises
        ------
        RunError
            If a weight has another number of axes than it ever has.
        """

    @abstractmethod
    def read_neurons(self, state: Mapping[str, torch.Tensor], session: str) -> tuple[int, torch.Tensor | None]:
        """Return how many neurons a readout has, and their normalized places in the cortex if the file has them."""

    def convert(
        self, config: ModelConfig, weights: Mapping[str, torch.Tensor], sessions: Mapping[str, str]
    ) -> dict[str, torch.Tensor]:
        """Return a model's weights as a file has them, without the constants.

        Parameters
        ----------
        config : ModelConfig
            The model's.
        weights : mapping of str to Tensor
            Its ``state_dict``.
        sessions : mapping of str to str
            As :attr:`Structure.sessions`.

        Raises
        ------
        RunError
            If there is no readout of a session.
        """
        try:
            wanted = self.list_weights(self.structure_of(config, sessions))
            return {weight.file_name: weight.to_file(weights[weight.name]) for weight in wanted}
        except KeyError as error:
            raise RunError("the model has no weight of this name", found=error.args[0]) from error


def shape_of(state: Mapping[str, torch.Tensor], name: str, n_axes: int) -> tuple[int, ...]:
    """Return the shape of a weight that has so many axes; a :class:`RunError` if it has another number."""
    shape = tuple(state[name].shape)
    if len(shape) != n_axes:
        raise RunError(f"the weight {name} has the wrong shape", found=shape, expected=f"{n_axes} axes")
    return shape


def read_positions(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, torch.Tensor]:
    """Return how many neurons a readout has, and their normalized positions in the cortex, shape (neuron, 2).

    Parameters
    ----------
    state : mapping of str to Tensor
        The file's weights.
    name : str
        Of the positions among them.

    Raises
    ------
    RunError
        If they have another shape.
    """
    n_neurons, n_axes = shape_of(state, name, 2)
    if n_axes != 2:
        raise RunError(f"the weight {name} has the wrong shape", found=(n_neurons, n_axes), expected="(neurons, 2)")
    return n_neurons, state[name]
