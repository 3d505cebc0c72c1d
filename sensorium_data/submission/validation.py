"""Checking anybody's submission against the session stores: every violation at once, nothing unpacked by name.

Neither the server's code nor its copy of the data is public. What is checked is what its documentation, its error
messages and the accepted submissions say; see :mod:`sensorium_data.frames`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from sensorium_data.errors import SubmissionError, UsageError
from sensorium_data.frames import (
    ENCRYPTED_PARQUET_MAGIC,
    MAX_UPLOAD_SIZE_BYTES,
    MEMBER_NAMES,
    PARQUET_MAGIC,
    ZIP_MAGIC,
    FramesProfile,
    member_tiers,
    parse_frames_profile,
)
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSIONS, Release, Tier
from sensorium_data.store import Store, StoreLike, open_store
from sensorium_data.submission.expectation import ExpectedSession, read_expectation
from sensorium_data.submission.findings import Check, Findings, ValidationReport, Violation
from sensorium_data.submission.reader import ParquetReader, parquet_reader
from sensorium_data.submission.section import FileSection, describe_magic, read_magic
from sensorium_data.submission.table import TableChecker
from sensorium_data.submission.zip import ZipMember, list_members, open_member, open_zip

__all__ = ["Check", "ValidationReport", "Violation", "require_distinct", "validate_files", "validate_submission"]

_MAIN_TIERS = (Tier.LIVE_TEST_MAIN, Tier.FINAL_TEST_MAIN)


def validate_submission(
    paths: Sequence[str | Path],
    store: StoreLike,
    *,
    frames: FramesProfile | None = None,
    progress: Progress = ignore_progress,
) -> ValidationReport:
    """Check submission files against the session stores.

    Parameters
    ----------
    paths : sequence of path
        Zips as they are uploaded, or bare predictions files. Each is checked by itself; together they may be
        any part of a submission.
    store : Store or path
        The session stores. Only sessions that are in it can be checked.
    frames : str, optional
        The frames profile to insist on; by default any, but one for all trials of an upload.
    progress : Progress
        Told after every row.

    Returns
    -------
    ValidationReport
        The checks, every violation and the warnings.

    Raises
    ------
    SubmissionError
        If a path does not exist or cannot be opened.
    StoreError
        If the store cannot be read or holds no scored session.
    UsageError
        If no file is named, or one twice.
    """
    if not paths:
        raise UsageError("no file to validate", expected="zips or Parquet files", remedy="name at least one")
    require_distinct(paths)
    # By their names alone, where those tell them apart: sentences and tables stay short.
    names = [Path(path).name for path in paths]
    files = {
        _as_text(name if names.count(name) == 1 else path): Path(path) for name, path in zip(names, paths, strict=True)
    }
    return validate_files(files, open_store(store), frames=frames, progress=progress)


def require_distinct(paths: Sequence[str | Path]) -> None:
    """Raise a :class:`UsageError` if a file is named twice, by whatever path."""
    places = [os.path.realpath(path) for path in paths]
    twice = [path for path, place in zip(paths, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UsageError("a file is named twice", path=twice[0], remedy="name each file once")


def _as_text(path: str | Path) -> str:
    """Return a path with the bytes escaped that are no UTF-8: no table and no JSON file could hold them."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def validate_files(
    files: Mapping[str, Path],
    store: Store,
    *,
    frames: FramesProfile | None = None,
    progress: Progress = ignore_progress,
) -> ValidationReport:
    """Check files that are called other than they are stored; see :func:`validate_submission`.

    Parameters
    ----------
    files : mapping of str to Path
        Where each file lies, by the name to judge it by and to call it in the report.
    store, frames, progress
        As :func:`validate_submission` takes them.
    """
    if frames is not None:
        frames = parse_frames_profile(frames)
    expected = read_expectation(store)
    with parquet_reader() as reader:
        checker = _Validator(reader, expected, frames, progress)
        for label, path in files.items():
            checker.check_file(label, path)
    absent = [s.alias for s in SESSIONS.values() if s.release is Release.NEW and s.name not in expected]
    if absent:
        checker.findings.warn(
            f"the store lacks {', '.join(absent)}: a submission needs all five sessions that the competition scores"
        )
    return checker.findings.report()


