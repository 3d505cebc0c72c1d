"""What a file is that holds no weights, as far as its bytes tell: for whoever has to find out what went wrong."""

from __future__ import annotations

import io
import zipfile

from sensorium_data.counting import count_things

__all__ = ["describe_content"]

_ZIP = b"PK\x03\x04"
#: torch wrote this before it wrote zips, and Python's pickle writes it too.
_PICKLE = b"\x80"
_PICKLE_END = b"."
_HDF5 = b"\x89HDF\r\n\x1a\n"
_GIT_LFS = b"version https://git-lfs"
#: Characters by which a text is known.
_HEAD = 512


def describe_content(data: bytes) -> str:
    """Return in a clause what a file is that torch does not read as weights.

    Examples
    --------
    >>> describe_content(b"<!DOCTYPE html><html>Sign in"), describe_content(b"")
    ('a web page', 'an empty file')
    >>> describe_content(b"PK\\x03\\x04" + bytes(96))
    'the beginning of a zip, 100 bytes, without its end'
    """
    size = count_things(len(data), "byte")
    if not data:
        return "an empty file"
    if data.startswith(_ZIP):
        if zipfile.is_zipfile(io.BytesIO(data)):
            return f"a zip of {size} that is damaged, or was not written by torch"
        return f"the beginning of a zip, {size}, without its end"
    if data.startswith(_HDF5):
        return "a file of HDF5"
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return "a file of safetensors"
    if data.startswith(_PICKLE):
        return f"a pickle of {size} that breaks off, is damaged, or was not written by torch"
    return _describe_text(data[:_HEAD]) or f"{size} of another kind"


def _describe_text(head: bytes) -> str | None:
    """Return what a text is by its beginning; None if it is none."""
    if head.startswith(_GIT_LFS):
        return "a pointer of Git LFS, and not the file it stands for"
    try:
        # The last character may be cut.
        text = head.decode(errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return None
    if any(not character.isprintable() and not character.isspace() for character in text):
        return None
    return "a web page" if text.lstrip()[:5].casefold() in ("<html", "<!doc") else "a text"
