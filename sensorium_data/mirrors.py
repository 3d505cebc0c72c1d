"""A session's archive at the first of several places that has it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from sensorium_data.archive import SessionArchive, locate_archive
from sensorium_data.byte_source import RetryPolicy
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session

__all__ = ["Mode", "open_archive"]


class Mode(StrEnum):
    AUTO = "auto"
    STREAM = "stream"
    DOWNLOAD = "download"


def open_archive(
    session: Session,
    sources: Sequence[str] = (),
    *,
    mode: Mode = Mode.AUTO,
    downloads: str | Path | None = None,
    policy: RetryPolicy | None = None,
    jobs: int = 4,
    progress: Progress = ignore_progress,
) -> SessionArchive:
    return SessionArchive.open(locate_archive(session, sources[0] if sources else None), session, policy=policy)


def list_sessions(source: str) -> tuple[str, ...]:
    """Return the names of the sessions whose archives lie in a folder."""
    folder = Path(source)
    return tuple(sorted(path.stem for path in folder.glob("*.zip"))) if folder.is_dir() else ()
