"""Results as Prefect artifacts: small tables and short texts, never the data themselves, nor the secrets in URLs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.utilities.context import get_task_and_flow_run_ids

from flows.reporting.pace import Pace, describe_pace
from flows.reporting.progress import NotedProgress
from flows.watching import quick_client, report, server_is_away
from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_lines_visible, make_visible

__all__ = [
    "LiveArtifact",
    "artifact_key",
    "artifact_progress",
    "publish_link",
    "publish_markdown",
    "publish_table",
    "read_latest_table",
]

# A server that did not take an artifact is left alone for so long.
_REST_S = 60.0


def artifact_key(*parts: str) -> str:
    """Join ``parts`` into a key as Prefect wants it: lowercase letters, digits and dashes.

    Examples
    --------
    >>> artifact_key("quality", "F", "Bad_Key")
    'quality-f-bad-key'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def publish_table(key: str, rows: pd.DataFrame | Iterable[Mapping[str, Any]], description: str) -> None:
    """Publish a table, one row a line.

    Parameters
    ----------
    key : str
        The artifact's key; runs that use the same key form its history.
    rows : DataFrame or iterable of mappings
        The table. NumPy scalars and NaN are turned into JSON numbers and null.
    description : str
        Markdown shown above the table.
    """
    _publish(key, "table", json.dumps(_to_json_rows(rows)), description)


def read_latest_table(key: str) -> tuple[pd.DataFrame, str] | None:
    """Return the newest table that was published under a key, and its description; None if there is none."""
    with quick_client() as client:
        found = client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[artifact_key(key)]))
        )
    tables = [one for one in found if one.type == "table"]
    if not tables:
        return None
    (table,) = tables
    rows = json.loads(table.data) if isinstance(table.data, str) else table.data
    return pd.DataFrame(rows), table.description or ""


def publish_markdown(key: str, text: str, description: str) -> None:
    """Publish a text in Markdown."""
    _publish(key, "markdown", _as_shown(text), description)


def publish_link(key: str, link: str, text: str, description: str) -> None:
    """Publish a link to a file or page."""
    _publish(key, "markdown", f"[{_as_shown(text)}]({_as_shown(link)})", description)


def _publish(key: str, kind: str, data: Any, description: str) -> None:
    """Make an artifact of the present run, at the run's end if the server is away."""
    report(lambda: _create(artifact_key(key), kind, data, _as_shown(description)))


def _create(key: str, kind: str, data: Any, description: str) -> UUID:
    task_run, flow_run = get_task_and_flow_run_ids()
    with quick_client() as client:
        return client.create_artifact(
            ArtifactCreate(
                key=key,
                type=kind,
                data=data,
                description=description,
                task_run_id=task_run,
                flow_run_id=flow_run,
            )
        ).id


def _update(artifact: UUID, data: Any, description: str) -> None:
    with quick_client() as client:
        client.update_artifact(artifact, ArtifactUpdate(data=data, description=description))


class LiveArtifact:
    """A table or text that is written again and again while work goes on, as one artifact of the present run.

    A server that refuses or is away costs the work nothing but the artifact.

    Parameters
    ----------
    key : str
        The artifact's key.
    warn : callable
        Takes a line, the first time that the artifact cannot be written.
    every_s : float
        Least time between two requests, in seconds.
    clock : callable
        Returns seconds, and never goes back.
    """

    def __init__(
        self,
        key: str,
        warn: Callable[[str], None],
        *,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = artifact_key(key)
        self._warn = warn
        self._every_s = every_s
        self._clock = clock
        self._due_s = float("-inf")
        self._artifact: UUID | None = None
        self._warned = False

    @property
    def is_due(self) -> bool:
        """Whether it was last written long enough ago to be written again."""
        return self._clock() >= self._due_s

    def write_table(
        self, rows: pd.DataFrame | Iterable[Mapping[str, Any]], description: str, *, is_last: bool = False
    ) -> None:
        """Write a table, as :func:`publish_table` does; the last one is kept until the server takes it."""
        self._write("table", json.dumps(_to_json_rows(rows)), _as_shown(description), is_last=is_last)

    def write_markdown(self, text: str, description: str, *, is_last: bool = False) -> None:
        """Write a text in Markdown; the last one is kept until the server takes it."""
        self._write("markdown", _as_shown(text), _as_shown(description), is_last=is_last)

    def _write(self, kind: str, data: str, description: str, *, is_last: bool) -> None:
        self._due_s = self._clock() + self._every_s
        try:
            if is_last:
                report(lambda: self._send(kind, data, description))
            elif not server_is_away():
                self._send(kind, data, description)
        except Exception as error:  # noqa: BLE001 (whatever Prefect's client raises, the work goes on)
            self._due_s = self._clock() + _REST_S
            if not self._warned:
                self._warn(f"artifact {self._key} cannot be written, the work goes on without: {error!r}")
            self._warned = True

    def _send(self, kind: str, data: str, description: str) -> None:
        if self._artifact is None:
            self._artifact = _create(self._key, kind, data, description)
        else:
            _update(self._artifact, data, description)


def _as_shown(text: str) -> str:
    """Return Markdown without the secrets in its URLs, its control characters written out."""
    return hide_secrets(make_lines_visible(text))


def _cell_as_shown(value: Any) -> Any:
    return hide_secrets(make_visible(value)) if isinstance(value, str) else value


def _to_json_rows(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    records = rows.to_dict(orient="records") if isinstance(rows, pd.DataFrame) else rows
    shown = pd.DataFrame([{_cell_as_shown(k): _cell_as_shown(v) for k, v in row.items()} for row in records])
    table: list[dict[str, Any]] = json.loads(shown.to_json(orient="records", double_precision=6))
    return table


def artifact_progress(
    warn: Callable[[str], None], *, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> NotedProgress:
    """Return a progress that keeps a progress artifact of the present flow or task run for each label.

    Called inside the run; the progress may be called from any thread, and writes into that run. Work never waits for
    another thread's request, and a server that refuses or is away costs it nothing but the artifact.

    Parameters
    ----------
    warn : callable
        Takes a line, the first time that an artifact cannot be written.
    every_s : float
        Least time between two requests for one label, in seconds; what is complete is always told.
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
            description = _as_shown(f"{label}: {describe_pace(one.pace, now, note)}")
        # What is complete has to be told, also where a request of another thread is under way.
        if not one.request.acquire(blocking=complete):
            return
        try:
            if one.over:
                return
            one.over = complete
            # A context of its own: one context cannot be entered by two threads at once.
            inside = context.copy()
            send = partial(_send, one, artifact_key("progress", label), percent, description)
            if complete:
                inside.run(report, send)
            elif not inside.run(server_is_away):
                inside.run(send)
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
        one.artifact = _create(key, "progress", percent, description)
    else:
        _update(one.artifact, percent, description)
