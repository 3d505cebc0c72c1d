"""Trials and neurons by their labels, and errors that say which there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.arguments import parse_label

__all__ = ["find_position", "require_frames", "require_variable"]


def find_position(dataset: xr.Dataset | xr.DataArray, coordinate: str, label: Any) -> int:
    """Return the position of a trial or neuron with this label.

    Raises
    ------
    UsageError
        If it is no whole number, or not exactly one thing has this label.
    """
    number = parse_label(label, coordinate)
    if coordinate not in dataset.dims or coordinate not in dataset.coords:
        kind = "coordinate" if coordinate in dataset.dims else "dimension"
        raise UsageError(
            f"the dataset has no {kind} {coordinate}",
            session=dataset.attrs.get("session"),
            found=", ".join(map(str, dataset.coords if kind == "coordinate" else dataset.dims)) or f"no {kind}",
            expected=coordinate,
            remedy="take it from the session as it was opened; a selection by a list keeps the dimension",
        )
    labels = dataset[coordinate].values
    found = np.flatnonzero(labels == number)
    if len(found) == 0:
        raise UsageError(
            f"no such {coordinate}",
            session=dataset.attrs.get("session"),
            found=number,
            expected=f"one of {len(labels)} from {labels.min()} to {labels.max()}" if len(labels) else "none",
            remedy=f"see `dataset.{coordinate}`",
        )
    if len(found) > 1:
        raise UsageError(
            f"a {coordinate} id that occurs more than once",
            session=dataset.attrs.get("session"),
            found=f"{number}, {len(found)} times",
            expected="each once, as in one session",
            remedy=f"take one session, or give every {coordinate} an id of its own",
        )
    return int(found[0])


def require_frames(block: xr.Dataset) -> None:
    """Raise a :class:`UsageError` if a trial has no valid frame, as a broken one."""
    if block.sizes["time"] == 0:
        raise UsageError(
            "the trial has no valid frame to show",
            session=block.attrs.get("session"),
            trial=int(block.trial),
            remedy="choose one whose `valid` is true",
        )


def require_variable(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return a data variable.

    Raises
    ------
    UsageError
        If the selection does not have it.
    """
    if name not in dataset:
        raise UsageError(
            f"the selection has no variable {name}",
            session=dataset.attrs.get("session"),
            found=", ".join(map(str, dataset.data_vars)) or "no variable",
            remedy="take it from the session as it was opened",
        )
    variable: xr.DataArray = dataset[name]
    return variable
