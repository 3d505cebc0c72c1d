"""Writing a corrected copy of a submission: whatever can be put right without guessing, and nothing else.

Names, packing, columns too many, the order of rows and of neurons, the spelling of trials and sessions, and predictions
that are (frames, neurons) are put right, because what is meant can be told from the session stores. Values are
never changed, and written in another type only where that holds each of them exactly. No row is invented, and rows of
unknown sessions or trials, or with values that the format does not hold, are left out and named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from sensorium_data.errors import SubmissionError, describe_os_error
from sensorium_data.files import (
    LocalObjects,
    delete_temporaries,
    digest_file,
    make_folder,
    refuse_owned_folder,
    temporary_of,
    temporary_path,
)
from sensorium_data.frames import FramesProfile, zip_members
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Track
from sensorium_data.store import Store, StoreLike, exclusive_access, is_locked, open_store
from sensorium_data.submission.corrected_rows import CorrectedRows
from sensorium_data.submission.expectation import read_expectation
from sensorium_data.submission.findings import ValidationReport
from sensorium_data.submission.manifest import (
    holds_manifest,
    is_manifest,
    is_submission_file,
    manifest_digests,
    names_record,
    update_manifest,
)
from sensorium_data.submission.reader import parquet_reader
from sensorium_data.submission.record import (
    FIXED,
    describe_file,
    encode_record,
    holds_files,
    read_own_digests,
    read_record,
)
from sensorium_data.submission.section import read_magic
from sensorium_data.submission.spool import RowSpool
from sensorium_data.submission.validation import require_distinct, validate_files
from sensorium_data.submission.write import lock_name
from sensorium_data.submission.writer import name_zips, write_zip

__all__ = ["REPAIR_LOCK", "RepairReport", "repair_submission"]

#: The lock that whoever writes a corrected copy holds.
REPAIR_LOCK = "repair"
_RECORD = f"submission_{FIXED}.json"
_RECORD_KEYS = {"identity", "files", "corrections", "left_out", "validation"}
#: Raised when the same files give another copy.
_FORMAT_VERSION = 1
_ZIPS = frozenset(name for track in Track for name in zip_members(track))


@dataclass(frozen=True)
class RepairReport:
    """What :func:`repair_submission` did, or found done.

    Attributes
    ----------
    status : str
        ``written`` or ``already done``.
    files : tuple of str
        The zips of the copy.
    corrections : tuple of str
        What was put right, in sentences.
    left_out : tuple of str
        What is not in the copy, and why.
    validation : ValidationReport
        What the validator finds in the copy; what could not be put right is among its violations.
    """

    status: str
    files: tuple[str, ...]
    corrections: tuple[str, ...]
    left_out: tuple[str, ...]
    validation: ValidationReport

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "passed": self.validation.passed,
            "status": self.status,
            "files": list(self.files),
            "corrections": list(self.corrections),
            "left_out": list(self.left_out),
            **self.validation.to_dict(),
        }


def repair_submission(
    paths: Sequence[str | Path],
    store: StoreLike,
    *,
    out: str | Path,
    frames: FramesProfile | None = None,
    progress: Progress = ignore_progress,
) -> RepairReport:
    """Write a corrected copy of submission files, and validate it.

    Rows are sorted into files by the tier of their trials, whatever the files were called. Memory holds a few rows;
    the disk, for a while, all values without compression beside the zips. Beside the zips lies a record of what they
    were made from, ``submission_fixed.json``; where it fits the files and the zips, nothing is done.

    Parameters
    ----------
    paths : sequence of path
        Zips or bare predictions files, of one submission: all their rows go into one copy.
    store : Store or path
        The session stores.
    out : path
        Folder for the zips; made if it does not exist. None of the zips may be there yet, and no file to correct may
        have the name of one that is written there.
    frames : str, optional
        The frames profile that the validator insists on.
    progress : Progress
        Told after every row.

    Raises
    ------
    SubmissionError
        If a file cannot be opened, a zip is there already or would be too large, or no row can be used.
    StoreError
        If the store cannot be read.
    UsageError
        If a file is named twice.
    """
    require_distinct(paths)
    opened = open_store(store)
    expected = read_expectation(opened)
    folder, files = Path(out), [Path(path) for path in paths]
    place = LocalObjects(folder)
    try:
        identity = {
            "format_version": _FORMAT_VERSION,
            "writer": f"pyarrow {pa.__version__}",
            "sources": [_identify(path) for path in files],
            "stores": {name: opened.digest(session.session) for name, session in expected.items()},
            "frames": frames,
        }
        record = read_record(place, _RECORD, identity, _RECORD_KEYS, _ZIPS)
        if record is not None and _is_done(place, record):
            return _report(folder, "already done", record)
        _refuse_own_names(place, files)
        refuse_owned_folder(folder, "a corrected copy")
        make_folder(folder)
        with (
            _exclusive_access(place, progress),
            RowSpool(folder) as spool,
            parquet_reader() as reader,
        ):
            delete_temporaries(folder, partial(is_submission_file, FIXED))
            _require_no_zip(place, record)
            rows = CorrectedRows(expected, reader, spool, progress)
            for path in files:
                rows.take_file(path)
            return _report(folder, "written", _write(place, rows, identity, opened, frames, progress))
    except OSError as error:
        raise SubmissionError(
            "the corrected copy cannot be written",
            path=error.filename or folder,
            found=describe_os_error(error),
            remedy="name another folder"
            if isinstance(error, NotADirectoryError)
            else "check that the files exist, and the space and the permissions in the folder",
        ) from error


def _write(
    place: LocalObjects,
    rows: CorrectedRows,
    identity: Mapping[str, Any],
    store: Store,
    frames: FramesProfile | None,
    progress: Progress,
) -> dict[str, Any]:
    """Write the rows that were kept into zips, validate these, give them their names, and return their record."""
    folder = place.root
    tables = {
        name: [rows.make_table(tier) for tier in tiers if tier in rows.tiers]
        for track in Track
        for name, tiers in zip_members(track).items()
        if any(tier in rows.tiers for tier in tiers)
    }
    if not tables:
        raise SubmissionError(
            "no row of a submission in these files",
            found="; ".join(rows.left_out) or "nothing",
            remedy="give predictions files or their zips, and the store of the same sessions",
        )
    written = {name: temporary_path(folder / name) for name in tables}
    n_written = 0

    def count_row() -> None:
        nonlocal n_written
        n_written += 1
        progress("write corrected copy", n_written, rows.n_rows)

    try:
        for name, members in tables.items():
            write_zip(written[name], name, members, count_row)
        validation = validate_files(written, store, frames=frames, progress=progress)
        files = [describe_file(path, name) for name, path in written.items()]
        record = {
            "identity": identity,
            "files": files,
            "corrections": list(rows.corrections),
            "left_out": list(rows.left_out),
            "validation": validation.to_dict(),
        }
        # First, so that a rerun knows the zips of a killed one.
        place.write_durably(_RECORD, encode_record(record))
        name_zips(written, folder)
        update_manifest(place, FIXED, files)
    finally:
        for path in written.values():
            path.unlink(missing_ok=True)
    return record


@contextmanager
def _exclusive_access(place: LocalObjects, progress: Progress) -> Iterator[None]:
    """Keep away who writes another copy into the folder, or a submission, whose zips have the same names."""
    with ExitStack() as stack:
        for name in (REPAIR_LOCK, *map(lock_name, sorted(Track))):
            stack.enter_context(exclusive_access(place, name, progress=progress))
        yield


def _is_done(place: LocalObjects, record: Mapping[str, Any]) -> bool:
    is_whole = holds_files(place, record["files"]) and holds_manifest(place, FIXED, record["files"])
    # What a killed run left is removed under its lock.
    return is_whole and not is_locked(place, REPAIR_LOCK)


def _identify(path: Path) -> list[str]:
    read_magic(path)  # A pipe could be digested for ever.
    return [path.name, digest_file(path)]


def _report(folder: Path, status: str, record: Mapping[str, Any]) -> RepairReport:
    return RepairReport(
        status=status,
        files=tuple(str(folder / file["path"]) for file in record["files"]),
        corrections=tuple(record["corrections"]),
        left_out=tuple(record["left_out"]),
        validation=ValidationReport.from_dict(record["validation"]),
    )


def _refuse_own_names(place: LocalObjects, files: Sequence[Path]) -> None:
    """Refuse files to correct that would be replaced, and a record that is none."""
    for file in files:
        is_there = file.resolve().parent == place.root.resolve()
        if is_there and (file.name == _RECORD or is_submission_file(FIXED, temporary_of(file.name) or "")):
            raise SubmissionError(
                "the file has the name of one that is written beside the corrected copy",
                path=file,
                remedy="rename it, or name another folder",
            )
    for name in sorted(os.listdir(place.root) if place.root.is_dir() else ()):
        if is_submission_file(FIXED, name) and (place.root / name).is_symlink():
            raise SubmissionError(
                "a link has the name of a file that is written with the corrected copy",
                path=place.locate(name),
                expected="a free name, or the file that was written here",
                remedy="move it, or name another folder",
            )
    read_own_digests(place, _RECORD, _RECORD_KEYS)
    if not is_manifest(place, FIXED):
        raise SubmissionError(
            "another file has the name of the list of digests",
            path=place.locate(f"submission_{FIXED}.sha256"),
            expected="a free name, or the list that was written here",
            remedy="move it, or name another folder",
        )


def _require_no_zip(place: LocalObjects, record: Mapping[str, Any] | None) -> None:
    """Refuse a folder that holds a zip already, but what a killed run made of the same: it may be what is corrected."""
    own = {file["path"]: file for file in record["files"]} if record is not None else {}
    for name in sorted(_ZIPS):
        if not place.exists(name) or (name in own and holds_files(place, [own[name]])):
            continue
        # The record was lost, and the zip is as it was written.
        is_listed = not place.exists(_RECORD) and names_record(place, FIXED)
        if is_listed and digest_file(place.root / name) in manifest_digests(place, FIXED, name):
            continue
        problem = "the zip of the corrected copy was changed" if name in own else "there is a zip already"
        remedy = "remove it, or name another folder" if name in own else "name another folder"
        raise SubmissionError(problem, path=place.locate(name), remedy=remedy)
