"""Log lines of an absence of the server, kept until it is back: Prefect drops what it cannot send in a minute."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from prefect.logging.handlers import APILogWorker, set_api_log_sink

__all__ = ["KEPT_LINES", "KeptLines"]

# Of a training of an hour; of what writes more, the newest are kept.
_MOST_LINES = 20_000
# The sender may be in the middle of a pause between two attempts.
_SENT_TIMEOUT_S = 90.0


class KeptLines:
    """The lines of this process that wait for the server."""

    def __init__(self) -> None:
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MOST_LINES)
        self._lock = threading.Lock()
        self._holds = False
        self._has_sent = False

    def hold(self) -> None:
        """Keep the lines that are written from now on."""
        with self._lock:
            self._holds = True
            set_api_log_sink(self._lines.append)

    def release(self) -> None:
        """Send what was kept, and keep nothing more; without a :meth:`hold` before it, nothing happens."""
        with self._lock:
            if not self._holds:
                return
            self._holds = False
            set_api_log_sink(None)
            while self._lines:
                APILogWorker.instance().send(self._lines.popleft())
                self._has_sent = True

    def wait_until_sent(self) -> None:
        """Wait until the sender has sent what was kept, for a minute and a half at most."""
        if not self._has_sent:
            return
        self._has_sent = False
        # Ends the sender, too: the next line gets another.
        APILogWorker.drain_all(timeout=_SENT_TIMEOUT_S)


#: Prefect has one sender in a process.
KEPT_LINES = KeptLines()
