"""Writing a track's submission: Parquet files, each in its zip, validated before they get their names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sensorium_data.errors import SubmissionError, UnknownNameError, describe_os_error
from sensorium_data.files import (
    LocalObjects,
    Objects,
    RemoteObjects,
    delete_temporaries,
    digest_bytes,
    digest_file,
    has_own_seal,
    hold_place,
    make_folder,
    open_objects,
    refuse_owned_folder,
    temporary_path,
    upload_confirmed,
    write_confirmed,
)
from sensorium_data.frames import MEMBER_NAMES, FloatType, FramesProfile, parse_float_type, parse_frames_profile
from sensorium_data.html_table import write_html_lines, write_html_table
from sensorium_data.predictions import RunRecord, find_runs
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Track
from sensorium_data.store import Store, StoreLike, exclusive_access, is_locked, lock_key, open_store
from sensorium_data.submission.card import (
    card_title,
    describe_predictions,
    describe_software,
    write_card,
)
from sensorium_data.submission.findings import ValidationReport
from sensorium_data.submission.manifest import (
    holds_manifest,
    is_changed,
    is_manifest,
    is_submission_file,
    manifest_digests,
    names_record,
    update_manifest,
)
from sensorium_data.submission.plan import SubmissionPlan, make_plan
from sensorium_data.submission.record import (
    REPLACED,
    describe_file,
    encode_record,
    holds_files,
    read_own_digests,
    read_record,
)
from sensorium_data.submission.sources import open_entry
from sensorium_data.submission.validation import validate_files
from sensorium_data.submission.writer import name_zips, require_uploadable, write_zip

__all__ = ["FramesProfile", "SubmissionFile", "SubmissionReport", "lock_name", "write_submission"]

# An estimate from a few rows may err by so much. What comes out too large all the same is noticed while it is written.
_ESTIMATE_ERROR = 0.05
_RECORD_KEYS = {"identity", "files", "validation", "predictions", "software"}


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
    float_type : str
        Of the values.
    status : str
        ``written`` or ``already done``.
    files : tuple of SubmissionFile
        The zips to upload.
    validation : ValidationReport
        What the validator found in them.
    notes : tuple of str
        What was left out, and why.
    card : str
        Path of the model card: runs, digests, recipes and versions, for whoever has to reproduce the entry.
    """

    track: Track
    frames: FramesProfile
    float_type: FloatType
    status: str
    files: tuple[SubmissionFile, ...]
    validation: ValidationReport
    notes: tuple[str, ...]
    card: str

    def _repr_html_(self) -> str:
        caption = f"Submission, track {self.track}, frames {self.frames}: {self.status}"
        rows = [(file.path, file.size_bytes / 1e6, ", ".join(file.members)) for file in self.files]
        checks = f"{'passed' if self.validation.passed else 'failed'} {len(self.validation.checks)} checks"
        return write_html_table(caption, ("zip", "size (MB)", "holds"), rows) + write_html_lines(
            [checks, f"model card: {self.card}", *self.notes]
        )


