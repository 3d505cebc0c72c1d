"""Tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from sensorium_data.visible_text import make_lines_visible, make_visible

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["error_console", "print_next", "print_table", "table_console"]

# Tables that are piped into a file or a pager keep their columns apart from the pager's width.
_PLAIN_WIDTH = 160


def table_console() -> Console:
    """Return a console on standard output that does not squeeze tables when it is no terminal."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Return a console on standard error, for progress and messages."""
    return _console(sys.stderr)


def print_table(
    console: Console,
    title: str,
    rows: pd.DataFrame | Sequence[Mapping[str, object]],
    *,
    columns: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Print rows as a table; floats with three decimals, missing values empty.

    Parameters
    ----------
    console : Console
        Where to.
    title : str
        Shown above the table.
    rows : DataFrame or sequence of mappings
        The table.
    columns : mapping of str to str, optional
        The columns to show, and the headings to show them under; by default all, with ``_`` as a space.
    note : str
        A line below the title; none if it is empty.
    """
    records: Sequence[Mapping[str, object]] = (
        rows
        if isinstance(rows, Sequence)
        else [dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False)]
    )
    if columns is None:
        names = (
            dict.fromkeys(name for record in rows for name in record) if isinstance(rows, Sequence) else rows.columns
        )
        columns = {str(name): str(name).replace("_", " ") for name in names}
    table = Table(
        title="\n".join(map(make_visible, filter(None, (title, note)))),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        show_edge=False,
    )
    for name, heading in columns.items():
        values = [record[name] for record in records if record.get(name) is not None]
        numeric = bool(values) and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
        table.add_column(make_lines_visible(heading), justify="right" if numeric else "left", overflow="fold")
    for record in records:
        table.add_row(*(_cell(record.get(name)) for name in columns))
    console.print()
    console.print(table)


def print_next(console: Console, commands: Iterable[tuple[str, str]]) -> None:
    """Print commands that may come next, each under what it does."""
    console.print()
    console.print("Next", style="bold")
    for purpose, command in commands:
        console.print(f"  {purpose}:", highlight=False)
        console.print(f"    {command}", highlight=False, soft_wrap=True)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return make_visible(str(value))


class _VisibleConsole(Console):
    """Shows what comes from files and servers as :func:`make_visible` has it, each text that is printed on its line."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(make_visible(one) if isinstance(one, str) else one for one in objects), **options)


def _console(file: TextIO) -> Console:
    # Names of files and sessions may hold square brackets, which rich would read as markup.
    width = None if file.isatty() else _PLAIN_WIDTH
    return _VisibleConsole(file=file, width=width, highlight=False, markup=False)
