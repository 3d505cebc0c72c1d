"""Progress for people: bars on a terminal, plain lines elsewhere, log lines inside a flow run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from flows.reporting.pace import Pace, describe_pace, format_clock, format_rate, format_size
from sensorium_data.progress import Progress
from sensorium_data.visible_text import make_visible

__all__ = ["NotedProgress", "ignore_note", "join_progress", "listening_progress", "show_progress", "throttled_lines"]


class NotedProgress(Progress, Protocol):
    """A progress that may be told more than numbers."""

    def __call__(self, label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        """Tell how far a piece of work is.

        Parameters
        ----------
        label, n_done, n_total, n_bytes
            As in :class:`sensorium_data.progress.Progress`.
        note : str
            What else is worth knowing at present, in a few words, the most important ones first.
        """


def ignore_note(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
    """Do nothing, as :func:`sensorium_data.progress.ignore_progress` does, with a note too."""


_listener: ContextVar[NotedProgress | None] = ContextVar("sensorium_progress", default=None)

# Work of hours gets a line a minute.
_RAREST_S = 60.0
_RARER_BY = 0.05

_LABEL_WIDTH = 32
_TIME_LEFT_WIDTH = 10
# A narrower terminal shows neither the bytes in total nor the time elapsed: their rate and the time left matter more.
_WIDE = 96
# One narrower than this, not how many are done a second.
_NARROW = 72


def listening_progress() -> NotedProgress | None:
    """Return the progress that :func:`show_progress` shows in this context, if it does."""
    return _listener.get()


def join_progress(*listeners: NotedProgress) -> NotedProgress:
    """Return a progress that tells several."""

    def progress(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        for listener in listeners:
            listener(label, n_done, n_total, n_bytes=n_bytes, note=note)

    return progress


def throttled_lines(
    write: Callable[[str], None], *, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> NotedProgress:
    """Return a progress that calls ``write(line)`` now and then, and always when something is complete.

    Parameters
    ----------
    write : callable
        Takes one line of text, e.g. a logger's ``info``.
    every_s : float
        Least time between two lines of one label, in seconds; work that takes long gets them more rarely, at last
        once a minute.
    clock : callable
        Returns seconds, and never goes back.
    """
    lock = threading.Lock()
    paces: dict[str, Pace] = {}
    written_s: dict[str, float] = {}

    def progress(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        now = clock()
        with lock:
            pace = _follow(paces, label, n_done, n_total, n_bytes, now)
            rarer_s = min(_RAREST_S, _RARER_BY * pace.elapsed_s(now))
            if not pace.complete and now - written_s.setdefault(label, now) < max(every_s, rarer_s):
                return
            written_s[label] = now
            if pace.complete:
                del paces[label], written_s[label]
            line = f"{label}: {describe_pace(pace, now, note)}"
        write(line)

    return progress


@contextmanager
def show_progress(console: Console) -> Iterator[NotedProgress]:
    """Show progress on ``console`` while the block runs: bars on a terminal, plain lines elsewhere.

    A bar that is full makes place: a line above the bars says what it has come to. Flows that run in this context
    report here too, instead of to their log.
    """
    if not console.is_terminal:
        lines = throttled_lines(lambda line: _print_line(console, line))
        with _listening(lines):
            yield lines
        return

    bars = RichProgress(*_make_columns(console.width), console=console, expand=True)
    lock = threading.Lock()
    paces: dict[str, Pace] = {}
    tasks: dict[str, TaskID] = {}

    def progress(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        with lock:
            pace = _follow(paces, label, n_done, n_total, n_bytes, now)
            if pace.complete:
                del paces[label]
                if label in tasks:
                    bars.remove_task(tasks.pop(label))
                _print_line(console, f"{label}: {describe_pace(pace, now, note)}")
            elif label in tasks:
                bars.update(tasks[label], completed=pace.n_done, total=pace.n_total, note=note)
            else:
                tasks[label] = bars.add_task(
                    make_visible(label), total=pace.n_total, completed=pace.n_done, pace=pace, note=note
                )

    with _listening(progress), bars:
        yield progress


@contextmanager
def _listening(progress: NotedProgress) -> Iterator[None]:
    token = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(token)


def _follow(paces: dict[str, Pace], label: str, n_done: int, n_total: int, n_bytes: int | None, now_s: float) -> Pace:
    """Return a label's pace with the report taken in; the first report begins it."""
    pace = paces.get(label)
    if pace is None:
        pace = paces[label] = Pace(n_done, n_total, n_bytes, now_s)
    else:
        pace.update(n_done, n_total, n_bytes, now_s)
    return pace


