"""The archive's own statistics over trials: read, checked, and written beside the trials."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.errors import ArchiveError, StoreError, TrialError
from sensorium_data.files import StoredObject, write_object
from sensorium_data.ingest.assembly import STATISTICS_GROUP, declare_statistics
from sensorium_data.ingest.computed_statistics import ComputedStatistics
from sensorium_data.ingest.previous_version import PreviousVersion
from sensorium_data.ingest.recollection import STATISTICS_MEMBERS, recall_statistics
from sensorium_data.ingest.session_contents import SessionContents
from sensorium_data.ingest.trial_blocks import TrialForm
from sensorium_data.ingest.workspace import Workspace
from sensorium_data.schema import STATISTICS, VARIABLES
from sensorium_data.statistics import describe_coverage, measure_coverage
from sensorium_data.store import Precision, StatisticsRecord, cast_values

__all__ = [
    "convert_statistics",
    "count_padded_frames",
    "describe_statistics",
    "find_given_statistics",
    "read_statistic",
    "start_computed_statistics",
    "write_computed_statistics",
]

# What :func:`describe_statistics` looks at.
_DESCRIBED_BY = ("mean", "std")


def find_given_statistics(archive: SessionArchive, contents: SessionContents) -> tuple[str, ...]:
    """Return the variables whose statistics the archive gives, for frames of the size that the store has.

    Those of the published sessions must be there. Of others the statistics that are missing are computed.

    Raises
    ------
    ArchiveError
        If the archive gives some statistics of a variable and not all.
    """
    is_resized = contents.frame_size != contents.archived_frame_size
    usable = [variable for variable in contents.variables if variable != "videos" or not is_resized]
    if contents.session.is_described:
        return tuple(usable)
    given = []
    for variable in contents.variables:
        members = [f"meta/statistics/{variable}/all/{statistic}.npy" for statistic in STATISTICS]
        missing = [member for member in members if not archive.has_member(member)]
        if missing and len(missing) < len(members):
            raise ArchiveError(
                f"statistics of {variable} are not whole",
                session=contents.session,
                path=archive.locate(archive.member(missing[0])),
                found=f"{len(members) - len(missing)} of {len(members)} files",
                expected=f"{', '.join(STATISTICS)}, or none",
                remedy="add those that are missing, or leave out the folder: statistics are then computed",
            )
        if not missing and variable in usable:
            given.append(variable)
    return tuple(given)


def count_padded_frames(archive: SessionArchive, contents: SessionContents) -> int:
    """Return the length of the store's frame axis: that of the statistics, or of the longest video."""
    given = find_given_statistics(archive, contents)
    n_frames = contents.n_frames_longest
    if given:
        member = archive.member(f"meta/statistics/{given[0]}/all/{STATISTICS[0]}.npy")
        shape, _ = archive.read_array_header(member)
        n_frames = max(n_frames, int(shape[-1]) if shape else 0)
    return n_frames


def start_computed_statistics(
    archive: SessionArchive, contents: SessionContents, form: TrialForm
) -> ComputedStatistics:
    """Return the statistics that are to be computed because the archive does not give them, over no trial yet."""
    given = find_given_statistics(archive, contents)
    lengths = {"videos": (form.n_frames_padded, *form.frame_size)}
    return ComputedStatistics(
        {
            variable: lengths.get(variable, (*form.shape_of(variable), form.n_frames_padded))
            for variable in contents.variables
            if variable not in given
        }
    )


def write_computed_statistics(
    computed: ComputedStatistics,
    contents: SessionContents,
    record: StatisticsRecord,
    workspace: Workspace,
    precision: Precision,
) -> StatisticsRecord:
    """Write statistics that were computed beside those that the archive gives; return the record of all.

    Parameters
    ----------
    computed : ComputedStatistics
        Over all trials that count.
    contents : SessionContents
        Of the archive.
    record : StatisticsRecord
        What :func:`convert_statistics` returned.
    workspace : Workspace
        Where they go.
    precision : Precision
        Of the store.
    """
    template = declare_statistics(contents, record.n_frames_padded, precision)
    encoded = dict(
        template.encode_block(
            f"{STATISTICS_GROUP}/{variable}", position, computed.of(variable, statistic, precision.dtype)
        )
        for variable in computed.variables
        for position, statistic in enumerate(STATISTICS)
    )
    return replace(record, objects={**record.objects, **workspace.write_all(encoded)})


