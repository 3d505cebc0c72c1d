"""Progress for people: bars on a terminal, plain lines elsewhere, log lines inside a flow run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from sensorium_data.progress import Progress

__all__ = ["listening_progress", "show_progress", "throttled_lines"]

_listener: ContextVar[Progress | None] = ContextVar("sensorium_progress", default=None)


def listening_progress() -> Progress | None:
    """Return the progress that :func:`show_progress` shows in this context, if it does."""
    return _listener.get()


def throttled_lines(write: Callable[[str], None], *, every_s: float = 5.0) -> Progress:
    """Return a progress that calls ``write(line)`` now and then, and always when something is complete.

    Parameters
    ----------
    write : callable
        Takes one line of text, e.g. a logger's ``info``.
    every_s : float
        Least time between two lines of one label, in seconds.
    """
    lock = threading.Lock()
    started: dict[str, float] = {}
    last: dict[str, float] = {}

    def progress(label: str, n_done: int, n_total: int, /, *, n_bytes: int | None = None) -> None:
        now = time.monotonic()
        with lock:
            begin = started.setdefault(label, now)
            complete = n_done >= n_total
            if not complete and now - last.get(label, begin) < every_s:
                return
            last[label] = now
            elapsed = now - begin
            if complete:
                started.pop(label)
                last.pop(label)
        rate = f", {n_done / elapsed:.1f}/s" if elapsed > 0 and n_done else ""
        left = f", {elapsed / n_done * (n_total - n_done):.0f} s left" if n_done and not complete else ""
        write(f"{label}: {n_done} of {n_total}{rate}{left}")

    return progress


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """Show progress on ``console`` while the block runs: bars on a terminal, plain lines elsewhere.

    Flows that run in this context report here too, instead of to their log.
    """
    if not console.is_terminal:
        lines = throttled_lines(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
        token = _listener.set(lines)
        try:
            yield lines
        finally:
            _listener.reset(token)
        return

    bars = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()

    def progress(label: str, n_done: int, n_total: int, /, *, n_bytes: int | None = None) -> None:
        with lock:
            task = tasks.get(label)
            if task is None or bars.tasks[task].finished:
                task = tasks[label] = bars.add_task(label, total=n_total, rate="")
        speed = bars.tasks[task].speed
        bars.update(task, completed=n_done, total=n_total, rate=f"{speed:.1f}/s" if speed else "")

    token = _listener.set(progress)
    try:
        with bars:
            yield progress
    finally:
        _listener.reset(token)
