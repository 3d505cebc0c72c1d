"""Where a store's bytes live: whole objects under a root, on a local disk or behind any fsspec URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import fsspec.core

from sensorium_data.errors import StoreError
from sensorium_data.files.byte_source import RetryPolicy
from sensorium_data.files.local_objects import LocalObjects
from sensorium_data.files.remote_failures import is_damage
from sensorium_data.files.remote_objects import RemoteObjects
from sensorium_data.files.stored_object import ObjectStatus, StoredObject, digest_bytes

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["Objects", "open_objects", "upload_confirmed", "write_confirmed", "write_object"]

# Bytes that a network or a server has damaged are sent again.
_N_SENDS = 3


class Objects(Protocol):
    """Objects (files) named by slash-separated keys under one root.

    A key that leads out of the root is refused with a :class:`StoreError`: keys come from files that others wrote.

    ``read``, ``size`` and ``exists`` say that an object is missing with :class:`FileNotFoundError`,
    ``None`` and ``False``; every other failure is a :class:`StoreError` that names the object.
    """

    #: How many requests at once pay: one on a local disk, which has nothing to wait for.
    n_requests_at_once: int

    @property
    def url(self) -> str:
        """The root, as the user gave it."""

    def child(self, key: str) -> Objects:
        """Return the objects under ``key``."""

    def locate(self, key: str) -> str:
        """Return the path or URL of an object."""

    def read(self, key: str) -> bytes:
        """Return the bytes of an object."""

    def digest(self, key: str) -> str:
        """Return the SHA-256 of an object, whatever its size; raises what :meth:`read` raises."""

    def write(self, key: str, data: bytes | memoryview) -> str | None:
        """Write an object; a reader sees it whole or not at all.

        Returns
        -------
        str or None
            The object's tag, if the store has confirmed by it that it has these very bytes. Otherwise they have to be
            read back for that.
        """

    def write_durably(self, key: str, data: bytes) -> str | None:
        """Write an object, and return as :meth:`write` does when not even a power cut would undo it."""

    def update(self, key: str, make: Callable[[bytes | None], bytes]) -> None:
        """Replace an object durably by what ``make`` returns of its bytes; None stands for an object that is not there.

        On a local disk the caller holds a lock. Where the object store has conditional writes (S3), ``make`` is called
        again if somebody else wrote meanwhile, and nothing of theirs is lost.
        """

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, ``None`` if there is none."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def keys(self) -> list[str] | None:
        """Return every key under the root, sorted; ``None`` where the root cannot be listed (HTTP)."""

    def statuses(self) -> dict[str, ObjectStatus] | None:
        """Return size and time of every object under the root, by key; ``None`` where the root cannot be listed."""

    def folders(self) -> list[str] | None:
        """Return the names of the folders directly under the root, sorted; ``None`` where it cannot be listed."""

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

    def delete_keys(self, keys: Collection[str]) -> None:
        """Delete objects, those that are there; an object store is asked for many at once."""

    def delete_all(self) -> None:
        """Delete every object under the root, and the root."""

    def zarr_store(self) -> ZarrStore:
        """Return a read-only Zarr store of the root."""


def open_objects(url: str | os.PathLike[str], policy: RetryPolicy | None = None) -> LocalObjects | RemoteObjects:
    """Return the objects under a local path, a ``file://`` or ``local://`` URL, or any fsspec URL.

    Parameters
    ----------
    url : path
        The root.
    policy : RetryPolicy, optional
        How long to insist on a server.

    Raises
    ------
    StoreError
        If no file system serves the URL.
    """
    url = os.fspath(url)
    if url.startswith(("file://", "local://")):
        return LocalObjects(fsspec.core.strip_protocol(url))
    if "://" in url:
        return RemoteObjects(url, policy)
    return LocalObjects(url)


def write_object(objects: Objects, key: str, data: bytes | memoryview) -> StoredObject:
    """Write an object, and return what is known of it."""
    return StoredObject.of(data, objects.write(key, data))


def write_confirmed(objects: Objects, key: str, data: bytes) -> None:
    """Write an object durably; behind a URL, see that these very bytes have arrived.

    Raises
    ------
    StoreError
        If it cannot be written, or other bytes arrive every time; these are deleted.
    """
    if isinstance(objects, LocalObjects):
        objects.write_durably(key, data)
        return
    _send(
        objects, key, lambda: objects.write_durably(key, data) is not None or objects.digest(key) == digest_bytes(data)
    )


def upload_confirmed(objects: RemoteObjects, path: Path, key: str, digest: str) -> None:
    """Make an object of a local file, and read it once to see that its bytes have arrived.

    Parameters
    ----------
    objects : RemoteObjects
        The root.
    path : Path
        The file.
    key : str
        The object.
    digest : str
        SHA-256 of the file.

    Raises
    ------
    StoreError
        If it cannot be written, or other bytes arrive every time; these are deleted.
    """

    def send() -> bool:
        objects.upload(path, key)
        return _has_digest(objects, key, digest)

    _send(objects, key, send)


def _has_digest(objects: Objects, key: str, digest: str) -> bool:
    try:
        return objects.digest(key) == digest
    except StoreError as error:
        # S3 keeps a checksum of what was sent, and its client compares it with what is read.
        if not is_damage(error.__cause__):
            raise
        return False


def _send(objects: Objects, key: str, send: Callable[[], bool]) -> None:
    """Send an object until what has arrived is what was sent."""
    for _ in range(_N_SENDS):
        if send():
            return
    # Whoever runs it again would take it for somebody else's.
    objects.delete(key)
    raise StoreError(
        "other bytes arrive than were sent",
        path=objects.locate(key),
        found=f"so {_N_SENDS} times",
        remedy="check the server and the way to it, and run it again",
    )
