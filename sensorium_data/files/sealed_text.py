"""Text that ends with the digest of what stands above, so that whoever would replace it notices that it was edited."""

from __future__ import annotations

from sensorium_data.files.stored_object import digest_bytes

__all__ = ["has_own_seal", "seal_end"]

# A comment in HTML and in Markdown.
_SEAL = "<!-- SHA-256 of the text above:"


def seal_end(text: str) -> str:
    """Return HTML or Markdown with a last line that holds the digest of what stands above.

    Examples
    --------
    >>> has_own_seal(seal_end("<p>Notes</p>\\n").encode()), has_own_seal(b"<p>Notes</p>\\n")
    (True, None)
    """
    body = text if text.endswith("\n") else f"{text}\n"
    return f"{body}{_SEAL} {digest_bytes(body.encode())} -->\n"


def has_own_seal(data: bytes) -> bool | None:
    """Whether text is what :func:`seal_end` returned; None if it holds no such digest at all."""
    body, found, _ = data.rpartition(_SEAL.encode())
    if not found:
        return None
    return data == body + f"{_SEAL} {digest_bytes(body)} -->\n".encode()
