"""Counts in words: the noun in its number."""

from __future__ import annotations

__all__ = ["count_things"]


def count_things(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number and what is counted, in the singular or the plural.

    Parameters
    ----------
    n : int
        How many.
    noun : str
        In the singular.
    plural : str, optional
        If it is not the singular and an s.

    Examples
    --------
    >>> count_things(1, "trial"), count_things(7863, "neuron"), count_things(2, "try", "tries")
    ('1 trial', '7,863 neurons', '2 tries')
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"
