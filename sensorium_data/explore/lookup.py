"""Trials and neurons by their labels, and errors that say which there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.visible_text import shorten

__all__ = ["find_position", "require_frames", "require_variable"]


def find_position(dataset: xr.Dataset | xr.DataArray, coordinate: str, label: Any) -> int:
    """Return the position of a trial or neuron with this label.

    Raises
    ------
    UsageError
        If nothing has this label.
    """
    labels = dataset[coordinate].values if coordinate in dataset.coords else np.empty(0, int)
    found = np.flatnonzero(labels == label)
    if len(found) == 0:
        raise UsageError(
            f"no such {coordinate}",
            session=dataset.attrs.get("session"),
            found=shorten(str(label), 200),
            expected=f"one of {len(labels)} from {labels.min()} to {labels.max()}" if len(labels) else "none",
            remedy=f"see `dataset.{coordinate}`",
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
