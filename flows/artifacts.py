"""Results as Prefect artifacts: small tables and short texts, never the data themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

__all__ = ["artifact_key", "publish_link", "publish_markdown", "publish_table"]


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
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    table: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=6))
    create_table_artifact(key=artifact_key(key), table=table, description=description)


def publish_markdown(key: str, text: str, description: str) -> None:
    """Publish a text in Markdown."""
    create_markdown_artifact(key=artifact_key(key), markdown=text, description=description)


def publish_link(key: str, link: str, text: str, description: str) -> None:
    """Publish a link to a file or page."""
    create_link_artifact(key=artifact_key(key), link=link, link_text=text, description=description)
