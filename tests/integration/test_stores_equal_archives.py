"""Converted stores hold the archives' arrays to float32 precision, whatever the archives' quirks."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sensorium_data.sessions import find_session


def read_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.load(io.BytesIO(archive.read(name)))


def padded(values: np.ndarray, n_frames: int) -> np.ndarray:
    """Return float32 values with NaN from ``n_frames`` on."""
    cast = values.astype(np.float32)
    cast[..., n_frames:] = np.nan
    return cast


@pytest.mark.parametrize("alias", ["D", "F"])
def test_every_trial_equals_its_files(alias: str, archives: Path, store: Path) -> None:
    session = find_session(alias)
    dataset = xr.open_zarr(store / session.name)
    with zipfile.ZipFile(archives / f"{session.name}.zip") as archive:
        files = {
            int(Path(name).stem)
            for name in archive.namelist()
            if name.startswith(f"{session.name}/data/videos/") and name.endswith(".npy")
        }
        tiers = read_npy(archive, f"{session.name}/meta/trials/tiers.npy")
        assert set(dataset.trial.values.tolist()) == files
        n_withheld = 0
        for trial in sorted(files):
            block = dataset.sel(trial=trial).load()
            raw = {
                modality: read_npy(archive, f"{session.name}/data/{modality}/{trial}.npy")
                for modality in ("videos", "responses", "behavior", "pupil_center")
            }
            finite = np.isfinite(raw["videos"]).all(axis=(0, 1))
            n_frames = int(finite.sum())
            assert int(block.n_frames) == n_frames
            assert bool(block.valid) == (n_frames > 0)
            assert str(block.tier.values) == tiers[trial]
            np.testing.assert_array_equal(block.videos, padded(raw["videos"], n_frames).transpose(2, 0, 1))
            np.testing.assert_array_equal(block.behavior, padded(raw["behavior"], n_frames))
            np.testing.assert_array_equal(block.pupil_center, padded(raw["pupil_center"], n_frames))
            withheld = not raw["responses"].any()
            assert bool(block.responses_withheld) == withheld
            n_withheld += withheld
            expected = padded(raw["responses"], 0 if withheld else n_frames)
            np.testing.assert_array_equal(block.responses, expected)
        published = sum(str(tiers[trial]).startswith(("live", "final")) for trial in files)
        assert n_withheld == (published if alias == "F" else 0)


@pytest.mark.parametrize("alias", ["D", "F"])
def test_neurons_and_statistics_equal_the_archive(alias: str, archives: Path, store: Path) -> None:
    session = find_session(alias)
    dataset = xr.open_zarr(store / session.name)
    statistics = xr.open_zarr(store / session.name, group="statistics")
    with zipfile.ZipFile(archives / f"{session.name}.zip") as archive:
        np.testing.assert_array_equal(dataset.neuron, read_npy(archive, f"{session.name}/meta/neurons/unit_ids.npy"))
        positions = read_npy(archive, f"{session.name}/meta/neurons/cell_motor_coordinates.npy")
        np.testing.assert_array_equal(np.stack([dataset.x, dataset.y, dataset.z], axis=1), positions)
        for variable in ("videos", "responses", "behavior", "pupil_center"):
            for index, statistic in enumerate(("mean", "std", "median", "min", "max")):
                raw = read_npy(archive, f"{session.name}/meta/statistics/{variable}/all/{statistic}.npy")
                expected = raw.astype(np.float32)
                if variable == "videos":
                    expected = expected.transpose(2, 0, 1)
                np.testing.assert_array_equal(statistics[variable][index], expected)


def test_largest_error_is_what_float32_costs(archives: Path, store: Path) -> None:
    session = find_session("F")
    dataset = xr.open_zarr(store / session.name)
    largest = 0.0
    with zipfile.ZipFile(archives / f"{session.name}.zip") as archive:
        for name in archive.namelist():
            if name.startswith(f"{session.name}/data/videos/") and name.endswith(".npy"):
                raw = read_npy(archive, name)
                largest = max(largest, float(np.nanmax(np.abs(raw - raw.astype(np.float32)))))
    assert 0 < largest < 1e-4
    assert dataset.videos.attrs["largest_absolute_error"] == pytest.approx(largest, rel=1e-6)
