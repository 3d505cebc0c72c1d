"""Pieces of Markdown that what they show cannot break."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sensorium_data.visible_text import make_visible

__all__ = ["quote_code", "write_table"]


def quote_code(text: str) -> str:
    """Write a path or name as code; backticks in it do not end it.

    Examples
    --------
    >>> quote_code("/data/out")
    '`/data/out`'
    >>> quote_code("a`b")
    '`` a`b ``'
    """
    shown = make_visible(text)
    if "`" not in shown:
        return f"`{shown}`"
    longest = max(len(run) for run in "".join(c if c == "`" else " " for c in shown).split())
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}"


def write_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table, one line a row; vertical bars in cells do not part them.

    Examples
    --------
    >>> print(write_table(["zip", "bytes"], [["a|b.zip", 3]]))
    | zip | bytes |
    | --- | --- |
    | a&#124;b.zip | 3 |
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(make_visible(str(cell)).replace('|', '&#124;') for cell in line)} |" for line in lines
    )
