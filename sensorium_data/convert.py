"""Archive to session store: trial by trial, resumable, published whole.

Each trial is read, checked, cut and encoded by itself; its objects are written, and last of all a record of it. A run
that was interrupted continues with the trials that have no record. When every trial is there, all objects are read
back and compared with their digests, and the session appears under its name in one step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from sensorium_data.archive import SessionArchive, locate_archive
from sensorium_data.archived_statistics import convert_statistics
from sensorium_data.assembly import (
    CONVERTER_VERSION,
    STATISTICS_GROUP,
    compose_attributes,
    declare_variables,
    encode_rest,
)
from sensorium_data.errors import StoreError
from sensorium_data.ledger import Ledger, StatisticsRecord, StoredObject, TrialRecord, merge_objects
from sensorium_data.movies import group_movies
from sensorium_data.objects import Objects, open_objects
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.publishing import (
    ROOT_LOCK,
    exclusive_access,
    find_object_problems,
    is_locked,
    list_root,
    publish_root,
)
from sensorium_data.schema import SCHEMA_VERSION, VARIABLES
from sensorium_data.sessions import Session
from sensorium_data.store import read_ledger, read_sound_attributes
from sensorium_data.template import METADATA_KEY, SessionTemplate
from sensorium_data.trial_blocks import (
    SessionContents,
    TrialBlock,
    read_session_contents,
    read_trial_block,
)
from sensorium_data.workspace import Workspace

__all__ = ["CONVERTER_VERSION", "ConversionReport", "convert_session", "write_trial_block"]


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_session` did.

    Attributes
    ----------
    session : str
        The session's full name.
    alias : str
        Its letter.
    status : str
        ``"converted"`` or ``"already done"``.
    path : str
        Where the session's group is.
    n_trials : int
        Trials in the store.
    n_trials_resumed : int
        Those of them that an interrupted run had finished.
    n_bytes_read : int
        Compressed size of the archive's members that were read.
    store_size_bytes : int
        Size of the session's objects.
    duration_s : float
        Seconds it took.
    notes : tuple of str
        A sentence for each count that differs from the published one and each broken trial.
    """

    session: str
    alias: str
    status: str
    path: str
    n_trials: int
    n_trials_resumed: int
    n_bytes_read: int
    store_size_bytes: int
    duration_s: float
    notes: tuple[str, ...]


def convert_session(
    session: Session,
    store: str,
    *,
    source: str | None = None,
    jobs: int = 2,
    progress: Progress = ignore_progress,
) -> ConversionReport:
    """Convert a session's archive into a store; do nothing if the store already holds it.

    Two runs at once do no harm on a local disk: the second waits, and finds the work done.

    Parameters
    ----------
    session : Session
        Which session.
    store : str
        Path or fsspec URL of the store's root; made if it does not exist.
    source : str, optional
        Folder, URL or archive to read from; by default where the session is published.
    jobs : int
        Trials converted at once, in threads; each needs about 100 MB. The result does not depend on it.
    progress : Progress
        Told after each trial, and after each object when the result is verified.

    Raises
    ------
    SourceError, ArchiveError
        If the archive cannot be read or is damaged.
    TrialError
        If an array in it has the wrong dtype or shape.
    StoreError
        If the store cannot be written, or already holds this session made from another archive.
    """
    started = time.monotonic()
    objects = open_objects(store)
    with SessionArchive.open(locate_archive(session, source), session) as archive:
        workspace = Workspace(objects, session)
        # A finished store may lie on a read-only disk: where nothing is to be done nothing is written, not even a lock.
        report = _report_published(objects, session, archive, started)
        if report is None or workspace.has_leftovers() or is_locked(objects, session.name):
            waiting = f"wait for another run to finish {session.alias}"
            with exclusive_access(objects, session.name, on_wait=lambda: progress(waiting, 0, 1)):
                report = _report_published(objects, session, archive, started)
                if report is None:
                    report = _convert(objects, workspace, session, archive, started, jobs=jobs, progress=progress)
                else:
                    workspace.tidy_up()
        if session not in list_root(objects) or is_locked(objects, ROOT_LOCK):
            publish_root(objects)
    return report


