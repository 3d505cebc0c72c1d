"""Ctrl-C on a command line: the first press ends the command cleanly, the second at once, and a third kills it."""

from __future__ import annotations

import atexit
import os
import signal
from types import FrameType
from typing import Any, Final

__all__ = [
    "EXIT_INTERRUPTED",
    "INTERRUPTED",
    "end_at_next_interrupt",
    "handler_after",
    "is_interrupted",
    "take_interrupts",
]

#: What a command says on standard error when it was interrupted.
INTERRUPTED: Final = "sensorium: interrupted; run the same command again\n"

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
# A progress bar hides the cursor, and this process does not live to show it again.
_SHOW_CURSOR = "\x1b[?25h\n"


def take_interrupts() -> None:
    """Let Ctrl-C end this process as a command ends. To be called in the main thread.

    The first press raises KeyboardInterrupt: threads finish what is under way. Python hangs if another one interrupts
    that, so the second press ends the process with status 130 and waits for nothing. Should even that
    be stuck, in a terminal that takes no more text, the third press is left to the system, which kills. Nothing
    changes where Ctrl-C is ignored, as it is for what a shell runs in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        # Registered first, and so called last: Python's own end, which is all that follows, would be cut short.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def is_interrupted() -> bool:
    """Whether Ctrl-C was pressed since :func:`take_interrupts`."""
    return signal.getsignal(signal.SIGINT) in (_end_at_once, _end_silently)


def handler_after(handler: Any) -> Any:
    """Return what handles the press after one that somebody takes in place of ``handler``."""
    return _end_at_once if handler is _interrupt else handler


def end_at_next_interrupt(*, is_told: bool) -> None:
    """Let the next press end the process at once; nothing is left to be finished.

    Parameters
    ----------
    is_told : bool
        Whether :data:`INTERRUPTED` has been written already.
    """
    if signal.getsignal(signal.SIGINT) in (_interrupt, _end_at_once):
        signal.signal(signal.SIGINT, _end_silently if is_told else _end_at_once)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_at_once)
    raise KeyboardInterrupt


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Not through sys.stderr: the press may have come while its lock was held.
    text = _SHOW_CURSOR + INTERRUPTED if os.isatty(2) else INTERRUPTED
    try:
        os.write(2, text.encode())
    finally:
        os._exit(EXIT_INTERRUPTED)


def _end_silently(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)
