"""Archive to session store: trial by trial, resumable, published whole.

Each trial is read, checked, cut and encoded by itself; its objects are written, and last of all a record of it. A run
that was interrupted continues with the trials that have no record. When every trial is there, all objects are brought
to the disk, read back and compared with what was written, and the session appears under its name in one step.

A published group is never changed. When the archive has changed, the session is converted into a group of another name,
into which the blocks of unchanged trials are copied, and then the store's pointer moves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from sensorium_data.archive import Mode, SessionArchive, members_of_trial, open_archive
from sensorium_data.errors import LockedError, SourceChangedError, StoreError
from sensorium_data.files import Objects, ObjectStatus, RetryPolicy, StoredObject
from sensorium_data.ingest.adaptation import parse_frame_size, parse_tier_map
from sensorium_data.ingest.archived_statistics import (
    convert_statistics,
    describe_statistics,
    find_given_statistics,
    start_computed_statistics,
    write_computed_statistics,
)
from sensorium_data.ingest.assembly import (
    BLOCK_VARIABLES,
    CONVERTER_VERSION,
    STATISTICS_GROUP,
    compose_attributes,
    encode_rest,
)
from sensorium_data.ingest.computed_statistics import ComputedStatistics
from sensorium_data.ingest.notes import describe_conversion
from sensorium_data.ingest.presentation import read_presentation
from sensorium_data.ingest.recollection import recall_statistics, recall_trials
from sensorium_data.ingest.session_contents import SessionContents, read_session_contents
from sensorium_data.ingest.simulation_mark import read_simulation_mark
from sensorium_data.ingest.targets import Target, find_target
from sensorium_data.ingest.trial_blocks import TrialForm
from sensorium_data.ingest.trial_conversion import (
    ConversionPlan,
    ConvertedTrial,
    Resources,
    check_written,
    convert_trial,
)
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.movies import group_movies
from sensorium_data.ordered_map import as_finished, drop, map_ahead
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.schema import SCHEMA_VERSION
from sensorium_data.sessions import Session
from sensorium_data.store import (
    METADATA_KEY,
    ROOT_LOCK,
    Ledger,
    Precision,
    SessionTemplate,
    StatisticsRecord,
    Store,
    StoreLike,
    TrialRecord,
    exclusive_access,
    hold_session,
    is_locked,
    merge_objects,
    next_group,
    publish_root,
    read_attributes,
    read_ledger,
    repair_versions,
)

__all__ = ["CONVERTER_VERSION", "ConversionReport", "convert_session"]

_Result = TypeVar("_Result")

# How often an archive may change under a run before the run gives up.
_N_RESTARTS = 3
# Objects that one task reads back: few enough to spread, many enough that a cluster's overhead does not count.
_CHECKED_AT_ONCE = 16


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_session` did.

    Attributes
    ----------
    session : str
        The session's full name.
    alias : str
        Its letter, or its scan.
    status : str
        ``"converted"``, ``"already done"``, or ``"updated"``: converted anew because the archive had changed, or
        because the store was damaged and to be repaired.
    path : str
        Where the session's group is.
    n_trials : int
        Trials in the store.
    n_trials_resumed : int
        Those of them that an interrupted run had finished.
    n_trials_copied : int
        Those of them that were copied from the session's previous version.
    n_bytes_read : int
        Compressed size of the trials' members that were read.
    store_size_bytes : int
        Size of the session's objects.
    precision : str
        The store's precision.
    source : str
        Where the archive was read.
    duration_s : float
        Seconds it took.
    notes : tuple of str
        A sentence for each count that differs from the published one, each tier with responses that are not in the
        archive, each broken trial, each modality that ends before the video, what is missing from the archive's
        statistics, and, of other labs' sessions, what is not recorded, resized or computed.
    """

    session: str
    alias: str
    status: str
    path: str
    n_trials: int
    n_trials_resumed: int
    n_trials_copied: int
    n_bytes_read: int
    store_size_bytes: int
    precision: str
    source: str
    duration_s: float
    notes: tuple[str, ...]


