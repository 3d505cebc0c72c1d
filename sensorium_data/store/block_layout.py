"""How the blocks of an array lie in its objects: what its metadata say, for those who read and write them directly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium_data.errors import StoreError

__all__ = ["CRC32C_SIZE_BYTES", "BlockLayout"]

#: Of the checksum that chunks and a shard's index end with.
CRC32C_SIZE_BYTES = 4


class BlockLayout:
    """The layout of an array whose first axis is the trial: one object a trial, as :mod:`sensorium_data.schema` has it.

    The object is one chunk, or a shard of chunks along the array's second axis.

    Parameters
    ----------
    name : str
        Path of the array in its group.
    metadata : mapping
        Content of the array's ``zarr.json``; its dimensions are named, one of them ``time``.

    Attributes
    ----------
    name : str
        As given.
    shape : tuple of int
        Of a block: the array's shape without the trial.
    dtype : numpy.dtype
        As stored.
    time_axis : int
        Which axis of a block is time: the first or, of two, the last.
    chunk_shape : tuple of int
        Of a chunk, without the trial.
    n_chunks, n_index_entries : int
        Chunks of a block, and entries of the index of a shard.
    is_sharded : bool
        Whether the object is a shard.
    has_checksum : bool
        Whether every chunk ends with its CRC-32C.
    compression : mapping
        Configuration of the Blosc codec, as the metadata have it.

    Raises
    ------
    StoreError
        If the array is not laid out as this version's schema lays it out.
    """

    def __init__(self, name: str, metadata: Mapping[str, Any]) -> None:
        self.name = name
        try:
            self.shape: tuple[int, ...] = tuple(metadata["shape"][1:])
            self.time_axis = list(metadata["dimension_names"][1:]).index("time")
            self.dtype: np.dtype[Any] = np.dtype(metadata["data_type"]).newbyteorder("<")
            outer = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
            codecs: Sequence[Mapping[str, Any]] = metadata["codecs"]
            self.is_sharded = codecs[0]["name"] == "sharding_indexed"
            if self.is_sharded:
                sharding = codecs[0]["configuration"]
                chunk = tuple(sharding["chunk_shape"])
                codecs = sharding["codecs"]
                index_codecs = [codec["name"] for codec in sharding["index_codecs"]]
                if index_codecs != ["bytes", "crc32c"] or sharding.get("index_location", "end") != "end":
                    raise ValueError(f"an index encoded by {', '.join(index_codecs)}")
            else:
                chunk = outer
            names = [codec["name"] for codec in codecs]
            is_little = codecs[0]["configuration"].get("endian", "little") == "little"
            if names[:2] != ["bytes", "blosc"] or names[2:] not in ([], ["crc32c"]) or not is_little:
                raise ValueError(f"codecs {', '.join(names)}")
            self.has_checksum = names[2:] == ["crc32c"]
            self.compression: Mapping[str, Any] = codecs[1]["configuration"]
            self._separator = str(metadata["chunk_key_encoding"]["configuration"].get("separator", "/"))
            if metadata["chunk_key_encoding"]["name"] != "default":
                raise ValueError(f"keys {metadata['chunk_key_encoding']['name']}")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._foreign(error) from error
        self.chunk_shape: tuple[int, ...] = chunk[1:]
        self.n_chunks = math.ceil(self.shape[0] / chunk[1])
        self.n_index_entries = outer[1] // chunk[1]
        is_whole_trial = outer[0] == 1 and all(n >= size for n, size in zip(outer[1:], self.shape, strict=True))
        is_cut_as_expected = chunk[2:] == outer[2:] and outer[1] % chunk[1] == 0
        has_time_as_expected = self.time_axis == 1 if len(self.shape) == 2 else self.n_chunks == 1
        if not (is_whole_trial and is_cut_as_expected and has_time_as_expected):
            raise self._foreign(f"shards of {outer}, chunks of {chunk}")

    def key(self, position: int) -> str:
        """Return the key of a trial's object below the array's group."""
        return self._separator.join([f"{self.name}/c", str(position), *("0" for _ in self.shape)])

    def _foreign(self, found: object) -> StoreError:
        return StoreError(
            f"the array {self.name} is not laid out as this version lays it out",
            found=str(found),
            expected="one object a trial, compressed by Blosc",
            remedy="convert the session again",
        )