def write_trial_block(block: TrialBlock, position: int, template: SessionTemplate, group: Objects) -> TrialRecord:
    """Write the large arrays of one trial, and return the record to keep of it.

    Parameters
    ----------
    block : TrialBlock
        The trial.
    position : int
        Its place along the trial dimension.
    template : SessionTemplate
        Declares ``videos`` and ``responses``.
    group : Objects
        Where the session's objects go.
    """
    stored: dict[str, StoredObject] = {}
    for variable, values in (("videos", block.videos), ("responses", block.responses)):
        key, data = template.encode_block(variable, position, values)
        group.write(key, data)
        stored[key] = StoredObject.of(data)
    return TrialRecord(
        trial=block.trial,
        n_frames=block.n_frames,
        broken=block.broken,
        responses_withheld=block.responses_withheld,
        largest_absolute_error=block.largest_absolute_error,
        objects=stored,
        behavior=block.behavior,
        pupil_center=block.pupil_center,
        signature=block.signature,
    )


def _report_published(
    objects: Objects, session: Session, archive: SessionArchive, started: float
) -> ConversionReport | None:
    """Return the report on a session that the store already holds, ``None`` if it does not."""
    attributes = read_sound_attributes(objects, session)
    if attributes is None:
        return None
    made_from = attributes.get("source_size_bytes"), attributes.get("source_digest")
    if made_from != (archive.size_bytes, archive.digest):
        raise StoreError(
            "the archive differs from the one this store was made from",
            session=session,
            path=objects.locate(session.name),
            found=f"{archive.size_bytes} bytes, index {archive.digest[:12]} at {archive.url}",
            expected=f"{made_from[0]} bytes, index {str(made_from[1])[:12]}",
            remedy="a published store is never changed: ingest into another store",
        )
    ledger = read_ledger(objects, session)
    return ConversionReport(
        session=session.name,
        alias=session.alias,
        status="already done",
        path=objects.locate(session.name),
        n_trials=sum(key.startswith("videos/c/") for key in ledger.objects),
        n_trials_resumed=0,
        n_bytes_read=0,
        store_size_bytes=ledger.size_bytes,
        duration_s=time.monotonic() - started,
        notes=tuple(attributes.get("notes", ())),
    )


def _convert(
    objects: Objects,
    workspace: Workspace,
    session: Session,
    archive: SessionArchive,
    started: float,
    *,
    jobs: int,
    progress: Progress,
) -> ConversionReport:
    workspace.begin(
        {
            "source_digest": archive.digest,
            "source_size_bytes": archive.size_bytes,
            "schema_version": SCHEMA_VERSION,
            "converter_version": CONVERTER_VERSION,
        }
    )
    contents = read_session_contents(archive, session)
    statistics = convert_statistics(archive, contents, workspace, jobs=jobs)
    template = declare_variables(contents, statistics.n_frames_padded)
    done = _read_records(contents, statistics, workspace)
    n_resumed = len(done)
    records = _convert_trials(archive, contents, statistics, template, workspace, done, jobs=jobs, progress=progress)
    notes = (
        *contents.describe_differences(statistics.n_frames_padded),
        *(f"trial {record.trial} is broken: {record.broken}" for record in records if record.broken),
    )
    attributes = compose_attributes(session, archive, records, notes)
    finished = encode_rest(contents, statistics, records, _find_movies(records, template, workspace), attributes)
    ledger = _write_rest(finished, statistics, records, workspace)
    _verify(ledger, records, workspace, session, jobs=jobs, progress=progress)
    workspace.publish(ledger, finished[METADATA_KEY])
    converted = [record.trial for record in records if record.trial not in done]
    return ConversionReport(
        session=session.name,
        alias=session.alias,
        status="converted",
        path=objects.locate(session.name),
        n_trials=contents.n_trials,
        n_trials_resumed=n_resumed,
        n_bytes_read=_count_bytes_read(archive, converted),
        store_size_bytes=ledger.size_bytes,
        duration_s=time.monotonic() - started,
        notes=notes,
    )