def convert_session(
    session: Session,
    store: StoreLike,
    *,
    source: str | Sequence[str] | None = None,
    mode: Mode = Mode.AUTO,
    downloads: str | Path | None = None,
    precision: Precision | None = None,
    resize: str | None = None,
    tier_map: Sequence[str] | None = None,
    repairs: bool = False,
    jobs: int = 2,
    executor: Executor | None = None,
    stopping: threading.Event | None = None,
    policy: RetryPolicy | None = None,
    lock: bool = True,
    publish: Callable[[Session, str], None] | None = None,
    progress: Progress = ignore_progress,
) -> ConversionReport:
    """Convert a session's archive into a store; do nothing if the store already holds it.

    Two runs at once do no harm: on a local disk the second waits, and finds the work done. In an object store it says
    who is at work, and ends.

    Parameters
    ----------
    session : Session
        Which session.
    store : Store or path
        The store, or the path or fsspec URL of its root; made if it does not exist. A store that was opened says
        what is done already, and is not read anew for that.
    source : str or sequence of str, optional
        Folders, URLs or archives to read from, tried in this order; by default where the session is published.
    mode : Mode
        Whether to read the archive in place or to download it first.
    downloads : path, optional
        The folder that downloaded archives are kept in.
    precision : Precision, optional
        What to keep of the values; by default what the store holds, or ``exact``.
    resize : str, optional
        Frame size that videos are resized to, such as ``"36x64"``, by the mean over areas
        (:func:`~sensorium_data.ingest.resize_frames`); ``"none"`` keeps the archive's. By default as the store has it.
        Another size than the store's makes a new version of the session.
    tier_map : sequence of str, optional
        New names of tiers, such as ``["validation=oracle"]``; ``["none"]`` keeps the archive's. By default as the store
        has it.
    repairs : bool
        Read every object of a store that holds the session already, and convert anew what is damaged.
    jobs : int
        Trials converted at once, in threads; each needs about 100 MB. The result does not depend on it.
    executor : Executor, optional
        What converts the trials in place of ``jobs`` threads; may be in other processes or on other machines.
    stopping : threading.Event, optional
        Once set, no further trial is begun.
    policy : RetryPolicy, optional
        How long to insist where a server does not deliver.
    lock : bool
        Whether to lock the session in an object store, so that no other machine converts it meanwhile. A store that
        cannot be locked is refused otherwise. A local disk is always locked.
    publish : callable, optional
        Takes the session and its group, and sees to it that the store's root lists them. By default they are listed at
        once.
    progress : Progress
        Told after each trial, and after each group of objects when the result is verified.

    Raises
    ------
    SourceError, ArchiveError
        If the archive cannot be read or is damaged.
    TrialError
        If an array in it has the wrong dtype or shape.
    UsageError
        If ``resize`` or ``tier_map`` cannot be read, or a tier to be renamed is not there.
    LockedError
        If another process is converting the session into the same object store.
    StoreError
        If the store cannot be written or locked, holds the session in another precision, or is damaged and not to be
        repaired.
    """
    started = time.monotonic()
    stopping = stopping or threading.Event()
    # Before anything is read.
    parse_frame_size(resize), parse_tier_map(tier_map or ())
    sources = () if source is None else (source,) if isinstance(source, str) else tuple(source)
    known = Store.at(store)
    known.refuse_other_root()
    if repairs:
        with exclusive_access(known.objects, ROOT_LOCK):
            repair_versions(known.objects)
    sources = sources or _list_published(session, known)
    with contextlib.ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(_own_threads(jobs))
        for n_changes in range(_N_RESTARTS + 1):
            try:
                with open_archive(
                    session, sources, mode=mode, downloads=downloads, policy=policy, jobs=jobs, progress=progress
                ) as archive:
                    conversion = _Conversion(
                        session,
                        known,
                        archive,
                        executor,
                        jobs,
                        stopping,
                        policy,
                        lock,
                        publish,
                        progress,
                    )
                    return conversion.run(precision, resize, tier_map, repairs, started)
            except SourceChangedError:
                # What is finished and has not changed is found by its members' CRC and kept.
                if n_changes == _N_RESTARTS:
                    raise
    raise AssertionError("the loop returns or raises")


