"""Small tables in HTML, for notebooks: what they show cannot become markup."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_visible, shorten

__all__ = ["write_html_lines", "write_html_table"]

_LONGEST_CELL = 300
_MOST_ROWS = 200


def write_html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; numbers are aligned to the right, None is an empty cell, and long tables are cut.

    Parameters
    ----------
    caption : str
        What the table is.
    heads : sequence of str
        The columns' names.
    rows : iterable of sequence
        The cells.

    Examples
    --------
    >>> write_html_table("a<b", ["n"], [[3]]).count("&lt;")
    1
    """
    written = [list(row) for row in rows]
    n_left_out = max(0, len(written) - _MOST_ROWS)
    head = "".join(f"<th>{_escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(map(_write_cell, row))}</tr>" for row in written[:_MOST_ROWS])
    rest = f"<p>{n_left_out:,} more rows</p>" if n_left_out else ""
    return (
        f"<table><caption>{_escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"
    )


def write_html_lines(lines: Iterable[str]) -> str:
    """Write lines of text, a paragraph each."""
    return "".join(f"<p>{_escape(line)}</p>" for line in lines)


def _write_cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"<td>{_escape('' if value is None else value)}</td>"
    return f'<td style="text-align:right">{_escape(_write_number(value))}</td>'


def _write_number(value: Real) -> str:
    if isinstance(value, Integral):
        return f"{int(value):,}"
    return "" if math.isnan(value) else f"{float(value):z.4g}"


def _escape(text: object) -> str:
    return html.escape(shorten(make_visible(hide_secrets(str(text))), _LONGEST_CELL))
