"""How fast a piece of work goes, and how to say it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Pace", "describe_pace", "format_clock", "format_duration", "format_rate", "format_size"]

# Rates are those of the last minute, so that they follow a server that slows down.
_WINDOW_S = 60.0
# News that is late by more than this counts as standing still.
_PATIENCE_S = 30.0
_UNITS = (("s", 1), ("min", 60), ("h", 3600))
# Calls closer together than this make one sample.
_SPACING_S = 0.5


class _Sample(NamedTuple):
    at_s: float
    n_done: int
    n_bytes: int


class Pace:
    """How far one piece of work is, and how fast it goes, counted from its first report.

    What was done before the first report, by an earlier run, counts as done and not as work of this one.

    Parameters
    ----------
    n_done, n_total, n_bytes
        As in :class:`sensorium_data.progress.Progress`.
    now_s : float
        Of a clock that never goes back, in seconds; likewise in every method.

    Attributes
    ----------
    n_done, n_total, n_bytes
        As reported last.
    """

    def __init__(self, n_done: int, n_total: int, n_bytes: int | None, now_s: float) -> None:
        self.n_done = n_done
        self.n_total = n_total
        self.n_bytes = n_bytes
        self._first = _Sample(now_s, n_done, n_bytes or 0)
        self._samples = deque([self._first])

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.n_done >= self.n_total

    def update(self, n_done: int, n_total: int, n_bytes: int | None, now_s: float) -> None:
        """Take in a report; one that another thread's has overtaken changes nothing."""
        self.n_total = n_total
        self.n_done = max(self.n_done, n_done)
        if n_bytes is not None:
            self.n_bytes = max(self.n_bytes or 0, n_bytes)
        if len(self._samples) > 1 and self._samples[-1].at_s - self._samples[-2].at_s < _SPACING_S:
            self._samples.pop()
        self._samples.append(_Sample(now_s, self.n_done, self.n_bytes or 0))
        while len(self._samples) > 2 and self._samples[1].at_s <= now_s - _WINDOW_S:
            self._samples.popleft()

    def elapsed_s(self, now_s: float) -> float:
        """Return the seconds since the first report."""
        return now_s - self._first.at_s

    def rate(self, now_s: float) -> float | None:
        """Return how many are done a second; ``None`` before any was."""
        begin, end, seconds = self._span(now_s)
        return (end.n_done - begin.n_done) / seconds if end.n_done > begin.n_done and seconds > 0 else None

    def byte_rate(self, now_s: float) -> float | None:
        """Return the bytes moved a second; ``None`` before any was."""
        begin, end, seconds = self._span(now_s)
        return (end.n_bytes - begin.n_bytes) / seconds if end.n_bytes > begin.n_bytes and seconds > 0 else None

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds left at the present rate; ``None`` where there is none yet."""
        rate = self.rate(now_s)
        if self.complete or rate is None:
            return None
        return max(0.0, (self.n_total - self.n_done) / rate - (now_s - self._samples[-1].at_s))

    def _span(self, now_s: float) -> tuple[_Sample, _Sample, float]:
        """Return between which reports the rate is counted, and the seconds: the last minute's, at the end all."""
        begin, end = self._first if self.complete else self._samples[0], self._samples[-1]
        return begin, end, max(end.at_s, now_s - _PATIENCE_S) - begin.at_s


def describe_pace(pace: Pace, now_s: float, note: str = "") -> str:
    """Say in a line how far a piece of work is, and a note on it.

    Examples
    --------
    >>> pace = Pace(100, 711, None, now_s=0)
    >>> pace.update(200, 711, 2_000_000_000, now_s=50)
    >>> describe_pace(pace, now_s=50)
    '200 of 711, 2.0/s, 2.0 GB at 40.0 MB/s, 4 min 16 s left'
    """
    rate, byte_rate, left_s = pace.rate(now_s), pace.byte_rate(now_s), pace.left_s(now_s)
    elapsed = f" in {format_duration(pace.elapsed_s(now_s))}" if pace.complete and pace.elapsed_s(now_s) >= 1 else ""
    parts = [f"{pace.n_done} of {pace.n_total}{elapsed}"]
    if rate is not None:
        parts.append(format_rate(rate))
    if pace.n_bytes:
        parts.append(format_size(pace.n_bytes) + (f" at {format_size(round(byte_rate))}/s" if byte_rate else ""))
    if left_s is not None:
        parts.append(f"{format_duration(left_s)} left")
    if note:
        parts.append(note)
    return ", ".join(parts)


def format_rate(per_s: float) -> str:
    """Write a rate in the unit that makes it a number people can read.

    Examples
    --------
    >>> format_rate(250.4), format_rate(12.34), format_rate(0.05), format_rate(0.001)
    ('250/s', '12.3/s', '3.0/min', '3.6/h')
    """
    unit, length_s = next((each for each in _UNITS if per_s * each[1] >= 1), _UNITS[-1])
    rate = per_s * length_s
    return f"{rate:.0f}/{unit}" if rate >= 100 else f"{rate:.1f}/{unit}"


def format_duration(seconds: float) -> str:
    """Write a time in its two largest units.

    Examples
    --------
    >>> format_duration(47.6), format_duration(125), format_duration(11_100)
    ('48 s', '2 min 5 s', '3 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_clock(seconds: float) -> str:
    """Write a time as a clock does.

    Examples
    --------
    >>> format_clock(47.6), format_clock(125), format_clock(11_100)
    ('0:47', '2:05', '3:05:00')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_size(size_bytes: int) -> str:
    """Write a size with its unit.

    Examples
    --------
    >>> format_size(1_530_000)
    '1.5 MB'
    """
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
