"""Weights as the starter kit saves them, under this package's names and back.

The starter kit's files are a bare ``state_dict``. Reading one runs no code from it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.factorized3d.config import Factorized3dConfig
from models.factorized3d.model import Factorized3d
from models.layers import SPATIAL_LAPLACIAN, TEMPORAL_LAPLACIAN
from models.neurons import NeuronInfo
from sensorium_data.errors import RunError, describe_os_error

__all__ = ["from_reference", "load_reference", "to_reference"]

# The starter kit keeps the regularizers' kernels as buffers; here they are constants.
_KERNELS = {
    "core._input_weight_regularizer.laplace.filter": SPATIAL_LAPLACIAN,
    "core.temporal_regularizer.laplace.filter": TEMPORAL_LAPLACIAN,
}


@dataclass(frozen=True)
class _Weight:
    """One weight, here and there.

    Attributes
    ----------
    name, reference_name : str
        In :class:`Factorized3d`, and in the starter kit.
    unit_axes : tuple of int
        Axes of length 1 that the weight has in the starter kit only, in rising order.
    """

    name: str
    reference_name: str
    unit_axes: tuple[int, ...] = ()


def load_reference(path: str | Path, *, pads_frames: bool = False) -> Factorized3d:
    """Return the model in a file that the starter kit saved, ready to predict.

    Its architecture, its sessions and its neurons are read off the weights.

    Parameters
    ----------
    path : str or Path
        E.g. ``final.pth``.
    pads_frames : bool
        Whether the model pads its frames, which no weight tells. The benchmark does not; that of
        ``models_demo.ipynb`` does.

    Returns
    -------
    Factorized3d
        In evaluation mode, on the CPU.

    Raises
    ------
    RunError
        If the file is missing or cannot be read without running code from it, or if it does not hold the weights
        of one factorized 3D model and nothing else.
    """
    weights = from_reference(_read_state(path), path=path)
    sessions = [match[1] for name in weights if (match := re.fullmatch(r"readouts\.(.+)\.sigma", name))]
    n_layers = sum(name.endswith(".spatial.weight") for name in weights)
    spatial_shapes = [weights[f"core.layers.{layer}.spatial.weight"].shape for layer in range(n_layers)]
    temporal_shapes = [weights[f"core.layers.{layer}.temporal.weight"].shape for layer in range(n_layers)]
    try:
        config = Factorized3dConfig(
            channels=tuple(shape[0] for shape in spatial_shapes),
            spatial_kernels=tuple(shape[2] for shape in spatial_shapes),
            temporal_kernels=tuple(shape[2] for shape in temporal_shapes),
            spatial_strides=(1,) * n_layers,
            pads_frames=pads_frames,
            readout_units=len(weights[f"readouts.{sessions[0]}.position_predictor.0.weight"]),
            shifter_units=len(weights[f"shifters.{sessions[0]}.mlp.0.weight"]),
        )
        neurons = {}
        for session in sessions:
            positions = weights[f"readouts.{session}.cortical_positions"].numpy()
            neurons[session] = NeuronInfo(n_neurons=len(positions), positions=positions)
        model = Factorized3d(config, neurons)
        model.load_state_dict(weights)
    except (ValueError, RuntimeError, IndexError) as error:
        # Pydantic, NeuronInfo and torch each say which number does not fit.
        raise RunError("the weights do not fit each other", path=path, found=error) from error
    return model.eval()


def from_reference(
    state: Mapping[str, torch.Tensor], *, path: str | Path = "the starter kit's weights"
) -> dict[str, torch.Tensor]:
    """Return the starter kit's weights as :class:`Factorized3d` names and shapes them.

    Parameters
    ----------
    state : mapping of str to Tensor
        The starter kit's ``state_dict`` of a factorized 3D model.
    path : str or Path
        Where it is from, for error messages.

    Raises
    ------
    RunError
        If a weight is missing, is not part of the model or has a shape that it never has; the message names them.
    """
    layers = {int(match[1]) for name in state if (match := re.match(r"core\.features\.layer(\d+)\.", name))}
    sessions = dict.fromkeys(match[1] for name in state if (match := re.match(r"(?:readout|shifter)\.([^.]+)\.", name)))
    wanted = list(_list_weights(range(max(layers, default=0) + 1), sessions or ["<session>"]))
    known = {weight.reference_name for weight in wanted} | _KERNELS.keys()
    missing = [name for name in (*(weight.reference_name for weight in wanted), *_KERNELS) if name not in state]
    unknown = [name for name in state if name not in known]
    if missing or unknown:
        raise RunError(
            "not the weights of a factorized 3D model",
            path=path,
            found=", ".join(
                _summarize(what, names) for what, names in (("missing", missing), ("unknown", unknown)) if names
            ),
            remedy="give a state_dict that the starter kit saved for its factorized 3D model",
        )
    weights = {}
    for weight in wanted:
        value = state[weight.reference_name]
        if any(axis >= value.ndim or value.shape[axis] != 1 for axis in weight.unit_axes):
            raise RunError(
                f"the weight {weight.reference_name} has the wrong shape",
                path=path,
                found=tuple(value.shape),
                expected=f"length 1 along axes {', '.join(map(str, weight.unit_axes))}",
            )
        weights[weight.name] = value.squeeze(weight.unit_axes) if weight.unit_axes else value
    return weights


def to_reference(model: Factorized3d) -> dict[str, torch.Tensor]:
    """Return a model's weights as the starter kit names and shapes them.

    Parameters
    ----------
    model : Factorized3d
        Whose ``state_dict`` it is.
    """
    weights = model.state_dict()
    state = {name: torch.tensor(kernel)[None, None] for name, kernel in _KERNELS.items()}
    for weight in _list_weights(range(len(model.core.layers)), model.readouts):
        value = weights[weight.name]
        for axis in weight.unit_axes:
            value = value.unsqueeze(axis)
        state[weight.reference_name] = value
    return state


def _list_weights(layers: Iterable[int], sessions: Iterable[str]) -> Iterator[_Weight]:
    for layer in layers:
        here, there = f"core.layers.{layer}", f"core.features.layer{layer}"
        # Convolutions are named with the number of their layer, except in the first.
        number = f"_{layer}" if layer else ""
        yield _Weight(f"{here}.spatial.weight", f"{there}.conv_spatial{number}.weight", unit_axes=(2,))
        yield _Weight(f"{here}.spatial.bias", f"{there}.conv_spatial{number}.bias")
        yield _Weight(f"{here}.temporal.weight", f"{there}.conv_temporal{number}.weight", unit_axes=(4,))
        yield _Weight(f"{here}.temporal.bias", f"{there}.conv_temporal{number}.bias")
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            yield _Weight(f"{here}.norm.{part}", f"{there}.norm.{part}")
    for session in sessions:
        here, there = f"readouts.{session}", f"readout.{session}"
        yield _Weight(f"{here}.sigma", f"{there}.sigma", unit_axes=(0,))
        yield _Weight(f"{here}.features", f"{there}._features", unit_axes=(0, 2))
        yield _Weight(f"{here}.bias", f"{there}.bias")
        yield _Weight(f"{here}.cortical_positions", f"{there}.source_grid")
        for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
            yield _Weight(f"{here}.position_predictor.{part}", f"{there}.mu_transform.{part}")
        for part in ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"):
            yield _Weight(f"shifters.{session}.mlp.{part}", f"shifter.{session}.mlp.{part}")


def _read_state(path: str | Path) -> Mapping[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(
            "the checkpoint cannot be read",
            path=path,
            found=describe_os_error(error),
            remedy="give the path of a .pth file",
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise RunError(
            "not a checkpoint that can be read without running code from it",
            path=path,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected="a file that torch.save(model.state_dict(), …) wrote",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise RunError(
            "the checkpoint holds no weights alone",
            path=path,
            found=type(state).__name__,
            expected="a state_dict: names and tensors",
        )
    return state


def _summarize(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
