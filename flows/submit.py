"""Predictions → validated zips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.artifacts import publish_link, publish_table
from flows.run_logging import log_line, quiet_known_errors, run_progress
from sensorium_data.sessions import Track
from sensorium_data.submission import FramesProfile, SubmissionReport, write_submission

__all__ = ["submit"]

Tracks = Annotated[list[Track], Field(min_length=1)]


@task(name="write submission", task_run_name="write {track} submission", cache_policy=NO_CACHE)
def submission_task(predictions: str, store: str, track: Track, frames: FramesProfile, out: str) -> SubmissionReport:
    """Write one track's zips, validated before they get their names, and publish the checks."""
    quiet_known_errors()
    report = write_submission(predictions, store, track=track, frames=frames, out=out, progress=run_progress())
    publish_table(
        f"submission-checks-{track}", report.validation.to_frame(), f"Checks of the {track} submission in `{out}`"
    )
    for note in (*report.notes, *report.validation.warnings):
        log_line(f"{track}: {note}")
    for file in report.files:
        log_line(f"{track}: {report.status}, {file.path} ({file.size_bytes:,} bytes)")
        publish_link(
            f"submission-{Path(file.path).stem}",
            Path(file.path).resolve().as_uri(),
            Path(file.path).name,
            f"{file.size_bytes:,} bytes, SHA-256 {file.sha256}",
        )
    return report


@flow(name="submit")
def submit(
    predictions: str,
    store: str,
    out: str,
    tracks: Tracks = [Track.MAIN, Track.BONUS],  # noqa: B006 (Prefect shows the default in the form; nothing changes it)
    frames: FramesProfile = "official",
) -> list[SubmissionReport]:
    """Write and validate the submission zips of the given tracks.

    Args:
        predictions: The predictions store.
        store: Root of the session stores.
        out: Folder for the zips.
        tracks: main, bonus or both.
        frames: Which frames of a trial the files hold; official is all but the first 50.
    """
    quiet_known_errors()
    return [submission_task(predictions, store, track, frames, out) for track in tracks]
