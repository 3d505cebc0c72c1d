"""Whether a published session is what was written, and whether that is what its archive holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sensorium_data.archive import SessionArchive
from sensorium_data.errors import ArchiveError, StoreError, TrialError
from sensorium_data.ingest.adaptation import Adaptation
from sensorium_data.ingest.archived_statistics import read_statistic, start_computed_statistics
from sensorium_data.ingest.assembly import STATISTICS_GROUP
from sensorium_data.ingest.session_contents import read_session_contents
from sensorium_data.ingest.trial_blocks import TrialBlock, TrialForm, read_trial_block
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.schema import STATISTICS, VARIABLES
from sensorium_data.sessions import find_session
from sensorium_data.store import Precision, StoreLike, VerificationReport, open_store, repair_command, verify_objects

__all__ = ["VerificationReport", "compare_with_archive", "verify_session"]

_Result = TypeVar("_Result")


def verify_session(
    store: StoreLike,
    session: str,
    *,
    jobs: int = 4,
    progress: Progress = ignore_progress,
    resumes: bool = False,
) -> VerificationReport:
    """Read every object of a published session and compare it with the ledger.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    jobs : int
        Objects read at once.
    progress : Progress
        Told after each object.
    resumes : bool
        Go on from where an interrupted verification of the last 24 hours ended.

    Raises
    ------
    StoreError
        If the session is not there, its ledger is damaged, or its group is another session's or version's.
    """
    found = find_session(session)
    opened = open_store(store)
    ledger = opened.ledger(found)
    return verify_objects(
        opened.objects.child(opened.group(found)),
        ledger,
        remedy=f"`{repair_command(opened.objects, found, opened.group(found))}` converts again what is damaged",
        session=found.name,
        jobs=jobs,
        progress=progress,
        label=f"verify {found.alias}",
        resumes=resumes,
    )


def compare_with_archive(
    store: StoreLike, session: str, archive: SessionArchive, *, jobs: int = 4, progress: Progress = ignore_progress
) -> VerificationReport:
    """Read every trial of an archive and compare it, in the store's precision, with what the store holds.

    Values are compared bit by bit: the same float64 value rounds to the same stored one. Labels of trials and neurons
    and the archive's own statistics are compared as well.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    archive : SessionArchive
        The session's archive, open.
    jobs : int
        Trials read at once; each needs about 150 MB.
    progress : Progress
        Told after each trial.

    Raises
    ------
    StoreError
        If the session is not there or damaged.
    SourceError
        If the archive's bytes cannot be had.
    ArchiveError, TrialError
        If the archive's own metadata are damaged; a damaged trial is a difference.
    """
    found = find_session(session)
    opened = open_store(store)
    dataset = opened[found]
    import zarr

    group: Any = zarr.open_group(opened.zarr_store(found), mode="r")
    contents = read_session_contents(archive, found, Adaptation.read(dataset.attrs))
    form = TrialForm.of(contents, dataset.sizes["time"])
    precision = Precision(dataset.attrs["precision"])
    labels: dict[str, tuple[Any, Any]] = {
        "trials": (dataset.trial.values, contents.trials),
        "tiers": (dataset.tier.values, [str(tier) for tier in contents.tiers]),
        "unit ids": (dataset.neuron.values, contents.unit_ids),
        "cell positions": (
            np.stack([dataset.x, dataset.y, dataset.z], axis=1) if "x" in dataset.coords else (),
            () if contents.positions is None else contents.positions,
        ),
        "variables": ([name for name in VARIABLES if name in dataset], contents.variables),
        "frame sizes": ((dataset.sizes["height"], dataset.sizes["width"]), contents.frame_size),
    }
    sentences = [
        f"{name} differ from the archive's" for name, (stored, there) in labels.items() if not _are_equal(stored, there)
    ]
    variables = [name for name in VARIABLES if name in dataset and name in contents.variables]
    positions = {int(trial): position for position, trial in enumerate(dataset.trial.values.tolist())}
    n_frames = dict(zip(positions, dataset.n_frames.values.tolist(), strict=True))
    withheld = dict(zip(positions, dataset.responses_withheld.values.tolist(), strict=True))

    computed = start_computed_statistics(archive, contents, form)

    def compare(trial: int) -> tuple[TrialBlock | None, list[str]]:
        if trial not in positions:
            return None, [f"trial {trial} is not in the store"]
        try:
            block = read_trial_block(archive, found, trial, form, precision)
        except (ArchiveError, TrialError) as error:
            return None, [f"trial {trial} cannot be read from the archive: {error}"]
        differences = []
        if block.n_frames != n_frames[trial]:
            differences.append(f"trial {trial} has {n_frames[trial]} valid frames, {block.n_frames} in the archive")
        if block.responses_withheld != withheld[trial]:
            differences.append(f"trial {trial}: the store and the archive disagree on whether responses are withheld")
        try:
            arrays = {name: np.asarray(group[name][positions[trial]]) for name in variables}
        except StoreError as error:
            return None, [*differences, f"trial {trial} cannot be read from the store: {error}"]
        differences += [f"trial {trial}: {difference}" for difference in _compare_arrays(arrays, block)]
        return block if computed else None, differences

    label = f"compare {found.alias} with its archive"
    n_bytes = 0
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="compare")
    try:
        for n_done, (trial, tier, (block, differences)) in enumerate(
            zip(contents.trials, contents.tiers, _map_ahead(pool, compare, contents.trials, jobs), strict=True), start=1
        ):
            sentences += differences
            if block is not None and computed.counts(
                tier, valid=not block.broken, responses_withheld=block.responses_withheld
            ):
                computed.add({name: getattr(block, name) for name in computed.variables})
            n_bytes += archive.compressed_size_bytes(trial)
            progress(label, n_done, contents.n_trials, n_bytes=n_bytes)
    finally:
        pool.shutdown(cancel_futures=True)
    for variable in variables:
        for position, statistic in enumerate(STATISTICS):
            if variable in computed.variables:
                there = computed.of(variable, statistic, precision.dtype)
            else:
                there, _ = read_statistic(archive, contents, variable, statistic, form.n_frames_padded, precision)
            stored = np.asarray(group[f"{STATISTICS_GROUP}/{variable}"][position])
            sentences += [f"statistics: {d}" for d in _describe_difference(f"{statistic} of {variable}", stored, there)]
    return VerificationReport(
        found.name,
        archive.origin,
        contents.n_trials,
        n_bytes,
        tuple(sentences),
        "check that this is the archive that the session was made from; ingest it into another store, and compare",
    )


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[int], _Result], trials: Iterable[int], n_ahead: int
) -> Iterator[_Result]:
    """Yield the function's results in order; few are kept, since they may hold a trial each."""
    pending: deque[Future[_Result]] = deque()
    for trial in trials:
        pending.append(pool.submit(function, trial))
        if len(pending) > max(1, n_ahead):
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _are_equal(stored: npt.ArrayLike, there: npt.ArrayLike) -> bool:
    """Whether two lists of labels are equal; a position that is not known is NaN in both."""
    first, second = np.asarray(stored), np.asarray(there)
    return np.array_equal(first, second, equal_nan=first.dtype.kind == second.dtype.kind == "f")


def _compare_arrays(arrays: Mapping[str, np.ndarray], block: TrialBlock) -> Iterator[str]:
    for variable, stored in arrays.items():
        yield from _describe_difference(variable, stored, getattr(block, variable))


def _describe_difference(name: str, stored: np.ndarray, there: np.ndarray) -> Iterator[str]:
    if stored.shape != there.shape or stored.dtype != there.dtype:
        yield f"{name} is {stored.dtype} {stored.shape}, {there.dtype} {there.shape} from the archive"
        return
    differs = stored != there
    differs &= ~(np.isnan(stored) & np.isnan(there))
    n_different = int(np.count_nonzero(differs))
    if n_different:
        largest = np.abs(stored[differs].astype(np.float64) - there[differs]).max()
        yield f"{name} differs in {n_different} of {stored.size} values, by up to {largest:.4g}"
