"""Counts in words: the noun in its number."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

__all__ = ["count_things", "name_some"]


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


def name_some(items: Collection[object], *, most: int = 3, separator: str = ", ") -> str:
    """Return the first of some items in words, and how many more there are.

    Parameters
    ----------
    items : collection
        What to name.
    most : int
        So many are named.
    separator : str
        What stands between them.

    Examples
    --------
    >>> name_some("abcde"), name_some("ab")
    ('a, b, c and 2 more', 'a, b')
    """
    shown = separator.join(map(str, islice(items, most)))
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"
