"""Writing a track's submission: Parquet files, each in its zip, validated before they get their names."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sensorium_data.errors import PredictionsError, SubmissionError, UnknownNameError
from sensorium_data.objects import LocalObjects
from sensorium_data.predictions import predicted_sessions, predictions_attributes
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.publishing import exclusive_access
from sensorium_data.sessions import Release, Tier, Track
from sensorium_data.standardized import StandardizedPredictions
from sensorium_data.store import session_digest, stored_sessions
from sensorium_data.submission_findings import ValidationReport
from sensorium_data.submission_format import (
    MAX_UPLOAD_SIZE_BYTES,
    MEMBER_NAMES,
    SUBMISSION_SCHEMA,
    FramesProfile,
    frames_of,
    parse_frames_profile,
    zip_members,
)
from sensorium_data.validation import validate_files

__all__ = ["FramesProfile", "SubmissionFile", "SubmissionReport", "write_submission"]

#: Raised when the bytes that the same predictions give change.
_FORMAT_VERSION = 1

# Brotli's fastest level without a dictionary: measured on 30 trials, higher levels take twice as long for 1 %, and a
# dictionary thirteen times as long for a larger file. Plain values, because the server's pyarrow may not read others.
_PARQUET_OPTIONS: Mapping[str, Any] = {
    "compression": "brotli",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
}
# Float32 predictions hardly compress; what would need a better ratio than this is refused before any work.
_BEST_COMPRESSION = 0.5
# Above this, a member's size may need Zip64, which has to be announced before it is written.
_ZIP64_SIZE_BYTES = 2_000_000_000
# Fixed, so that the same predictions give the same bytes on any machine at any time.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


@dataclass(frozen=True)
class SubmissionFile:
    """One zip of a submission.

    Attributes
    ----------
    path : str
        Where it is.
    size_bytes : int
        Its size.
    sha256 : str
        Digest of its bytes.
    members : tuple of str
        Names of the predictions files in it.
    n_rows : int
        Rows of all of them: one a trial.
    """

    path: str
    size_bytes: int
    sha256: str
    members: tuple[str, ...]
    n_rows: int


@dataclass(frozen=True)
class SubmissionReport:
    """What :func:`write_submission` wrote, or found written.

    Attributes
    ----------
    track : Track
        The track.
    frames : str
        The frames profile.
    status : str
        ``written`` or ``already done``.
    files : tuple of SubmissionFile
        The zips to upload.
    validation : ValidationReport
        What the validator found in them.
    notes : tuple of str
        What was left out, and why.
    """

    track: Track
    frames: FramesProfile
    status: str
    files: tuple[SubmissionFile, ...]
    validation: ValidationReport
    notes: tuple[str, ...]


def write_submission(
    predictions: str,
    store: str,
    *,
    track: Track | str,
    frames: FramesProfile = "official",
    out: str,
    progress: Progress = ignore_progress,
) -> SubmissionReport:
    """Write the zips that a track's upload consists of.

    ``submission_main.zip`` holds both main files; each bonus stage has a zip of its own. The same predictions give
    the same bytes. A record of what was written lies beside them, ``submission_<track>.json``; where it fits the
    predictions and the zips, nothing is done.

    Rows are the valid trials of the scored sessions, by session and trial id. Trials whose stimulus is
    broken are left out, because there is nothing to predict them from; whether the server wants rows for
    them is not known.

    Parameters
    ----------
    predictions : str
        Path or URL of the predictions store. Predictions in raw units are multiplied by the responses' precision.
    store : str
        The session stores.
    track : Track or str
        ``main`` or ``bonus``.
    frames : str
        The frames profile: ``official``, ``50-298`` or ``51-299``.
    out : str
        Folder for the zips; made if it does not exist.
    progress : Progress
        Told after each trial.

    Raises
    ------
    SubmissionError
        If a zip is too large to upload, cannot be written, or does not pass the validator.
    PredictionsError
        If a tier or a scored session of the store was not predicted, or a frame that is needed.
    StoreError
        If a session is not in the store.
    UnknownNameError
        If the track or the profile does not exist.
    """
    track = _parse_track(track)
    plan = _make_plan(predictions, store, track, parse_frames_profile(frames))
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Who waits for another writer of the same submission finds it done.
        with exclusive_access(LocalObjects(folder), f"submission_{track}"):
            return _find_done(folder, plan) or _write(folder, plan, store, progress)
    except OSError as error:
        raise SubmissionError(
            "the submission cannot be written",
            path=error.filename or folder,
            found=error.strerror,
            remedy="check the space and the permissions there",
        ) from error


@dataclass(frozen=True, eq=False)
class _Plan:
    """What will be written.

    ``rows`` holds, for each tier, the trials in the order of the rows; ``identity`` all that the bytes depend on.
    """

    track: Track
    frames: FramesProfile
    zips: Mapping[str, tuple[Tier, ...]]
    rows: Mapping[Tier, tuple[tuple[StandardizedPredictions, int], ...]]
    notes: tuple[str, ...]
    identity: Mapping[str, Any]

    def count_rows(self, tiers: Sequence[Tier]) -> int:
        return sum(len(self.rows[tier]) for tier in tiers)

    def estimate_size_bytes(self, tiers: Sequence[Tier]) -> int:
        """Return the size of the values as float32, which the compressed files hardly fall short of."""
        n_values = sum(
            source.neurons.size * len(frames_of(self.frames, source.n_frames(trial)))
            for tier in tiers
            for source, trial in self.rows[tier]
        )
        return 4 * n_values


def _parse_track(name: str) -> Track:
    try:
        return Track(name)
    except ValueError:
        raise UnknownNameError.of("track", name, [str(track) for track in Track]) from None


def _make_plan(predictions: str, store: str, track: Track, frames: FramesProfile) -> _Plan:
    attributes = predictions_attributes(predictions)
    predicted = predicted_sessions(predictions)
    scored = [session for session in predicted if session.release is Release.NEW]
    unpredicted = [s for s in stored_sessions(store) if s.release is Release.NEW and s not in predicted]
    if unpredicted or not scored:
        aliases = ", ".join(session.alias for session in unpredicted) or "F to J"
        raise PredictionsError(
            "sessions that the competition scores are not predicted",
            path=predictions,
            found=", ".join(session.alias for session in predicted),
            expected=f"also {aliases}",
            remedy="predict them: `sensorium predict` takes the sessions of the run, so train on them",
        )
    notes = []
    old = ", ".join(session.alias for session in predicted if session.release is Release.OLD)
    if old:
        notes.append(f"left out {old}: the competition scores the new sessions, F to J")
    zips = {
        name: tiers
        for name, tiers in zip_members(track).items()
        if track is Track.MAIN or set(tiers) <= set(attributes["tiers"])
    }
    absent = [tier for tiers in zip_members(track).values() for tier in tiers if tier not in attributes["tiers"]]
    if absent and (track is Track.MAIN or not zips):
        raise PredictionsError(
            f"tiers of the {track} track are not predicted",
            path=predictions,
            found=", ".join(attributes["tiers"]),
            expected=f"also {', '.join(absent)}",
            remedy="predict them into one store: "
            f"`sensorium predict --tier {' '.join(t for tiers in zip_members(track).values() for t in tiers)}`",
        )
    notes += [f"no zip for {tier}: it was not predicted" for tier in absent]
    sources = [StandardizedPredictions(predictions, store, session) for session in scored]
    rows: dict[Tier, tuple[tuple[StandardizedPredictions, int], ...]] = {}
    for tier in (tier for tiers in zips.values() for tier in tiers):
        for source in sources:
            _require_all_predicted(source, tier, predictions)
        trials = [(source, trial) for source in sources for trial in source.trials(tier)]
        rows[tier] = tuple((source, trial) for source, trial in trials if source.is_valid(trial))
        notes += [
            f"session {source.session}, {tier}, trial {trial}: left out, its stimulus is broken; whether the server "
            "wants a row for it is not known"
            for source, trial in trials
            if not source.is_valid(trial)
        ]
    identity = {
        "format_version": _FORMAT_VERSION,
        "writer": f"pyarrow {pa.__version__}",
        "track": str(track),
        "frames": frames,
        "predictions": attributes["content_digest"],
        "response_units": attributes["response_units"],
        "stores": {session.name: session_digest(store, session.name) for session in scored},
    }
    plan = _Plan(track, frames, zips, rows, tuple(notes), identity)
    for name, tiers in zips.items():
        size_bytes = plan.estimate_size_bytes(tiers)
        if size_bytes * _BEST_COMPRESSION > MAX_UPLOAD_SIZE_BYTES:
            raise _too_large(name, f"about {size_bytes:,} bytes", plan)
    return plan


def _require_all_predicted(source: StandardizedPredictions, tier: Tier, predictions: str) -> None:
    missing = source.unpredicted_trials(tier)
    if missing:
        raise PredictionsError(
            f"trials of {tier} are not predicted",
            session=source.session,
            trial=missing[0],
            path=predictions,
            found=f"{len(missing)} of them missing",
            remedy="give the store that was predicted, or predict again",
        )


def _too_large(path: object, found: str, plan: _Plan) -> SubmissionError:
    shorter = "" if plan.frames != "official" else "; the profile 50-298 holds fewer frames"
    return SubmissionError(
        "the zip is too large to upload",
        path=path,
        found=found,
        expected=f"at most {MAX_UPLOAD_SIZE_BYTES:,}",
        remedy=f"predict no more than the five scored sessions{shorter}",
    )


def _write(folder: Path, plan: _Plan, store: str, progress: Progress) -> SubmissionReport:
    n_total = plan.count_rows([tier for tiers in plan.zips.values() for tier in tiers])
    n_done = 0

    def count_row() -> None:
        nonlocal n_done
        n_done += 1
        progress(f"write {plan.track} submission", n_done, n_total)

    partial = {name: folder / f"{name}.partial" for name in plan.zips}
    try:
        for name, tiers in plan.zips.items():
            _write_zip(partial[name], plan, tiers, count_row)
        validation = validate_files(partial, store, frames=plan.frames, progress=progress)
        if not validation.passed:
            raise SubmissionError(
                "what was written does not pass the validator",
                path=folder,
                found=str(validation.violations[0]),
                remedy="this is a defect of the writer: report it",
            )
        files = tuple(
            SubmissionFile(
                path=str(folder / name),
                size_bytes=partial[name].stat().st_size,
                sha256=_digest_file(partial[name]),
                members=tuple(MEMBER_NAMES[tier] for tier in tiers),
                n_rows=plan.count_rows(tiers),
            )
            for name, tiers in plan.zips.items()
        )
        for name, path in partial.items():
            os.replace(path, folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    report = SubmissionReport(plan.track, plan.frames, "written", files, validation, plan.notes)
    record = {
        "identity": dict(plan.identity),
        "files": [{**asdict(file), "path": Path(file.path).name} for file in files],
        "validation": validation.to_dict(),
    }
    LocalObjects(folder).write(_record_name(plan.track), json.dumps(record, indent=2, ensure_ascii=False).encode())
    return report


def _write_zip(path: Path, plan: _Plan, tiers: Sequence[Tier], count_row: Callable[[], None]) -> None:
    # Parquet is compressed already: the members are stored.
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for tier in tiers:
            member = zipfile.ZipInfo(MEMBER_NAMES[tier], _ZIP_DATE)
            member.create_system = _UNIX
            member.external_attr = 0o644 << 16
            zip64 = plan.estimate_size_bytes([tier]) > _ZIP64_SIZE_BYTES
            with (
                archive.open(member, "w", force_zip64=zip64) as stream,
                pq.ParquetWriter(stream, SUBMISSION_SCHEMA, **_PARQUET_OPTIONS) as writer,
            ):
                for batch in _read_rows(plan.rows[tier], plan.frames):
                    writer.write_batch(batch)  # A row group of its own.
                    count_row()
                    if file.tell() > MAX_UPLOAD_SIZE_BYTES:
                        raise _too_large(path.with_suffix(""), f"more than {file.tell():,} bytes", plan)


def _read_rows(rows: Sequence[tuple[StandardizedPredictions, int]], frames: FramesProfile) -> Iterator[pa.RecordBatch]:
    """Yield a table of one row for each trial, reading the next one while the last is compressed."""

    def read(source: StandardizedPredictions, trial: int) -> pa.RecordBatch:
        values = source.read(trial, frames_of(frames, source.n_frames(trial)))
        return _make_row(source.session.name, trial, values, source.neurons)

    with ThreadPoolExecutor(1, thread_name_prefix="submission") as pool:
        following = pool.submit(read, *rows[0]) if rows else None
        for row in [*rows[1:], None]:
            if following is None:
                return
            batch = following.result()
            following = pool.submit(read, *row) if row is not None else None
            yield batch


def _make_row(
    session: str, trial: int, values: npt.NDArray[np.float32], neurons: npt.NDArray[np.int64]
) -> pa.RecordBatch:
    """Return a table of one row, its lists made of the arrays themselves: no Python object for each value."""
    n_neurons, n_frames = values.shape
    traces = pa.ListArray.from_arrays(
        np.arange(n_neurons + 1, dtype=np.int32) * np.int32(n_frames),
        pa.array(np.ascontiguousarray(values).reshape(-1), pa.float32()),
    )
    whole = np.array([0, n_neurons], np.int32)
    columns = [
        pa.array([session], pa.string()),
        pa.array([trial], pa.int64()),
        pa.ListArray.from_arrays(whole, traces),
        pa.ListArray.from_arrays(whole, pa.array(neurons, pa.int64())),
    ]
    return pa.record_batch(
        [column.cast(field.type) for column, field in zip(columns, SUBMISSION_SCHEMA, strict=True)],
        schema=SUBMISSION_SCHEMA,
    )


def _record_name(track: Track) -> str:
    return f"submission_{track}.json"


def _find_done(folder: Path, plan: _Plan) -> SubmissionReport | None:
    """Return the report of an earlier call, if its record fits the plan and its zips are as it left them."""
    try:
        record = json.loads((folder / _record_name(plan.track)).read_bytes())
        if record["identity"] != json.loads(json.dumps(plan.identity)):
            return None
        files = tuple(
            SubmissionFile(**{**file, "path": str(folder / Path(file["path"]).name), "members": tuple(file["members"])})
            for file in record["files"]
        )
        validation = ValidationReport.from_dict(record["validation"])
        if {Path(file.path).name for file in files} != set(plan.zips) or not validation.passed:
            return None
        for file in files:
            if Path(file.path).stat().st_size != file.size_bytes or _digest_file(Path(file.path)) != file.sha256:
                return None
    # No record, a damaged one, or a zip that is gone: it is written again.
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return SubmissionReport(plan.track, plan.frames, "already done", files, validation, plan.notes)


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
