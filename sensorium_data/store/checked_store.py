"""A Zarr store that compares every object with what is known of it, as it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np
from zarr.abc.store import Store as ZarrStore
from zarr.storage import WrapperStore

from sensorium_data.errors import SensoriumError
from sensorium_data.files import (
    RetryPolicy,
    StoredObject,
    describe_failure,
    is_remote_failure,
    is_transient,
    remedy_for,
)

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from sensorium_data.store.reading import ReadingLease

__all__ = ["CheckedStore"]

_CRC32C_SIZE_BYTES = 4


class CheckedStore(WrapperStore[ZarrStore]):
    """Reads a group whose objects are known, and raises an error in place of returning a damaged or missing one.

    Zarr itself reads a missing chunk as NaN, and finds damage only in what has a checksum of its own. A part of an
    object is a chunk of a shard, or the shard's index: both end with their CRC-32C. Where they do not, as in chunks
    that earlier versions wrote, the whole object is read once.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The group.
    path : str
        The path of the group below what the objects' keys are relative to; empty if it is the same.
    objects : mapping of str to StoredObject
        What is known of the objects, by key.
    describe : callable
        Takes a key and what is wrong with the object, and returns the error to raise; picklable.
    lease : ReadingLease, optional
        What keeps the group from being deleted while it is read.
    """

    def __init__(
        self,
        store: ZarrStore,
        path: str,
        objects: Mapping[str, StoredObject],
        describe: Callable[[str, str], SensoriumError],
        lease: ReadingLease | None = None,
    ) -> None:
        super().__init__(store)
        self._path = path
        prefix = f"{path}/" if path else ""
        self._objects = {key: stored for key, stored in objects.items() if key.startswith(prefix)}
        self._prefix = prefix
        self._describe = describe
        self._lease = lease
        self._policy = RetryPolicy()
        self._sound: set[str] = set()

    def _with_store(self, store: ZarrStore) -> CheckedStore:
        return CheckedStore(store, self._path, self._objects, self._describe, self._lease)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object or a part of it; raise the error that says what is wrong with it."""
        data = await self._fetch(key, prototype, byte_range)
        name = f"{self._prefix}{key}"
        stored = self._objects.get(name)
        if data is None:
            if stored is not None:
                raise self._describe(name, "missing")
            return None
        if stored is None:
            raise self._describe(name, "not in the ledger")
        if byte_range is None:
            self._require_sound(name, stored, data)
        elif name not in self._sound and not _ends_with_checksum(data):
            whole = await self._fetch(key, prototype)
            if whole is None:
                raise self._describe(name, "missing")
            self._require_sound(name, stored, whole)
            self._sound.add(name)
        return data

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what the store has, asked again after failures that may pass."""
        for attempt in range(1, self._policy.n_attempts + 1):
            try:
                return await self._store.get(key, prototype, byte_range)
            except Exception as error:
                if not is_remote_failure(error):
                    raise
                if not is_transient(error) or attempt == self._policy.n_attempts:
                    raise describe_failure("read", f"{self._store}/{key}", error, remedy_for(error)) from error
                await asyncio.sleep(self._policy.wait_s(attempt))
        raise AssertionError("a retry policy allows at least one attempt")

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects, each as :meth:`get` does."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    def _require_sound(self, name: str, stored: StoredObject, data: Buffer) -> None:
        damage = stored.find_damage(memoryview(data.as_buffer_like()))
        if damage is not None:
            raise self._describe(name, damage)


def _ends_with_checksum(data: Buffer) -> bool:
    values = np.ascontiguousarray(data.as_numpy_array())
    checksum = google_crc32c.value(values[:-_CRC32C_SIZE_BYTES])
    return len(values) > _CRC32C_SIZE_BYTES and values[-_CRC32C_SIZE_BYTES:].tobytes() == checksum.to_bytes(4, "little")