def _read_records(
    contents: SessionContents, statistics: StatisticsRecord, workspace: Workspace
) -> dict[int, TrialRecord]:
    """Return the records of the trials that an interrupted run finished, by trial."""
    done = {}
    for trial in contents.trials:
        record = workspace.read_trial_record(trial)
        if record is not None and record.behavior.shape[-1] == statistics.n_frames_padded:
            done[trial] = record
    return done


def _convert_trials(
    archive: SessionArchive,
    contents: SessionContents,
    statistics: StatisticsRecord,
    template: SessionTemplate,
    workspace: Workspace,
    done: Mapping[int, TrialRecord],
    *,
    jobs: int,
    progress: Progress,
) -> list[TrialRecord]:
    """Convert the trials that are not done, and return the records of all in the trials' order."""
    label = f"convert {contents.session.alias}"
    stopped = threading.Event()

    def convert(position: int) -> TrialRecord | None:
        if stopped.is_set():
            return None
        block = read_trial_block(archive, contents, contents.trials[position], statistics.n_frames_padded)
        record = write_trial_block(block, position, template, workspace.group)
        workspace.write_trial_record(record)
        return record

    records = dict(done)
    progress(label, len(records), contents.n_trials)
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="convert")
    try:
        pending = [position for position, trial in enumerate(contents.trials) if trial not in done]
        for future in as_completed([pool.submit(convert, position) for position in pending]):
            record = future.result()
            if record is not None:
                records[record.trial] = record
                progress(label, len(records), contents.n_trials)
    finally:
        # After an error or Ctrl-C the trials under way are finished, so that nothing is written once the lock is gone.
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return [records[trial] for trial in contents.trials]


def _find_movies(records: Sequence[TrialRecord], template: SessionTemplate, workspace: Workspace) -> list[int]:
    """Return for each trial the first trial that shows the same movie."""

    def read_video(position: int) -> np.ndarray:
        record = records[position]
        key = next(key for key in record.objects if key.startswith("videos/"))
        return template.decode_block("videos", position, workspace.group.read(key))[: record.n_frames]

    groups = group_movies([record.signature for record in records], read_video)
    return [records[first].trial for first in groups]


def _write_rest(
    finished: Mapping[str, bytes],
    statistics: StatisticsRecord,
    records: Sequence[TrialRecord],
    workspace: Workspace,
) -> Ledger:
    """Write everything but the group's own metadata, whose appearance publishes the session; return the ledger."""
    stored = {key: StoredObject.of(data) for key, data in finished.items()}
    ledger = Ledger(merge_objects([statistics.objects, *(record.objects for record in records), stored]))
    for key, data in finished.items():
        if key != METADATA_KEY:
            workspace.group.write(key, data)
    for key in workspace.group.keys() or ():
        # A process killed while writing leaves a temporary file.
        if key not in ledger.objects:
            workspace.group.delete(key)
    return ledger


def _verify(
    ledger: Ledger,
    records: Iterable[TrialRecord],
    workspace: Workspace,
    session: Session,
    *,
    jobs: int,
    progress: Progress,
) -> None:
    """Read every object back; forget the trials whose objects are not as they were written."""
    written = Ledger({key: stored for key, stored in ledger.objects.items() if key != METADATA_KEY})
    problems = find_object_problems(
        workspace.group, written, jobs=jobs, progress=progress, label=f"verify {session.alias}"
    )
    if not problems:
        return
    for record in records:
        if not problems.keys().isdisjoint(record.objects):
            workspace.forget_trial(record.trial)
    if any(key.startswith(f"{STATISTICS_GROUP}/") for key in problems):
        workspace.forget_statistics()
    key, problem = next(iter(problems.items()))
    others = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    raise StoreError(
        f"what was written reads back differently: {problem}{others}",
        session=session,
        path=workspace.group.locate(key),
        remedy="check the disk, and run it again: only what is damaged is converted again",
    )


def _count_bytes_read(archive: SessionArchive, trials: Iterable[int]) -> int:
    names = [archive.member(f"data/{variable}/{trial}.npy") for variable in VARIABLES for trial in trials]
    names += [name for name in archive.entries if name.startswith(archive.member("meta/statistics/"))]
    return sum(archive.entries[name].compressed_size_bytes for name in names)
