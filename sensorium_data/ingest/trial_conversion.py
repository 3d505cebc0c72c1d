"""One trial from the archive into the workspace: the unit of work that threads and a Dask cluster's workers share.

A worker gets a plan of a few hundred bytes, opens the archive and the store by itself, and returns the trial's record.
Everything it writes is named by the trial's place and holds the same bytes whoever writes it.
"""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np

from sensorium_data.archive import SessionArchive, members_of_trial
from sensorium_data.errors import SourceChangedError, StoreError
from sensorium_data.files import (
    LocalObjects,
    Objects,
    RetryPolicy,
    StoredObject,
    is_damage,
    open_objects,
    write_object,
)
from sensorium_data.ingest.assembly import BLOCK_VARIABLES, declare_variables
from sensorium_data.ingest.previous_version import PreviousVersion
from sensorium_data.ingest.recollection import recall_trials
from sensorium_data.ingest.trial_blocks import TrialBlock, TrialForm, read_trial_block
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.recorded_frames import count_recorded_frames
from sensorium_data.sessions import Session
from sensorium_data.store import Precision, SessionTemplate, TrialRecord, read_ledger

__all__ = ["ConversionPlan", "ConvertedTrial", "Resources", "check_written", "convert_trial", "write_trial_block"]


@dataclass(frozen=True)
class ConversionPlan:
    """What all trials of one conversion have in common; small, hashable, and the same in every process.

    Attributes
    ----------
    session : Session
        Which session.
    store : str
        The store's root.
    group : str
        The group that is being made.
    previous : str or None
        The published group whose unchanged blocks are copied.
    archive : str
        Where the archive is.
    archive_stamp : str
        What marks its version.
    n_trials : int
        Trials of the session.
    form : TrialForm
        What they have in common.
    precision : Precision
        What to keep of the values.
    policy : RetryPolicy or None
        How long to insist where a server does not deliver.
    """

    session: Session
    store: str
    group: str
    previous: str | None
    archive: str
    archive_stamp: str
    n_trials: int
    form: TrialForm
    precision: Precision
    policy: RetryPolicy | None = None


@dataclass(frozen=True)
class Resources:
    """What a process needs to convert trials of one plan."""

    archive: SessionArchive
    workspace: Workspace
    template: SessionTemplate
    previous: PreviousVersion | None

    @classmethod
    def of(cls, plan: ConversionPlan, archive: SessionArchive, workspace: Workspace | None = None) -> Self:
        """Open what the plan names beside the archive and, if it is given, the workspace."""
        objects = open_objects(plan.store)
        template = declare_variables(plan.n_trials, plan.form, plan.precision)
        previous = None
        if plan.previous is not None:
            ledger = read_ledger(objects, plan.session, plan.previous)
            previous = PreviousVersion(objects.child(plan.previous), ledger)
        return cls(archive, workspace or Workspace(objects, plan.session, plan.group), template, previous)

    @classmethod
    def open(cls, plan: ConversionPlan) -> Self:
        """Open everything the plan names.

        Raises
        ------
        SourceChangedError
            If the archive is not the one that the plan was made for.
        """
        archive = SessionArchive.open(plan.archive, plan.session, policy=plan.policy)
        if archive.stamp != plan.archive_stamp:
            archive.close()
            raise SourceChangedError(
                "the archive changed while it was being converted",
                session=plan.session,
                path=plan.archive,
                found=f"index {archive.stamp[:12]}",
                expected=f"index {plan.archive_stamp[:12]}",
                remedy="start again",
            )
        return cls.of(plan, archive)


@dataclass(frozen=True)
class ConvertedTrial:
    """A trial that has just been written.

    Attributes
    ----------
    record : TrialRecord
        The record of it.
    n_bytes_read : int
        Compressed size of the members that were read; 0 for a trial that was copied.
    """

    record: TrialRecord
    n_bytes_read: int


