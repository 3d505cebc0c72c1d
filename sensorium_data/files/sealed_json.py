"""JSON that holds the digest of its own bytes, so that a reader notices when they were changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sensorium_data.files.json_document import parse_json
from sensorium_data.files.stored_object import digest_bytes

__all__ = ["read_sealed", "seal", "seal_text"]

_SEAL = "digest"


def seal(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON with the digest of its bytes in it, the same for the same document.

    Parameters
    ----------
    document : mapping
        JSON values; the name ``digest`` is taken, and names that sort before it must not hold mappings.
    """
    return seal_text(json.dumps({**document, _SEAL: ""}, sort_keys=True, indent=0))


def seal_text(text: str) -> bytes:
    """Return JSON with its digest in the place of the first ``"digest": ""`` in it."""
    return text.replace(_entry(""), _entry(digest_bytes(text.encode())), 1).encode()


def read_sealed(data: bytes) -> tuple[dict[str, Any], bool]:
    """Return a document without its digest, and whether it has one: earlier versions wrote none.

    Raises
    ------
    ValueError
        If the bytes are not JSON of an object, or not those that were written.
    """
    document = parse_json(data)
    if not isinstance(document, dict):
        raise ValueError(f"JSON of a {type(document).__name__}")
    if _SEAL not in document:
        return document, False
    digest = document.pop(_SEAL)
    if digest_bytes(data.replace(_entry(digest).encode(), _entry("").encode(), 1)) != digest:
        raise ValueError("its bytes are not those that were written")
    return document, True


def _entry(digest: object) -> str:
    return f'"{_SEAL}": "{digest}"'
