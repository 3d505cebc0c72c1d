"""Trials of a session read one at a time in threads: what all measures are summed from.

A measure adds up what each trial contributes, so memory holds a few trials whatever the length of the session.
Contributions are added in the order of the trials: the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from threadpoolctl import threadpool_limits

from sensorium_data.counting import count_things
from sensorium_data.errors import TrialError, UsageError
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.machine import bound_jobs, count_cores
from sensorium_data.ordered_map import map_ahead
from sensorium_data.recorded_frames import count_recorded_frames, count_usable_frames

__all__ = [
    "TrialBlock",
    "count_usable",
    "find_counted",
    "label_neurons",
    "map_blocks",
    "name_movies",
    "require_counted",
    "session_name",
]

_Result = TypeVar("_Result")
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class TrialBlock:
    """The counted frames of one trial.

    Attributes
    ----------
    position, trial : int
        Place in the dataset, and id.
    n_frames : int
        Frames that count: the valid ones, less those at the end at which a variable that was read lacks a value.
    responses : np.ndarray
        (neuron, time) as recorded; NaN where a value is missing before the end.
    videos : np.ndarray
        (time, height, width).
    behavior : np.ndarray
        (behavior_channel, time).

    A variable that was not asked for has no frames.
    """

    position: int
    trial: int
    n_frames: int
    responses: Floats
    videos: Floats
    behavior: Floats


def find_counted(dataset: xr.Dataset, *, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return the places of the trials that measures count: valid ones whose responses are there.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of its trials.
    chosen : np.ndarray, optional
        (trial,) bool: only these.
    """
    dataset = arrange_session(dataset, "valid", "responses_withheld")
    counted = dataset["valid"].values.astype(bool) & ~dataset["responses_withheld"].values.astype(bool)
    return np.flatnonzero(counted if chosen is None else counted & chosen)


def require_counted(dataset: xr.Dataset, positions: Sequence[int] | np.ndarray, what: str) -> None:
    """Raise a :class:`UsageError` if no trial counts for a measure."""
    if len(positions) == 0:
        n_withheld = int(np.count_nonzero(dataset["responses_withheld"].values))
        n_broken = int(np.count_nonzero(~dataset["valid"].values.astype(bool)))
        raise UsageError(
            f"no trial to measure {what} from",
            session=session_name(dataset),
            found=f"{count_things(dataset.sizes['trial'], 'trial')}, {n_withheld} withheld, {n_broken} broken",
            expected="a valid trial whose responses are there",
            remedy="select other trials, or a session that publishes these responses",
        )


def name_movies(dataset: xr.Dataset) -> np.ndarray:
    """Return which movie each trial shows: ``movie_group`` where the dataset has it, else ``movie``; (trial,) text."""
    dataset = arrange_session(dataset, "movie")
    return dataset["movie_group" if "movie_group" in dataset.coords else "movie"].values.astype(str)


def label_neurons(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the coordinates of the neurons, for results that have one value a neuron."""
    return {str(name): one.variable for name, one in dataset.coords.items() if one.dims == ("neuron",)}


def count_usable(values: Floats, n_frames: int) -> int:
    """Return the frames of a trial, (…, time), at which it holds numbers; it may end a little before the video."""
    rows = values.reshape(-1, values.shape[-1])
    return count_usable_frames(count_recorded_frames(rows, n_frames), n_frames)


def map_blocks(
    dataset: xr.Dataset,
    positions: Sequence[int] | np.ndarray,
    variables: Sequence[str],
    function: Callable[[TrialBlock], _Result],
    *,
    jobs: int | None = None,
) -> Generator[_Result, None, None]:
    """Yield what a function returns for each trial, in the order of the trials.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it.
    positions : sequence of int
        Places of the trials.
    variables : sequence of str
        What to read: ``responses``, ``videos``, ``behavior``.
    function : callable
        Takes a :class:`TrialBlock`; runs in threads, with one BLAS thread each.
    jobs : int, optional
        Trials worked on at the same time; one a CPU core by default, fewer where memory is short.

    Raises
    ------
    UsageError
        If the dataset lacks something, frames are cut away at the start of the trials, or no response of a trial is
        known.
    TrialError
        If a video holds values that are no numbers in counted frames.
    """
    dataset = arrange_session(dataset, "trial", *variables, whole_start=True)
    lengths = dataset["n_frames"].values
    names = dataset["trial"].values
    arrays = {variable: dataset[variable].data for variable in variables}
    n_jobs = bound_jobs(min(jobs or count_cores(), max(1, len(positions))))
    nothing = np.zeros((0, 0), np.float32)

    def work(position: int) -> _Result:
        read = {name: _read(array[position]) for name, array in arrays.items()}
        n_frames = int(lengths[position])
        if "responses" in read and read["responses"].size and n_frames:
            _require_known(read["responses"][:, :n_frames], dataset, int(names[position]))
        for name, values in read.items():
            if name != "videos":
                n_frames = min(n_frames, count_usable(values, n_frames))
        videos = read.get("videos", nothing)[:n_frames]
        # A sum is several times as fast as a look at every value.
        if not np.isfinite(videos.sum(dtype=np.float64)):
            raise TrialError(
                "the video holds values that are no numbers in valid frames",
                session=session_name(dataset),
                trial=int(names[position]),
                found=f"{np.count_nonzero(~np.isfinite(videos))} of {videos.size}",
                expected="none",
                remedy="leave the trial out, or verify the store",
            )
        block = TrialBlock(
            position=position,
            trial=int(names[position]),
            n_frames=n_frames,
            responses=read.get("responses", nothing)[:, :n_frames],
            videos=videos,
            behavior=read.get("behavior", nothing)[:, :n_frames],
        )
        return function(block)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_jobs, thread_name_prefix="explore") as pool:
        for _, result in map_ahead(pool, work, [int(position) for position in positions], n_jobs + 1):
            yield result


def _require_known(responses: Floats, dataset: xr.Dataset, trial: int) -> None:
    # The last counted frames may be missing, so the first frame is looked at before the others.
    if np.isnan(responses[:, 0]).all() and np.isnan(responses).all():
        raise UsageError(
            "no response is known in a valid trial whose responses are there",
            session=session_name(dataset),
            trial=trial,
            found="NaN at every neuron and frame",
            expected="numbers",
            remedy="select trials and neurons by `select` or `isel`, or with `where(…, drop=True)`: "
            "`where` alone replaces values by NaN",
        )


def _read(array: object) -> Floats:
    """Return the values of a NumPy or dask array; in this thread, as trials are read side by side."""
    if isinstance(array, np.ndarray):
        return array
    (values,) = compute(array, scheduler="synchronous")  # type: ignore[no-untyped-call]
    return np.asarray(values)