@contextlib.contextmanager
def _own_threads(jobs: int) -> Iterator[Executor]:
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="convert")
    try:
        yield pool
    finally:
        # After an error or Ctrl-C the trials under way are finished, so that nothing is written once the lock is gone.
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Conversion:
    """One attempt to convert one session from one state of its archive."""

    session: Session
    store: Store
    archive: SessionArchive
    executor: Executor
    jobs: int
    stopping: threading.Event
    policy: RetryPolicy | None
    lock: bool
    publish: Callable[[Session, str], None] | None
    progress: Progress

    @property
    def objects(self) -> Objects:
        return self.store.objects

    def run(
        self,
        precision: Precision | None,
        resize: str | None,
        tier_map: Sequence[str] | None,
        repairs: bool,
        started: float,
    ) -> ConversionReport:
        session, objects = self.session, self.objects

        def find(store: Store) -> Target:
            return find_target(
                store, session, self.archive, precision=precision, resize=resize, tier_map=tier_map, repairs=repairs,
                jobs=self.jobs, progress=self.progress,
            )  # fmt: skip

        # A finished store may lie on a read-only disk: where nothing is to be done nothing is written, not even a lock.
        target = find(self.store)
        # An interrupted run leaves work at the current group, or at the next if the archive changed and changed back.
        left: tuple[str, ...] = ()
        leftovers = [Workspace(objects, session, group) for group in (target.group, next_group(target.group))]
        if not target.done or any(one.has_leftovers() for one in leftovers) or is_locked(objects, session.name):
            try:
                with hold_session(objects, session, lock=self.lock, progress=self.progress) as require_lock:
                    # As it is now, whatever was known of it before the wait.
                    target = find(Store(objects))
                    if not target.done:
                        workspace = Workspace(objects, session, target.group)
                        report = self._convert(target, workspace, require_lock, started)
                        left = _tidy_up([workspace])
                        self._list(target.group, repairs)
                        return replace(report, notes=(*report.notes, *left))
                    left = _tidy_up(leftovers)
            except LockedError:
                # Whoever has just finished it is tidying up.
                if not target.done:
                    raise
        is_to_be_listed = (
            repairs or target.is_to_be_pointed_to or self.store.lacks_versions_file or session not in self.store.listed
        )
        if is_to_be_listed or is_locked(objects, ROOT_LOCK):
            self._list(target.group, repairs)
        report = self._report_done(target, started)
        return replace(report, notes=(*report.notes, *left))

    def _list(self, group: str, repairs: bool) -> None:
        if self.publish is None:
            publish_root(self.objects, {self.session: group}, rereads=repairs)
        else:
            self.publish(self.session, group)

    def _report_done(self, target: Target, started: float) -> ConversionReport:
        ledger = read_ledger(self.objects, self.session, target.group)
        return ConversionReport(
            session=self.session.name,
            alias=self.session.alias,
            status="already done",
            path=self.objects.locate(target.group),
            n_trials=len(ledger.trials),
            n_trials_resumed=0,
            n_trials_copied=0,
            n_bytes_read=0,
            store_size_bytes=ledger.size_bytes,
            precision=str(target.precision),
            source=self.archive.origin,
            duration_s=time.monotonic() - started,
            notes=tuple(target.attributes.get("notes", ())),
        )

    def _convert(
        self, target: Target, workspace: Workspace, require_lock: Callable[[], None], started: float
    ) -> ConversionReport:
        session, archive, precision = self.session, self.archive, target.precision
        adaptation = target.adaptation
        workspace.begin(
            {
                "schema_version": SCHEMA_VERSION,
                "converter_version": CONVERTER_VERSION,
                "precision": str(precision),
                **adaptation.to_attributes(),
            }
        )
        contents = read_session_contents(archive, session, adaptation)
        presentation = read_presentation(archive, session, contents.trials)
        simulation = read_simulation_mark(archive)
        previous = target.open_previous(self.objects)
        statistics = convert_statistics(
            archive, contents, workspace, precision=precision, previous=previous, jobs=self.jobs
        )
        form = TrialForm.of(contents, statistics.n_frames_padded)
        if previous is not None and not previous.fits(form):
            previous = None
        plan = ConversionPlan(
            session=session,
            store=self.store.url,
            group=target.group,
            previous=target.previous if previous is not None else None,
            archive=archive.url,
            archive_stamp=archive.stamp,
            n_trials=contents.n_trials,
            form=form,
            precision=precision,
            policy=self.policy,
        )
        resources = Resources.of(plan, archive, workspace)
        done = _read_records(plan, contents, resources)
        n_resumed = len(done)
        converted = self._convert_trials(plan, contents, resources, done, require_lock)
        records = [(converted[trial].record if trial in converted else done[trial]) for trial in contents.trials]
        computed = self._compute_statistics(
            start_computed_statistics(archive, contents, form), contents, records, resources.template, workspace
        )
        statistics = write_computed_statistics(computed, contents, statistics, workspace, precision)
        notes: tuple[str, ...] = (
            *contents.describe_differences(statistics.n_frames_padded),
            *describe_conversion(session, archive, contents, records, presentation, computed),
        )
        longest = max((record.n_frames for record in records), default=0)
        given = find_given_statistics(archive, contents)
        notes += describe_statistics(
            contents, statistics, workspace, n_frames=longest, precision=precision, variables=given
        )
        # Workers in other processes read the files.
        recall_trials(archive, records)
        recall_statistics(archive, statistics)
        attributes = compose_attributes(
            session,
            target.group,
            archive,
            records,
            notes,
            precision,
            simulation=simulation,
            adaptation=adaptation,
            absent=contents.absent,
            computed_statistics=computed.known_variables,
        )
        require_lock()
        movies = _find_movies(records, resources.template, workspace)
        finished = encode_rest(contents, statistics, records, movies, presentation, attributes, precision)
        ledger = _write_rest(finished, statistics, records, workspace)
        self._verify(plan, ledger, records, workspace, workspace.keep_only(ledger.objects))
        require_lock()
        workspace.publish(ledger, finished[METADATA_KEY])
        return ConversionReport(
            session=session.name,
            alias=session.alias,
            status="converted" if target.previous is None else "updated",
            path=self.objects.locate(target.group),
            n_trials=contents.n_trials,
            n_trials_resumed=n_resumed,
            n_trials_copied=sum(one.n_bytes_read == 0 for one in converted.values()),
            n_bytes_read=sum(one.n_bytes_read for one in converted.values()),
            store_size_bytes=ledger.size_bytes,
            precision=str(precision),
            source=archive.origin,
            duration_s=time.monotonic() - started,
            notes=notes,
        )

    def _compute_statistics(
        self,
        computed: ComputedStatistics,
        contents: SessionContents,
        records: Sequence[TrialRecord],
        template: SessionTemplate,
        workspace: Workspace,
    ) -> ComputedStatistics:
        """Take the trials that count into statistics, from what was written of them."""
        if not computed:
            return computed
        label = f"statistics of {self.session.alias}"
        counted = [
            position
            for position, (record, tier) in enumerate(zip(records, contents.tiers, strict=True))
            if computed.counts(tier, valid=record.valid, responses_withheld=record.responses_withheld)
        ]

        def read(position: int) -> dict[str, np.ndarray]:
            arrays = {"behavior": records[position].behavior, "pupil_center": records[position].pupil_center}
            for variable in BLOCK_VARIABLES:
                if variable in computed.variables:
                    data = workspace.group.read(template.block_key(variable, position))
                    arrays[variable] = template.decode_block(variable, position, data)
            return arrays

        n_ahead = workspace.group.n_requests_at_once
        with ThreadPoolExecutor(n_ahead, thread_name_prefix="statistics") as pool:
            for position, arrays in map_ahead(pool, read, counted, n_ahead):
                computed.add(arrays)
                self.progress(label, position + 1, len(records))
        return computed

    def _convert_trials(
        self,
        plan: ConversionPlan,
        contents: SessionContents,
        resources: Resources,
        done: Mapping[int, TrialRecord],
        require_lock: Callable[[], None],
    ) -> dict[int, ConvertedTrial]:
        """Convert the trials that are not done."""
        label = f"convert {self.session.alias}"
        converted: dict[int, ConvertedTrial] = {}
        n_bytes = 0
        self.progress(label, len(done), contents.n_trials, n_bytes=n_bytes)
        pending = [(trial, position) for position, trial in enumerate(contents.trials) if trial not in done]
        local = (resources,) if self._in_threads else ()
        futures = [self._submit(convert_trial, plan, trial, position, *local) for trial, position in pending]
        try:
            for future in as_finished(futures):
                one = future.result()
                require_lock()
                resources.workspace.records.add(one.record)
                converted[one.record.trial] = one
                n_bytes += one.n_bytes_read
                self.progress(label, len(done) + len(converted), contents.n_trials, n_bytes=n_bytes)
        finally:
            # The trials under way are finished, so that nothing is written once the lock is gone.
            drop(futures)
            for future in futures:
                if not future.cancelled() and future.exception() is None:
                    one = future.result()
                    if one.record.trial not in converted:
                        resources.workspace.records.add(one.record)
            resources.workspace.records.flush()
        return converted

    @property
    def _in_threads(self) -> bool:
        return isinstance(self.executor, ThreadPoolExecutor)

    def _submit(self, function: Callable[..., _Result], *arguments: object) -> Future[_Result]:
        if not self._in_threads:
            return self.executor.submit(function, *arguments)

        def run() -> _Result:
            if self.stopping.is_set():
                raise KeyboardInterrupt
            return function(*arguments)

        return self.executor.submit(run)

    def _verify(
        self,
        plan: ConversionPlan,
        ledger: Ledger,
        records: Iterable[TrialRecord],
        workspace: Workspace,
        listed: Mapping[str, ObjectStatus],
    ) -> None:
        """Read every object back, or compare its tag, which the store confirmed when it was written.

        The trials whose objects are not as they were written are forgotten.
        """
        label = f"verify {self.session.alias}"
        written = {key: stored for key, stored in ledger.objects.items() if key != METADATA_KEY}
        problems, n_bytes = _compare_listed(written, listed)
        unread = [(key, stored) for key, stored in written.items() if key not in problems and stored.tag is None]
        n_done = len(written) - len(unread)
        if n_done:
            self.progress(label, n_done, len(written), n_bytes=n_bytes)
        batches = [unread[start : start + _CHECKED_AT_ONCE] for start in range(0, len(unread), _CHECKED_AT_ONCE)]
        futures = {self._submit(check_written, plan, batch): batch for batch in batches}
        try:
            for future in as_finished(futures):
                problems.update(future.result())
                n_done += len(futures[future])
                n_bytes += sum(stored.size_bytes for _, stored in futures[future])
                self.progress(label, n_done, len(written), n_bytes=n_bytes)
        finally:
            drop(futures)
        if not problems:
            return
        workspace.records.forget([record.trial for record in records if not problems.keys().isdisjoint(record.objects)])
        if any(key.startswith(f"{STATISTICS_GROUP}/") for key in problems):
            workspace.forget_statistics()
        key, problem = min(problems.items())
        others = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise StoreError(
            f"what was written reads back differently: {problem}{others}",
            session=self.session,
            path=workspace.group.locate(key),
            remedy="check the disk, and run it again: only what is damaged is converted again",
        )


