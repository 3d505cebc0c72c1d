"""Predictions → validated zips, their model card, and the scores of what can be scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.parameters import Names
from flows.reporting import (
    log_line,
    order_columns,
    publish_file,
    publish_markdown,
    publish_table,
    quiet_known_errors,
    run_progress,
    score_task,
)
from flows.settings import Settings
from flows.watching import watched
from sensorium_data.files import open_objects
from sensorium_data.frames import FloatType, FramesProfile
from sensorium_data.sessions import Track
from sensorium_data.submission import SubmissionReport, write_submission

__all__ = ["submit"]

Tracks = Annotated[list[Track], Field(min_length=1)]


@task(name="write submission", task_run_name="write {track} submission", cache_policy=NO_CACHE)
def submission_task(
    predictions: list[str],
    store: str,
    track: Track,
    frames: FramesProfile,
    float_type: FloatType,
    weights: list[float] | None,
    out: str,
    runs: str,
    no_lock: bool,
) -> SubmissionReport:
    """Write one track's zips, validated before they get their names, and publish checks, digests, links and card."""
    quiet_known_errors()
    report = write_submission(
        predictions,
        store,
        track=track,
        frames=frames,
        float_type=float_type,
        weights=weights,
        out=out,
        runs=runs,
        lock=not no_lock,
        progress=run_progress(),
    )
    checks = order_columns(report.validation.to_frame(), ("check", "passed", "finding"), ("file",))
    publish_table(f"submission-checks-{track}", checks, f"Checks of the {track} submission in `{out}`")
    publish_table(
        f"submission-files-{track}",
        [
            {
                "zip": Path(file.path).name,
                "bytes": file.size_bytes,
                "rows": file.n_rows,
                "sha256": file.sha256,
                "holds": ", ".join(file.members),
            }
            for file in report.files
        ],
        f"Zips of the {track} submission in `{out}`, frames {frames}, {float_type}: {report.status}",
    )
    for note in (*report.notes, *report.validation.warnings):
        log_line(f"{track}: {note}")
    for file in report.files:
        log_line(f"{track}: {report.status}, {file.path} ({file.size_bytes:,} bytes)")
        name = Path(file.path)
        publish_file(name.stem, file.path, f"`{name.name}`, {file.size_bytes:,} bytes, SHA-256 {file.sha256}")
    publish_markdown(
        f"submission-card-{track}",
        open_objects(out).read(Path(report.card).name).decode(),
        f"Model card of the {track} entry, `{report.card}`",
    )
    return report


@watched
@flow(name="submit", flow_run_name="submit to {out}")
def submit(
    predictions: Names | str,
    store: str,
    out: str,
    tracks: Tracks = [Track.MAIN, Track.BONUS],  # noqa: B006 (Prefect shows the default in the form; nothing changes it)
    frames: FramesProfile = "official",
    float_type: FloatType = "float32",
    weights: list[float] | None = None,
    runs: str | None = None,
    truth: str | None = None,
    score: bool = True,
    no_lock: bool = False,
) -> list[SubmissionReport]:
    """Write and validate the submission zips of the given tracks, and score what can be scored.

    Args:
        predictions: The predictions stores; several are averaged.
        store: Root of the session stores.
        out: Folder for the zips and their model cards, or any fsspec URL.
        tracks: main, bonus or both.
        frames: Which frames of a trial the files hold; official is all but the first 50.
        float_type: Type of the values; float64 doubles the size.
        weights: How much each of several predictions stores counts. Unset: all the same.
        runs: Folder or URL of training runs, which the model card quotes. Unset: SENSORIUM_RUNS, or runs.
        truth: Truth of simulated sessions: scores withheld tiers too.
        score: Score what can be scored; not needed where that has been done.
        no_lock: Do not lock the submission in an object store, for stores that cannot be locked.
    """
    quiet_known_errors()
    members = [predictions] if isinstance(predictions, str) else predictions
    folder = runs or Settings().runs
    reports = [
        submission_task(members, store, track, frames, float_type, weights, out, folder, no_lock) for track in tracks
    ]
    for member in members if score else ():
        score_task(member, store, truth, frames=frames)
    return reports
