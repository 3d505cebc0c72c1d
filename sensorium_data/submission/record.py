"""The record beside a submission's zips: what they were made of, so that a rerun finds its own work done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from sensorium_data.errors import SubmissionError
from sensorium_data.files import Objects, describe_damage, digest_file, read_sealed, seal_text
from sensorium_data.submission.findings import ValidationReport
from sensorium_data.visible_text import make_lines_visible

__all__ = ["FIXED", "REPLACED", "describe_file", "encode_record", "holds_files", "read_own_digests", "read_record"]

#: What a corrected copy has in its files' names in the place of a track.
FIXED = "fixed"
#: The entry of a record with the digests of the zips that were there before.
REPLACED = "replaced"


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Return a record as it is stored, with the digest of its bytes in it."""
    return seal_text(_dump({"digest": "", **record}))


def _dump(document: Mapping[str, Any]) -> str:
    # Titles and tiers may hold what acts on a terminal; written out, it is the same JSON.
    return make_lines_visible(json.dumps(document, indent=2, ensure_ascii=False))


def read_record(
    place: Objects, name: str, identity: Mapping[str, Any], keys: Set[str], zips: Set[str]
) -> dict[str, Any] | None:
    """Return a record, if it is there, whole, of the same work, and of no other files than these zips."""
    try:
        record, _ = read_sealed(place.read(name))
        if not _has_keys(record, keys) or record["identity"] != json.loads(_dump(identity)):
            return None
        if not {file["path"] for file in record["files"]} <= zips:
            return None
        ValidationReport.from_dict(record["validation"])
    # No record, or a damaged one.
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record


def read_own_digests(place: Objects, name: str, keys: Set[str]) -> tuple[dict[str, set[str]], bool] | None:
    """Return the digests of the zips that a record says were written here, by name, and whether it is sealed.

    They are those of the zips that it describes, and of those that were there before: a killed writer may have left
    either. None without a record.

    Raises
    ------
    SubmissionError
        If another file has the record's name, or if the record was changed.
    """
    try:
        record, is_sealed = read_sealed(place.read(name))
        if not _has_keys(record, keys):
            raise ValueError("JSON of another kind")
        digests: dict[str, set[str]] = {str(path): {str(one)} for path, one in record.get(REPLACED, {}).items()}
        for file in record["files"]:
            digests.setdefault(str(file["path"]), set()).add(str(file["sha256"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SubmissionError(
            "another file has the name of the submission's record, or the record was changed",
            path=place.locate(name),
            found=describe_damage(error),
            expected="a free name, or the record that was written here",
            remedy="move it and the files beside it, or name another folder",
        ) from error
    return digests, is_sealed


def _has_keys(record: Mapping[str, Any], keys: Set[str]) -> bool:
    return record.keys() - {REPLACED} == keys


def describe_file(path: Path, name: str) -> dict[str, Any]:
    """Return a file's entry in a record, under the name that it will have."""
    return {"path": name, "size_bytes": path.stat().st_size, "sha256": digest_file(path)}


def holds_files(place: Objects, files: Iterable[Mapping[str, Any]]) -> bool:
    """Whether files are as a record has them; they are read once."""
    return all(
        place.size(file["path"]) == file["size_bytes"] and place.digest(file["path"]) == file["sha256"]
        for file in files
    )
