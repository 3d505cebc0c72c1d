"""Datasets of sessions as users get them: labels in memory, large variables as dask arrays, alike for all versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium_data.schema import Field
from sensorium_data.store.forks import survive_forks
from sensorium_data.store.portable import make_portable, read_list

# Loaded where it is used: what asks only whether a session is finished would wait a second for it.
if TYPE_CHECKING:
    import xarray as xr

__all__ = ["fill_unknown", "find_absent", "load_coordinates"]

# The other variables are stored in one chunk each.
_CHUNKED_VARIABLES = ("videos", "responses")


def find_absent(attributes: Mapping[str, Any]) -> frozenset[str]:
    """Return the variables and coordinates that a session's store lacks because the recording does.

    Parameters
    ----------
    attributes : mapping
        Of the session's group: its ``absent`` names ``behavior``, ``pupil_center`` or ``positions``.
    """
    names = {str(name) for name in read_list(attributes, "absent")}
    optional = {"behavior": ("behavior",), "pupil_center": ("pupil_center",), "positions": ("x", "y", "z")}
    return frozenset(array for name in names for array in optional.get(name, ()))


def load_coordinates(dataset: xr.Dataset, chunk_dim: str) -> xr.Dataset:
    """Load the coordinates, and make the data variables dask arrays.

    Parameters
    ----------
    dataset : xarray.Dataset
        As opened, nothing read.
    chunk_dim : str
        The dimension along which the large variables are cut into chunks of length 1.
    """
    survive_forks()
    # Variables: a DataArray of one coordinate would bring copies of all the others.
    coordinates = {name: _as_plain_text(dataset.variables[name].load()) for name in dataset.coords}
    variables = {
        name: variable.chunk(
            {dim: 1 if dim == chunk_dim and name in _CHUNKED_VARIABLES else -1 for dim in variable.dims}
        )
        for name, variable in dataset.data_vars.items()
    }
    return make_portable(dataset.assign(variables).assign_coords(coordinates))


def fill_unknown(field: Field, n_trials: int) -> xr.Variable:
    import xarray as xr

    dtype = np.dtype(np.str_ if field.dtype == "str" else field.dtype)
    return xr.Variable(field.dims, np.full(n_trials, field.fill_value, dtype), dict(field.attributes))


def _as_plain_text(coordinate: xr.Variable) -> xr.Variable:
    """Return text as NumPy's fixed-width kind: what Zarr reads, StringDType, much of NumPy cannot take yet."""
    if not isinstance(coordinate.dtype, np.dtypes.StringDType):
        return coordinate
    return coordinate.copy(data=np.array(coordinate.values.tolist(), dtype=np.str_))