def _print_line(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class _PaceColumn(ProgressColumn):
    """A part of a task's pace, right-aligned in a field whose width stays."""

    def __init__(self, write: Callable[[Pace, float], str], *, width: int, style: str) -> None:
        super().__init__(table_column=Column(justify="right", no_wrap=True, min_width=width))
        self._write = write
        self._style = style

    def render(self, task: Task) -> Text:
        return Text(self._write(task.fields["pace"], time.monotonic()), style=self._style)


class _LabelColumn(ProgressColumn):
    """A task's label, cut where it is long."""

    def __init__(self, longest: int) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._longest = longest

    def render(self, task: Task) -> Text:
        text = Text(task.description)
        text.truncate(self._longest, overflow="ellipsis")
        return text


class _TimeLeftColumn(ProgressColumn):
    """The time left, and as many of the parts of a task's note as there is room for."""

    def __init__(self, longest_note: int) -> None:
        super().__init__(table_column=Column(no_wrap=True, min_width=_TIME_LEFT_WIDTH))
        self._longest_note = longest_note

    def render(self, task: Task) -> Text:
        pace: Pace = task.fields["pace"]
        seconds = pace.left_s(time.monotonic())
        left = "" if seconds is None else f"{format_clock(seconds)} left"
        text = Text(left.rjust(_TIME_LEFT_WIDTH), style="progress.remaining")
        parts = task.fields["note"].split(", ")
        while parts and len(", ".join(parts)) > self._longest_note:
            parts.pop()
        return text.append(" " + ", ".join(parts), style="default") if parts and parts[0] else text


class _ByteColumn(_PaceColumn):
    """Takes no room until a task moves bytes."""

    def __init__(self, write: Callable[[Pace, float], str], *, width: int, style: str) -> None:
        super().__init__(write, width=0, style=style)
        self._width = width

    def render(self, task: Task) -> Text:
        text = super().render(task)
        if task.fields["pace"].n_bytes is not None:
            text.align("right", self._width)
        return text


def _make_columns(width: int) -> list[ProgressColumn]:
    def count(pace: Pace, _now: float) -> str:
        return f"{pace.n_done:>{len(str(pace.n_total))}} of {pace.n_total}"

    def rate(pace: Pace, now: float) -> str:
        per_s = pace.rate(now)
        return "" if per_s is None else format_rate(per_s)

    def size(pace: Pace, _now: float) -> str:
        return "" if pace.n_bytes is None else format_size(pace.n_bytes)

    def byte_rate(pace: Pace, now: float) -> str:
        per_s = pace.byte_rate(now)
        return "" if per_s is None else f"{format_size(round(per_s))}/s"

    def elapsed(pace: Pace, now: float) -> str:
        return format_clock(pace.elapsed_s(now))

    is_wide = width >= _WIDE
    columns: list[ProgressColumn] = [
        _LabelColumn(min(_LABEL_WIDTH, width // 4)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
        _PaceColumn(count, width=10, style="progress.download"),
    ]
    if width >= _NARROW:
        columns.append(_PaceColumn(rate, width=8, style="progress.data.speed"))
    if is_wide:
        columns.append(_ByteColumn(size, width=8, style="progress.filesize"))
    columns.append(_ByteColumn(byte_rate, width=10, style="progress.data.speed"))
    if is_wide:
        columns.append(_PaceColumn(elapsed, width=5, style="progress.elapsed"))
    columns.append(_TimeLeftColumn(max(16, width - 64) if width >= _NARROW else 0))
    return columns
