"""Stopping in good order: a signal is noted, and training stops at the next step's end."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from sensorium_data.errors import TerminatedError
from sensorium_data.interrupts import handler_after

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Notes SIGTERM and SIGINT (Ctrl-C) while the block runs, in place of ending the process at once.

    A second signal does what a second one does without this. Outside the main thread, where Python delivers
    no signals, nothing is noted.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def is_requested(self) -> bool:
        """Whether training is to stop."""
        return self._received is not None

    def raise_if_requested(self) -> None:
        """Raise what the signal stands for, if there was one.

        Raises
        ------
        KeyboardInterrupt
            After SIGINT.
        TerminatedError
            After SIGTERM.
        """
        match self._received:
            case signal.SIGINT:
                raise KeyboardInterrupt
            case signal.SIGTERM:
                raise TerminatedError(
                    "training was stopped by SIGTERM", remedy="start it again: it goes on where it stopped"
                )

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # None stands for a handler that was not set by Python; it cannot be set again.
            self._handlers = {n: signal.signal(n, self._note) or signal.SIG_DFL for n in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        self._handlers[number] = handler_after(self._handlers[number])
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
