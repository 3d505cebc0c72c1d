"""Simulated recordings in a directory: which there are, and making those that are missing."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

from sensorium_data.errors import StoreError, UnknownNameError, UsageError, describe_os_error
from sensorium_data.files import (
    IrregularFileError,
    LocalObjects,
    delete_temporaries,
    describe_damage,
    digest_file,
    digest_stream,
    make_folder,
    open_regular,
    parse_json,
    read_regular,
    refuse_owned_folder,
)
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import Session, is_full_name
from sensorium_data.simulation.plan import plan_session
from sensorium_data.simulation.recording import BehaviorPadding, record_session
from sensorium_data.simulation.truth import TRUTH_FOLDER, is_whole_truth, publish_truth_root
from sensorium_data.simulation.version import SIMULATOR_VERSION
from sensorium_data.store import METADATA_KEY, exclusive_access

__all__ = [
    "RECORD_NAME",
    "SIMULATION_LOCK",
    "SimulatedSession",
    "SimulationReport",
    "is_written_here",
    "simulate",
]

#: The file beside the archives that says what they were simulated with, and which are finished.
RECORD_NAME = "simulation.json"
#: The lock that whoever simulates into a directory holds.
SIMULATION_LOCK = "simulation"

_ARCHIVE_ENDING = ".zip"

# The competition's trials were cut there before its statistics were computed.
_N_STATISTICS_FRAMES = 300


@dataclass(frozen=True)
class SimulatedSession:
    """One simulated session.

    Attributes
    ----------
    alias, name : str
        The published session that it imitates.
    n_trials, n_neurons : int
        Trials with files, and neurons.
    path : str
        Its archive.
    size_bytes : int
        The archive's size.
    """

    alias: str
    name: str
    n_trials: int
    n_neurons: int
    path: str
    size_bytes: int


@dataclass(frozen=True)
class SimulationReport:
    """What :func:`simulate` made or found.

    Attributes
    ----------
    directory : str
        Where the archives are.
    truth : str
        Root of the truth, for :func:`sensorium_data.simulation.open_truth`.
    sessions : tuple of SimulatedSession
        Those asked for.
    status : str
        ``"simulated"``, or ``"already done"`` where nothing was left to do.
    """

    directory: str
    truth: str
    sessions: tuple[SimulatedSession, ...]
    status: str


def simulate(
    directory: str | Path,
    *,
    sessions: Sequence[Session],
    n_trials: int | None = None,
    n_neurons: int | None = None,
    seed: int = 0,
    jobs: int = 2,
    zip64: bool = False,
    behavior_padding: BehaviorPadding = "nan",
    n_statistics_frames: int | None = _N_STATISTICS_FRAMES,
    progress: Progress = ignore_progress,
) -> SimulationReport:
    """Write archives in GIN's layout, with every quirk of the published ones, and the truth behind them.

    The recordings are invented: moving textures and the five out-of-distribution classes, shown to neurons with
    known receptive fields. They bear the published sessions' names. How active and variable the neurons are,
    how the mouse runs and how wide its pupil is, follows the statistics published of each session. What the
    neurons respond to is simpler than in the brain, so that a small model learns them in minutes: scores on
    simulated recordings say nothing about scores on the real ones.

    A session's clips follow each other without a gap, in one of the two orders in which the ten mice saw them, and
    behavior goes on from one to the next. Trial ids follow each release's rule. ``trial_idx.npy`` is in the new
    release's archives alone, as published.

    The archives' statistics are computed over the valid trials *before* responses are withheld, as the
    competition's organizers did: over the few trials that are left, a frame's std could be tiny by chance and blow
    up the standardized responses of the others. They are NaN from frame 300 on, as the published ones very probably
    are: longer trials were cut there.

    The trials' arrays are float32 in sessions A to E and float64 in F to J, as in the two releases.

    Parameters
    ----------
    directory : path
        Gets ``<session name>.zip`` for each session, the folder ``truth``, and ``simulation.json``.
    sessions : sequence of Session
        Which to imitate. More can be added later with the same parameters.
    n_trials, n_neurons : int, optional
        Trials (over all tiers, in the published proportions) and neurons a session; as many as published by default.
    seed : int
        The same seed gives the same bytes, whatever ``jobs``; the two sessions of a pair share nearly all movies.
    jobs : int
        Trials made at the same time.
    zip64 : bool
        Write Zip64 fields also in small archives.
    behavior_padding : {"nan", "finite"}
        What behavior holds past the valid frames: NaN, as the other modalities do, or the mouse's behavior after the
        stimulus. Which of them the published archives have is not known for sure.
    n_statistics_frames : int, optional
        Frames that the statistics cover; None for all frames that a trial has.
    progress : Progress
        Told after each trial, and after the statistics of each modality.

    Returns
    -------
    SimulationReport
        A session that the directory holds already is not made again. Its archive is read once to see that it is the
        one that was simulated.

    Raises
    ------
    UsageError
        If a number makes no sense, if a session is none of the published ones, or if the directory holds a simulation
        with other parameters, or an archive of one of the sessions that no simulation wrote or that was changed since.
    StoreError
        If the directory cannot be written.
    """
    _check_arguments(
        sessions,
        seed=seed,
        behavior_padding=behavior_padding,
        trials=n_trials,
        neurons=n_neurons,
        jobs=jobs,
        frames_with_statistics=n_statistics_frames,
    )
    directory = Path(os.path.expanduser(directory))
    parameters = {
        "simulator_version": SIMULATOR_VERSION,
        "seed": seed,
        "n_trials": n_trials,
        "n_neurons": n_neurons,
        "zip64": zip64,
        "behavior_padding": behavior_padding,
        "n_statistics_frames": n_statistics_frames,
    }
    record, missing = _find_missing(directory, sessions, parameters)
    status, truth = "simulated" if missing else "already done", directory / TRUTH_FOLDER
    if missing:
        refuse_owned_folder(directory, "simulated archives")
        with _explain_failures(missing[0], directory):
            make_folder(directory)
        place = LocalObjects(directory)
        waiting = "wait for another simulation"
        with exclusive_access(place, SIMULATION_LOCK, waiting=waiting, progress=progress):
            # Another simulation may have made some of them meanwhile.
            if _read_record(directory, parameters) != record:
                record, missing = _find_missing(directory, sessions, parameters)
            for session in missing:
                path = _archive_path(directory, session)
                record[session.name] = None
                with _explain_failures(session, directory):
                    delete_temporaries(directory, is_written_here)
                    _write_record(directory, parameters, record)
                    plan = plan_session(session, n_trials=n_trials, n_neurons=n_neurons, seed=seed)
                    record_session(
                        plan,
                        path,
                        truth,
                        jobs=jobs,
                        zip64=zip64,
                        behavior_padding=behavior_padding,
                        n_statistics_frames=n_statistics_frames,
                        simulator_version=SIMULATOR_VERSION,
                        progress=progress,
                    )
                    publish_truth_root(truth)
                    record[session.name] = _Row(
                        len(plan.trials), plan.n_neurons, path.stat().st_size, digest_file(path)
                    )
                    _write_record(directory, parameters, record)
    finished = {name: row for name, row in record.items() if row is not None}
    return SimulationReport(
        directory=str(directory),
        truth=str(truth),
        sessions=tuple(_report_session(directory, session, finished[session.name]) for session in sessions),
        status=status,
    )


def is_written_here(name: str) -> bool:
    """Whether a simulation writes files of this name: its record, and archives of sessions."""
    session, is_archive, rest = name.partition(_ARCHIVE_ENDING)
    return name == RECORD_NAME or bool(is_archive and not rest and is_full_name(session))


@contextmanager
def _explain_failures(session: Session, directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            "the simulated session cannot be written",
            session=session,
            path=error.filename or directory,
            found=describe_os_error(error),
            remedy="name another folder"
            if isinstance(error, NotADirectoryError)
            else "check the space and the permissions there, and run it again: finished sessions are kept",
        ) from error


def _check_arguments(sessions: Sequence[Session], *, seed: int, behavior_padding: str, **counts: int | None) -> None:
    if not sessions:
        raise UsageError("no session to simulate", remedy="name at least one, e.g. F")
    unknown = [session.name for session in sessions if not session.is_described]
    if unknown:
        raise UsageError(
            "only published sessions can be simulated",
            found=", ".join(unknown),
            expected="sessions of A to J, whose trials and neurons are known",
            remedy="name one of them; --trials and --neurons make it small",
        )
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(
                f"the number of {name.replace('_', ' ')} makes no sense", found=value, expected="at least 1"
            )
    if behavior_padding not in get_args(BehaviorPadding):
        raise UnknownNameError.of("padding of behavior", behavior_padding, get_args(BehaviorPadding))
    if seed < 0:
        raise UsageError("the seed makes no sense", found=seed, expected="0 or more")


@dataclass(frozen=True)
class _Row:
    """What the record says of a finished session."""

    n_trials: int
    n_neurons: int
    size_bytes: int
    #: SHA-256 of the archive; earlier versions kept none.
    digest: str = ""


#: By session name; None for a session that was begun.
_Record = dict[str, _Row | None]


def _find_missing(
    directory: Path, sessions: Sequence[Session], parameters: Mapping[str, Any]
) -> tuple[_Record, list[Session]]:
    """Return what the directory holds of a simulation with these parameters, and the sessions that it lacks."""
    record = _read_record(directory, parameters)
    for session in sessions:
        _refuse_foreign_archive(directory, session, record)
    missing = [session for session in sessions if not _is_whole(directory, session, record)]
    for session in missing:
        _refuse_foreign_truth(directory, session, record)
    return record, missing


def _read_record(directory: Path, parameters: Mapping[str, Any]) -> _Record:
    """Return what the directory holds of a simulation with these parameters."""
    path = directory / RECORD_NAME
    try:
        if path.is_symlink():
            raise IrregularFileError(path, "a link")
        stored = parse_json(read_regular(path))
        found = dict(stored["parameters"])
        record = {name: None if row is None else _Row(**row) for name, row in stored["sessions"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "the record of a simulation cannot be read",
            path=path,
            found=describe_os_error(error) if isinstance(error, OSError) else describe_damage(error),
            remedy="choose another directory",
        ) from error
    differing = [name for name in parameters if found.get(name) != parameters[name]]
    if "simulator_version" in differing:
        # Another version's parameters have other names and meanings.
        differing = ["simulator_version"]
    if differing:
        raise UsageError(
            "the directory holds a simulation with other parameters",
            path=directory,
            found=", ".join(f"{name} {_say(found.get(name))}" for name in differing),
            expected=", ".join(f"{name} {_say(parameters[name])}" for name in differing),
            remedy="choose another directory",
        )
    return record


def _say(value: object) -> object:
    return "as published" if value is None else value


def _write_record(directory: Path, parameters: Mapping[str, Any], record: _Record) -> None:
    rows = {name: None if row is None else asdict(row) for name, row in sorted(record.items())}
    document = {"parameters": dict(parameters), "sessions": rows}
    LocalObjects(directory).write(RECORD_NAME, json.dumps(document, indent=2).encode())


def _archive_path(directory: Path, session: Session) -> Path:
    return directory / f"{session.name}{_ARCHIVE_ENDING}"


def _is_whole(directory: Path, session: Session, record: _Record) -> bool:
    is_recorded = record.get(session.name) is not None and _archive_path(directory, session).is_file()
    return is_recorded and is_whole_truth(directory / TRUTH_FOLDER, session)


def _refuse_foreign_archive(directory: Path, session: Session, record: _Record) -> None:
    """Raise where what has the archive's name is not what a simulation wrote there: it may be the recording."""
    archive = _archive_path(directory, session)
    try:
        with open(open_regular(archive), "rb") as file:
            row = record.get(session.name)
            size_bytes = os.fstat(file.fileno()).st_size
            if row is None:
                is_own = session.name in record and _says_simulated(file, session)
            else:
                is_own = size_bytes == row.size_bytes and row.digest in ("", digest_stream(file))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(
            "the archive cannot be read",
            session=session,
            path=archive,
            found=describe_os_error(error),
            remedy="move it, or choose another directory",
        ) from error
    if not is_own:
        raise UsageError(
            "an archive that no simulation wrote" if row is None else "the archive was changed since it was simulated",
            session=session,
            path=archive,
            found=None if row is None or size_bytes == row.size_bytes else f"{size_bytes:,} bytes",
            expected=None if row is None else f"{row.size_bytes:,} bytes with the digest in {RECORD_NAME}",
            remedy="choose another directory"
            if row is None
            else "move it to have it made anew, or choose another directory",
        )


def _refuse_foreign_truth(directory: Path, session: Session, record: _Record) -> None:
    """Raise where something has the name of a session's truth, or of the root's, and no simulation wrote it."""
    truth = directory / TRUTH_FOLDER
    for path in (truth / session.name, truth / METADATA_KEY):
        is_of_simulation = record if path.name == METADATA_KEY else session.name in record
        if not is_of_simulation and os.path.lexists(path):
            raise UsageError(
                "something that no simulation wrote has the name of its truth",
                session=session,
                path=path,
                remedy="choose another directory",
            )


def _says_simulated(file: BinaryIO, session: Session) -> bool:
    """Whether an archive says that it is simulated: a simulation that was killed may have finished it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return bool(parse_json(archive.read(f"{session.name}/config.json"))["simulated"])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, KeyError, TypeError):
        return False


def _report_session(directory: Path, session: Session, row: _Row) -> SimulatedSession:
    return SimulatedSession(
        alias=session.alias,
        name=session.name,
        n_trials=row.n_trials,
        n_neurons=row.n_neurons,
        path=str(_archive_path(directory, session)),
        size_bytes=row.size_bytes,
    )
