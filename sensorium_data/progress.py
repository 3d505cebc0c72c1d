"""How long-running steps say how far they are, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "ignore_progress"]


class Progress(Protocol):
    """Called now and then by a step: ``progress(label, n_done, n_total)``.

    A label stays the same for one piece of work and names it for people; several may be under way at once. Its first
    call may come with some of the work done, by an earlier run: rates are counted from there. It is over when
    ``n_done`` reaches ``n_total``, and may begin anew then. May be called from any thread.
    """

    def __call__(self, label: str, n_done: int, n_total: int, *, n_bytes: int | None = None) -> None:
        """Tell how far a piece of work is.

        Parameters
        ----------
        label : str
            The piece of work, e.g. ``"convert F"``.
        n_done, n_total : int
            Trials (or chunks, batches, rows) done, and all of them.
        n_bytes : int, optional
            Bytes moved so far for this label, where moving bytes is what takes the time.
        """


def ignore_progress(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None) -> None:
    """Do nothing: the default where nobody listens."""
