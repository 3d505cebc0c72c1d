"""What a measure needs of a dataset: its dimensions, coordinates and variables, in the schema's order.

Users change datasets in every way that xarray offers. Measures go by places along the axes, so each takes its dataset
through :func:`arrange_session` first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import xarray as xr

from sensorium_data.counting import name_some
from sensorium_data.errors import UsageError
from sensorium_data.schema import COORDINATES, FRAME_RATE_HZ, MOVIE_GROUP, VARIABLES

__all__ = ["arrange_session", "cut_frames", "find_duplicates", "fingerprint", "frame_numbers", "session_name"]

_FIELDS = {**VARIABLES, **COORDINATES, MOVIE_GROUP.name: MOVIE_GROUP}
_REMEDY = "take it from the session as it was opened; select with lists, `isel(trial=[0])`, to keep a dimension"


def session_name(dataset: xr.Dataset | xr.DataArray) -> str | None:
    """Return what errors call the session; None where the dataset does not say."""
    name = dataset.attrs.get("session")
    return None if name is None else str(name)


def arrange_session(
    dataset: xr.Dataset, *names: str, dims: Iterable[str] = (), unique: Iterable[str] = (), whole_start: bool = False
) -> xr.Dataset:
    """Return a dataset with its dimensions in the schema's order; nothing is read.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or what a user made of it.
    *names : str
        Variables and coordinates of :mod:`sensorium_data.schema` that are needed, with their dimensions.
    dims : iterable of str
        Further dimensions that are needed.
    unique : iterable of str
        Coordinates, ``trial`` or ``neuron``, whose labels have to differ.
    whole_start : bool
        The time axis has to begin at each trial's first frame and lack none up to its end, because frames are counted.
        It may end early: ``n_frames`` is then at most its length.

    Raises
    ------
    UsageError
        If the dataset lacks a variable, coordinate or dimension, labels repeat, or frames are cut away at the start.
    """
    needed = (*names, *(("time", "n_frames") if whole_start else ()))
    for dim in dims:
        _require_dimension(dataset, dim)
    for name in needed:
        wanted = _FIELDS[name].dims
        # A variable that is missing may be why its dimensions are; a coordinate has those of the variables.
        if name not in VARIABLES or name in dataset.variables:
            for dim in wanted:
                _require_dimension(dataset, dim)
        if name not in dataset.variables:
            kind = "variable" if name in VARIABLES else "coordinate"
            raise UsageError(
                f"the dataset has no {kind} {name}",
                session=session_name(dataset),
                found=name_some(list(dataset.data_vars if kind == "variable" else dataset.coords), most=20)
                or f"no {kind}",
                expected=name,
                remedy=_REMEDY,
            )
        if set(dataset[name].dims) != set(wanted):
            raise UsageError(
                f"{name} has other dimensions than a session's",
                session=session_name(dataset),
                found=", ".join(map(str, dataset[name].dims)) or "none",
                expected=", ".join(wanted),
                remedy=_REMEDY,
            )
    for name in unique:
        _require_unique(dataset, name)
    arranged = {
        name: variable.transpose(*_FIELDS[str(name)].dims)
        for name, variable in dataset.variables.items()
        if name in _FIELDS
        and set(variable.dims) == set(_FIELDS[str(name)].dims)
        and variable.dims != _FIELDS[str(name)].dims
    }
    # Attributes and the encoding, which says which store it is from, stay.
    ordered = dataset.assign(arranged) if arranged else dataset
    return _count_frames(ordered) if whole_start else ordered


def frame_numbers(dataset: xr.Dataset) -> np.ndarray:
    """Return which frame of its trial each place of the time axis holds, (time,) integers."""
    dataset = arrange_session(dataset, "time")
    seconds = np.asarray(dataset["time"].values, np.float64)
    if not np.isfinite(seconds).all():
        raise UsageError(
            "the time axis holds values that are no times", session=session_name(dataset), expected="seconds"
        )
    frames: np.ndarray = np.rint(seconds * FRAME_RATE_HZ).astype(np.int64)
    return frames


def cut_frames(dataset: xr.Dataset, n_frames: int) -> xr.Dataset:
    """Return the frames of the time axis that belong to the first ``n_frames`` of a trial; some may be cut away."""
    frames = frame_numbers(dataset)
    if np.array_equal(frames, np.arange(len(frames))):
        return dataset.isel(time=slice(0, n_frames))
    return dataset.isel(time=np.flatnonzero(frames < n_frames))


def find_duplicates(labels: np.ndarray) -> list[Any]:
    """Return the labels that occur more than once."""
    values, counts = np.unique(labels, return_counts=True)
    repeated: list[Any] = values[counts > 1].tolist()
    return repeated


def fingerprint(dataset: xr.Dataset, *large: str) -> Hashable | None:
    """Return what differs whenever the coordinates or the named variables differ; None if that would take reading.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it.
    *large : str
        Variables that are compared by the name of their dask graph. Those in memory can be changed in place.
    """
    parts: list[Hashable] = [repr(dataset.attrs.get("session"))]
    for name in large:
        if name in dataset.variables:
            variable = dataset.variables[name]
            graph = getattr(variable.data, "name", None) if variable.chunks is not None else None
            if graph is None:
                return None
            parts.append((name, variable.dims, graph))
    for key, coordinate in dataset.coords.items():
        if coordinate.chunks is not None:
            return None
        parts.append((str(key), coordinate.dims, tuple(coordinate.values.ravel().tolist())))
    return tuple(parts)


def _require_dimension(dataset: xr.Dataset, dim: str) -> None:
    if dim not in dataset.dims:
        raise UsageError(
            f"the dataset has no dimension {dim}",
            session=session_name(dataset),
            found=name_some([str(one) for one in dataset.dims], most=20) or "no dimension",
            expected=dim,
            remedy=_REMEDY,
        )


def _require_unique(dataset: xr.Dataset, name: str) -> None:
    arranged = arrange_session(dataset, name)
    repeated = find_duplicates(arranged[name].values)
    if repeated:
        raise UsageError(
            f"{name} ids that occur more than once",
            session=session_name(dataset),
            found=name_some(repeated, most=5),
            expected="each once, as in one session",
            remedy=f"measure each session by itself, or give every {name} an id of its own",
        )


def _count_frames(dataset: xr.Dataset) -> xr.Dataset:
    frames = frame_numbers(dataset)
    if not len(frames):
        raise UsageError(
            "the time axis holds no frame",
            session=session_name(dataset),
            expected="frames from the start of the trials",
            remedy="select frames at the start, `isel(time=slice(0, 100))`, or none",
        )
    if not np.array_equal(frames, np.arange(len(frames))):
        missing = int(np.flatnonzero(~np.isin(np.arange(int(frames.max(initial=0)) + 1), frames)).min(initial=0))
        raise UsageError(
            "frames are cut away before the end of the trials, and this counts frames from their start",
            session=session_name(dataset),
            found=f"a time axis without frame {missing}",
            expected="every frame from 0 on; frames at the end may be missing",
            remedy="take the whole trials; measures that leave out the start have skip_frames",
        )
    lengths = dataset["n_frames"]
    if (lengths.values > len(frames)).any():
        clipped = np.minimum(lengths.values, len(frames))
        return dataset.assign_coords(n_frames=("trial", clipped, lengths.attrs))
    return dataset