def convert_trial(
    plan: ConversionPlan, trial: int, position: int, resources: Resources | None = None
) -> ConvertedTrial:
    """Convert one trial and write it. It is finished when its record, which is returned, is written too.

    Parameters
    ----------
    plan : ConversionPlan
        Of the session.
    trial : int
        The trial's id.
    position : int
        Its place along the trial dimension.
    resources : Resources, optional
        Opened for the plan; by default this process opens them once and keeps them.
    """
    resources = resources or _RESOURCES.get(plan)
    archive, workspace, template = resources.archive, resources.workspace, resources.template
    stamps = archive.stamp_members(members_of_trial(trial))
    n_bytes_read = 0
    record = None
    if resources.previous is not None:
        facts = resources.previous.facts(trial)
        recall_trials(archive, [facts] if facts is not None else [])
        keys = {variable: template.block_key(variable, position) for variable in BLOCK_VARIABLES}
        members = archive.fingerprint_trial(trial)
        record = resources.previous.copy_trial(trial, members, stamps, keys, workspace.group)
        if record is not None and record.n_missing_frames is None:
            data = workspace.group.read(keys["responses"])
            responses = template.decode_block("responses", data)
            record = _count_unusual_values(record, responses)
    if record is None:
        block = read_trial_block(archive, plan.session, trial, plan.form, plan.precision)
        # After the block: of files in a folder the checksums are known now.
        members = archive.fingerprint_trial(trial)
        record = write_trial_block(block, position, template, workspace.group, members, stamps)
        n_bytes_read = archive.compressed_size_bytes(trial)
    return ConvertedTrial(record, n_bytes_read)


def write_trial_block(
    block: TrialBlock,
    position: int,
    template: SessionTemplate,
    group: Objects,
    members: Mapping[str, tuple[int, int]],
    stamps: Mapping[str, str] = MappingProxyType({}),
) -> TrialRecord:
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
    members : mapping of str to tuple of int
        CRC-32 and size of the archive's members that it was made from, by variable.
    stamps : mapping of str to str
        What marks the version of those that state no CRC-32.
    """
    stored: dict[str, StoredObject] = {}
    for variable, values in (("videos", block.videos), ("responses", block.responses)):
        key, data = template.encode_block(variable, position, values)
        stored[key] = write_object(group, key, data)
    record = TrialRecord(
        trial=block.trial,
        n_frames=block.n_frames,
        broken=block.broken,
        responses_withheld=block.responses_withheld,
        largest_absolute_error=block.largest_absolute_error,
        members=members,
        stamps=stamps,
        objects=stored,
        behavior=block.behavior,
        pupil_center=block.pupil_center,
        signature=block.signature,
    )
    return _count_unusual_values(record, block.responses)


def _count_unusual_values(record: TrialRecord, responses: np.ndarray) -> TrialRecord:
    """Return the record with the frames that each variable lacks at its end, and with its infinite values."""
    recorded = {"behavior": record.behavior, "pupil_center": record.pupil_center}
    if not record.responses_withheld:
        recorded["responses"] = responses
    missing = {
        name: record.n_frames - count_recorded_frames(values, record.n_frames) for name, values in recorded.items()
    }
    infinite = {
        name: int(np.count_nonzero(np.isinf(values[:, : record.n_frames]))) for name, values in recorded.items()
    }
    return replace(
        record,
        n_missing_frames={name: n for name, n in missing.items() if n > 0},
        n_infinite={name: n for name, n in infinite.items() if n > 0},
    )


def check_written(
    plan: ConversionPlan, objects: Iterable[tuple[str, StoredObject]], synced: bool = False
) -> dict[str, str]:
    """Bring objects to the disk, read them back, and return what is wrong with each that is not as it was written.

    Parameters
    ----------
    plan : ConversionPlan
        Of the session.
    objects : iterable of tuple
        Key, and what was written.
    synced : bool
        They are on the disk already.
    """
    group = Workspace(open_objects(plan.store), plan.session, plan.group).group
    problems: dict[str, str] = {}
    for key, stored in objects:
        if isinstance(group, LocalObjects) and not synced:
            try:
                group.sync(key)
            except StoreError as error:
                problems[key] = f"it did not reach the disk: {error.found}"
                continue
        try:
            problem = stored.find_damage(group.read(key))
        except FileNotFoundError:
            problem = "missing"
        except StoreError as error:
            if is_damage(error.__cause__):
                problem = "its bytes do not have the checksum that the store has of them"
            elif isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                # A disk that cannot read a block again can be given it anew.
                problem = f"it cannot be read: {error.found}"
            else:
                raise
        if problem is not None:
            problems[key] = problem
    return problems


class _OpenResources:
    """The resources that a worker process has open: those of the plans used last."""

    _LIMIT = 2

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[ConversionPlan, Resources] = OrderedDict()

    def get(self, plan: ConversionPlan) -> Resources:
        with self._lock:
            resources = self._open.get(plan)
            if resources is None:
                resources = self._open[plan] = Resources.open(plan)
            self._open.move_to_end(plan)
            # The archive of a plan that is dropped closes with its last reader.
            while len(self._open) > self._LIMIT:
                self._open.popitem(last=False)
            return resources


_RESOURCES = _OpenResources()
