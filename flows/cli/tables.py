"""Tables on a terminal."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from sensorium_data.visible_text import make_lines_visible, make_visible

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["error_console", "print_next", "print_table", "table_console"]

# Tables that are piped into a file or a pager keep their columns apart from the pager's width.
_PLAIN_WIDTH = 160
# Longer ones, as paths and digests are, are broken where a table has no room for them.
_LONGEST_WORD = 24
# Where a word may be broken: inside a name or a path, and not inside a number.
_BREAKS = re.compile(r"(?<=[_/])(?=[^_/])|(?<=[A-Za-z]-)(?=[A-Za-z])")


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
    note: str = "",
) -> None:
    """Print rows as a table; floats with three decimals, missing values empty.

    Columns that do not fit side by side come in further tables below each other, which all begin with the key columns.
    Numbers and joined columns are not broken.

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
    described = {name: _describe(records, name, heading, name in joined) for name, heading in columns.items()}
    keys = [described.pop(name) for name in list(described)[:n_keys]]
    blocks: list[list[_Column]] = []
    for name, column in described.items():
        if name in joined and blocks:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    for number, table in enumerate(_arrange(keys, blocks, console.width)):
        if number:
            console.print()
        console.print(table)


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: list[str]
    is_numeric: bool
    is_whole: bool

    @cached_property
    def natural_width(self) -> int:
        """The width at which no line is broken."""
        return max((cell_len(line) for text in (self.heading, *self.cells) for line in text.split("\n")), default=0)

    @cached_property
    def least_width(self) -> int:
        """The width at which no word of usual length is broken, and no number or cell that is to stay whole."""
        if self.is_whole:
            return self.natural_width
        width = self._measure(str.split)
        return width if self.is_numeric else min(width, _LONGEST_WORD)

    @cached_property
    def narrow_width(self) -> int:
        """The width at which words are broken only where one may be, and numbers are not."""
        return self.least_width if self.is_whole or self.is_numeric else min(self._measure(_split), self.least_width)

    def _measure(self, split: Callable[[str], list[str]]) -> int:
        return max((cell_len(part) for text in (self.heading, *self.cells) for part in split(text)), default=0)

    def wrap(self, width: int) -> list[str]:
        """Return the cells with line breaks where a line is longer than a width."""
        if self.is_whole or self.is_numeric:
            return self.cells
        return [_wrap(cell, width) for cell in self.cells]

    def stack(self, below: _Column) -> _Column:
        """Return one column with the cells of another below its own."""
        cells = ["\n".join(filter(None, pair)) for pair in zip(self.cells, below.cells, strict=True)]
        return _Column(f"{self.heading}\n{below.heading}", cells, is_numeric=self.is_numeric, is_whole=True)


def _describe(records: Sequence[Mapping[str, object]], name: str, heading: str, is_whole: bool) -> _Column:
    values = [record[name] for record in records if record.get(name) is not None]
    is_numeric = bool(values) and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return _Column(make_lines_visible(heading), [_cell(record.get(name)) for record in records], is_numeric, is_whole)


def _arrange(keys: Sequence[_Column], blocks: Iterable[Sequence[_Column]], width: int) -> Iterator[Table]:
    """Yield one table, or several that all begin with the key columns; none parts a block."""
    shown = list(keys)
    for block in blocks:
        is_too_wide = _add_up([column.narrow_width for column in (*keys, *block)]) > width
        columns = [functools.reduce(_Column.stack, block)] if is_too_wide else block
        if len(shown) > len(keys) and _add_up([column.least_width for column in (*shown, *columns)]) > width:
            yield _make_table(shown, width)
            shown = list(keys)
        shown += columns
    yield _make_table(shown, width)


def _make_table(columns: Sequence[_Column], width: int) -> Table:
    table = Table(header_style="bold", show_edge=False)
    wrapped = []
    for column, own_width in zip(columns, _share_width(columns, width), strict=True):
        justify: Literal["left", "right"] = "right" if column.is_numeric else "left"
        table.add_column(_wrap(column.heading, own_width), justify=justify, overflow="fold", width=own_width)
        wrapped.append(column.wrap(own_width))
    for cells in zip(*wrapped, strict=True):
        table.add_row(*cells)
    return table


def _share_width(columns: Sequence[_Column], width: int) -> list[int]:
    """Return each column's width: the widest give way first, their words only if that does not suffice."""
    widths = [column.natural_width for column in columns]
    for least in (
        [column.least_width for column in columns],
        [column.narrow_width for column in columns],
        [column.narrow_width if column.is_whole or column.is_numeric else 1 for column in columns],
    ):
        while _add_up(widths) > width:
            widest = max(range(len(columns)), key=lambda i: (widths[i] > least[i], widths[i]))
            if widths[widest] <= least[widest]:
                break
            widths[widest] -= 1
    return widths


def _add_up(widths: Sequence[int]) -> int:
    """Return the width of a table of columns: each has a space on either side, and a line to the next."""
    return sum(width + 2 for width in widths) + len(widths) - 1


def _split(text: str) -> list[str]:
    """Return the parts of a text between which a line may end: words, and parts of names and of paths."""
    return [part for word in text.split() for part in _BREAKS.split(word)]


def _wrap(text: str, width: int) -> str:
    """Return a text whose lines have at most a width, as far as :func:`_split` lets them."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            for number, part in enumerate(_BREAKS.split(word)):
                space = " " if line and not number else ""
                if line and cell_len(line + space + part) > width:
                    lines.append(line)
                    line = part
                else:
                    line += space + part
        lines.append(line)
    return "\n".join(lines)


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
        return f"{value:z.3f}"
    return make_visible(str(value))


class _VisibleConsole(Console):
    """Shows what comes from files and servers as :func:`make_visible` has it, each text that is printed on its line."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(make_visible(one) if isinstance(one, str) else one for one in objects), **options)


def _console(file: TextIO) -> Console:
    # Names of files and sessions may hold square brackets, which rich would read as markup.
    width = None if file.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _PLAIN_WIDTH
    return _VisibleConsole(file=file, width=width, highlight=False, markup=False)
