"""Files of git-annex and Git LFS whose content was not fetched: what stands in their place, and how to get it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

__all__ = ["POINTER_SIZE_BYTES", "Pointer", "find_broken_link", "find_pointer"]

#: git-annex takes no larger file for a pointer.
POINTER_SIZE_BYTES = 32 << 10

# A pointer file, and a link as Git writes it where the file system has no links: it leads into the annex. The key names
# its backend, and mostly the size: MD5-s10394857233--0123….
_ANNEX = re.compile(
    rb"(?:[^\n\0]{0,4096}[/\\])?annex[/\\]objects[/\\](?:[^\n\0]*[/\\])?(?P<key>[A-Z0-9_]+-[^\n\0/\\]+)"
)
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\s[^\0]*?\bsize (?P<size>\d+)", re.DOTALL)
_KEY_SIZE = re.compile(r"-s(?P<size>\d+)[-\d]*--")


@dataclass(frozen=True)
class Pointer:
    """What stands in place of a file.

    Attributes
    ----------
    program : str
        What keeps the file's content.
    found : str
        What there is, for an error's ``found``.
    command : str
        What fetches the content, but for the path.
    """

    program: str
    found: str
    command: str

    @property
    def problem(self) -> str:
        """What is wrong, for an error."""
        return f"the file's content was not fetched with {self.program}"

    def remedy(self, path: str) -> str:
        """Return what to do, for an error."""
        if "://" in path and not path.startswith("file://"):
            path = path.partition("?")[0].rpartition("/")[2]
            return f"run `{self.command} {path}` in the repository that is served there, or name another source"
        also = f" (or `datalad get {path}`)" if self.program == "git-annex" else ""
        return f"run `{self.command} {path}`{also}, and then this again"


def find_pointer(head: bytes) -> Pointer | None:
    """Return the pointer that a file's first bytes are, if they are one.

    Parameters
    ----------
    head : bytes
        The file, or at least its first line.
    """
    match = _ANNEX.match(head)
    if match is not None:
        return _annex_pointer(match["key"].decode("utf-8", "replace"), "a pointer")
    match = _LFS.match(head)
    if match is not None:
        return Pointer("Git LFS", f"a pointer to {int(match['size'])} bytes", "git lfs pull --include")
    return None


def find_broken_link(path: str) -> Pointer | str | None:
    """Return what a link that leads nowhere stands for, a pointer or else its target; ``None`` for no such link."""
    if not os.path.islink(path) or os.path.exists(path):
        return None
    target = os.readlink(path)
    match = _ANNEX.fullmatch(os.fsencode(target))
    return target if match is None else _annex_pointer(match["key"].decode("utf-8", "replace"), "a link")


def _annex_pointer(key: str, kind: str) -> Pointer:
    # A checksum's end says nothing to a reader, and a pointer file may go on.
    key = key.strip()[:80]
    size = _KEY_SIZE.search(key)
    words = f"{kind} to {key}" + (f", {int(size['size'])} bytes" if size is not None else "")
    return Pointer("git-annex", words, "git annex get")