def _tidy_up(workspaces: Iterable[Workspace]) -> tuple[str, ...]:
    """Delete what is left of work that is published, and return a sentence for what cannot be deleted."""
    left = []
    for workspace in workspaces:
        try:
            workspace.tidy_up()
        except StoreError as error:
            left.append(f"the session is whole, and the records of its conversion are left: {error}")
    return tuple(left)


def _list_published(session: Session, store: Store) -> tuple[str, ...]:
    """Return where the session is published, up to the place that the store was made from.

    A later place has an earlier release. It is good enough to begin with; what a better one gave is not replaced by it
    while the better one cannot be reached.
    """
    if len(session.urls) < 2:
        return session.urls
    attributes: Mapping[str, object] | None = None
    with contextlib.suppress(StoreError):  # reported where the store's state is looked at, or repaired there
        attributes = read_attributes(store.objects, session, store.group(session))
    source = (attributes or {}).get("source")
    return session.urls[: session.urls.index(source) + 1] if source in session.urls else session.urls


def _read_records(plan: ConversionPlan, contents: SessionContents, resources: Resources) -> dict[int, TrialRecord]:
    """Return the records of the trials that an interrupted run finished and that still are what they were, by trial."""
    archive = resources.archive
    positions = {trial: position for position, trial in enumerate(contents.trials)}
    done = {}
    for record in resources.workspace.read_trial_records():
        trial = record.trial
        if trial not in positions:
            continue
        recall_trials(archive, [record])
        keys = {resources.template.block_key(name, positions[trial]) for name in BLOCK_VARIABLES}
        if (
            record.members == archive.fingerprint_trial(trial)
            and record.behavior.shape[-1] == plan.form.n_frames_padded
            and record.objects.keys() == keys
        ):
            done[trial] = replace(record, stamps=archive.stamp_members(members_of_trial(trial)))
    return done


