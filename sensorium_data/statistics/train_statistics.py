"""Statistics of a session's training trials, computed from its store a few trials at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from sensorium_data.errors import StoreError, UnknownNameError, UsageError
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.recorded_frames import count_recorded_frames, count_usable_frames
from sensorium_data.schema import VARIABLES
from sensorium_data.sessions import Tier, find_session
from sensorium_data.statistics.moments import Moments
from sensorium_data.store import StoreLike, open_store

__all__ = ["LUMINANCE", "TRAIN_STATISTICS", "StatisticsAxes", "compute_train_statistics"]

StatisticsAxes = Literal["trials", "trials and time"]

#: In the order of the ``statistic`` dimension. A median would need all trials in memory, or a pass over the store for
#: every few frames; no normalization uses one, and the archive's own statistics have it.
TRAIN_STATISTICS = ("mean", "std", "min", "max")

#: The variable that holds the statistics of all pixels of all frames together.
LUMINANCE = "luminance"

# Trials in memory at once. Part of the result's last bits, so no setting.
_TRIALS_AT_ONCE = 8
# Values that a thread works on at once, so that they stay in the processor's cache.
_VALUES_AT_ONCE = 2**17

_Array = npt.NDArray[np.floating[Any]]


def compute_train_statistics(
    store: StoreLike,
    session: str,
    *,
    axes: StatisticsAxes = "trials",
    tiers: Iterable[Tier] = (Tier.TRAIN,),
    jobs: int = 4,
    progress: Progress = ignore_progress,
    exclude: Collection[int] = (),
    skips_missing: bool = False,
) -> xr.Dataset:
    """Compute mean, standard deviation, least and greatest value of a session's variables over its training trials.

    Valid trials alone are counted, their valid frames alone, and responses where they are published. A modality that
    ends a few frames before the video counts as far as it goes. Sums are in
    float64 whatever the store's precision (:class:`~sensorium_data.statistics.Moments`); the result has the same bits
    whatever the number of threads. Eight trials are in memory at once, however many the session has.

    Parameters
    ----------
    store : Store or path
        The store, or the path or fsspec URL of its root.
    session : str
        Alias or full name.
    axes : {"trials", "trials and time"}
        What to count over. Over trials keeps the frame axis, as the archive's own statistics do.
    tiers : iterable of Tier
        Whose trials.
    jobs : int
        Threads that read and count.
    progress : Progress
        Told after every few trials.
    exclude : collection of int
        Ids of trials that are not counted.
    skips_missing : bool
        Whether frames without behavior or pupil center (NaN) are passed over; they are an error otherwise.

    Returns
    -------
    xarray.Dataset
        float64; each variable has a dimension ``statistic`` (mean, std, min, max) and then its own without ``trial``,
        and without ``time`` where that is counted over: ``videos`` (time, height, width) or (height, width),
        ``responses`` (neuron, time) or (neuron), ``behavior`` (behavior_channel, time) or (behavior_channel),
        ``pupil_center`` (eye_axis, time) or (eye_axis). Over trials and time, ``luminance`` () is of all pixels
        together. NaN where no trial has a value. What the recording lacks is left out. The attributes ``n_trials`` and
        ``n_trials_with_responses`` say
        how many were counted.

    Raises
    ------
    StoreError
        If the session cannot be opened, or holds something that is no number in a valid frame.
    UsageError
        If it has no valid trial of these tiers.

    Examples
    --------
    >>> train = compute_train_statistics("stores", "F", axes="trials and time")  # doctest: +SKIP
    >>> train.responses.sel(statistic="std")  # doctest: +SKIP
    """
    if axes not in get_args(StatisticsAxes):
        raise UnknownNameError.of("axes", axes, get_args(StatisticsAxes))
    found = find_session(session)
    opened = open_store(store)
    dataset = opened[found]
    names = tuple(dict.fromkeys(str(tier) for tier in tiers))
    chosen = np.isin(dataset["tier"].values, names) & dataset["valid"].values
    chosen &= ~np.isin(dataset["trial"].values, sorted(exclude))
    if not chosen.any():
        raise UsageError(
            f"no valid trial of tier {', '.join(names)}" + (" that is not left out" if exclude else ""),
            session=found,
            path=opened.url,
            found=f"tiers {', '.join(sorted(set(dataset['tier'].values.tolist())))}",
            remedy="choose another tier",
        )
    positions = np.flatnonzero(chosen).tolist()
    withheld = dataset["responses_withheld"].values
    counted = {variable: _Counted(dataset, variable, axes) for variable in VARIABLES if variable in dataset}
    label, n_done = f"statistics of {found.alias}", 0
    progress(label, n_done, len(positions))
    for few in _batches(positions):
        published = [position for position in few if not withheld[position]]
        for variable, one in counted.items():
            of_these = published if variable == "responses" else few
            allows_nan = skips_missing and variable in ("behavior", "pupil_center")
            one.add(_read_trials(dataset, variable, of_these, opened.url, jobs, allows_nan=allows_nan), jobs)
        n_done += len(few)
        progress(label, n_done, len(positions))

    moments = {variable: (one.dims, one.moments) for variable, one in counted.items()}
    if axes == "trials and time":
        moments[LUMINANCE] = ((), counted["videos"].moments.over_all())
    dims = {"statistic", *(dim for kept, _ in moments.values() for dim in kept)}
    return xr.Dataset(
        {
            name: (("statistic", *kept), np.stack([getattr(one, statistic) for statistic in TRAIN_STATISTICS]))
            for name, (kept, one) in moments.items()
        },
        coords={"statistic": list(TRAIN_STATISTICS)}
        | {name: values for name, values in dataset.coords.items() if values.dims == (name,) and name in dims},
        attrs={
            "title": f"Statistics over {axes} of tier {', '.join(names)}",
            "session": found.name,
            "axes": axes,
            "tiers": list(names),
            "n_trials": len(positions),
            "n_trials_with_responses": int((~withheld[positions]).sum()),
        },
    )


class _Counted:
    """The moments of one variable, and which of its axes are counted over."""

    def __init__(self, dataset: xr.Dataset, variable: str, axes: StatisticsAxes) -> None:
        dims = VARIABLES[variable].dims
        gone = {"trial"} if axes == "trials" else {"trial", "time"}
        self.dims = tuple(dim for dim in dims if dim not in gone)
        self.moments = Moments(tuple(dataset.sizes[dim] for dim in self.dims))
        self._axis = tuple(index for index, dim in enumerate(dims) if dim in gone)
        # Threads share the work along the first axis that is kept; in a trial's array it is one place further ahead.
        self._row_axis = dims.index(self.dims[0]) - 1

    def add(self, trials: Sequence[_Array], jobs: int) -> None:
        if not trials:
            return
        n_rows = trials[0].shape[self._row_axis]
        per_task = max(1, _VALUES_AT_ONCE * n_rows // (len(trials) * trials[0].size))
        tasks = [
            delayed(partial(self._add_rows, trials, slice(start, start + per_task)), pure=False, traverse=False)()
            for start in range(0, n_rows, per_task)
        ]
        _compute(tasks, jobs)

    def _add_rows(self, trials: Sequence[_Array], rows: slice) -> None:
        place = (*(slice(None),) * self._row_axis, rows)
        self.moments.add(np.stack([trial[place] for trial in trials]), self._axis, rows)


def _batches(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), _TRIALS_AT_ONCE):
        yield positions[start : start + _TRIALS_AT_ONCE]


def _read_trials(
    dataset: xr.Dataset, variable: str, positions: Sequence[int], url: str, jobs: int, *, allows_nan: bool = False
) -> list[_Array]:
    """Read one variable of some trials at once, a task each."""
    frame_axis = VARIABLES[variable].dims.index("time") - 1
    stored = dataset[variable].data
    check = partial(
        _require_numbers,
        variable=variable,
        session=str(dataset.attrs.get("session", "")),
        url=url,
        allows_nan=allows_nan,
    )
    tasks = [
        delayed(check, pure=False)(
            stored[position],
            frame_axis=frame_axis,
            n_frames=int(dataset["n_frames"].values[position]),
            trial=int(dataset["trial"].values[position]),
        )
        for position in positions
    ]
    return _compute(tasks, jobs)


def _require_numbers(
    values: _Array,
    *,
    frame_axis: int,
    n_frames: int,
    variable: str,
    session: str,
    trial: int,
    url: str,
    allows_nan: bool = False,
) -> _Array:
    if variable != "videos":
        n_frames = count_usable_frames(count_recorded_frames(values, n_frames), n_frames)
    valid = values[(*(slice(None),) * frame_axis, slice(0, n_frames))]
    if allows_nan and not np.isinf(valid).any():
        return values
    # A chunk that is missing reads as NaN without any error.
    if not np.isfinite(valid.sum(dtype=np.float64)):
        raise StoreError(
            f"{variable} holds values that are no numbers in valid frames",
            session=session,
            trial=trial,
            path=url,
            found=f"{np.count_nonzero(~np.isfinite(valid))} of {valid.size}",
            expected="none",
            remedy="verify the store, and convert the session again if it is damaged; if not, leave the trial out",
        )
    return values


def _compute(tasks: Sequence[Any], jobs: int) -> list[Any]:
    return list(compute(*tasks, scheduler="threads", num_workers=max(1, jobs), optimize_graph=False))  # type: ignore[no-untyped-call]
