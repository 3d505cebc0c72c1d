"""How long-running steps say how far they are, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "ignore_progress"]

#: Called as ``progress(label, n_done, n_total)``; ``label`` stays the same for one piece of work.
#: May be called from any thread.
Progress = Callable[[str, int, int], None]


def ignore_progress(label: str, n_done: int, n_total: int) -> None:
    """Do nothing: the default where nobody listens."""
