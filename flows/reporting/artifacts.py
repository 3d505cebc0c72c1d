"""Results as Prefect artifacts: small tables and short texts, never the data themselves, nor the secrets in URLs."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from flows.reporting.pace import Pace, describe_pace
from flows.reporting.progress import NotedProgress
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
    create_table_artifact(key=artifact_key(key), table=_to_json_rows(rows), description=_as_shown(description))


def read_latest_table(key: str) -> tuple[pd.DataFrame, str] | None:
    """Return the newest table that was published under a key, and its description; None if there is none."""
    with get_client(sync_client=True) as client:
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
    create_markdown_artifact(key=artifact_key(key), markdown=_as_shown(text), description=_as_shown(description))


def publish_link(key: str, link: str, text: str, description: str) -> None:
    """Publish a link to a file or page."""
    create_link_artifact(
        key=artifact_key(key), link=_as_shown(link), link_text=_as_shown(text), description=_as_shown(description)
    )


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

    def write_table(self, rows: pd.DataFrame | Iterable[Mapping[str, Any]], description: str) -> None:
        """Write a table, as :func:`publish_table` does."""
        table, description = _to_json_rows(rows), _as_shown(description)
        self._write(
            lambda: create_table_artifact(key=self._key, table=table, description=description),
            ArtifactUpdate(data=json.dumps(table), description=description),
        )

    def write_markdown(self, text: str, description: str) -> None:
        """Write a text in Markdown."""
        text, description = _as_shown(text), _as_shown(description)
        self._write(
            lambda: create_markdown_artifact(key=self._key, markdown=text, description=description),
            ArtifactUpdate(data=text, description=description),
        )

    def _write(self, create: Callable[[], object], update: ArtifactUpdate) -> None:
        self._due_s = self._clock() + self._every_s
        try:
            if self._artifact is None:
                artifact = create()
                if not isinstance(artifact, UUID):
                    raise TypeError("artifacts are made in synchronous flows and tasks")
                self._artifact = artifact
            else:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._artifact, update)
        except Exception as error:  # noqa: BLE001 (whatever Prefect's client raises, the work goes on)
            self._due_s = self._clock() + _REST_S
            if not self._warned:
                self._warn(f"artifact {self._key} cannot be written, the work goes on without: {error!r}")
            self._warned = True


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
            if now < resting_until_s or (not complete and now < one.due_s):
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
            context.copy().run(_send, one, artifact_key("progress", label), percent, description)
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
        artifact = create_progress_artifact(percent, key=key, description=description)
        if not isinstance(artifact, UUID):
            raise TypeError("progress artifacts are made in synchronous flows and tasks")
        one.artifact = artifact
    else:
        update_progress_artifact(one.artifact, percent, description=description)
