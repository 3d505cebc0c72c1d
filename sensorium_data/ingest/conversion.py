"""One attempt at converting a session from one state of its archive: what is done already, and what is left to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from sensorium_data.archive import SessionArchive, members_of_trial
from sensorium_data.errors import LockedError, StoreError
from sensorium_data.files import Objects, RetryPolicy, StoredObject
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
from sensorium_data.ingest.conversion_report import ConversionReport
from sensorium_data.ingest.notes import describe_conversion
from sensorium_data.ingest.presentation import read_presentation
from sensorium_data.ingest.read_back import ReadBack
from sensorium_data.ingest.recollection import recall_statistics, recall_trials
from sensorium_data.ingest.session_contents import SessionContents, read_session_contents
from sensorium_data.ingest.simulation_mark import read_simulation_mark
from sensorium_data.ingest.sync_ahead import SyncAhead
from sensorium_data.ingest.targets import Target, find_target
from sensorium_data.ingest.trial_blocks import TrialForm
from sensorium_data.ingest.trial_conversion import (
    ConversionPlan,
    ConvertedTrial,
    Resources,
    convert_trial,
)
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.movies import group_movies
from sensorium_data.ordered_map import as_finished, drop, map_ahead
from sensorium_data.progress import Progress
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
    TrialRecord,
    hold_session,
    is_locked,
    merge_objects,
    next_group,
    publish_root,
    read_ledger,
)

__all__ = ["Conversion"]

_Result = TypeVar("_Result")

_CONVERT_DAMAGED = "check the disk, and run it again: only what is damaged is converted again"


@dataclass(frozen=True)
class Conversion:
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
    source_name: str | None = None

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
        with SyncAhead(workspace, is_needed=self._in_threads) as sync_ahead:
            sync_ahead.add_statistics(statistics)
            for record in done.values():
                sync_ahead.add_trial(record)
            converted = self._convert_trials(plan, contents, resources, done, require_lock, sync_ahead)
            synced = sync_ahead.finish()
        records = [(converted[trial].record if trial in converted else done[trial]) for trial in contents.trials]
        with ReadBack(plan, self._submit) as read_back:
            trials_and_statistics = merge_objects([statistics.objects, *(record.objects for record in records)])
            read_back.add(trials_and_statistics, synced=synced)
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
                source_name=self.source_name,
                simulation=simulation,
                adaptation=adaptation,
                absent=contents.absent,
                computed_statistics=computed.known_variables,
            )
            require_lock()
            movies = _find_movies(records, resources.template, workspace)
            finished = encode_rest(contents, statistics, records, movies, presentation, attributes, precision)
            ledger = _write_rest(finished, statistics, records, workspace)
            read_back.add(_find_rest(ledger, trials_and_statistics))
            self._require_written(read_back, ledger, records, workspace)
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
            record = records[position]
            arrays = {"behavior": record.behavior, "pupil_center": record.pupil_center}
            for variable in BLOCK_VARIABLES:
                if variable in computed.variables:
                    arrays[variable] = _read_written(variable, position, record, template, workspace)
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
        sync_ahead: SyncAhead,
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
                sync_ahead.add_trial(one.record)
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

    def _require_written(
        self, read_back: ReadBack, ledger: Ledger, records: Iterable[TrialRecord], workspace: Workspace
    ) -> None:
        """Raise an error if something is not as it was written; the trials that it belongs to are forgotten."""
        listed = workspace.keep_only(ledger.objects)
        problems = read_back.find_problems(listed, label=f"verify {self.session.alias}", progress=self.progress)
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
            remedy=_CONVERT_DAMAGED,
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
        video = _read_written("videos", position, record, template, workspace)
        return video[: record.n_frames].astype(np.float32, copy=False)

    largest_error = max(record.largest_absolute_error["videos"] for record in records)
    groups = group_movies(
        [record.signature for record in records],
        read_video,
        largest_error=largest_error,
        jobs=workspace.group.n_requests_at_once,
    )
    return [records[first].trial for first in groups]


def _read_written(
    variable: str, position: int, record: TrialRecord, template: SessionTemplate, workspace: Workspace
) -> np.ndarray:
    """Return the values of a trial's block that was written; a trial whose block is not as it was is forgotten."""
    key = template.block_key(variable, position)
    try:
        data = workspace.group.read(key)
        problem = record.objects[key].find_damage(data)
    except FileNotFoundError:
        problem = "missing"
    if problem is not None:
        workspace.records.forget([record.trial])
        raise StoreError(
            f"what was written reads back differently: {problem}",
            session=workspace.session,
            trial=record.trial,
            path=workspace.group.locate(key),
            remedy=_CONVERT_DAMAGED,
        )
    return template.decode_block(variable, data)


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


def _find_rest(ledger: Ledger, others: Collection[str]) -> dict[str, StoredObject]:
    """Return what else was written, but for the group's own metadata, which come last."""
    return {key: stored for key, stored in ledger.objects.items() if key not in others and key != METADATA_KEY}
