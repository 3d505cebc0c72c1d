"""From the values of one trial to an object of a session store: the bytes that Zarr writes, without Zarr in between.

Zarr hands each chunk from thread to thread and copies it several times. Where trials are converted side by side, the
threads wait for each other meanwhile (benchmarks/block_encoder.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import BITSHUFFLE, NOSHUFFLE, SHUFFLE, Blosc

from sensorium_data.store.block_layout import BlockLayout

__all__ = ["BlockEncoder"]

_SHUFFLES = {"noshuffle": NOSHUFFLE, "shuffle": SHUFFLE, "bitshuffle": BITSHUFFLE}


class BlockEncoder:
    """Encodes the blocks of one array whose first axis is the trial. Threads may share it.

    Parameters
    ----------
    name : str
        Path of the array in its group.
    metadata : mapping
        Content of the array's ``zarr.json``, as :class:`sensorium_data.store.block_layout.BlockLayout` takes it.

    Raises
    ------
    StoreError
        If the array is not laid out as this version's schema lays it out.
    """

    def __init__(self, name: str, metadata: Mapping[str, Any]) -> None:
        self._layout = BlockLayout(name, metadata)
        self._fill_value = float(metadata["fill_value"])
        settings = self._layout.compression
        self._blosc = Blosc(
            cname=settings["cname"],
            clevel=settings["clevel"],
            shuffle=_SHUFFLES[settings["shuffle"]],
            blocksize=settings["blocksize"],
            typesize=settings["typesize"],
        )

    def encode(self, block: np.ndarray) -> bytes:
        """Return the object that holds one block.

        Parameters
        ----------
        block : ndarray
            The values of one trial, of the array's shape without the trial; cast to the array's dtype.

        Raises
        ------
        ValueError
            If it has another shape.
        """
        layout = self._layout
        if block.shape != layout.shape:
            raise ValueError(f"a block of {layout.name} has the shape {block.shape}, expected {layout.shape}")
        if not layout.is_sharded:
            return b"".join(self._encode_chunk(block))
        per_chunk = layout.chunk_shape[0]
        parts: list[bytes] = []
        index = []
        offset = 0
        for start in range(0, len(block), per_chunk):
            chunk = self._encode_chunk(block[start : start + per_chunk])
            length = sum(map(len, chunk))
            index += [offset, length]
            offset += length
            parts += chunk
        encoded_index = np.array(index, "<u8").tobytes()
        return b"".join([*parts, encoded_index, _checksum(encoded_index)])

    def _encode_chunk(self, values: np.ndarray) -> list[bytes]:
        """Return the parts of a chunk; what the last one of a shard lacks is filled up."""
        layout = self._layout
        if values.shape != layout.chunk_shape:
            whole = np.full(layout.chunk_shape, self._fill_value, layout.dtype)
            whole[tuple(slice(size) for size in values.shape)] = values
            values = whole
        data = self._blosc.encode(np.ascontiguousarray(values, layout.dtype))
        return [data, _checksum(data)] if layout.has_checksum else [data]


def _checksum(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
