"""From an object of a session store to the values of one trial, without Zarr in between.

Zarr takes four to seven times as long for a trial as the decompression itself, most of it in Python, where threads
wait for each other. A training run reads each trial hundreds of times, so what :mod:`sensorium_data.schema`
lays out is decoded here directly: one trial is one object, either one chunk or a shard of chunks along its second axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numcodecs import blosc

from sensorium_data.errors import StoreError

__all__ = ["BlockDecoder"]

# What Zarr's sharding codec writes for a chunk that was left out.
_ABSENT = 2**64 - 1
_INDEX_ENTRY_SIZE_BYTES = 16
_CRC32C_SIZE_BYTES = 4


class BlockDecoder:
    """Decodes the objects of one array whose first axis is the trial.

    Parameters
    ----------
    name : str
        Path of the array in its group.
    metadata : mapping
        Content of the array's ``zarr.json``; its dimensions are named, one of them ``time``.

    Attributes
    ----------
    shape : tuple of int
        Of a decoded block: the array's shape without the trial.
    dtype : numpy.dtype
        As stored.
    time_axis : int
        Which axis of a block is time: the first or, of two, the last.

    Raises
    ------
    StoreError
        If the array is not laid out as this version's schema lays it out.
    """

    def __init__(self, name: str, metadata: Mapping[str, Any]) -> None:
        self._name = name
        try:
            self.shape: tuple[int, ...] = tuple(metadata["shape"][1:])
            self.time_axis = list(metadata["dimension_names"][1:]).index("time")
            self.dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
            outer = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
            codecs: Sequence[Mapping[str, Any]] = metadata["codecs"]
            self._is_sharded = codecs[0]["name"] == "sharding_indexed"
            if self._is_sharded:
                sharding = codecs[0]["configuration"]
                self._chunk_shape = tuple(sharding["chunk_shape"])
                codecs = sharding["codecs"]
                index_codecs = [codec["name"] for codec in sharding["index_codecs"]]
                if index_codecs != ["bytes", "crc32c"] or sharding.get("index_location", "end") != "end":
                    raise ValueError(f"an index encoded by {', '.join(index_codecs)}")
            else:
                self._chunk_shape = outer
            names = [codec["name"] for codec in codecs]
            # Not looked at: whoever reads an object compares all of it with the ledger.
            self._checksum_size_bytes = _CRC32C_SIZE_BYTES if names[2:] == ["crc32c"] else 0
            is_little = codecs[0]["configuration"].get("endian", "little") == "little"
            if names[:2] != ["bytes", "blosc"] or names[2:] not in ([], ["crc32c"]) or not is_little:
                raise ValueError(f"codecs {', '.join(names)}")
            self._separator = str(metadata["chunk_key_encoding"]["configuration"].get("separator", "/"))
            if metadata["chunk_key_encoding"]["name"] != "default":
                raise ValueError(f"keys {metadata['chunk_key_encoding']['name']}")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._foreign(error) from error
        self._n_chunks = math.ceil(self.shape[0] / self._chunk_shape[1])
        is_whole_trial = outer[0] == 1 and all(n >= size for n, size in zip(outer[1:], self.shape, strict=True))
        is_cut_as_expected = self._chunk_shape[2:] == outer[2:] and outer[1] % self._chunk_shape[1] == 0
        has_time_as_expected = self.time_axis == 1 if len(self.shape) == 2 else self._n_chunks == 1
        if not (is_whole_trial and is_cut_as_expected and has_time_as_expected):
            raise self._foreign(f"shards of {outer}, chunks of {self._chunk_shape}")
        self._n_index_entries = outer[1] // self._chunk_shape[1]

    def key(self, position: int) -> str:
        """Return the key of a trial's object below the array's group."""
        return self._separator.join([f"{self._name}/c", str(position), *("0" for _ in self.shape)])

    def decode(
        self,
        data: bytes | memoryview,
        n_frames: int,
        allocate: Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray] = np.empty,
    ) -> np.ndarray:
        """Return the first frames of one trial, in memory of its own in which time runs slowest.

        Windows are cut along time: neuron by neuron, as responses are stored, each would gather thousands of
        short pieces from all over the trial, which takes five times as long as copying it in one piece.

        Parameters
        ----------
        data : bytes
            The object.
        n_frames : int
            Frames wanted; the array may be longer.
        allocate : callable
            Takes a shape and a dtype, and returns an array for the values.

        Returns
        -------
        ndarray
            Of :attr:`shape`, but for the number of frames.

        Raises
        ------
        ValueError
            If the bytes are not such an object; the message says how.
        """
        chunks = self._find_chunks(data)
        per_chunk = self._chunk_shape[1]
        if self.time_axis == 0:
            whole = allocate(self._chunk_shape[1:], self.dtype)
            self._decompress(chunks[0], whole)
            return whole[:n_frames]
        turned = allocate((n_frames, self.shape[0]), self.dtype)
        # Small enough to stay in the processor's cache until it is turned.
        scratch = np.empty(self._chunk_shape[1:], self.dtype)
        for number, chunk in enumerate(chunks):
            self._decompress(chunk, scratch)
            target = turned[:, number * per_chunk : (number + 1) * per_chunk]
            np.copyto(target, scratch[: target.shape[1], :n_frames].T)
        return turned.T

    def _decompress(self, chunk: memoryview, target: np.ndarray) -> None:
        chunk = chunk[: len(chunk) - self._checksum_size_bytes]
        size, stored_size = _read_sizes(chunk)
        if size != target.nbytes:
            raise ValueError(f"a chunk of {self._name} holds {size} bytes, expected {target.nbytes}")
        # Blosc is not told where its input ends, and would read on in whatever memory comes after it.
        if stored_size != len(chunk):
            raise ValueError(f"a chunk of {self._name} is of {len(chunk)} bytes, expected {stored_size}")
        try:
            blosc.decompress(chunk, target)
        except RuntimeError as error:
            raise ValueError(f"a chunk of {self._name} cannot be decompressed ({error})") from error

    def _find_chunks(self, data: bytes | memoryview) -> list[memoryview]:
        view = memoryview(data)
        if not self._is_sharded:
            return [view]
        size = self._n_index_entries * _INDEX_ENTRY_SIZE_BYTES
        if len(data) < size + _CRC32C_SIZE_BYTES:
            raise ValueError(f"a shard of {self._name} is shorter than its index")
        index = np.frombuffer(view[len(data) - size - _CRC32C_SIZE_BYTES : len(data) - _CRC32C_SIZE_BYTES], "<u8")
        chunks = []
        for number, (offset, length) in enumerate(index.reshape(-1, 2).tolist()[: self._n_chunks]):
            if offset == _ABSENT or offset + length > len(data) - size:
                raise ValueError(f"chunk {number} of a shard of {self._name} is not in it")
            chunks.append(view[offset : offset + length])
        return chunks

    def _foreign(self, found: object) -> StoreError:
        return StoreError(
            f"the array {self._name} is not laid out as this version lays it out",
            found=str(found),
            expected="one object a trial, compressed by Blosc",
            remedy="convert the session again",
        )


def _read_sizes(chunk: memoryview) -> tuple[int, int]:
    """Return how many bytes a Blosc buffer says that it holds and that it is of; 0 if it is too short to say so."""
    # Bytes 4 to 8 and 12 to 16 of Blosc's header.
    if len(chunk) < 16:
        return 0, 0
    return int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[12:16], "little")
