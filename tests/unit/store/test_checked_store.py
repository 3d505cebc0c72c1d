"""Reading through the ledger: whole objects, parts of them, and those that are not there."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from fixtures.stores import read_files
from sensorium_data.errors import StoreError
from sensorium_data.files import StoredObject
from sensorium_data.schema import VARIABLES
from sensorium_data.store import CheckedStore

# Two chunks a shard.
N_NEURONS = 1500
SIZES = {"trial": 2, "neuron": N_NEURONS, "time": 4}
SHARD = Path("responses", "c", "1", "0", "0")
VALUES = np.random.default_rng(0).random((2, N_NEURONS, 4), np.float32)


def describe(key: str, problem: str) -> StoreError:
    return StoreError(problem, path=key)


@pytest.fixture(params=[True, False], ids=["this version", "schema 2"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A group of responses; chunks of schema 2 have no checksum."""
    layout = VARIABLES["responses"].layout(SIZES)
    if not request.param:
        layout["compressors"] = layout["compressors"][:1]
    zarr.create_array(LocalStore(tmp_path), name="responses", **layout)[...] = VALUES
    return tmp_path


def open_checked(group: Path) -> CheckedStore:
    objects = {key: StoredObject.of(data) for key, data in read_files(group).items()}
    return CheckedStore(LocalStore(group, read_only=True), "", objects, describe)


def read(store: CheckedStore, *index: object) -> np.ndarray:
    return np.asarray(zarr.open_array(store, path="responses", mode="r")[index])


@pytest.mark.parametrize("index", [(1,), (1, 7), (1, slice(1100, 1110), 2), (slice(None), 1499)])
def test_sound_objects_are_read_whole_and_in_parts(index: tuple[object, ...], group: Path) -> None:
    store = pickle.loads(pickle.dumps(open_checked(group)))  # noqa: S301 - as Dask sends it to its workers
    np.testing.assert_array_equal(read(store, *index), VALUES[index])


@pytest.mark.parametrize("index", [(1,), (1, 7)])
def test_a_flipped_bit_is_an_error_also_where_only_a_part_is_read(index: tuple[object, ...], group: Path) -> None:
    store = open_checked(group)
    path = group / SHARD
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{SHARD.as_posix()}: the CRC of its bytes differs"):
        read(store, *index)
    np.testing.assert_array_equal(read(store, 0), VALUES[0])


def test_a_lost_object_is_an_error_rather_than_nan(group: Path) -> None:
    store = open_checked(group)
    (group / SHARD).unlink()
    for index in ((1,), (1, 7)):
        with pytest.raises(StoreError, match=rf"{SHARD.as_posix()}: missing"):
            read(store, *index)


def test_an_object_that_nobody_noted_is_an_error(group: Path) -> None:
    path = group / SHARD
    data = path.read_bytes()
    path.unlink()
    store = open_checked(group)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{SHARD.as_posix()}: not in the ledger"):
        read(store, 1)
