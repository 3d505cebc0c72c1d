"""What is done: the digests of a session's objects, and the record each finished trial leaves."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sensorium_data.files import StoredObject, describe_damage, digest_bytes, parse_json, read_sealed, seal
from sensorium_data.names import find_name_problem

__all__ = [
    "LEDGER_KEY",
    "Ledger",
    "Members",
    "ObjectLedger",
    "StatisticsRecord",
    "TrialFacts",
    "TrialRecord",
    "merge_objects",
]

#: CRC-32 and size of members of an archive: equal for members of equal content.
Members = Mapping[str, tuple[int, int]]

#: Where a published session keeps its ledger.
LEDGER_KEY = "ledger.json"

_METADATA_KEY = "zarr.json"


@dataclass(frozen=True)
class TrialFacts:
    """What is known of one converted trial, beside its arrays.

    Attributes
    ----------
    trial : int
        The trial's id.
    n_frames : int
        Valid frames.
    broken : str
        Why the trial is not valid; empty for a valid one.
    responses_withheld : bool
        The archive holds zeros or NaN alone in place of the responses, or no file of them.
    largest_absolute_error : mapping of str to float
        Of the stored precision against the archive's, by variable.
    members : mapping of str to tuple of int
        CRC-32 and size of the archive's members that the trial was made from, by variable.
    objects : mapping of str to StoredObject
        What was written for this trial.
    stamps : mapping of str to str
        Times of modification or ETags of the members, where they are files in a folder: with the same ones they need
        not be read to know their CRC-32.
    n_missing_frames : mapping of str to int, or None
        By variable, at how many of the last valid frames it has no values; variables that have all are left out. None
        where an earlier version did not look.
    n_infinite : mapping of str to int
        By variable, how many of its values at valid frames are infinite; variables without any are left out.
    """

    trial: int
    n_frames: int
    broken: str
    responses_withheld: bool
    largest_absolute_error: Mapping[str, float]
    members: Members
    objects: Mapping[str, StoredObject]
    stamps: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    n_missing_frames: Mapping[str, int] | None = field(default=None, kw_only=True)
    n_infinite: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    @property
    def valid(self) -> bool:
        """Whether the stimulus is whole."""
        return not self.broken

    def _to_json(self) -> dict[str, Any]:
        return {
            "n_frames": self.n_frames,
            "broken": self.broken,
            "responses_withheld": self.responses_withheld,
            "largest_absolute_error": dict(self.largest_absolute_error),
            "members": {name: list(fingerprint) for name, fingerprint in self.members.items()},
            **_write_stamps(self.stamps),
            **({} if self.n_missing_frames is None else {"n_missing_frames": dict(self.n_missing_frames)}),
            **({"n_infinite": dict(self.n_infinite)} if self.n_infinite else {}),
        }


@dataclass(frozen=True)
class TrialRecord(TrialFacts):
    """What a finished trial leaves behind; the trial counts as done only when this exists.

    Attributes
    ----------
    behavior, pupil_center : np.ndarray
        (2, time), NaN past ``n_frames``.
    signature : np.ndarray
        (n_frames, columns) float32, of the video: :func:`sensorium_data.movies.sign_video`.
    """

    behavior: np.ndarray
    pupil_center: np.ndarray
    signature: np.ndarray

    def to_bytes(self) -> bytes:
        """Return the record as the bytes of an ``.npz`` file."""
        facts = {"trial": self.trial, "objects": _to_lists(self.objects, with_tags=True), **self._to_json()}
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
                facts: dict[str, Any] = parse_json(arrays["facts"].tobytes())
                return cls(
                    **_read_facts(facts),
                    trial=facts["trial"],
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
    members : mapping of str to tuple of int
        CRC-32 and size of the archive's members that they were made from, by ``variable/statistic``.
    objects : mapping of str to StoredObject
        What was written.
    stamps : mapping of str to str
        Times of modification or ETags of the members, where they are files in a folder.
    """

    n_frames_padded: int
    largest_absolute_error: Mapping[str, float]
    members: Members
    objects: Mapping[str, StoredObject]
    stamps: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        objects = _to_lists(self.objects, with_tags=True)
        return json.dumps({**self._to_json(), "objects": objects}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> StatisticsRecord:
        """Read a record; a :class:`ValueError` if it is damaged."""
        try:
            facts = parse_json(data)
            return cls._read(facts, _from_lists(facts["objects"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"damaged record: {error}") from error

    def _to_json(self) -> dict[str, Any]:
        return {
            "n_frames_padded": self.n_frames_padded,
            "largest_absolute_error": dict(self.largest_absolute_error),
            "members": {name: list(fingerprint) for name, fingerprint in self.members.items()},
            **_write_stamps(self.stamps),
        }

    @classmethod
    def _read(cls, facts: Mapping[str, Any], objects: Mapping[str, StoredObject]) -> StatisticsRecord:
        return cls(
            int(facts["n_frames_padded"]),
            facts["largest_absolute_error"],
            _read_members(facts["members"]),
            objects,
            _read_stamps(facts),
        )


@dataclass(frozen=True)
class ObjectLedger:
    """Every object of a finished folder with its size and digest.

    Attributes
    ----------
    objects : mapping of str to StoredObject
        By key, relative to the folder.
    """

    objects: Mapping[str, StoredObject]

    @property
    def size_bytes(self) -> int:
        """Size of all objects together."""
        return sum(stored.size_bytes for stored in self.objects.values())

    def write(self, kind: str) -> bytes:
        """Return the ledger as sealed JSON, the same for the same objects.

        Parameters
        ----------
        kind : str
            What the folder is: ``"predictions"`` or ``"run"``.
        """
        return seal({"kind": kind, "objects": _to_lists(self.objects)})

    @classmethod
    def read(cls, data: bytes, kind: str) -> ObjectLedger:
        """Read what :meth:`write` returned; a :class:`ValueError` if it is damaged, or another kind's."""
        document, is_sealed = read_sealed(data)
        try:
            if not is_sealed or document["kind"] != kind:
                raise ValueError(f"it is not the ledger of a {kind}")
            return cls(_from_lists(document["objects"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(describe_damage(error)) from error


@dataclass(frozen=True)
class Ledger(ObjectLedger):
    """Every object of a published session with its size and digest, and what each trial was made from.

    Attributes
    ----------
    objects : mapping of str to StoredObject
        By key, relative to the session's group.
    trials : mapping of int to TrialFacts
        By the trial's id.
    statistics : StatisticsRecord
        Of the archive's own statistics.
    """

    trials: Mapping[int, TrialFacts]
    statistics: StatisticsRecord

    @property
    def content_digest(self) -> str:
        """SHA-256 over the digests of all objects except the group's own metadata.

        The group's attributes say where the archive was read from, so the same archive read from a mirror
        gives the same content digest.
        """
        content = {key: stored.digest for key, stored in self.objects.items() if key != _METADATA_KEY}
        return digest_bytes(json.dumps(content, sort_keys=True).encode())

    def to_bytes(self) -> bytes:
        """Return the ledger as sealed JSON, the same for the same objects."""
        document = {
            "objects": _to_lists(self.objects),
            "trials": {
                str(trial): {**facts._to_json(), "objects": sorted(facts.objects)}
                for trial, facts in sorted(self.trials.items())
            },
            "statistics": {**self.statistics._to_json(), "objects": sorted(self.statistics.objects)},
        }
        return seal(document)

    @classmethod
    def from_bytes(cls, data: bytes) -> Ledger:
        """Read a ledger; a :class:`ValueError` if it is damaged."""
        try:
            document, _ = read_sealed(data)
            # Of an earlier version's ledger, which is not sealed, or of one whose seal has lost its name.
            unknown = document.keys() - {"objects", "trials", "statistics"}
            if unknown:
                raise ValueError(f"an entry {sorted(unknown)[0]}")
            objects = _from_lists(document["objects"])

            def choose(keys: list[str]) -> dict[str, StoredObject]:
                return {key: objects[key] for key in keys}

            trials = {
                int(trial): TrialFacts(trial=int(trial), objects=choose(facts["objects"]), **_read_facts(facts))
                for trial, facts in document["trials"].items()
            }
            statistics = document["statistics"]
            return cls(objects, trials, StatisticsRecord._read(statistics, choose(statistics["objects"])))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


def merge_objects(parts: Iterable[Mapping[str, StoredObject]]) -> dict[str, StoredObject]:
    """Return one mapping of all objects, sorted by key."""
    return dict(sorted((key, stored) for part in parts for key, stored in part.items()))


def _read_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("n_frames", "broken", "responses_withheld", "largest_absolute_error")
    missing = facts.get("n_missing_frames")
    return {
        **{name: facts[name] for name in names},
        "members": _read_members(facts["members"]),
        "stamps": _read_stamps(facts),
        "n_missing_frames": None if missing is None else {str(name): int(n) for name, n in missing.items()},
        "n_infinite": {str(name): int(n) for name, n in facts.get("n_infinite", {}).items()},
    }


def _read_members(members: Mapping[str, Any]) -> Members:
    return {str(name): (int(crc32), int(size)) for name, (crc32, size) in members.items()}


def _read_stamps(facts: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(stamp) for name, stamp in facts.get("stamps", {}).items()}


def _write_stamps(stamps: Mapping[str, str]) -> dict[str, Any]:
    # Archives have none, and their ledgers stay as they were.
    return {"stamps": dict(stamps)} if stamps else {}


def _to_lists(objects: Mapping[str, StoredObject], *, with_tags: bool = False) -> dict[str, list[Any]]:
    """Return what is known of objects, with their tags where somebody goes on with these very objects."""
    return {
        key: [stored.size_bytes, stored.digest, stored.crc32, *([stored.tag] if with_tags and stored.tag else [])]
        for key, stored in objects.items()
    }


def _from_lists(objects: Mapping[str, Any]) -> dict[str, StoredObject]:
    for key in objects:
        problem = find_name_problem(key)
        if problem is not None:
            raise ValueError(f"the name of an object leads out of the session's group: {key!r}: {problem}")
    return {
        key: StoredObject(int(size), str(digest), int(crc32), *map(str, tag))
        for key, (size, digest, crc32, *tag) in objects.items()
    }