def write_submission(
    predictions: str | Sequence[str],
    store: StoreLike,
    *,
    track: Track | str,
    frames: FramesProfile = "official",
    float_type: FloatType = "float32",
    weights: Sequence[float] | None = None,
    out: str,
    runs: str | Path | None = None,
    lock: bool = True,
    progress: Progress = ignore_progress,
) -> SubmissionReport:
    """Write the zips that a track's upload consists of.

    ``submission_main.zip`` holds both main files; each bonus stage has a zip of its own. The same predictions give
    the same bytes. Beside them lie a record of what was written, ``submission_<track>.json``, a model card,
    ``submission_<track>.md``, and the digests of all of them, ``submission_<track>.sha256``; where these fit the
    predictions and the zips, nothing is done. Memory holds a few trials, whatever the size.

    Rows are the valid trials of the scored sessions, by session and trial id. Trials whose stimulus is
    broken are left out, because there is nothing to predict them from; whether the server wants rows for
    them is not known.

    Parameters
    ----------
    predictions : str or sequence of str
        Paths or URLs of predictions stores. Predictions in raw units are multiplied by the responses' precision;
        then several are averaged. All of them have to hold the same trials and neurons.
    store : Store or path
        The session stores.
    track : Track or str
        ``main`` or ``bonus``.
    frames : str
        The frames profile: ``official``, ``50-298`` or ``51-299``.
    float_type : str
        ``float32`` or ``float64``.
    weights : sequence of float, optional
        One for each predictions store, of any sum; by default equal.
    out : str
        Folder for the zips, made if it does not exist, or any fsspec URL: they are written and validated in the
        temporary folder then, and sent. What is sent is read once to see that its bytes have arrived, and zips that are
        there are read once to see that they are the ones.
    runs : path, optional
        Folder or URL of the training runs, whose recipes and versions the model card quotes.
    lock : bool
        Whether a submission in an object store is locked while it is written. If not, the user sees to it that nobody
        else writes it.
    progress : Progress
        Told after each trial.

    Raises
    ------
    SubmissionError
        If a zip would be too large to upload or for the disk, cannot be written, or does not pass the validator, or if
        a file of its name is there that was not written by this function.
    PredictionsError
        If a tier or a scored session of the store was not predicted, or a frame that is needed.
    StoreError
        If a session is not in the store. :class:`~sensorium_data.errors.LockedError` if somebody else writes this
        submission into an object store, and :class:`~sensorium_data.errors.UnlockableError` if that cannot be locked.
    RunError
        If the folder of a run behind the predictions is damaged.
    UnknownNameError, UsageError
        If the track, the profile or the type does not exist, or the weights do not fit.
    """
    track = _parse_track(track)
    frames, float_type = parse_frames_profile(frames), parse_float_type(float_type)
    entry = open_entry(predictions, weights)
    opened = open_store(store)
    plan = make_plan(entry, opened, track, frames, float_type)
    digests = [digest for member in entry.members for digest in member.attributes["runs"]]
    known_runs = find_runs(runs, digests) if runs is not None else {}
    place = open_objects(out)
    if isinstance(place, RemoteObjects):
        return _write_remotely(place, plan, opened, known_runs, lock, progress)
    folder = place.root
    record = _read_done(place, plan)
    if (
        record is not None
        and _has_card(place, plan, write_card(record, known_runs).encode())
        and holds_manifest(place, plan.track, record["files"])
        # What a killed writer left is removed under its lock.
        and not is_locked(place, lock_name(plan.track))
    ):
        # Nothing has to be written, so the disk may be a read-only one.
        return _report(place, plan, "already done", record, place.locate(_card_name(plan)))
    refuse_owned_folder(folder, "a submission")
    try:
        make_folder(folder)
        # Who waits for another writer of the same submission finds it done.
        with exclusive_access(place, lock_name(plan.track)):
            delete_temporaries(folder, partial(is_submission_file, track))
            record = _read_done(place, plan)
            status = "already done" if record is not None else "written"
            if record is None:
                replaced = _refuse_foreign(place, plan)
                _require_room(folder, plan)
                record = _write(folder, plan, opened, progress, replaced)
            text = write_card(record, known_runs).encode()
            _refuse_foreign_card(place, plan, text)
            card = _update_card(place, plan, text)
            update_manifest(place, plan.track, record["files"])
            return _report(place, plan, status, record, card)
    except OSError as error:
        raise SubmissionError(
            "the submission cannot be written",
            path=error.filename or folder,
            found=describe_os_error(error),
            remedy="name another folder"
            if isinstance(error, NotADirectoryError)
            else "check the space and the permissions there",
        ) from error


def _write_remotely(
    place: RemoteObjects,
    plan: SubmissionPlan,
    store: Store,
    known_runs: Mapping[str, RunRecord],
    lock: bool,
    progress: Progress,
) -> SubmissionReport:
    """Do what :func:`write_submission` does where nothing can be renamed; what is sent is read once there."""
    record = _read_done(place, plan)
    status = "already done"
    if record is None:
        problem = "another process is writing this submission"
        with hold_place(place, lock_key(lock_name(plan.track)), problem, lock=lock) as require_lock:
            # Somebody else may have finished it since.
            record = _read_done(place, plan)
            if record is None:
                status, record = "written", _write_and_send(place, plan, store, require_lock, progress)
    text = write_card(record, known_runs).encode()
    _refuse_foreign_card(place, plan, text)
    card = _update_card(place, plan, text)
    update_manifest(place, plan.track, record["files"])
    return _report(place, plan, status, record, card)