def _find_movies(records: Sequence[TrialRecord], template: SessionTemplate, workspace: Workspace) -> list[int]:
    """Return for each trial the first trial that shows the same movie."""

    def read_video(position: int) -> np.ndarray:
        record = records[position]
        data = workspace.group.read(template.block_key("videos", position))
        video = template.decode_block("videos", position, data)[: record.n_frames]
        return video.astype(np.float32, copy=False)

    largest_error = max(record.largest_absolute_error["videos"] for record in records)
    groups = group_movies(
        [record.signature for record in records],
        read_video,
        largest_error=largest_error,
        jobs=workspace.group.n_requests_at_once,
    )
    return [records[first].trial for first in groups]


def _compare_listed(
    written: Mapping[str, StoredObject], listed: Mapping[str, ObjectStatus]
) -> tuple[dict[str, str], int]:
    """Return what a listing says is wrong with objects that have tags, by key, and the size of those that are right.

    The store confirmed each tag when the object was written. The same tag now means the same bytes.
    """
    tagged = {key: stored for key, stored in written.items() if stored.tag is not None}
    found = {key: stored.find_listed_difference(listed.get(key)) for key, stored in tagged.items()}
    problems = {key: problem for key, problem in found.items() if problem is not None}
    return problems, sum(stored.size_bytes for key, stored in tagged.items() if key not in problems)


def _write_rest(
    finished: Mapping[str, bytes],
    statistics: StatisticsRecord,
    records: Sequence[TrialRecord],
    workspace: Workspace,
) -> Ledger:
    """Write everything but the group's own metadata, whose appearance publishes the session; return the ledger."""
    rest: dict[str, bytes | memoryview] = {key: data for key, data in finished.items() if key != METADATA_KEY}
    stored = {**workspace.write_all(rest), METADATA_KEY: StoredObject.of(finished[METADATA_KEY])}
    return Ledger(
        objects=merge_objects([statistics.objects, *(record.objects for record in records), stored]),
        trials={record.trial: record for record in records},
        statistics=statistics,
    )
