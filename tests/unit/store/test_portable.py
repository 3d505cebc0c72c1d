"""Opened sessions and predictions are written back by xarray as they are, in parts and in other formats."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fixtures.tables import each_once
from sensorium_data.ingest import convert_session
from sensorium_data.predictions import from_arrays, open_predictions
from sensorium_data.store import open_store
from sensorium_data.testing.recordings import make_recording, npy

Write = Callable[[xr.Dataset, Path], xr.Dataset]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of session F; not to be changed."""
    root = tmp_path_factory.mktemp("store")
    recording = make_recording("F", ["train"] * 4 + ["oracle"], n_frames={1: 18}, n_neurons=3)
    said = {
        "meta/trials/trial_idx.npy": npy(np.array(["0", "1", "2", "4", "5"])),
        "config.json": json.dumps({"simulated": True, "seed": 5, "simulator_version": 2}).encode(),
    }
    recording = replace(recording, extra={f"{recording.session.name}/{name}": data for name, data in said.items()})
    recording.write(root / "archives")
    convert_session(recording.session, str(root / "store"), source=str(root / "archives"))
    return root / "store"


def concatenate(session: xr.Dataset) -> xr.Dataset:
    return xr.concat([session.isel(trial=[2, 3]), session.isel(trial=[0, 4])], "trial", data_vars="minimal")


def write_zarr(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    dataset.to_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False)


def write_zarr_2(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    dataset.to_zarr(path, zarr_format=2, consolidated=False)
    return xr.open_zarr(path, consolidated=False)


def append_zarr(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    dataset.isel(trial=slice(0, 2)).to_zarr(path, consolidated=False)
    dataset.isel(trial=slice(2, None)).to_zarr(path, append_dim="trial", consolidated=False)
    return xr.open_zarr(path, consolidated=False)


def write_netcdf(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    dataset.to_netcdf(path)
    return xr.load_dataset(path)


@pytest.fixture(autouse=True)
def _as_a_notebook() -> None:
    # Zarr's remarks on text, which its third format does not define yet.
    warnings.filterwarnings("ignore", category=UserWarning, module="zarr")
    warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")


@pytest.mark.parametrize(
    ("write", "select"),
    each_once(
        {write.__name__: write for write in (write_zarr, write_zarr_2, append_zarr, write_netcdf)},
        {
            "all": lambda session: session,
            "some trials": lambda session: session.isel(trial=[3, 1, 4]),
            "other chunks": lambda session: session.chunk(trial=2),
            "concatenated": concatenate,
            "one variable": lambda session: session[["responses"]],
            "a window": lambda session: session.isel(time=slice(2, 9), neuron=[2, 0]),
        },
    ),
)
def test_what_is_selected_can_be_written_and_read(
    store: Path, tmp_path: Path, select: Callable[[xr.Dataset], xr.Dataset], write: Write
) -> None:
    chosen = select(open_store(store)["F"])
    written = write(chosen, tmp_path / "written")
    assert set(written.variables) == set(chosen.variables)
    for name, variable in chosen.variables.items():
        np.testing.assert_array_equal(written[name].values, variable.values, err_msg=str(name))
    assert written.attrs["session"] == chosen.attrs["session"]


def test_statistics_can_be_written(store: Path, tmp_path: Path) -> None:
    statistics = open_store(store).statistics("F")
    xr.testing.assert_equal(write_netcdf(statistics, tmp_path / "statistics.nc"), statistics.load())


def test_lists_among_the_attributes_are_json(store: Path) -> None:
    notes = open_store(store)["F"].attrs["notes"]
    assert isinstance(notes, str)
    assert json.loads(notes)[0].startswith("train has 4 trials")


def test_predictions_can_be_written(store: Path, tmp_path: Path) -> None:
    session = open_store(store)["F"]
    arrays = {"F": {4: np.ones((3, int(session.n_frames[4])), np.float32)}}
    from_arrays(str(tmp_path / "predictions"), str(store), arrays, response_units="standardized")
    predicted = open_predictions(str(tmp_path / "predictions"), "F")
    written = write_netcdf(predicted, tmp_path / "predictions.nc")
    np.testing.assert_array_equal(written.predictions.values, predicted.predictions.values)
    assert json.loads(written.attrs["tiers"]) == ["oracle"]
