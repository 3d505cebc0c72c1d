"""The archive's own statistics over trials: read, checked, and written beside the trials."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.errors import StoreError, TrialError
from sensorium_data.files import StoredObject
from sensorium_data.ingest.assembly import STATISTICS_GROUP, declare_statistics
from sensorium_data.ingest.previous_version import PreviousVersion
from sensorium_data.ingest.recollection import STATISTICS_MEMBERS, recall_statistics
from sensorium_data.ingest.trial_blocks import SessionContents
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.schema import BEHAVIOR_CHANNELS, EYE_AXES, FRAME_HEIGHT, FRAME_WIDTH, STATISTICS, VARIABLES
from sensorium_data.statistics import describe_coverage, measure_coverage
from sensorium_data.store import Precision, StatisticsRecord, cast_values

__all__ = ["convert_statistics", "describe_statistics", "read_statistic"]


def convert_statistics(
    archive: SessionArchive,
    contents: SessionContents,
    workspace: Workspace,
    *,
    precision: Precision,
    previous: PreviousVersion | None = None,
    jobs: int,
) -> StatisticsRecord:
    """Write the archive's statistics, unless they are written; they also say how long the frame axis is.

    Parameters
    ----------
    archive : SessionArchive
        Whose statistics.
    contents : SessionContents
        Of the same archive.
    workspace : Workspace
        Where they go.
    precision : Precision
        What to keep of the values.
    previous : PreviousVersion, optional
        The session's published version: what it was made from and has not changed is copied.
    jobs : int
        Arrays read at once.

    Raises
    ------
    TrialError
        If an array has the wrong dtype or shape.
    ArchiveError, SourceError
        If a member is missing or damaged, or cannot be had.
    """
    pairs = list(itertools.product(VARIABLES, STATISTICS))
    record = workspace.read_statistics_record()
    if record is not None:
        recall_statistics(archive, record)
    members, stamps = archive.fingerprint_members(STATISTICS_MEMBERS), archive.stamp_members(STATISTICS_MEMBERS)
    if record is not None and record.members == members:
        return replace(record, stamps=stamps)
    if previous is not None:
        record = previous.copy_statistics(members, stamps, workspace.group)
        if record is not None:
            workspace.write_statistics_record(record)
            return record
    # Kept until its turn comes: no member travels twice.
    first = {pairs[0]: archive.read_statistic(*pairs[0])}
    shape = first[pairs[0]].shape
    n_frames_padded = int(shape[-1]) if shape else 0
    template = declare_statistics(contents, max(1, n_frames_padded), precision)

    def convert(variable: str, statistic: str) -> tuple[str, StoredObject, float]:
        pair = variable, statistic
        values = first.pop(pair) if pair in first else archive.read_statistic(*pair)
        block, error = _cast_statistic(values, archive, contents, variable, statistic, n_frames_padded, precision)
        path, position = f"{STATISTICS_GROUP}/{variable}", STATISTICS.index(statistic)
        key, data = template.encode_block(path, position, block)
        workspace.group.write(key, data)
        return key, StoredObject.of(data), error

    objects: dict[str, StoredObject] = {}
    errors = dict.fromkeys(VARIABLES, 0.0)
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="statistics")
    try:
        for (variable, _), (key, stored, error) in zip(
            pairs, pool.map(convert, *zip(*pairs, strict=True)), strict=True
        ):
            objects[key] = stored
            errors[variable] = max(errors[variable], error)
    finally:
        pool.shutdown(cancel_futures=True)
    record = StatisticsRecord(n_frames_padded, errors, members, objects, stamps)
    workspace.write_statistics_record(record)
    return record


def describe_statistics(
    contents: SessionContents,
    record: StatisticsRecord,
    workspace: Workspace,
    *,
    n_frames: int,
    precision: Precision,
) -> tuple[str, ...]:
    """Return a sentence for each thing that is missing from the statistics, as they were written.

    Parameters
    ----------
    contents : SessionContents
        Of the archive.
    record : StatisticsRecord
        What :func:`convert_statistics` returned.
    workspace : Workspace
        Where they are.
    n_frames : int
        Valid frames of the longest trial.
    precision : Precision
        Of the store.

    Raises
    ------
    StoreError
        If they are not as they were written; the next run writes them anew.
    """
    template = declare_statistics(contents, record.n_frames_padded, precision)

    def read(variable: str, statistic: str) -> np.ndarray:
        path, position = f"{STATISTICS_GROUP}/{variable}", STATISTICS.index(statistic)
        key = template.block_key(path, position)
        try:
            data = workspace.group.read(key)
            damage = record.objects[key].find_damage(data)
        except FileNotFoundError:
            damage = "missing"
        if damage is not None:
            workspace.forget_statistics()
            raise StoreError(
                f"what was written reads back differently: {damage}",
                session=contents.session,
                path=workspace.group.locate(key),
                remedy="check the disk, and run it again: only what is damaged is converted again",
            )
        return template.decode_block(path, position, data)

    return describe_coverage(
        measure_coverage(variable, read(variable, "mean"), read(variable, "std"), n_frames) for variable in VARIABLES
    )


def read_statistic(
    archive: SessionArchive,
    contents: SessionContents,
    variable: str,
    statistic: str,
    n_frames_padded: int,
    precision: Precision = Precision.EXACT,
) -> tuple[np.ndarray, float]:
    """Read one statistic of one variable, and bring it into the store's form.

    Returns
    -------
    np.ndarray
        In the store's precision, dimensions as the variable has them for one trial.
    float
        The largest absolute error of that precision.

    Raises
    ------
    TrialError
        If its dtype or shape is wrong.
    """
    values = archive.read_statistic(variable, statistic)
    return _cast_statistic(values, archive, contents, variable, statistic, n_frames_padded, precision)


def _cast_statistic(
    values: np.ndarray,
    archive: SessionArchive,
    contents: SessionContents,
    variable: str,
    statistic: str,
    n_frames_padded: int,
    precision: Precision,
) -> tuple[np.ndarray, float]:
    shape = _archived_shape(variable, contents.n_neurons, n_frames_padded)
    if values.shape == shape and values.dtype.kind == "f" and values.size:
        ordered = values.transpose(2, 0, 1) if variable == "videos" else values
        stored = np.empty(ordered.shape, precision.dtype)
        error = cast_values(ordered, stored)
        if np.isfinite(error):
            return stored, error
    raise TrialError(
        "wrong statistics",
        session=contents.session,
        path=archive.locate(archive.member(f"meta/statistics/{variable}/all/{statistic}.npy")),
        found=f"{values.dtype} {values.shape}",
        expected=f"float64 {shape} within the range of {precision.dtype}",
        remedy="compare the archive with the published one, and download it again",
    )


def _archived_shape(variable: str, n_neurons: int, n_frames_padded: int) -> tuple[int, ...]:
    first = {
        "videos": (FRAME_HEIGHT, FRAME_WIDTH),
        "responses": (n_neurons,),
        "behavior": (len(BEHAVIOR_CHANNELS),),
        "pupil_center": (len(EYE_AXES),),
    }
    return (*first[variable], n_frames_padded)
