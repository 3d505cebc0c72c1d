"""Columns of a table on a terminal: their widths, and where their lines end."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Literal

from rich.cells import cell_len
from rich.table import Table

from sensorium_data.visible_text import make_lines_visible, make_visible

__all__ = ["Column", "add_up", "arrange", "describe_column", "fits", "make_table", "nest", "wrap"]

# Longer ones, as paths and digests are, are broken where a table has no room for them.
_LONGEST_WORD = 24
# Where a word may be broken: inside a name or a path, and not inside a number.
_BREAKS = re.compile(r"(?<=[_/])(?=[^_/])|(?<=[A-Za-z]-)(?=[A-Za-z])")
# What a key says of rows about all that its column tells apart.
_ALL = "all"


@dataclass(frozen=True)
class Column:
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
        return [wrap(cell, width) for cell in self.cells]

    def stack(self, below: Column) -> Column:
        """Return one column with the cells of another below its own."""
        cells = ["\n".join(filter(None, pair)) for pair in zip(self.cells, below.cells, strict=True)]
        return Column(f"{self.heading}\n{below.heading}", cells, is_numeric=self.is_numeric, is_whole=True)


def nest(keys: Sequence[Column], values: Sequence[Column]) -> tuple[Column, list[Column]]:
    """Return one column for several keys, each level indented under the one before, and the other columns beside it.

    A row about ``all`` that a level tells apart stands at the level above. Rows of equal first keys come together.
    """
    n_rows = len(keys[0].cells)
    order = sorted(range(n_rows), key=lambda row: keys[0].cells.index(keys[0].cells[row]))
    lines: list[str] = []
    sources: list[int | None] = []
    above: tuple[str, ...] = ()
    for row in order:
        path = tuple(key.cells[row] for key in keys)
        while len(path) > 1 and path[-1] in (_ALL, ""):
            path = path[:-1]
        for level in range(len(path)):
            is_last = level == len(path) - 1
            if is_last or path[: level + 1] != above[: level + 1]:
                lines.append("  " * level + path[level])
                sources.append(row if is_last else None)
        above = path
    heading = "\n".join("  " * level + key.heading for level, key in enumerate(keys))
    beside = [
        replace(column, cells=["" if source is None else column.cells[source] for source in sources])
        for column in values
    ]
    return Column(heading, lines, is_numeric=False, is_whole=True), beside


def fits(columns: Sequence[Column], width: int, *, n_whole: int = 0) -> bool:
    """Whether columns fit side by side without a broken word of usual length; some whole.

    Parameters
    ----------
    columns : sequence of Column
        The columns.
    width : int
        Of the terminal.
    n_whole : int
        How many of the first columns have no broken line either; if any, no column of numbers has.
    """
    widths = [
        column.natural_width if number < n_whole or (n_whole and column.is_numeric) else column.least_width
        for number, column in enumerate(columns)
    ]
    return add_up(widths) <= width


def describe_column(records: Sequence[Mapping[str, object]], name: str, heading: str, is_whole: bool) -> Column:
    """Return a column of records, with what is shown of its values."""
    values = [record[name] for record in records if record.get(name) is not None]
    is_numeric = bool(values) and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    return Column(make_lines_visible(heading), [_cell(record.get(name)) for record in records], is_numeric, is_whole)


def arrange(keys: Sequence[Column], blocks: Iterable[Sequence[Column]], width: int) -> Iterator[Table]:
    """Yield one table, or several that all begin with the key columns; none parts a block."""
    shown = list(keys)
    for block in blocks:
        is_too_wide = add_up([column.narrow_width for column in (*keys, *block)]) > width
        columns = [functools.reduce(Column.stack, block)] if is_too_wide else block
        if len(shown) > len(keys) and add_up([column.least_width for column in (*shown, *columns)]) > width:
            yield make_table(shown, width)
            shown = list(keys)
        shown += columns
    yield make_table(shown, width)


def make_table(columns: Sequence[Column], width: int) -> Table:
    """Return a table of columns that is not wider than a terminal."""
    table = Table(header_style="bold", show_edge=False)
    wrapped = []
    for column, own_width in zip(columns, _share_width(columns, width), strict=True):
        justify: Literal["left", "right"] = "right" if column.is_numeric else "left"
        table.add_column(wrap(column.heading, own_width), justify=justify, overflow="fold", width=own_width)
        wrapped.append(column.wrap(own_width))
    for cells in zip(*wrapped, strict=True):
        table.add_row(*cells)
    return table


def _share_width(columns: Sequence[Column], width: int) -> list[int]:
    """Return each column's width: the widest give way first, their words only if that does not suffice."""
    widths = [column.natural_width for column in columns]
    for least in (
        [column.least_width for column in columns],
        [column.narrow_width for column in columns],
        [column.narrow_width if column.is_whole or column.is_numeric else 1 for column in columns],
    ):
        while add_up(widths) > width:
            widest = max(range(len(columns)), key=lambda i: (widths[i] > least[i], widths[i]))
            if widths[widest] <= least[widest]:
                break
            widths[widest] -= 1
    return widths


def add_up(widths: Sequence[int]) -> int:
    """Return the width of a table of columns: each has a space on either side, and a line to the next."""
    return sum(width + 2 for width in widths) + len(widths) - 1


def _split(text: str) -> list[str]:
    """Return the parts of a text between which a line may end: words, and parts of names and of paths."""
    return [part for word in text.split() for part in _BREAKS.split(word)]


def wrap(text: str, width: int) -> str:
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


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:z.3f}"
    return make_visible(str(value))
