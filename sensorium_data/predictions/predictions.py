"""The predictions store: what a model predicts for whole trials, with the session's own coordinates.

A predictions store is a Zarr v3 group with one child group a session. Each holds the variable
``predictions`` (trial, neuron, time), float32, over the trials of the predicted tiers and the neurons that the model
predicts, which may be some of the session's, NaN where nothing was
predicted: in the frames a model loses at the start of a trial, past a trial's last valid frame, and in
broken trials. The root's attributes say what made it:

``response_units``
    ``standardized``, the competition's units, or ``raw``, those of the recorded responses.
``runs``, ``tiers``, ``stores``
    Digests of the training runs, the predicted tiers, and the digest of each session's store by its name.
``left_out``
    Ids of the trials of the predicted tiers that were left out, by full session name; absent where there is none.
``identity``
    What the maker calls it, so that a rerun finds its own work again; absent where none was given.
``content_digest``
    SHA-256 over all predicted values.

Every object's size and digest stand in ``ledger.json``, and are compared when it is read.

It is written under ``<url>.partial`` and renamed when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sensorium_data.counting import count_things
from sensorium_data.errors import PredictionsError, UsageError
from sensorium_data.predictions.reader import open_predictions, predictions_attributes
from sensorium_data.predictions.writer import PredictionsWriter, ResponseUnits
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, find_session, sort_tiers
from sensorium_data.store import StoreLike, open_store

__all__ = [
    "ArraysReport",
    "PredictionsWriter",
    "ResponseUnits",
    "create_predictions",
    "from_arrays",
    "write_arrays",
]

# More missing trials than this are not named in one line.
_MOST_LISTED = 10


@dataclass(frozen=True)
class ArraysReport:
    """What :func:`from_arrays` wrote, or found written.

    Attributes
    ----------
    status : str
        ``written`` or ``already done``.
    n_trials : int
        Number of trials.
    """

    status: str
    n_trials: int


def create_predictions(
    url: str,
    *,
    store: StoreLike,
    sessions: Iterable[str],
    tiers: Iterable[str],
    response_units: ResponseUnits,
    runs: Iterable[str] = (),
    identity: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    left_out: Mapping[str, Collection[int]] | None = None,
    neurons: Mapping[str, Sequence[int]] | None = None,
    lock: bool = True,
) -> PredictionsWriter:
    """Begin a predictions store; use the result in a ``with`` statement.

    Parameters
    ----------
    url : str
        Where the store will be: a path, or any URL that fsspec can write to. Nothing may be there.
    store : Store or path
        The session stores whose trials are predicted.
    sessions : iterable of str
        Aliases or full names of the predicted sessions.
    tiers : iterable of str
        The predicted tiers; every valid trial of them has to be written.
    response_units : {"standardized", "raw"}
        Units of what will be written.
    runs : iterable of str
        Digests of the training runs that predict.
    identity : str, optional
        A digest of everything the predictions depend on. With it, a later call with equal arguments
        continues an interrupted local store, and :func:`~sensorium_data.predictions.find_predictions` recognizes a
        finished one.
    attributes : mapping, optional
        More attributes of the root, JSON values.
    left_out : mapping of str to collection of int, optional
        Ids of trials that will not be written, by session.
    neurons : mapping of str to sequence of int, optional
        Unit ids of the neurons that are predicted, by session, in the session's order; by default all.
    lock : bool
        Whether predictions in an object store are locked while they are written. If not, the user sees to it that
        nobody else writes them.

    Raises
    ------
    UsageError
        If the units, a tier or a session do not exist, or an attribute's name is taken.
    StoreError
        If a session is not in the store. At the beginning of the ``with`` statement,
        :class:`~sensorium_data.errors.LockedError` if somebody else writes these predictions into an object store, and
        :class:`~sensorium_data.errors.UnlockableError` if that cannot be locked.
    """
    return PredictionsWriter(
        url,
        store=store,
        sessions=sessions,
        tiers=tiers,
        response_units=response_units,
        runs=runs,
        identity=identity,
        attributes=attributes,
        left_out=left_out,
        neurons=neurons,
        lock=lock,
    )


def from_arrays(
    url: str | os.PathLike[str],
    store: StoreLike,
    arrays: Mapping[str, Mapping[int, npt.ArrayLike]],
    *,
    response_units: ResponseUnits,
    attributes: Mapping[str, Any] | None = None,
    lock: bool = True,
    progress: Progress = ignore_progress,
) -> ArraysReport:
    """Write a predictions store from arrays, so that any model's predictions can be scored and submitted.

    Where a store of these values is there already, nothing is written.

    Arrays are asked for one at a time, in the mappings' order, and not kept: a mapping that loads or computes them when
    they are asked for needs memory for one. :func:`sensorium_data.predictions.from_folder` reads a folder so.

    Parameters
    ----------
    url : str or path
        Where the store will be.
    store : Store or path
        The session stores whose trials are predicted.
    arrays : mapping of str to mapping of int to array_like
        For each session (alias or full name), each trial's prediction by the trial's id:
        (neurons, frames), the neurons in the session's order, the frames up to the trial's last valid
        one. Frames that are fewer than the trial's are taken to lack the first ones.
    response_units : {"standardized", "raw"}
        Their units.
    attributes : mapping, optional
        More attributes of the root, e.g. a title.
    lock : bool
        As :func:`create_predictions` takes it.
    progress : Progress
        Told after every trial.

    Returns
    -------
    ArraysReport
        Whether they were written, and how many trials there are.

    Raises
    ------
    PredictionsError
        If a trial does not exist, a tier of which there are trials misses others, an array's shape is wrong, or
        something else lies there.
    UsageError
        If there is no array, or a session is named twice.

    Examples
    --------
    >>> def submit_mine(model, store, trials):  # model(session, trial) -> (neurons, frames)
    ...     arrays = {"F": {trial: model("F", trial) for trial in trials}}
    ...     from_arrays("mine", store, arrays, response_units="standardized")
    ...     write_submission("mine", store, track="main", out="submission")
    """
    return write_arrays(
        os.fspath(url),
        store,
        arrays,
        response_units=response_units,
        attributes=attributes,
        lock=lock,
        progress=progress,
        name_array=None,
    )


def write_arrays(
    url: str,
    store: StoreLike,
    arrays: Mapping[str, Mapping[int, npt.ArrayLike]],
    *,
    response_units: ResponseUnits,
    attributes: Mapping[str, Any] | None,
    lock: bool,
    progress: Progress,
    name_array: Callable[[str, int], Path] | None,
) -> ArraysReport:
    """Do what :func:`from_arrays` does.

    Parameters
    ----------
    url, store, arrays, response_units, attributes, lock, progress
        As :func:`from_arrays` takes them.
    name_array : callable, optional
        Returns the file that a trial's array is expected in, by the session's key in ``arrays`` and the trial's id.
    """
    if len({find_session(name) for name in arrays}) < len(arrays):
        raise UsageError("a session is named twice", found=", ".join(arrays), remedy="name it by its alias or in full")
    opened = open_store(store)
    lengths: dict[str, dict[int, int]] = {}
    n_neurons: dict[str, int] = {}
    valid: dict[str, dict[int, str]] = {}
    tiers: set[str] = set()
    for name, trials in arrays.items():
        recorded = opened[name]
        ids = recorded["trial"].values.tolist()
        n_neurons[name] = recorded.sizes["neuron"]
        lengths[name] = dict(zip(ids, recorded["n_frames"].values.tolist(), strict=True))
        for trial in trials:
            if trial not in lengths[name] or isinstance(trial, bool | np.bool_):
                raise PredictionsError(
                    "no such trial",
                    session=find_session(name),
                    trial=trial,
                    path=opened.url,
                    remedy="name trials by their ids in the archive",
                )
        # By their keys: asking a mapping whether it holds a trial may make it load the array.
        named = set(trials)
        tier_of = dict(zip(ids, recorded["tier"].values.tolist(), strict=True))
        tiers.update(tier_of[trial] for trial in named)
        valid[name] = {trial: tier_of[trial] for trial in recorded["trial"].values[recorded["valid"].values].tolist()}
    writer = create_predictions(
        url,
        store=opened,
        sessions=arrays,
        tiers=sort_tiers(tiers),
        response_units=response_units,
        attributes=attributes,
        lock=lock,
    )
    for name, trials in arrays.items():
        wanted = [trial for trial, tier in valid[name].items() if tier in tiers]
        _require_all(name, sorted({*wanted}.difference(trials)), len(wanted), name_array)
    n_total = sum(map(len, arrays.values()))
    if _holds(url, writer.attributes, arrays, progress):
        return ArraysReport("already done", n_total)
    with writer:
        n_done = 0
        for name, trials in arrays.items():
            for trial, values in trials.items():
                prediction = _as_array(values)
                n_frames = lengths[name][trial]
                path = None if name_array is None else name_array(name, trial)
                _require_shape(prediction.shape, n_neurons[name], n_frames, find_session(name), trial, path)
                writer.write_trial(name, trial, prediction, first_frame=n_frames - prediction.shape[1])
                n_done += 1
                progress("write predictions", n_done, n_total)
    return ArraysReport("written", n_total)


def _as_array(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return values as an array; those that are masked are missing, and not what lies under the mask."""
    if np.ma.is_masked(values):
        return np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
    return np.asarray(values)