def convert_statistics(
    archive: SessionArchive,
    contents: SessionContents,
    workspace: Workspace,
    *,
    precision: Precision,
    previous: PreviousVersion | None = None,
    jobs: int,
) -> StatisticsRecord:
    """Write the statistics that the archive gives, unless they are written; they also say how long the frame axis is.

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
    given = find_given_statistics(archive, contents)
    pairs = [(variable, statistic) for variable in given for statistic in STATISTICS]
    named = {f"{variable}/{statistic}": STATISTICS_MEMBERS[f"{variable}/{statistic}"] for variable, statistic in pairs}
    # Known beforehand where trials may be longer than the statistics.
    n_frames_needed = None if contents.session.is_described else count_padded_frames(archive, contents)
    record = workspace.read_statistics_record()
    if record is not None:
        recall_statistics(archive, record)
    members, stamps = archive.fingerprint_members(named), archive.stamp_members(named)
    if record is not None and record.members == members and n_frames_needed in (None, record.n_frames_padded):
        return replace(record, stamps=stamps)
    if previous is not None and members:
        record = previous.copy_statistics(members, stamps, workspace.group, n_frames_padded=n_frames_needed)
        if record is not None:
            workspace.write_statistics_record(record)
            return record
    # Kept until its turn comes: no member travels twice.
    first = {pair: archive.read_statistic(*pair) for pair in pairs[:1]}
    n_frames_given = next((int(values.shape[-1]) for values in first.values() if values.ndim), 0)
    n_frames_padded = n_frames_given if n_frames_needed is None else n_frames_needed
    template = declare_statistics(contents, max(1, n_frames_padded), precision)

    def convert(pair: tuple[str, str]) -> tuple[str, StoredObject, float]:
        variable, statistic = pair
        values = first.pop(pair) if pair in first else archive.read_statistic(*pair)
        form = TrialForm.of(contents, n_frames_given)
        block, error = _cast_statistic(values, archive, contents, variable, statistic, form, precision)
        block = _pad_frames(block, variable, n_frames_padded)
        path, position = f"{STATISTICS_GROUP}/{variable}", STATISTICS.index(statistic)
        key, data = template.encode_block(path, position, block)
        is_read_again = statistic in _DESCRIBED_BY
        write = workspace.write_and_keep if is_read_again else partial(write_object, workspace.group)
        return key, write(key, data), error

    objects: dict[str, StoredObject] = {}
    errors = dict.fromkeys(VARIABLES, 0.0)
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="statistics")
    try:
        for (variable, _), (key, stored, error) in zip(pairs, pool.map(convert, pairs), strict=True):
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
    variables: Iterable[str] = tuple(VARIABLES),
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
    variables : iterable of str
        The variables whose statistics the archive gives.

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
            data = workspace.read_kept(key)
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
        return template.decode_block(path, data)

    described = [variable for variable in contents.variables if variable in variables]
    pool = ThreadPoolExecutor(workspace.group.n_requests_at_once, thread_name_prefix="statistics")
    try:
        means, stds = (pool.map(partial(read, statistic=statistic), described) for statistic in _DESCRIBED_BY)
        return describe_coverage(
            measure_coverage(variable, mean, std, n_frames)
            for variable, mean, std in zip(described, means, stds, strict=True)
        )
    finally:
        pool.shutdown(cancel_futures=True)


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
    n_frames_given = n_frames_padded if contents.session.is_described or not values.ndim else int(values.shape[-1])
    form = TrialForm.of(contents, n_frames_given)
    stored, error = _cast_statistic(values, archive, contents, variable, statistic, form, precision)
    return _pad_frames(stored, variable, n_frames_padded), error


def _cast_statistic(
    values: np.ndarray,
    archive: SessionArchive,
    contents: SessionContents,
    variable: str,
    statistic: str,
    form: TrialForm,
    precision: Precision,
) -> tuple[np.ndarray, float]:
    is_described = contents.session.is_described
    shape = (*form.shape_of(variable), form.n_frames_padded)
    if values.shape == shape and values.dtype.kind in ("f" if is_described else "fiu") and values.size:
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
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
        remedy="compare the archive with the published one, and download it again"
        if is_described
        else f"correct them, or leave out meta/statistics/{variable}: they are then computed over the training trials",
    )


def _pad_frames(values: np.ndarray, variable: str, n_frames_padded: int) -> np.ndarray:
    """Return a statistic on a longer frame axis, NaN at frames that it does not have."""
    axis = VARIABLES[variable].dims.index("time") - 1
    n_lacking = n_frames_padded - values.shape[axis]
    if n_lacking <= 0:
        return values
    widths = [(0, n_lacking if own == axis else 0) for own in range(values.ndim)]
    return np.pad(values, widths, constant_values=np.nan)
