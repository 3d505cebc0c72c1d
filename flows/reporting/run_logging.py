"""What a flow run writes into its log: one readable line a step, and no tracebacks of bad input."""

from __future__ import annotations

import logging
import re
from weakref import WeakSet

from prefect.logging import get_run_logger

from flows.reporting.progress import NotedProgress, join_progress, listening_progress, throttled_lines
from flows.reporting.progress_artifacts import artifact_progress
from sensorium_data.errors import SensoriumError
from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_visible

__all__ = ["log_line", "quiet_known_errors", "run_progress"]


# What Prefect's engine writes last of a run that failed, after it wrote why.
_FAILED = re.compile(r"(Finished in state \w+)\(.*run encountered an exception.*\)", re.DOTALL)


class _KnownErrorFilter(logging.Filter):
    """Lets a :class:`SensoriumError` be told once, by the first run that it ends, and without its traceback.

    Its message says what there is to say. The runs around that one fail of the same error.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: WeakSet[SensoriumError] = WeakSet()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, SensoriumError):
            if error in self._told:
                return False
            self._told.add(error)
            record.msg = str(error)
            record.args = ()
            record.exc_info = None
            record.exc_text = None
        elif isinstance(record.msg, str):
            record.msg = _FAILED.sub(r"\1", record.msg)
        return True


# One for all: an error passes from a task to its flow.
_known_errors = _KnownErrorFilter()


def quiet_known_errors() -> None:
    """Let failing runs log the one-line reason of a known error instead of its traceback.

    Called by every flow and task that can meet bad input; calling it again changes nothing.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        # Adding it again changes nothing.
        logging.getLogger(name).addFilter(_known_errors)


def log_line(line: str) -> None:
    """Write one line into the log of the flow or task run around the caller, as it may be shown."""
    get_run_logger().info(_as_shown(line))


def run_progress() -> NotedProgress:
    """Return where a step inside a run reports its progress.

    That is the terminal that listens, else the run's log; and the run's progress artifacts.
    """
    logger = get_run_logger()
    lines = listening_progress() or throttled_lines(lambda line: logger.info(_as_shown(line)))
    return join_progress(lines, artifact_progress(logger.warning))


def _as_shown(line: str) -> str:
    """Return a line without the secrets in its URLs, its control characters written out."""
    return hide_secrets(make_visible(line))
