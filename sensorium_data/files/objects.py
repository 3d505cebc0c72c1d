"""Where a store's bytes live: whole objects under a root, on a local disk or behind any fsspec URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import fsspec.core

from sensorium_data.files.byte_source import RetryPolicy
from sensorium_data.files.local_objects import LocalObjects
from sensorium_data.files.remote_objects import RemoteObjects
from sensorium_data.files.stored_object import ObjectStatus, StoredObject

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["Objects", "open_objects", "write_object"]


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
