"""Predictions that another model has left as a folder of arrays, one file a trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sensorium_data.archive import NpyError, parse_npy
from sensorium_data.errors import PredictionsError, UnknownNameError, UsageError, describe_os_error
from sensorium_data.files import read_regular
from sensorium_data.predictions.predictions import ArraysReport, write_arrays
from sensorium_data.predictions.writer import ResponseUnits
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, find_session, parse_trial
from sensorium_data.store import StoreLike

__all__ = ["from_folder"]

_SUFFIX = ".npy"


def from_folder(
    url: str,
    store: StoreLike,
    folder: str | Path,
    *,
    response_units: ResponseUnits,
    attributes: Mapping[str, Any] | None = None,
    lock: bool = True,
    progress: Progress = ignore_progress,
) -> ArraysReport:
    """Write a predictions store from a folder of arrays; memory holds one.

    Parameters
    ----------
    url : str
        Where the store will be.
    store : Store or path
        The session stores whose trials are predicted.
    folder : path
        Holds ``<session>/<trial>.npy``: the session by alias or full name, the trial by its id, the array as
        :func:`sensorium_data.predictions.from_arrays` takes it. What begins with a dot is passed over, everything else
        has to be of this form.
    response_units, attributes, lock, progress
        As :func:`~sensorium_data.predictions.from_arrays` takes them.

    Returns
    -------
    ArraysReport
        Whether they were written or there already, and how many trials there are.

    Raises
    ------
    PredictionsError
        If something else lies in the folder, a file is damaged, or the arrays do not fit the sessions.
    UsageError
        If there is no array, or a session is there twice.
    StoreError
        If a session is not in the store.
    """
    root = Path(folder)
    arrays = {path.name: _TrialFiles(_session_of(path), path) for path in _visible_entries(root)}
    if not any(map(len, arrays.values())):
        raise UsageError(
            "no array to read", path=root, expected="SESSION/TRIAL.npy", remedy="give the folder of sessions"
        )
    return write_arrays(
        url,
        store,
        arrays,
        response_units=response_units,
        attributes=attributes,
        lock=lock,
        progress=progress,
        name_array=lambda session, trial: root / session / f"{trial}{_SUFFIX}",
    )


class _TrialFiles(Mapping[int, npt.NDArray[Any]]):
    """The arrays of a session's folder by trial id, read when they are asked for."""

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._paths = dict(sorted((_trial_of(session, path), path) for path in _visible_entries(folder)))

    def __getitem__(self, trial: int) -> npt.NDArray[Any]:
        path = self._paths[trial]
        try:
            return parse_npy(read_regular(path))
        except NpyError as error:
            problem, detail, expected = error.args
            found = f"{problem}, {detail}"
        except OSError as error:
            found, expected = describe_os_error(error), "a .npy file"
        raise PredictionsError(
            "an array cannot be read",
            session=self._session,
            trial=trial,
            path=path,
            found=found,
            expected=expected,
            remedy="write it again with numpy.save",
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _visible_entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise PredictionsError(
            "the folder of predictions cannot be read",
            path=folder,
            found=describe_os_error(error),
            expected="folders of sessions, with a file TRIAL.npy for each trial",
        ) from error


def _session_of(path: Path) -> Session:
    if not path.is_dir():
        raise PredictionsError(
            "a file beside the folders of sessions",
            path=path,
            expected="folders of sessions, with a file TRIAL.npy for each trial",
            remedy="take it out of the folder",
        )
    try:
        return find_session(path.name)
    except UnknownNameError as error:
        raise PredictionsError(
            "neither a session's alias nor its full name", path=path, found=error.found, remedy=error.remedy
        ) from error


def _trial_of(session: Session, path: Path) -> int:
    # No leading zeros: 1.npy and 01.npy would be the same trial.
    trial = parse_trial(path.stem) if path.suffix == _SUFFIX else None
    if trial is None:
        raise PredictionsError(
            "no trial's array",
            session=session,
            path=path,
            expected="the trial's number, of up to 9 digits, and .npy, as 12.npy",
            remedy="rename it, or take it out of the folder",
        )
    return trial
