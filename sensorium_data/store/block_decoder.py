"""From an object of a session store to the values of one trial, without Zarr in between.

Zarr takes four to seven times as long for a trial as the decompression itself, most of it in Python, where threads
wait for each other. A training run reads each trial hundreds of times, so what :mod:`sensorium_data.schema`
lays out is decoded here directly: one trial is one object, either one chunk or a shard of chunks along its second axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numcodecs import blosc

from sensorium_data.store.block_layout import CRC32C_SIZE_BYTES, BlockLayout

__all__ = ["BlockDecoder"]

# What Zarr's sharding codec writes for a chunk that was left out.
_ABSENT = 2**64 - 1
_INDEX_ENTRY_SIZE_BYTES = 16


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
        self._layout = BlockLayout(name, metadata)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._layout.dtype

    @property
    def time_axis(self) -> int:
        return self._layout.time_axis

    def key(self, position: int) -> str:
        """Return the key of a trial's object below the array's group."""
        return self._layout.key(position)

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
        layout = self._layout
        chunks = self._find_chunks(data)
        per_chunk = layout.chunk_shape[0]
        if layout.time_axis == 0:
            whole = allocate(layout.chunk_shape, layout.dtype)
            self._decompress(chunks[0], whole)
            return whole[:n_frames]
        turned = allocate((n_frames, layout.shape[0]), layout.dtype)
        # Small enough to stay in the processor's cache until it is turned.
        scratch = np.empty(layout.chunk_shape, layout.dtype)
        for number, chunk in enumerate(chunks):
            self._decompress(chunk, scratch)
            target = turned[:, number * per_chunk : (number + 1) * per_chunk]
            np.copyto(target, scratch[: target.shape[1], :n_frames].T)
        return turned.T

    def _decompress(self, chunk: memoryview, target: np.ndarray) -> None:
        # Not looked at: whoever reads an object compares all of it with the ledger.
        chunk = chunk[: len(chunk) - CRC32C_SIZE_BYTES] if self._layout.has_checksum else chunk
        size, stored_size = _read_sizes(chunk)
        if size != target.nbytes:
            raise ValueError(f"a chunk of {self._layout.name} holds {size} bytes, expected {target.nbytes}")
        # Blosc is not told where its input ends, and would read on in whatever memory comes after it.
        if stored_size != len(chunk):
            raise ValueError(f"a chunk of {self._layout.name} is of {len(chunk)} bytes, expected {stored_size}")
        try:
            blosc.decompress(chunk, target)
        except RuntimeError as error:
            raise ValueError(f"a chunk of {self._layout.name} cannot be decompressed ({error})") from error

    def _find_chunks(self, data: bytes | memoryview) -> list[memoryview]:
        view = memoryview(data)
        if not self._layout.is_sharded:
            return [view]
        size = self._layout.n_index_entries * _INDEX_ENTRY_SIZE_BYTES
        if len(data) < size + CRC32C_SIZE_BYTES:
            raise ValueError(f"a shard of {self._layout.name} is shorter than its index")
        index = np.frombuffer(view[len(data) - size - CRC32C_SIZE_BYTES : len(data) - CRC32C_SIZE_BYTES], "<u8")
        chunks = []
        for number, (offset, length) in enumerate(index.reshape(-1, 2).tolist()[: self._layout.n_chunks]):
            if offset == _ABSENT or offset + length > len(data) - size:
                raise ValueError(f"chunk {number} of a shard of {self._layout.name} is not in it")
            chunks.append(view[offset : offset + length])
        return chunks


def _read_sizes(chunk: memoryview) -> tuple[int, int]:
    """Return how many bytes a Blosc buffer says that it holds and that it is of; 0 if it is too short to say so."""
    # Bytes 4 to 8 and 12 to 16 of Blosc's header.
    if len(chunk) < 16:
        return 0, 0
    return int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[12:16], "little")