def _write_and_send(
    place: RemoteObjects, plan: SubmissionPlan, store: Store, require_lock: Callable[[], None], progress: Progress
) -> dict[str, Any]:
    refuse_owned_folder(place, "a submission")
    replaced = _refuse_foreign(place, plan)
    with tempfile.TemporaryDirectory(prefix="sensorium-submission-") as temporary:
        folder = Path(temporary)
        _require_room(folder, plan)
        record = _write(folder, plan, store, progress, replaced)
        # The record first, so that a rerun knows the zips of a killed one.
        for name in (_record_name(plan), *plan.zips):
            require_lock()
            upload_confirmed(place, folder / name, name, digest_file(folder / name))
    return record


def lock_name(track: Track) -> str:
    """Return the name of the lock that whoever writes zips of a track holds."""
    return f"submission_{track}"


def _record_name(plan: SubmissionPlan) -> str:
    return f"submission_{plan.track}.json"


def _parse_track(name: str) -> Track:
    try:
        return Track(name)
    except ValueError:
        raise UnknownNameError.of("track", name, [str(track) for track in Track]) from None


def _require_room(folder: Path, plan: SubmissionPlan) -> None:
    """Refuse what could not be uploaded or kept, before hours or gigabytes go into it."""
    sizes_bytes = {name: plan.estimate_size_bytes(name) for name in plan.zips}
    for name, size_bytes in sizes_bytes.items():
        require_uploadable(name, int(size_bytes * (1 - _ESTIMATE_ERROR)), plan.tables(name), found="about ")
    free_bytes = shutil.disk_usage(folder).free
    if sum(sizes_bytes.values()) > free_bytes:
        raise SubmissionError(
            "the submission does not fit on the disk",
            path=folder,
            found=f"{free_bytes:,} bytes free",
            expected=f"about {sum(sizes_bytes.values()):,}",
            remedy="make room, or name another folder",
        )


def _write(
    folder: Path, plan: SubmissionPlan, store: Store, progress: Progress, replaced: Mapping[str, str]
) -> dict[str, Any]:
    """Write and validate the zips, give them their names, and return their record.

    ``replaced`` are the digests of those that are there, by name.
    """
    n_done, n_total = 0, plan.n_rows

    def count_row() -> None:
        nonlocal n_done
        n_done += 1
        progress(f"write {plan.track} submission", n_done, n_total)

    written = {name: temporary_path(folder / name) for name in plan.zips}
    try:
        for name, path in written.items():
            write_zip(path, name, plan.tables(name), count_row)
        validation = validate_files(written, store, frames=plan.frames, progress=progress)
        if not validation.passed:
            raise SubmissionError(
                "what was written does not pass the validator",
                path=folder,
                found=str(validation.violations[0]),
                remedy="this is a defect of the writer: report it",
            )
        files = [
            describe_file(written[name], name)
            | {"members": [MEMBER_NAMES[tier] for tier in tiers], "n_rows": plan.count_rows(tiers)}
            for name, tiers in plan.zips.items()
        ]
        record = {
            "identity": plan.identify(),
            "files": files,
            "validation": validation.to_dict(),
            "predictions": describe_predictions(plan.entry),
            "software": describe_software(),
            **({REPLACED: dict(replaced)} if replaced else {}),
        }
        # First, so that a rerun knows the zips of a killed one.
        LocalObjects(folder).write_durably(_record_name(plan), encode_record(record))
        name_zips(written, folder)
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)
    return record


