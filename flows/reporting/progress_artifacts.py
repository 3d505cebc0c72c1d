"""How far a run is, as artifacts that are there while the work goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from flows.reporting.artifacts import artifact_key, create_artifact, delete_artifact, show_text, update_artifact
from flows.reporting.pace import Pace, describe_pace
from flows.reporting.progress import NotedProgress
from flows.watching import report, server_is_away

__all__ = ["artifact_progress"]

# A server that did not take an artifact is left alone for so long.
_REST_S = 60.0


def artifact_progress(
    warn: Callable[[str], None], *, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> NotedProgress:
    """Return a progress that keeps a progress artifact of the present flow or task run for each label in work.

    The artifact is deleted when the work is complete: the run's log and its other artifacts say what came of it.
    Called inside the run; the progress may be called from any thread, and writes into that run. Work never waits for
    another thread's request, and a server that refuses or is away costs it nothing but the artifact.

    Parameters
    ----------
    warn : callable
        Takes a line, the first time that an artifact cannot be written.
    every_s : float
        Least time between two requests for one label, in seconds.
    clock : callable
        Returns seconds, and never goes back.
    """
    context = copy_context()
    lock = threading.Lock()
    shown: dict[str, _Shown] = {}
    resting_until_s = float("-inf")
    warned = False

    def progress(label: str, n_done: int, n_total: int, *, n_bytes: int | None = None, note: str = "") -> None:
        nonlocal resting_until_s, warned
        now = clock()
        with lock:
            one = shown.get(label)
            if one is None:
                one = shown[label] = _Shown(Pace(n_done, n_total, n_bytes, now))
            else:
                one.pace.update(n_done, n_total, n_bytes, now)
            complete = one.pace.complete
            if complete:
                del shown[label]
            if not complete and now < max(resting_until_s, one.due_s):
                return
            one.due_s = now + every_s
            percent = 100.0 * min(1.0, one.pace.n_done / one.pace.n_total) if one.pace.n_total > 0 else 100.0
            description = show_text(f"{label}: {describe_pace(one.pace, now, note)}")
        # What is complete has to be cleared away, also where a request of another thread is under way.
        if not one.request.acquire(blocking=complete):
            return
        try:
            if one.over:
                return
            one.over = complete
            # A context of its own: one context cannot be entered by two threads at once.
            inside = context.copy()
            if complete:
                if one.artifact is not None:
                    inside.run(report, partial(delete_artifact, one.artifact))
            elif not inside.run(server_is_away):
                inside.run(_send, one, artifact_key("progress", label), percent, description)
        except Exception as error:  # noqa: BLE001 (whatever Prefect's client raises, the work goes on)
            with lock:
                resting_until_s = clock() + _REST_S
                first, warned = not warned, True
            if first:
                warn(f"progress cannot be shown as an artifact, the work goes on without: {error!r}")
        finally:
            one.request.release()

    return progress


@dataclass
class _Shown:
    """A label's artifact, once it has one."""

    pace: Pace
    due_s: float = float("-inf")
    artifact: UUID | None = None
    over: bool = False
    request: threading.Lock = field(default_factory=threading.Lock)


def _send(one: _Shown, key: str, percent: float, description: str) -> None:
    if one.artifact is None:
        one.artifact = create_artifact(key, "progress", percent, description)
    else:
        update_artifact(one.artifact, percent, description)
