"""Tables on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console

from flows.cli.columns import Column, arrange, describe_column, fits, nest, wrap
from sensorium_data.visible_text import make_visible

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
    n_keys: int = 1,
    joined: Collection[str] = (),
    optional: Sequence[str] = (),
    below: Collection[str] = (),
    note: str = "",
) -> None:
    """Print rows as a table; floats with three decimals, missing values empty.

    Where the columns do not fit side by side, the key columns become one, with each level indented under the one
    before. Then a text comes below its row, and optional columns are left out, which a line says. If that does not
    suffice, columns come in further tables, which all begin with the keys. Numbers and joined columns are not broken.

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
    n_keys : int
        How many of the first columns say what a row is about.
    joined : collection of str
        Columns that stay beside the one before them, or below it where a terminal is too narrow, as an interval beside
        its score.
    optional : sequence of str
        Columns that a narrow terminal does without; the first ones are left out first. JSON has them.
    below : collection of str
        Columns of text that come below their row on a narrow terminal.
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
    console.print()
    # Not as the table's title, which would be broken at the table's width.
    for line in filter(None, (title, note)):
        console.print(make_visible(line), style="bold", soft_wrap=True)
    described = {name: describe_column(records, name, heading, name in joined) for name, heading in columns.items()}
    width = console.width
    keys = [described.pop(name) for name in list(described)[:n_keys]]
    if n_keys > 1 and records and not fits([*keys, *described.values()], width, n_whole=n_keys):
        key, beside = nest(keys, list(described.values()))
        keys, described = [key], dict(zip(described, beside, strict=True))
    if below and not fits([*keys, *described.values()], width, n_whole=len(keys) + len(described)):
        texts = [described.pop(name) for name in list(described) if name in below]
        _print_with_text(console, [*keys, *described.values()], texts)
        return
    left_out = []
    for name in optional:
        if name in described and not fits([*keys, *described.values()], width):
            left_out.append(described.pop(name).heading.replace("-\n", "-").replace("\n", " "))
    blocks: list[list[Column]] = []
    for name, column in described.items():
        if name in joined and blocks:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    for number, table in enumerate(arrange(keys, blocks, width)):
        if number:
            console.print()
        console.print(table)
    if left_out:
        told = f"Not shown at {width} columns: {', '.join(reversed(left_out))}. A wider terminal or --json shows them."
        _print_lines(console, wrap(told, width))


def _print_lines(console: Console, text: str, **options: Any) -> None:
    for line in text.split("\n"):
        console.print(line, soft_wrap=True, **options)


def _print_with_text(console: Console, columns: Sequence[Column], texts: Sequence[Column]) -> None:
    """Print a row's cells in a line and its texts below; where a line is too long, each cell but the first is named."""
    widths = [max(map(cell_len, (column.heading.replace("\n", " "), *column.cells))) for column in columns]
    indent = "    "
    fit_in_lines = sum(widths) + 2 * (len(widths) - 1) <= console.width

    def print_indented(text: str) -> None:
        for line in wrap(text, console.width - len(indent)).split("\n"):
            _print_lines(console, indent + line)

    def print_line(cells: Sequence[str], **options: Any) -> None:
        padded = []
        for cell, width, column in zip(cells, widths, columns, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if column.is_numeric else cell + space)
        _print_lines(console, "  ".join(padded).rstrip(), **options)

    if fit_in_lines:
        print_line([column.heading.replace("\n", " ") for column in columns], style="bold")
    for row in range(len(columns[0].cells)):
        if fit_in_lines:
            print_line([column.cells[row] for column in columns])
        else:
            first, *others = columns
            _print_lines(console, wrap(first.cells[row], console.width), style="bold")
            named = [f"{one.heading.replace(chr(10), ' ')}: {one.cells[row]}" for one in others if one.cells[row]]
            if named:
                print_indented(", ".join(named))
        for text in texts:
            if text.cells[row]:
                print_indented(text.cells[row])


def print_next(console: Console, commands: Iterable[tuple[str, str]]) -> None:
    """Print commands that may come next, each under what it does."""
    console.print()
    console.print("Next", style="bold")
    for purpose, command in commands:
        console.print(f"  {purpose}:", highlight=False)
        console.print(f"    {command}", highlight=False, soft_wrap=True)


class _VisibleConsole(Console):
    """Shows what comes from files and servers as :func:`make_visible` has it, each text that is printed on its line."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(make_visible(one) if isinstance(one, str) else one for one in objects), **options)


def _console(file: TextIO) -> Console:
    # Names of files and sessions may hold square brackets, which rich would read as markup.
    width = None if file.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _PLAIN_WIDTH
    return _VisibleConsole(file=file, width=width, highlight=False, markup=False)
