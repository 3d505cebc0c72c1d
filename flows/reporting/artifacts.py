"""Results as Prefect artifacts: small tables and short texts, never the data themselves, nor the secrets in URLs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, ArtifactFilterType
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ObjectNotFound
from prefect.utilities.context import get_task_and_flow_run_ids

from flows.watching import quick_client, report, server_is_away
from sensorium_data.redaction import hide_secrets
from sensorium_data.visible_text import make_lines_visible, make_visible

__all__ = [
    "LiveArtifact",
    "PublishedTable",
    "artifact_key",
    "create_artifact",
    "delete_artifact",
    "order_columns",
    "publish_markdown",
    "publish_table",
    "read_tables",
    "show_text",
    "update_artifact",
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


def order_columns(rows: pd.DataFrame, first: Sequence[str], last: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table with some of its columns first and some last; the page of a table shows the first without moving.

    Columns that the table does not have are passed over.
    """
    names = [*(name for name in first if name in rows), *(n for n in rows if n not in first and n not in last)]
    return rows[[*names, *(name for name in last if name in rows)]]


@dataclass(frozen=True)
class PublishedTable:
    """A table that was published before.

    Attributes
    ----------
    rows : DataFrame
        The table.
    description : str
        What stands above it.
    published : datetime or None
        When.
    """

    rows: pd.DataFrame
    description: str
    published: datetime | None


def read_tables(key: str, *, limit: int = 1) -> list[PublishedTable]:
    """Return the tables that were published under a key, the newest first."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key(key)]), type=ArtifactFilterType(any_=["table"]))
    with quick_client() as client:
        found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=limit)
    return [
        PublishedTable(
            pd.DataFrame(json.loads(one.data) if isinstance(one.data, str) else one.data),
            one.description or "",
            one.created,
        )
        for one in found
    ]


def publish_markdown(key: str, text: str, description: str, *, signed: Iterable[str] = ()) -> None:
    """Publish a text in Markdown.

    Parameters
    ----------
    key : str
        The artifact's key.
    text : str
        The text, in which secrets in URLs are hidden.
    description : str
        Markdown shown above it.
    signed : iterable of str
        Links in the text that are shown with their signatures, since they are there to be followed and expire.
    """
    links = {f"signed-link-{uuid4().hex}": link for link in signed}
    for mark, link in links.items():
        text = text.replace(f"({link})", f"({mark})")
    shown = show_text(text)
    for mark, link in links.items():
        shown = shown.replace(mark, link)
    _publish(key, "markdown", shown, description)


def _publish(key: str, kind: str, data: Any, description: str) -> None:
    """Make an artifact of the present run, at the run's end if the server is away."""
    report(lambda: create_artifact(artifact_key(key), kind, data, show_text(description)))


def create_artifact(key: str, kind: str, data: Any, description: str) -> UUID:
    """Make an artifact of the present run, of what may be shown, and return its id."""
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


def update_artifact(artifact: UUID, data: Any, description: str) -> None:
    """Put other content, which may be shown, into an artifact."""
    with quick_client() as client:
        client.update_artifact(artifact, ArtifactUpdate(data=data, description=description))


def delete_artifact(artifact: UUID) -> None:
    """Delete an artifact, if it is there."""
    with quick_client() as client, suppress(ObjectNotFound):
        client.delete_artifact(artifact)


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
        self._write("table", json.dumps(_to_json_rows(rows)), show_text(description), is_last=is_last)

    def write_markdown(self, text: str, description: str, *, is_last: bool = False) -> None:
        """Write a text in Markdown; the last one is kept until the server takes it."""
        self._write("markdown", show_text(text), show_text(description), is_last=is_last)

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
            self._artifact = create_artifact(self._key, kind, data, description)
        else:
            update_artifact(self._artifact, data, description)


def show_text(text: str) -> str:
    """Return Markdown without the secrets in its URLs, its control characters written out."""
    return hide_secrets(make_lines_visible(text))


def _show_cell(value: Any) -> Any:
    return hide_secrets(make_visible(value)) if isinstance(value, str) else value


def _to_json_rows(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    records = rows.to_dict(orient="records") if isinstance(rows, pd.DataFrame) else rows
    shown = pd.DataFrame([{_show_cell(k): _show_cell(v) for k, v in row.items()} for row in records])
    table: list[dict[str, Any]] = json.loads(shown.to_json(orient="records", double_precision=6))
    return table