def _require_all(
    name: str, missing: Sequence[int], n_wanted: int, name_array: Callable[[str, int], Path] | None
) -> None:
    """Raise a :class:`PredictionsError` if a session's trials are missing."""
    if not missing:
        return
    raise PredictionsError(
        "not every trial of the tiers was predicted",
        session=find_session(name),
        trial=missing[0],
        path=None if name_array is None else name_array(name, missing[0]),
        found=f"{count_things(len(missing), 'trial')} missing: {_list_some(missing)}",
        expected=count_things(n_wanted, "trial"),
        remedy="add the trial's array" if name_array is None else "save the trial's array in this file",
    )


def _require_shape(
    shape: tuple[int, ...], n_neurons: int, n_frames: int, session: Session, trial: int, path: Path | None
) -> None:
    """Raise a :class:`PredictionsError` if an array's shape is not (neurons, up to as many frames as the trial has)."""

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and shape[0] == n_neurons and 0 < shape[1] <= n_frames

    if fits(shape):
        return
    raise PredictionsError(
        "wrong shape of a prediction",
        session=session,
        trial=trial,
        path=path,
        found=shape,
        expected=f"({n_neurons}, 1 to {n_frames}), neurons by frames",
        remedy="transpose it"
        if fits(shape[::-1])
        else "give every neuron, and frames that end with the trial's last valid one",
    )


