"""Datasets that xarray can write back, to Zarr and to netCDF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sensorium_data.files import parse_json

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["make_portable", "read_list"]


def make_portable(dataset: xr.Dataset) -> xr.Dataset:
    """Return an opened dataset without what keeps it from being written back.

    How it was stored (chunks, shards, codecs) fits no selection, concatenation or other chunks of it, and no other
    format. Lists and mappings among the attributes become JSON text and truth values 0 or 1, since netCDF knows none of
    them.
    """
    portable = dataset.drop_encoding()
    portable.attrs = _plain(dataset.attrs)
    for name, variable in portable.variables.items():
        portable[name].attrs = _plain(variable.attrs)
    return portable


def read_list(attributes: Mapping[Any, Any], name: str) -> list[Any]:
    """Return a list among the attributes of a session, as stored or from :func:`make_portable`; empty if none."""
    value = attributes.get(name, ())
    return list(parse_json(value) if isinstance(value, str) else value)


def _plain(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: _plain_value(value) for name, value in attributes.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value
