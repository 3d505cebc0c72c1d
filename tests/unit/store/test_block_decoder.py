"""Objects of a store as arrays: the same numbers as Zarr's own, or an error."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import blosc

from sensorium_data.errors import StoreError
from sensorium_data.schema import VARIABLES
from sensorium_data.store import BlockDecoder, Precision

N_TRIALS = 2
PER_CHUNK = 1024
INDEX_ENTRY_BYTES = 16
CRC_BYTES = 4
ABSENT = 2**64 - 1


@dataclass(frozen=True)
class Stored:
    """An array as the schema lays it out, the values that Zarr reads from it, and its objects."""

    name: str
    metadata: dict[str, Any]
    values: np.ndarray
    objects: Mapping[str, bytes]

    @property
    def decoder(self) -> BlockDecoder:
        return BlockDecoder(self.name, self.metadata)

    @property
    def data(self) -> bytes:
        """The second trial's object: one of the first could be found without looking at its position."""
        return self.objects[self.decoder.key(1)]

    @property
    def n_chunks(self) -> int:
        return -(-self.values.shape[1] // PER_CHUNK)


def store(name: str, shape: tuple[int, ...], precision: Precision = Precision.EXACT, seed: int = 0) -> Stored:
    """Write an array of random values, with NaN at the end of its time as in a store, by Zarr."""
    field = VARIABLES[name]
    if precision is Precision.EXACT64:
        field = replace(field, dtype="float64")
    sizes = dict(zip(field.dims, (N_TRIALS, *shape), strict=True))
    objects: dict[str, Any] = {}
    root = zarr.open_group(zarr.storage.MemoryStore(objects), mode="w")
    layout = field.layout(sizes, compact=precision is Precision.COMPACT)
    array = root.create_array(name=name, **layout)
    values = np.random.default_rng(seed).gamma(1.0, 3.0, (N_TRIALS, *shape)).astype(field.dtype)
    values[(slice(None),) * field.dims.index("time") + (slice(-2, None),)] = np.nan
    array[...] = values
    data = {key: value.to_bytes() for key, value in objects.items()}
    return Stored(name, json.loads(data[f"{name}/zarr.json"]), np.asarray(array[...]), data)


def assert_equals_zarr(stored: Stored, n_frames: int) -> None:
    decoder = stored.decoder
    for position in range(N_TRIALS):
        block = decoder.decode(stored.objects[decoder.key(position)], n_frames)
        expected = stored.values[position]
        expected = expected[:n_frames] if stored.name == "videos" else expected[:, :n_frames]
        assert block.dtype == expected.dtype
        np.testing.assert_array_equal(block, expected)
        # Time runs slowest: a window is one piece of memory.
        assert (block if stored.name == "videos" else block.T).flags.c_contiguous


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("n_neurons", [1, PER_CHUNK - 1, PER_CHUNK, PER_CHUNK + 1, 2500])
def test_responses_equal_what_zarr_reads(n_neurons: int, precision: Precision) -> None:
    stored = store("responses", (n_neurons, 12), precision)
    for n_frames in (12, 10, 1):
        assert_equals_zarr(stored, n_frames)


@pytest.mark.parametrize("precision", list(Precision))
def test_videos_equal_what_zarr_reads(precision: Precision) -> None:
    stored = store("videos", (21, 36, 64), precision)
    for n_frames in (21, 20, 7):
        assert_equals_zarr(stored, n_frames)


@given(st.integers(1, 2100), st.integers(2, 9), st.sampled_from(list(Precision)), st.data())
def test_responses_of_any_shape_equal_what_zarr_reads(
    n_neurons: int, n_padded: int, precision: Precision, data: st.DataObject
) -> None:
    stored = store("responses", (n_neurons, n_padded), precision, seed=n_neurons)
    assert_equals_zarr(stored, data.draw(st.integers(1, n_padded)))


def test_a_decoded_block_is_memory_of_its_own() -> None:
    stored = store("responses", (3, 8))
    buffer = bytearray(stored.data)
    block = stored.decoder.decode(memoryview(buffer), 6)
    # The reader reads the next object into the same memory.
    buffer[:] = bytes(len(buffer))
    np.testing.assert_array_equal(block, stored.values[1, :, :6])


def test_a_block_lies_in_the_memory_it_is_given() -> None:
    for stored, n_frames in ((store("responses", (1100, 8)), 6), (store("videos", (9, 36, 64)), 7)):
        given_: list[np.ndarray] = []

        def allocate(shape: tuple[int, ...], dtype: Any, given_: list[np.ndarray] = given_) -> np.ndarray:
            given_.append(np.empty(shape, dtype))
            return given_[-1]

        block = stored.decoder.decode(stored.data, n_frames, allocate)
        (memory,) = given_
        assert np.shares_memory(block, memory)
        np.testing.assert_array_equal(block, stored.decoder.decode(stored.data, n_frames))


def test_keys_are_those_zarr_wrote() -> None:
    for stored in (store("responses", (1025, 4)), store("videos", (3, 36, 64))):
        keys = {key for key in stored.objects if "/c/" in key}
        assert keys == {stored.decoder.key(position) for position in range(N_TRIALS)}


# ---- damage: the object is not what was written, and whoever checks its CRC did not see it


@pytest.mark.parametrize(("name", "shape"), [("videos", (4, 36, 64)), ("responses", (5, 30)), ("responses", (2500, 4))])
def test_a_truncated_object_is_an_error_wherever_it_is_cut(name: str, shape: tuple[int, ...]) -> None:
    stored = store(name, shape)
    data = stored.data
    cuts = {0, 1, 4, 15, 16, 17, len(data) - 20, len(data) - 4, len(data) - 1}
    cuts |= set(np.linspace(0, len(data) - 1, 300).astype(int).tolist())
    for cut in sorted(cuts):
        with pytest.raises(ValueError, match=rf"of {name} "):
            stored.decoder.decode(data[:cut], shape[0] if name == "videos" else shape[1])


def test_what_comes_after_an_object_is_an_error() -> None:
    for stored in (store("videos", (4, 36, 64)), store("responses", (2500, 4))):
        with pytest.raises(ValueError, match=f"of {stored.name} "):
            stored.decoder.decode(stored.data + b"\0" * 7, 4)


@pytest.mark.parametrize(("n_neurons", "number"), [(5, 0), (2500, 0), (2500, 2)])
def test_a_chunk_left_out_of_a_shard_is_an_error_that_tells_which(n_neurons: int, number: int) -> None:
    stored = store("responses", (n_neurons, 6))
    data = change_index(stored, number, ABSENT, ABSENT)
    with pytest.raises(ValueError, match=rf"chunk {number} of a shard of responses is not in it"):
        stored.decoder.decode(data, 6)


@pytest.mark.parametrize("change", [(1, 0), (-1, 0), (0, 1), (0, -1), (0, -(10**6)), (2**40, 0), (0, 2**63)])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_index_that_points_elsewhere_is_an_error(change: tuple[int, int], number: int) -> None:
    stored = store("responses", (2500, 6))
    offset, length = index_of(stored)[number]
    data = change_index(stored, number, (offset + change[0]) % 2**64, (length + change[1]) % 2**64)
    with pytest.raises(ValueError, match=r"of responses|of a shard of responses"):
        stored.decoder.decode(data, 6)


@pytest.mark.parametrize("size_bytes", [0, 4, 5 * 6 * 4 - 4, 5 * 6 * 4 + 4, 2**31 - 1])
def test_a_chunk_that_says_to_be_of_another_size_is_an_error(size_bytes: int) -> None:
    stored = store("responses", (5, 6))
    data = bytearray(stored.data)
    data[4:8] = size_bytes.to_bytes(4, "little")
    with pytest.raises(ValueError, match=rf"a chunk of responses holds {size_bytes} bytes, expected {5 * 6 * 4}"):
        stored.decoder.decode(data, 6)


def test_bytes_that_are_no_blosc_buffer_are_an_error() -> None:
    stored = store("videos", (4, 36, 64))
    data = bytearray(stored.data)
    # A version of the format that there is not.
    data[0] = 0xEE
    with pytest.raises(ValueError, match=r"a chunk of videos cannot be decompressed"):
        stored.decoder.decode(data, 4)


def test_a_chunk_of_another_array_is_an_error() -> None:
    stored = store("videos", (4, 36, 64))
    with pytest.raises(ValueError, match=rf"expected {4 * 36 * 64 * 4}"):
        stored.decoder.decode(blosc.compress(bytes(100), b"lz4", 1), 4)


def index_of(stored: Stored) -> list[list[int]]:
    """Return offset and length of each chunk, as the last bytes of a shard say by Zarr's specification."""
    size = stored.n_chunks * INDEX_ENTRY_BYTES
    index = np.frombuffer(stored.data[-size - CRC_BYTES : -CRC_BYTES], "<u8")
    return index.reshape(-1, 2).tolist()


def change_index(stored: Stored, number: int, offset: int, length: int) -> bytes:
    data = bytearray(stored.data)
    start = len(data) - CRC_BYTES - (stored.n_chunks - number) * INDEX_ENTRY_BYTES
    data[start : start + INDEX_ENTRY_BYTES] = np.array([offset, length], "<u8").tobytes()
    return bytes(data)


# ---- layouts that this version does not write


def _other_codec(metadata: dict[str, Any]) -> None:
    metadata["codecs"][-1] = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def _no_codec(metadata: dict[str, Any]) -> None:
    del metadata["codecs"][-1]


def _transposed(metadata: dict[str, Any]) -> None:
    metadata["codecs"].insert(0, {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}})