def _list_some(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials[:_MOST_LISTED])) + (", …" if len(trials) > _MOST_LISTED else "")


def _holds(
    url: str,
    attributes: Mapping[str, Any],
    arrays: Mapping[str, Mapping[int, npt.ArrayLike]],
    progress: Progress,
) -> bool:
    """Whether finished predictions with these attributes and values lie there."""
    try:
        found = predictions_attributes(url)
    except PredictionsError:
        return False  # Whatever else lies there, the writer says so.
    # Every version that can be read holds values alike.
    if {**found, "content_digest": None, "schema_version": None} != {
        **attributes,
        "content_digest": None,
        "schema_version": None,
    }:
        return False
    n_done, n_total = 0, sum(map(len, arrays.values()))
    for session, trials in arrays.items():
        stored = open_predictions(url, session)
        n_frames = dict(zip(stored["trial"].values.tolist(), stored["n_frames"].values.tolist(), strict=True))
        if set(trials) != set(stored["trial"].values[stored["valid"].values].tolist()):
            return False
        for trial, values in trials.items():
            block = stored["predictions"].sel(trial=trial).values
            given = _as_array(values)
            expected = np.full_like(block, np.nan)
            last = n_frames[trial]
            if given.ndim != 2 or given.shape[0] != block.shape[0] or given.shape[1] > last:
                return False
            if given.dtype.kind not in "fiu":
                return False
            with np.errstate(over="ignore"):
                expected[:, last - given.shape[1] : last] = given
            if not np.array_equal(block, expected, equal_nan=True):
                return False
            n_done += 1
            progress("compare predictions", n_done, n_total)
    return True
