"""What ``sensorium verify`` is given, and what that is compared with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from sensorium_data.archive import open_archive
from sensorium_data.counting import count_things
from sensorium_data.errors import (
    ArchiveError,
    PredictionsError,
    RunError,
    SensoriumError,
    StoreError,
    SubmissionError,
    TrialError,
    UsageError,
)
from sensorium_data.files import LocalObjects, Objects, parse_json
from sensorium_data.ingest import compare_with_archive, verify_session
from sensorium_data.predictions import verify_predictions, verify_run
from sensorium_data.progress import Progress
from sensorium_data.sessions import Track, find_sessions
from sensorium_data.store import (
    LEDGER_KEY,
    Store,
    VerificationReport,
    find_old_groups,
    list_ledgered,
    recover_versions,
    verify_old_version,
    verify_root,
)
from sensorium_data.submission import verify_submission

__all__ = ["verify_path"]

Outcome = tuple[list[VerificationReport], list[SensoriumError]]


def _ignore_note(_: str) -> None:
    pass


def verify_path(
    path: str,
    sessions: Sequence[str],
    *,
    source: Sequence[str] | None,
    jobs: int,
    progress: Progress,
    all_versions: bool = False,
    note: Callable[[str], None] = _ignore_note,
) -> Outcome:
    """Verify a store, predictions, a run or a submission, whichever lies there.

    Parameters
    ----------
    path : str
        Path or URL of its folder, or of one zip of a submission.
    sessions : sequence of str
        Sessions of a store; all by default.
    source : sequence of str, optional
        Where the archives are that a store is compared with as well.
    jobs : int
        Objects read at once.
    progress : Progress
        Told after each object.
    all_versions : bool
        Verify the versions of a store's sessions that others have replaced as well.
    note : callable
        Told, in a line, of what is not looked at.

    Returns
    -------
    reports : list of VerificationReport
        What was compared.
    failures : list of SensoriumError
        What kept something from being compared: it is found wrong.

    Raises
    ------
    StoreError
        If nothing of these lies there.
    UsageError
        If sessions, archives or all versions are asked of something else than a store.
    """
    store = Store.at(path.rstrip("/"))
    try:
        kind = _recognize(path, store)
    except StoreError as error:
        if _is_of_a_file(error, store):
            return [], [error]
        raise
    if kind == "store":
        return _verify_store(
            store, sessions, source=source, jobs=jobs, progress=progress, all_versions=all_versions, note=note
        )
    if sessions or source is not None or all_versions:
        raise UsageError(
            "only a store is verified by session, or with --source or --all-versions",
            path=path,
            found=kind,
            remedy="give the path alone",
        )
    try:
        if kind == "run":
            return [verify_run(path, jobs=jobs, progress=progress)], []
        if kind == "predictions":
            return [verify_predictions(path, jobs=jobs, progress=progress, resumes=True)], []
        return [verify_submission(path, progress=progress)], []
    except (PredictionsError, RunError, StoreError, SubmissionError) as error:
        return [], [error]


def _verify_store(
    store: Store,
    sessions: Sequence[str],
    *,
    source: Sequence[str] | None,
    jobs: int,
    progress: Progress,
    all_versions: bool,
    note: Callable[[str], None],
) -> Outcome:
    reports: list[VerificationReport] = []
    failures: list[SensoriumError] = []
    try:
        opened, damage = recover_versions(store)
        failures += [] if damage is None else [damage]
        chosen = find_sessions(sessions) if sessions else opened.sessions
        if not opened.sessions and opened.root_metadata is None and not sessions:
            raise StoreError("no session is finished", path=opened.url, remedy="ingest again: it continues")
        if opened.sessions or opened.root_metadata is not None:
            reports.append(verify_root(opened))
        old = find_old_groups(opened.objects, chosen, opened.versions)
    except StoreError as error:
        return reports, [*failures, error]
    if old and not all_versions:
        are, them = ("is", "it") if len(old) == 1 else ("are", "them")
        number = count_things(len(old), "old version")
        note(f"{number} of sessions {are} not looked at; --all-versions verifies {them} too")
    for session in chosen:
        try:
            reports.append(verify_session(opened, session.name, jobs=jobs, progress=progress, resumes=True))
            if source is not None:
                with open_archive(session, [] if source == ["gin"] else source) as archive:
                    reports.append(compare_with_archive(opened, session.name, archive, jobs=jobs, progress=progress))
        except StoreError as error:
            failures.append(error)
        except (ArchiveError, TrialError) as error:
            # A damaged archive; one that cannot be had is nothing to compare with.
            failures.append(error)
    for session, group in old if all_versions else ():
        try:
            reports.append(verify_old_version(opened, session, group, jobs=jobs, progress=progress, resumes=True))
        except StoreError as error:
            failures.append(error)
    return reports, failures


def _recognize(path: str, store: Store) -> str:
    """Return what lies at a path; a :class:`StoreError` if it is nothing that is known."""
    if path.endswith(".zip"):
        return "submission"
    objects = store.objects
    ledger = _parse(_read(objects, LEDGER_KEY))
    attributes = _parse(store.root_metadata).get("attributes")
    # Whatever else somebody keeps there.
    if isinstance(attributes, dict) and "sessions" in attributes:
        return "store"
    kind = attributes.get("kind") if isinstance(attributes, dict) else None
    if ledger.get("kind") == "predictions" or (kind == "predictions" and not list_ledgered(objects)):
        return "predictions"
    if ledger.get("kind") == "run" or objects.exists("model.json"):
        return "run"
    names = [f"submission_{track}{suffix}" for track in (*Track, "fixed") for suffix in (".sha256", ".json")]
    if any(objects.exists(name) for name in names):
        return "submission"
    if store.root_metadata is not None:
        # Damaged, or something else: whoever opens it says what.
        return "store"
    try:
        _ = store.sessions
    except StoreError as error:
        is_there = not isinstance(objects, LocalObjects) or objects.root.exists()
        raise StoreError(
            "nothing here that could be verified" if is_there else "nothing lies there",
            path=path,
            found=error.found,
            expected="a session store, predictions, a run, or a submission",
            remedy="check the path",
        ) from error
    return "store"


def _is_of_a_file(error: StoreError, store: Store) -> bool:
    """Whether a file that is there cannot be read, or something else lies in its place: what lies here is damaged."""
    is_local = isinstance(store.objects, LocalObjects) and isinstance(error.__cause__, OSError)
    return is_local and str(error.path) != store.url and os.path.lexists(str(error.path))


def _read(objects: Objects, key: str) -> bytes | None:
    try:
        return objects.read(key)
    except FileNotFoundError:
        return None


def _parse(data: bytes | None) -> dict[str, Any]:
    try:
        document = parse_json(data or b"")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
