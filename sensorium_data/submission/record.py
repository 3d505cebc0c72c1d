"""The record beside a submission's zips: what they were made of, so that a rerun finds its own work done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from sensorium_data.files import LocalObjects, Objects, digest_file, parse_json
from sensorium_data.submission.findings import ValidationReport
from sensorium_data.visible_text import make_lines_visible

__all__ = ["FIXED", "describe_file", "encode_record", "holds_files", "read_record"]

#: What a corrected copy has in its files' names in the place of a track.
FIXED = "fixed"


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Return a record as it is stored."""
    # Titles and tiers may hold what acts on a terminal; written out, it is the same JSON.
    return make_lines_visible(json.dumps(record, indent=2, ensure_ascii=False)).encode()


def read_record(
    place: Objects, name: str, identity: Mapping[str, Any], keys: Set[str], zips: Set[str]
) -> dict[str, Any] | None:
    """Return a record, if it is there, whole, of the same work, and of no other files than these zips."""
    try:
        record = parse_json(place.read(name))
        if record.keys() != keys or record["identity"] != json.loads(encode_record(identity)):
            return None
        if not {file["path"] for file in record["files"]} <= zips:
            return None
        ValidationReport.from_dict(record["validation"])
    # No record, or a damaged one.
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(record)


def describe_file(path: Path, name: str) -> dict[str, Any]:
    """Return a file's entry in a record, under the name that it will have."""
    return {"path": name, "size_bytes": path.stat().st_size, "sha256": digest_file(path)}


def holds_files(place: Objects, files: Iterable[Mapping[str, Any]]) -> bool:
    """Whether files are as a record has them; behind a URL their sizes are compared alone."""
    return all(
        place.size(file["path"]) == file["size_bytes"]
        and (not isinstance(place, LocalObjects) or digest_file(place.root / file["path"]) == file["sha256"])
        for file in files
    )