def _refuse_foreign(place: Objects, plan: SubmissionPlan) -> dict[str, str]:
    """Refuse to replace files that no submission there wrote, or that were changed since.

    Returns
    -------
    dict of str to str
        The digests of the zips that are there.
    """
    there_already = os.listdir(place.root) if isinstance(place, LocalObjects) else ()
    for name in sorted(one for one in there_already if is_submission_file(plan.track, one)):
        if Path(place.locate(name)).is_symlink():
            raise _not_replaced(place, name, "a link has the name of one of the submission's files")
    own = read_own_digests(place, _record_name(plan), _RECORD_KEYS)
    digests, is_sealed = own or ({}, True)
    if not is_sealed and is_changed(place, plan.track, _record_name(plan), place.read(_record_name(plan))):
        raise _not_replaced(place, _record_name(plan), "the record is not the one that was written here")
    there: dict[str, str] = {}
    for name in plan.zips:
        if place.size(name) is not None:
            digest = place.digest(name)
            if own is None and not names_record(place, plan.track):
                raise _not_replaced(place, name, "another file has the name of one of the submission's")
            # Earlier versions' records do not have the zips that a killed writer was to replace.
            is_listed = own is None or not is_sealed
            known = digests.get(name, set()) | (manifest_digests(place, plan.track, name) if is_listed else set())
            if digest not in known:
                raise _not_replaced(place, name, "the zip is not the one that was written here")
            there[name] = digest
    manifest = f"submission_{plan.track}.sha256"
    if not is_manifest(place, plan.track):
        raise _not_replaced(place, manifest, "another file has the name of one of the submission's")
    # Before anything is written; a card of an earlier submission differs from what this one's will be.
    _refuse_foreign_card(place, plan, b"")
    return there


def _refuse_foreign_card(place: Objects, plan: SubmissionPlan, text: bytes) -> None:
    """Refuse to replace a model card that somebody wrote or edited."""
    name = _card_name(plan)
    if not place.exists(name) or _has_card(place, plan, text):
        return
    data = place.read(name)
    if not data.startswith(card_title(plan.track).encode()):
        raise _not_replaced(place, name, "another file has the name of one of the submission's")
    is_written = has_own_seal(data)
    if is_written is None:
        is_written = digest_bytes(data) in manifest_digests(place, plan.track, name)
    if not is_written:
        raise _not_replaced(place, name, "the model card is not the one that was written here")


def _not_replaced(place: Objects, name: str, problem: str) -> SubmissionError:
    return SubmissionError(
        problem,
        path=place.locate(name),
        expected="a free name, or the file that `sensorium submit` wrote",
        remedy="move it, or name another folder with --out",
    )


def _update_card(place: Objects, plan: SubmissionPlan, text: bytes) -> str:
    """Write the model card, unless it is there as it should be."""
    # Not into the zip: the server expects predictions files alone.
    name = _card_name(plan)
    if not _has_card(place, plan, text):
        write_confirmed(place, name, text)
    return place.locate(name)


def _has_card(place: Objects, plan: SubmissionPlan, text: bytes) -> bool:
    return place.exists(_card_name(plan)) and place.read(_card_name(plan)) == text


def _card_name(plan: SubmissionPlan) -> str:
    return f"submission_{plan.track}.md"


def _report(
    place: Objects, plan: SubmissionPlan, status: str, record: Mapping[str, Any], card: str
) -> SubmissionReport:
    return SubmissionReport(
        track=plan.track,
        frames=plan.frames,
        float_type=plan.float_type,
        status=status,
        files=tuple(
            SubmissionFile(**{**file, "path": place.locate(file["path"]), "members": tuple(file["members"])})
            for file in record["files"]
        ),
        validation=ValidationReport.from_dict(record["validation"]),
        notes=plan.notes,
        card=card,
    )


def _read_done(place: Objects, plan: SubmissionPlan) -> dict[str, Any] | None:
    """Return the record of an earlier call, if it fits the plan and its zips are as it left them."""
    record = read_record(place, _record_name(plan), plan.identify(), _RECORD_KEYS, plan.zips.keys())
    if record is None or len(record["files"]) < len(plan.zips) or not holds_files(place, record["files"]):
        return None
    if is_changed(place, plan.track, _record_name(plan), place.read(_record_name(plan))):
        return None
    return record if ValidationReport.from_dict(record["validation"]).passed else None