def _big_endian(metadata: dict[str, Any]) -> None:
    metadata["codecs"][0]["configuration"]["endian"] = "big"


def _cut_in_time(metadata: dict[str, Any]) -> None:
    metadata["chunk_grid"]["configuration"]["chunk_shape"][1] = 2


def _cut_in_height(metadata: dict[str, Any]) -> None:
    metadata["chunk_grid"]["configuration"]["chunk_shape"][2] = 18


def _two_trials_a_chunk(metadata: dict[str, Any]) -> None:
    metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = 2


def _old_keys(metadata: dict[str, Any]) -> None:
    metadata["chunk_key_encoding"] = {"name": "v2", "configuration": {"separator": "."}}


def _without_time(metadata: dict[str, Any]) -> None:
    metadata["dimension_names"][1] = "frame"


def _without_names(metadata: dict[str, Any]) -> None:
    metadata["dimension_names"] = None


def _unknown_dtype(metadata: dict[str, Any]) -> None:
    metadata["data_type"] = "r13"


def _without_shape(metadata: dict[str, Any]) -> None:
    del metadata["shape"]


@pytest.mark.parametrize(
    "change",
    [
        _other_codec,
        _no_codec,
        _transposed,
        _big_endian,
        _cut_in_time,
        _cut_in_height,
        _two_trials_a_chunk,
        _old_keys,
        _without_time,
        _without_names,
        _unknown_dtype,
        _without_shape,
    ],
)
def test_a_foreign_layout_of_videos_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    metadata = copy.deepcopy(store("videos", (4, 36, 64)).metadata)
    change(metadata)
    with pytest.raises(StoreError, match=r"the array videos is not laid out.*found .*convert the session again"):
        BlockDecoder("videos", metadata)


