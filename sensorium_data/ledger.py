"""What is done: the digests of a session's objects, and the record each finished trial leaves."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium_data.errors import StoreError

__all__ = ["LEDGER_KEY", "Ledger", "StatisticsRecord", "StoredObject", "TrialRecord", "digest_bytes", "merge_objects"]

#: Where a published session keeps its ledger.
LEDGER_KEY = "ledger.json"

_METADATA_KEY = "zarr.json"


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the digest of an object's bytes: SHA-256, the fastest of hashlib where the CPU has instructions for it."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class StoredObject:
    """What is known of one object: enough to tell whether its bytes are still those that were written."""

    size_bytes: int
    digest: str

    @classmethod
    def of(cls, data: bytes | memoryview) -> StoredObject:
        """Describe the bytes of an object."""
        return cls(memoryview(data).nbytes, digest_bytes(data))

    def find_difference(self, data: bytes) -> str | None:
        """Return what is wrong with ``data`` as a clause, ``None`` if nothing is."""
        if len(data) != self.size_bytes:
            return f"{len(data)} bytes in place of {self.size_bytes}"
        if digest_bytes(data) != self.digest:
            return "the digest of its bytes differs"
        return None


@dataclass(frozen=True)
class Ledger:
    """Every object of a published session with its size and digest.

    Attributes
    ----------
    objects : mapping of str to StoredObject
        By key, relative to the session's group.
    """

    objects: Mapping[str, StoredObject]

    @property
    def size_bytes(self) -> int:
        """Size of all objects together."""
        return sum(stored.size_bytes for stored in self.objects.values())

    @property
    def content_digest(self) -> str:
        """SHA-256 over the digests of all objects except the group's own metadata.

        The group's attributes say where the archive was read from, so the same archive read from a mirror
        gives the same content digest.
        """
        content = {key: stored.digest for key, stored in self.objects.items() if key != _METADATA_KEY}
        return digest_bytes(json.dumps(content, sort_keys=True).encode())

    def to_bytes(self) -> bytes:
        """Return the ledger as JSON, the same for the same objects."""
        return json.dumps({"objects": _to_lists(self.objects)}, sort_keys=True, indent=0).encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, path: str, session: str) -> Ledger:
        """Read a ledger; a :class:`StoreError` if it is damaged."""
        try:
            return cls(_from_lists(json.loads(data)["objects"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                "the ledger is damaged",
                session=session,
                path=path,
                found=str(error),
                remedy="ingest the session into another store",
            ) from error


@dataclass(frozen=True)
class TrialRecord:
    """What a finished trial leaves behind; the trial counts as done only when this exists.

    Attributes
    ----------
    trial : int
        The trial's id.
    n_frames : int
        Valid frames.
    broken : str
        Why the trial is not valid; empty for a valid one.
    responses_withheld : bool
        The archive holds zeros in place of the responses.
    largest_absolute_error : mapping of str to float
        Of the stored precision against the archive's, by variable.
    objects : mapping of str to StoredObject
        What was written for this trial.
    behavior, pupil_center : np.ndarray
        (2, time) float32, NaN past ``n_frames``.
    signature : np.ndarray
        (n_frames, columns) float32, of the video: :func:`sensorium_data.movies.sign_video`.
    """

    trial: int
    n_frames: int
    broken: str
    responses_withheld: bool
    largest_absolute_error: Mapping[str, float]
    objects: Mapping[str, StoredObject]
    behavior: np.ndarray
    pupil_center: np.ndarray
    signature: np.ndarray

    @property
    def valid(self) -> bool:
        """Whether the stimulus is whole."""
        return not self.broken

    def to_bytes(self) -> bytes:
        """Return the record as the bytes of an ``.npz`` file."""
        facts = {
            "trial": self.trial,
            "n_frames": self.n_frames,
            "broken": self.broken,
            "responses_withheld": self.responses_withheld,
            "largest_absolute_error": dict(self.largest_absolute_error),
            "objects": _to_lists(self.objects),
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            behavior=self.behavior,
            pupil_center=self.pupil_center,
            signature=self.signature,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> TrialRecord:
        """Read a record.

        Raises
        ------
        ValueError
            If it is damaged; the trial then counts as not done.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                facts: dict[str, Any] = json.loads(arrays["facts"].tobytes())
                return cls(
                    trial=facts["trial"],
                    n_frames=facts["n_frames"],
                    broken=facts["broken"],
                    responses_withheld=facts["responses_withheld"],
                    largest_absolute_error=facts["largest_absolute_error"],
                    objects=_from_lists(facts["objects"]),
                    behavior=arrays["behavior"],
                    pupil_center=arrays["pupil_center"],
                    signature=arrays["signature"],
                )
        except (KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"damaged record: {error}") from error


@dataclass(frozen=True)
class StatisticsRecord:
    """What the finished statistics leave behind.

    Attributes
    ----------
    n_frames_padded : int
        Length of the session's frame axis.
    largest_absolute_error : mapping of str to float
        Of the stored precision against the archive's, by variable.
    objects : mapping of str to StoredObject
        What was written.
    """

    n_frames_padded: int
    largest_absolute_error: Mapping[str, float]
    objects: Mapping[str, StoredObject]

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        facts = {
            "n_frames_padded": self.n_frames_padded,
            "largest_absolute_error": dict(self.largest_absolute_error),
            "objects": _to_lists(self.objects),
        }
        return json.dumps(facts, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StatisticsRecord:
        """Read a record; a :class:`ValueError` if it is damaged."""
        try:
            facts = json.loads(data)
            return cls(int(facts["n_frames_padded"]), facts["largest_absolute_error"], _from_lists(facts["objects"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"damaged record: {error}") from error


def merge_objects(parts: Iterable[Mapping[str, StoredObject]]) -> dict[str, StoredObject]:
    """Return one mapping of all objects, sorted by key."""
    return dict(sorted((key, stored) for part in parts for key, stored in part.items()))


def _to_lists(objects: Mapping[str, StoredObject]) -> dict[str, list[Any]]:
    return {key: [stored.size_bytes, stored.digest] for key, stored in objects.items()}


def _from_lists(objects: Mapping[str, Any]) -> dict[str, StoredObject]:
    return {str(key): StoredObject(int(size), str(digest)) for key, (size, digest) in objects.items()}
