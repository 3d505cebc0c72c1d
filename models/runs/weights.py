"""Weights on disk: safetensors, known by their digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from models.runs.files import RESTORE
from sensorium_data.errors import RunError, describe_os_error
from sensorium_data.files import digest_file

__all__ = ["copy_weights", "load_weights", "read_weights", "require_weights", "save_weights"]


def copy_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's parameters and buffers that training does not touch."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> str:
    """Write weights to a file and return its digest; an OSError if the disk does not take them."""
    # Copies: safetensors refuses tensors that share memory or are not contiguous. Its own writing of a file hides what
    # the disk said.
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()})
    path.write_bytes(content)
    return digest_file(path)


def require_weights(path: Path, *, digest: str) -> None:
    """Raise a :class:`RunError` if a file of weights is missing, or not the one that :func:`save_weights` wrote."""
    if not path.is_file():
        raise RunError("the weights are missing", path=path, remedy="remove the run, and train again")
    found = digest_file(path)
    if found != digest:
        raise RunError(
            "the weights are not those that were saved",
            path=path,
            found=f"sha256 {found[:12]}",
            expected=digest[:12],
            remedy="restore the file, or remove the run and train again",
        )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a file, by name; a :class:`RunError` if it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            "the weights cannot be read",
            path=path,
            found=describe_os_error(error)
            if isinstance(error, OSError)
            else "no file of safetensors, or a damaged one",
            remedy=RESTORE,
        ) from error


def load_weights(model: nn.Module, path: Path, *, digest: str) -> None:
    """Load weights into a model, every one of them or none.

    Parameters
    ----------
    model : Module
        Of the same architecture; changed in place.
    path : Path
        The file to read.
    digest : str
        What :func:`save_weights` returned.

    Raises
    ------
    RunError
        If the file is missing, was changed, or holds the weights of another model.
    """
    require_weights(path, digest=digest)
    weights = read_weights(path)
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - weights.keys())
    extra = sorted(weights.keys() - wanted.keys())
    misshapen = sorted(name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape)
    if missing or extra or misshapen:
        raise RunError(
            "the weights belong to another model",
            path=path,
            found="; ".join(
                f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
                for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", misshapen))
                if names
            ),
            remedy="use the version of this package that the run's environment.json names",
        )
    model.load_state_dict(weights)
