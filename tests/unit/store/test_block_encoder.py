"""Objects made of arrays: the same bytes as Zarr's own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.errors import StoreError
from sensorium_data.schema import VARIABLES
from sensorium_data.store import BlockEncoder, Precision, SessionTemplate

PER_CHUNK = 1024


def declare(name: str, shape: tuple[int, ...], precision: Precision, *, statistic: bool = False) -> zarr.Array[Any]:
    """Return an empty array of two trials, as the schema lays it out."""
    field = VARIABLES[name]
    if precision is Precision.EXACT64:
        field = replace(field, dtype="float64")
    if statistic:
        field = replace(field, dims=("statistic", *field.dims[1:]))
    sizes = dict(zip(field.dims, (2, *shape), strict=True))
    root = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    return root.create_array(name=name, **field.layout(sizes, compact=precision is Precision.COMPACT))


def make_encoder(array: zarr.Array[Any]) -> BlockEncoder:
    objects = array.store._store_dict
    return BlockEncoder(array.name[1:], json.loads(objects[f"{array.name[1:]}/zarr.json"].to_bytes()))


def assert_equals_zarr(array: zarr.Array[Any], block: np.ndarray) -> None:
    array[1] = block
    (written,) = (value.to_bytes() for key, value in array.store._store_dict.items() if "/c/" in key)
    assert make_encoder(array).encode(block) == written


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(1.0, 3.0, shape).astype(np.float32)
    values[..., -1:] = np.nan
    return values


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("n_neurons", [1, PER_CHUNK - 1, PER_CHUNK, PER_CHUNK + 1, 2500])
def test_responses_are_the_bytes_that_zarr_writes(n_neurons: int, precision: Precision) -> None:
    assert_equals_zarr(declare("responses", (n_neurons, 12), precision), draw((n_neurons, 12)))


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("statistic", [False, True])
def test_videos_and_statistics_are_the_bytes_that_zarr_writes(statistic: bool, precision: Precision) -> None:
    array = declare("videos", (21, 36, 64), precision, statistic=statistic)
    assert_equals_zarr(array, draw((21, 36, 64)))


@given(st.integers(1, 2100), st.integers(1, 9), st.sampled_from(list(Precision)))
def test_responses_of_any_shape_are_the_bytes_that_zarr_writes(
    n_neurons: int, n_frames: int, precision: Precision
) -> None:
    array = declare("responses", (n_neurons, n_frames), precision)
    assert_equals_zarr(array, draw((n_neurons, n_frames), seed=n_neurons))


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_block_of_one_value_is_written_as_any_other(value: float) -> None:
    array = declare("responses", (1100, 5), Precision.EXACT)
    assert_equals_zarr(array, np.full((1100, 5), value, np.float32))


@pytest.mark.parametrize("turn", [lambda block: np.asfortranarray(block), lambda block: np.repeat(block, 2, 1)[:, ::2]])
def test_the_order_in_memory_does_not_matter(turn: Any) -> None:
    block = draw((1500, 7))
    assert_equals_zarr(declare("responses", (1500, 7), Precision.EXACT), turn(block))


def test_values_are_cast() -> None:
    array = declare("responses", (9, 7), Precision.EXACT)
    assert_equals_zarr(array, draw((9, 7)).astype(np.float64) / 3)


@pytest.mark.parametrize("shape", [(9, 6), (8, 7), (9, 7, 1), (7, 9)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    array = declare("responses", (9, 7), Precision.EXACT)
    encoder = make_encoder(array)
    with pytest.raises(ValueError, match=r"responses has the shape .*, expected \(9, 7\)"):
        encoder.encode(np.zeros(shape, np.float32))


def test_a_layout_that_this_version_does_not_write_is_refused() -> None:
    array = declare("behavior", (2, 7), Precision.EXACT)
    with pytest.raises(StoreError, match="the array behavior is not laid out"):
        make_encoder(array)


def test_threads_may_share_a_template() -> None:
    template = SessionTemplate({"trial": 8, "neuron": 1500, "time": 30})
    template.declare_variable("responses")
    blocks = [draw((1500, 30), seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        encoded = dict(pool.map(lambda p: template.encode_block("responses", p, blocks[p]), range(8)))
    assert list(encoded) == [f"responses/c/{position}/0/0" for position in range(8)]
    for block, data in zip(blocks, encoded.values(), strict=True):
        np.testing.assert_array_equal(template.decode_block("responses", data), block)