class _Validator:
    def __init__(
        self,
        reader: ParquetReader,
        expected: Mapping[str, ExpectedSession],
        frames: FramesProfile | None,
        progress: Progress,
    ) -> None:
        self.findings = Findings()
        self._reader = reader
        self._expected = expected
        self._frames = frames
        self._progress = progress

    def check_file(self, label: str, path: Path) -> None:
        magic, size_bytes = read_magic(path), path.stat().st_size
        if size_bytes > MAX_UPLOAD_SIZE_BYTES:
            self.findings.violate(
                label,
                "size",
                "the file is too large to upload",
                found=f"{size_bytes:,} bytes",
                expected=f"at most {MAX_UPLOAD_SIZE_BYTES:,}",
                remedy="write float32 values, and each bonus stage in a zip of its own",
            )
        self.findings.conclude(label, "size", f"{size_bytes:,} bytes")
        if magic in ZIP_MAGIC:
            self._check_zip(label, path)
        elif magic in (PARQUET_MAGIC, ENCRYPTED_PARQUET_MAGIC):
            self._check_table(label, FileSection(path), Path(label).name)
        else:
            self.findings.violate(
                label,
                "readable",
                "the file is neither a zip nor a Parquet file",
                found=describe_magic(magic),
                remedy="give the zip that is uploaded, or a predictions file of it",
            )
            self.findings.conclude(label, "readable", "")

    def _check_zip(self, label: str, path: Path) -> None:
        try:
            archive = open_zip(path)
        except SubmissionError as error:
            self._refuse(label, error)
            return
        tables: dict[str, TableChecker] = {}
        with archive:
            members = list_members(archive)
            self._check_members(label, members)
            for member in members:
                if not member.is_predictions:
                    continue
                file = f"{label}: {member.printable_name}"
                try:
                    with open_member(archive, path, member.info) as section:
                        tables[file] = self._check_table(file, section, member.name)
                except SubmissionError as error:
                    self._refuse(file, error)
        if len(tables) > 1:
            self._check_profiles(label, tables)

    def _refuse(self, file: str, error: SubmissionError) -> None:
        self.findings.violate(
            file, "readable", error.problem, found=error.found, expected=error.expected, remedy=error.remedy
        )
        self.findings.conclude(file, "readable", "")

    def _check_members(self, label: str, members: Sequence[ZipMember]) -> None:
        violate = partial(self.findings.violate, label, "members")
        n_of = Counter(member.info.filename for member in members)
        for member in {member.info.filename: member for member in members}.values():
            path, folder, name = member.info.filename, member.folder, member.name
            if n_of[path] > 1:
                violate("a member is in the zip twice", found=repr(path), remedy="zip the files again")
            if folder:
                violate(
                    "a member lies in a folder",
                    found=repr(path),
                    expected=repr(name) if name else "files only",
                    remedy="zip the files without their folder, e.g. with `zip -j`",
                )
            elif not member.is_predictions:
                violate("a member that is no predictions file", found=repr(path), remedy="leave it out")
        names = [member.name for member in members if member.is_predictions]
        main = [tier for tier in Tier if tier in _MAIN_TIERS and MEMBER_NAMES[tier] in names]
        bonus = [tier for tier in Tier if tier.is_bonus and MEMBER_NAMES[tier] in names]
        if main and bonus:
            violate(
                "files of both tracks in one zip",
                found=", ".join(MEMBER_NAMES[tier] for tier in (*main, *bonus)),
                remedy="upload the main files in one zip, and each bonus file in a zip of its own",
            )
        if len(bonus) > 1:
            violate(
                "both bonus files in one zip",
                found=", ".join(MEMBER_NAMES[tier] for tier in bonus),
                expected="one",
                remedy="zip each by itself: together they exceed the upload limit",
            )
        for tier in _MAIN_TIERS:
            if main and tier not in main:
                violate(
                    "a main file is missing",
                    found=MEMBER_NAMES[main[0]],
                    expected=f"also {MEMBER_NAMES[tier]}",
                    remedy="zip both main files together: the server takes them only so",
                )
        if not names:
            violate("no predictions file in the zip", expected=" or ".join(MEMBER_NAMES.values()))
        self.findings.conclude(label, "members", ", ".join(member.printable_name for member in members))

    def _check_table(self, label: str, section: FileSection, name: str) -> TableChecker:
        tier = member_tiers().get(name)
        table = TableChecker(
            label,
            self._reader,
            section,
            self._expected,
            self.findings,
            frames=self._frames,
            on_row=partial(self._progress, f"validate {name}"),
        )
        table.check(tier)
        if tier is None:
            guessed = table.tier is not None and table.tier in MEMBER_NAMES
            names = [MEMBER_NAMES[table.tier]] if guessed and table.tier else list(MEMBER_NAMES.values())
            self.findings.violate(
                label,
                "name",
                "a predictions file is not named as the server wants it",
                found=repr(name),
                expected=" or ".join(names),
                remedy=f"rename it to {names[0]}" if guessed else "rename it",
            )
        self.findings.conclude(label, "name", f"the name of {table.tier}")
        return table

    def _check_profiles(self, label: str, tables: Mapping[str, TableChecker]) -> None:
        by_profiles = {table.profiles: member for member, table in tables.items() if table.profiles}
        if len(by_profiles) > 1:
            self.findings.violate(
                label,
                "one profile",
                "the files of the zip are of different frames profiles",
                found="; ".join(f"{member}: {' or '.join(profiles)}" for profiles, member in by_profiles.items()),
                remedy="write all files with one profile",
            )
        self.findings.conclude(label, "one profile", "all files are of one frames profile")
