"""A session's group in memory: the metadata of its arrays, and the encoding of their chunks.

Zarr declares the arrays and encodes the small ones; blocks of large ones are encoded directly. All of it stays in
memory, and is written by whoever asked for it, so that each object's bytes are known, and digested, before they leave
the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium_data.machine import share_threads
from sensorium_data.schema import VARIABLES, Field
from sensorium_data.store.block_decoder import BlockDecoder
from sensorium_data.store.block_encoder import BlockEncoder
from sensorium_data.store.precision import Precision

if TYPE_CHECKING:
    import zarr

__all__ = ["METADATA_KEY", "SessionTemplate", "consolidate"]

#: The object that holds a Zarr v3 node's metadata.
METADATA_KEY = "zarr.json"


class SessionTemplate:
    """A group whose arrays are declared one by one and encoded chunk by chunk.

    Blocks may be encoded and decoded from many threads.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of every dimension.
    precision : Precision
        What the data variables keep of the archive's values.
    """

    def __init__(self, sizes: Mapping[str, int], precision: Precision = Precision.EXACT) -> None:
        import zarr
        from zarr.storage import MemoryStore

        share_threads()
        self.sizes = dict(sizes)
        self.precision = precision
        self._objects: dict[str, Any] = {}
        self._group = zarr.create_group(MemoryStore(self._objects))
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._encoders: dict[str, BlockEncoder] = {}
        self._decoders: dict[str, BlockDecoder] = {}

    def declare_array(self, path: str, field: Field, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an array to the group, without data.

        Parameters
        ----------
        path : str
            Its path below the group.
        field : Field
            Its dimensions, dtype and layout.
        attributes : mapping, optional
            Beyond the field's own.
        """
        layout = field.layout(self.sizes, compact=self.precision is Precision.COMPACT)
        self._arrays[path] = self._group.create_array(
            path, **layout, attributes={**field.attributes, **(attributes or {})}
        )

    def declare_variable(self, variable: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add one of the data variables, in the precision of this group, without data."""
        self.declare_array(variable, self._variable(variable), attributes)

    def encode_variable(self, variable: str, values: np.ndarray, attributes: Mapping[str, Any] | None = None) -> None:
        """Add one of the data variables with its data, which :meth:`take_objects` returns."""
        self.encode_array(variable, self._variable(variable), values, attributes)

    def declare_statistics(self, path: str, variable: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add the archive's statistics of a variable, in the precision of this group, without data."""
        field = VARIABLES[variable]
        self.declare_array(
            path,
            replace(
                field,
                dims=("statistic", *field.dims[1:]),
                dtype=self.precision.dtype,
                long_name=f"{field.long_name}, statistics over trials",
            ),
            attributes,
        )

    def encode_block(self, path: str, position: int, block: np.ndarray) -> tuple[str, bytes]:
        """Return the key and the bytes of the object that holds one block along an array's first dimension.

        Parameters
        ----------
        path : str
            The array's path.
        position : int
            Along the first dimension, whose chunks have length 1.
        block : np.ndarray
            The values, without the first dimension.

        Raises
        ------
        ValueError
            If they have another shape.
        """
        encoder = self._encoders.get(path)
        if encoder is None:
            encoder = self._encoders[path] = BlockEncoder(path, self._metadata(path))
        return self.block_key(path, position), encoder.encode(block)

    def decode_block(self, path: str, data: bytes) -> np.ndarray:
        """Return the values of a block from the bytes of its object, which the caller has checked.

        Raises
        ------
        ValueError
            If the bytes are not such an object; the message says how.
        """
        decoder = self._decoders.get(path)
        if decoder is None:
            decoder = self._decoders[path] = BlockDecoder(path, self._metadata(path))
        return decoder.decode(data, decoder.shape[decoder.time_axis])

    def encode_array(self, path: str, field: Field, values: Any, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a small array with its data, which :meth:`take_objects` returns."""
        self.declare_array(path, field, attributes)
        if field.dtype == "str":
            values = np.asarray(list(values), dtype=np.dtypes.StringDType())
        self._arrays[path][...] = values

    def compose_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Add the metadata of a group, consolidated over everything below ``path``; ``""`` is the session's own."""
        from zarr.core.buffer import default_buffer_prototype

        prefix = f"{path}/" if path else ""
        suffix = f"/{METADATA_KEY}"
        nodes = {
            key[len(prefix) : -len(suffix)]: json.loads(value.to_bytes())
            for key, value in self._objects.items()
            if key.startswith(prefix) and key.endswith(suffix) and len(key) > len(prefix + suffix)
        }
        prototype = default_buffer_prototype()
        self._objects[f"{prefix}{METADATA_KEY}"] = prototype.buffer.from_bytes(consolidate(attributes, nodes))

    def take_objects(self) -> dict[str, bytes]:
        """Return every object that is still in memory: metadata and small arrays."""
        objects = {key: bytes(value.to_bytes()) for key, value in self._objects.items()}
        self._objects.clear()
        return objects

    def _metadata(self, path: str) -> dict[str, Any]:
        return self._arrays[path].metadata.to_dict()

    def _variable(self, variable: str) -> Field:
        return replace(VARIABLES[variable], dtype=self.precision.dtype)

    def block_key(self, path: str, position: int) -> str:
        """Return the key of the object that holds one block along an array's first dimension."""
        array = self._arrays[path]
        return f"{path}/{array.metadata.encode_chunk_key((position, *(0,) * (array.ndim - 1)))}"


def consolidate(attributes: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the ``zarr.json`` of a group with the metadata of the nodes below it.

    Written here because :func:`zarr.consolidate_metadata` warns each time that other implementations may not
    read what it writes; those list the group instead.

    Parameters
    ----------
    attributes : mapping
        The group's attributes.
    nodes : mapping
        Metadata documents of arrays and groups by path below the group, in the order in which readers show them.
    """
    nothing = {"kind": "inline", "must_understand": False, "metadata": {}}
    document = {
        "attributes": dict(attributes),
        "zarr_format": 3,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {
                path: {**node, "consolidated_metadata": nothing} if node["node_type"] == "group" else dict(node)
                for path, node in nodes.items()
            },
        },
        "node_type": "group",
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