def _index_first(sharding: dict[str, Any]) -> None:
    sharding["index_location"] = "start"


def _index_without_crc(sharding: dict[str, Any]) -> None:
    del sharding["index_codecs"][1]


def _chunks_cut_in_time(sharding: dict[str, Any]) -> None:
    sharding["chunk_shape"][2] = 3


def _chunk_of_zstd(sharding: dict[str, Any]) -> None:
    sharding["codecs"][1] = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


@pytest.mark.parametrize("change", [_index_first, _index_without_crc, _chunks_cut_in_time, _chunk_of_zstd])
def test_a_foreign_layout_of_responses_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    metadata = copy.deepcopy(store("responses", (2500, 6)).metadata)
    change(metadata["codecs"][0]["configuration"])
    with pytest.raises(StoreError, match=r"the array responses is not laid out"):
        BlockDecoder("responses", metadata)


def test_a_shard_of_half_the_neurons_is_refused() -> None:
    metadata = copy.deepcopy(store("responses", (2500, 6)).metadata)
    metadata["chunk_grid"]["configuration"]["chunk_shape"][1] = 2048
    with pytest.raises(StoreError, match=r"the array responses is not laid out.*found shards of \(1, 2048, 6\)"):
        BlockDecoder("responses", metadata)


def test_responses_that_are_not_sharded_are_decoded_too() -> None:
    objects: dict[str, Any] = {}
    field = VARIABLES["responses"]
    layout = field.layout({"trial": N_TRIALS, "neuron": 9, "time": 5})
    del layout["shards"]
    array = zarr.open_group(zarr.storage.MemoryStore(objects), mode="w").create_array(name="responses", **layout)
    array[...] = np.random.default_rng(0).normal(size=(N_TRIALS, 9, 5))
    decoder = BlockDecoder("responses", json.loads(objects["responses/zarr.json"].to_bytes()))
    np.testing.assert_array_equal(decoder.decode(objects["responses/c/1/0/0"].to_bytes(), 4), array[1, :, :4])
