"""What a training process tells the one that started it: a JSON object a line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from sensorium_data import errors
from sensorium_data.errors import SensoriumError

if TYPE_CHECKING:
    from flows.reporting import NotedProgress
    from models.runs import EpochMetrics
    from models.training import TrainingReport

__all__ = ["Listener", "Messages"]

_PARTS = ("session", "trial", "path", "found", "expected", "remedy")


class Messages:
    """The training process's side.

    Parameters
    ----------
    descriptor : int
        Of a pipe. Whoever reads it may be gone: training goes on then, until the signal arrives that says so.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def tell_progress(
        self, label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = ""
    ) -> None:
        """Tell how far the work is; a :class:`flows.reporting.NotedProgress`."""
        self._send(kind="progress", label=label, n_done=n_done, n_total=n_total, n_bytes=n_bytes, note=note)

    def tell_epoch(self, metrics: EpochMetrics) -> None:
        """Tell what an epoch came to."""
        self._send(kind="epoch", metrics=dataclasses.asdict(metrics))

    def tell_line(self, line: str) -> None:
        """Tell a line for the log."""
        self._send(kind="line", line=line)

    def tell_report(self, report: TrainingReport) -> None:
        """Tell what training came to."""
        self._send(kind="report", report=dataclasses.asdict(report))

    def tell_error(self, error: SensoriumError) -> None:
        """Tell why there is no report."""
        parts = {name: None if (part := getattr(error, name)) is None else str(part) for name in _PARTS}
        self._send(kind="error", type=type(error).__name__, problem=error.problem, parts=parts)

    def _send(self, **message: Any) -> None:
        rest = (json.dumps(message, default=str) + "\n").encode()
        with self._lock, contextlib.suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


@dataclass
class Listener:
    """The side of the one that started it.

    Attributes
    ----------
    progress, on_epoch, write_line : callable
        Given what the process tells.
    report : TrainingReport or None
        What training came to, once that was told.
    error : SensoriumError or None
        Why there is none, in the same words and of the same kind as it was raised.
    """

    progress: NotedProgress
    on_epoch: Callable[[EpochMetrics], None]
    write_line: Callable[[str], None]
    report: TrainingReport | None = None
    error: SensoriumError | None = None

    def take(self, line: str) -> None:
        """Take in one line."""
        try:
            message = json.loads(line)
            kind = message.pop("kind")
        except (ValueError, TypeError, KeyError, AttributeError):
            # Something else wrote to the pipe; whoever reads the log will know what.
            self.write_line(line)
            return
        match kind:
            case "progress":
                self.progress(message.pop("label"), message.pop("n_done"), message.pop("n_total"), **message)
            case "epoch":
                from models.runs import EpochMetrics

                self.on_epoch(TypeAdapter(EpochMetrics).validate_python(message["metrics"]))
            case "report":
                from models.training import TrainingReport

                self.report = TypeAdapter(TrainingReport).validate_python(message["report"])
            case "error":
                # Several ranks may fail of the same thing.
                self.error = self.error or _rebuild_error(message["type"], message["problem"], message["parts"])
            case _:
                self.write_line(message["line"])


def _rebuild_error(kind: str, problem: str, parts: dict[str, str | None]) -> SensoriumError:
    # Every kind of error lives in that module.
    known: type[SensoriumError] = getattr(errors, kind)
    return known(problem, **parts)
