"""How long-running steps say how far they are, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "ignore_progress"]


class Progress(Protocol):
    """Called as ``progress(label, n_done, n_total)``, with ``n_bytes`` moved so far where that is known.

    ``label`` stays the same for one piece of work. May be called from any thread.
    """

    def __call__(self, label: str, n_done: int, n_total: int, /, *, n_bytes: int | None = None) -> None: ...


def ignore_progress(label: str, n_done: int, n_total: int, /, *, n_bytes: int | None = None) -> None:
    """Do nothing: the default where nobody listens."""
