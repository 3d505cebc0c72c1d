"""Writing a corrected copy of a submission: whatever can be put right without guessing, and nothing else.

Names, packing, columns too many, the order of rows and of neurons, the spelling of trials and sessions, and predictions
that are (frames, neurons) are put right, because what is meant can be told from the session stores. Values are
never changed, no row is invented, and rows of unknown sessions or trials are left out and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensorium_data.errors import SubmissionError
from sensorium_data.files import LocalObjects
from sensorium_data.frames import (
    COLUMNS,
    FRAMES_PROFILES,
    MEMBER_NAMES,
    PARQUET_MAGIC,
    ZIP_MAGIC,
    FloatType,
    FramesProfile,
    frames_of,
    member_tiers,
    zip_members,
)
from sensorium_data.progress import Progress, ignore_progress
from sensorium_data.sessions import SESSIONS, Release, Tier, Track
from sensorium_data.store import Store, StoreLike, exclusive_access, open_store
from sensorium_data.submission.expectation import ExpectedSession, full_name_of, parse_trial, read_expectation
from sensorium_data.submission.findings import ValidationReport
from sensorium_data.submission.parquet import PredictionsFile
from sensorium_data.submission.spool import RowSpool, SpooledRow
from sensorium_data.submission.validation import validate_files
from sensorium_data.submission.writer import PredictionsTable, write_zip
from sensorium_data.submission.zip import is_predictions_file, open_member, open_zip, printable_name, split_member_name

__all__ = ["RepairReport", "repair_submission"]

_SPOOL = "repair.partial"
_Opener = Callable[[], Path | IO[bytes]]


@dataclass(frozen=True)
class RepairReport:
    """What :func:`repair_submission` did.

    Attributes
    ----------
    files : tuple of str
        The zips of the copy.
    corrections : tuple of str
        What was put right, in sentences.
    left_out : tuple of str
        What is not in the copy, and why.
    validation : ValidationReport
        What the validator finds in the copy; what could not be put right is among its violations.
    """

    files: tuple[str, ...]
    corrections: tuple[str, ...]
    left_out: tuple[str, ...]
    validation: ValidationReport

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "passed": self.validation.passed,
            "files": list(self.files),
            "corrections": list(self.corrections),
            "left_out": list(self.left_out),
            **self.validation.to_dict(),
        }


def repair_submission(
    paths: Sequence[str | Path],
    store: StoreLike,
    *,
    out: str | Path,
    frames: FramesProfile | None = None,
    progress: Progress = ignore_progress,
) -> RepairReport:
    """Write a corrected copy of submission files, and validate it.

    Rows are sorted into files by the tier of their trials, whatever the files were called. Memory holds a few rows;
    the disk, for a while, all values without compression beside the zips.

    Parameters
    ----------
    paths : sequence of path
        Zips or bare predictions files, of one submission: all their rows go into one copy.
    store : Store or path
        The session stores.
    out : path
        Folder for the zips; made if it does not exist. None of the zips may be there yet.
    frames : str, optional
        The frames profile that the validator insists on.
    progress : Progress
        Told after every row.

    Raises
    ------
    SubmissionError
        If a file cannot be opened, a zip is there already or would be too large, or no row can be used.
    StoreError
        If the store cannot be read.
    """
    opened = open_store(store)
    expected = read_expectation(opened)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_access(LocalObjects(folder), "repair"), RowSpool(folder / _SPOOL) as spool:
            _require_no_zip(folder)
            repair = _Repair(expected, spool, progress)
            for path in map(Path, paths):
                repair.take_file(path)
            files = repair.write(folder, opened, frames)
    except OSError as error:
        raise SubmissionError(
            "the corrected copy cannot be written",
            path=error.filename or folder,
            found=error.strerror,
            remedy="check that the files exist, and the space and the permissions in the folder",
        ) from error
    return files


class _Repair:
    def __init__(self, expected: Mapping[str, ExpectedSession], spool: RowSpool, progress: Progress) -> None:
        self._expected = expected
        self._spool = spool
        self._progress = progress
        self._rows: dict[Tier, list[SpooledRow]] = {}
        #: How many rows each correction and each omission was for; 0 if it was for a file as a whole.
        self._corrections: Counter[tuple[str, str]] = Counter()
        self._omissions: Counter[tuple[str, str]] = Counter()

    def take_file(self, path: Path) -> None:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic in ZIP_MAGIC:
            self._take_zip(path)
        elif magic == PARQUET_MAGIC:
            self._correct(path.name, "packed into a zip", n_rows=0)
            self._take_table(path.name, path.name, lambda: path)
        else:
            self._omit(path.name, "it is neither a zip nor a Parquet file", n_rows=0)

    def _take_zip(self, path: Path) -> None:
        try:
            archive = open_zip(path)
        except SubmissionError as error:
            self._omit(path.name, str(error), n_rows=0)
            return
        with archive:
            for info in archive.infolist():
                folder, name = split_member_name(info.filename)
                label = f"{path.name}: {printable_name(info.filename)}"
                if not is_predictions_file(folder, name):
                    self._correct(label, "no predictions file, left out", n_rows=0)
                    continue
                if folder:
                    self._correct(label, "taken out of its folder", n_rows=0)
                try:
                    with open_member(archive, path, info) as open_source:
                        self._take_table(label, name, open_source)
                except SubmissionError as error:
                    self._omit(label, str(error), n_rows=0)

    def _take_table(self, label: str, name: str, open_source: _Opener) -> None:
        named_for = member_tiers().get(name)
        if named_for is None:
            self._correct(label, "named as the server wants it", n_rows=0)
        previous: dict[Tier, SpooledRow] = {}
        try:
            for n_done, n_rows, cells in self._iterate_rows(label, open_source):
                placed = self._take_row(label, cells)
                if placed is not None:
                    tier, row = placed
                    if named_for not in (None, tier):
                        self._correct(label, f"put into the file of {tier}")
                    if tier in previous and previous[tier].sort_key > row.sort_key:
                        self._correct(label, "brought into the order of sessions and trials")
                    previous[tier] = row
                self._progress(f"read {name}", n_done, n_rows)
        except SubmissionError as error:
            self._omit(label, str(error), n_rows=0)

    def _iterate_rows(self, label: str, open_source: _Opener) -> Iterator[tuple[int, int, pa.StructScalar]]:
        """Yield the rows of a file, each with its number from 1 and the number of all."""
        try:
            with PredictionsFile(open_source) as table:
                names = table.schema.names
                lacking = [column for column in COLUMNS if names.count(column) != 1]
                if lacking:
                    raise SubmissionError(f"there is not one column {' and one '.join(lacking)}")
                if set(names) != set(COLUMNS):
                    self._correct(label, "columns too many left out", n_rows=0)
                if table.codec not in (None, "BROTLI"):
                    self._correct(label, f"compressed with brotli instead of {table.codec}", n_rows=0)
                for n_done, cells in enumerate(table.iterate_rows(COLUMNS), 1):
                    yield n_done, table.n_rows, cells
        # Damaged files fail in any of these ways, according to which bytes are damaged.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SubmissionError("the rest cannot be read as Parquet", found=reason) from error

    def _take_row(self, label: str, cells: pa.StructScalar) -> tuple[Tier, SpooledRow] | None:
        """Keep a row, corrected, unless nobody knows what it is or it cannot be written."""
        mouse, given_trial = cells["mouse"].as_py(), cells["trial_indices"].as_py()
        name = full_name_of(mouse)
        session = self._expected.get(name)
        if session is None:
            known = SESSIONS.get(name)
            if known is not None and known.release is Release.OLD:
                self._correct(label, f"left out, session {known.alias} is not scored")
            else:
                self._omit(label, f"the store has no session {mouse!r}")
            return None
        if name != mouse:
            self._correct(label, "given the session's full name")
        trial = parse_trial(_as_whole_number(given_trial))
        tier = session.tiers.get(trial) if trial is not None else None
        if trial is None or tier is None or tier not in MEMBER_NAMES:
            self._omit(label, f"session {session.session.alias} has no trial {given_trial!r} in a test tier")
            return None
        if type(given_trial) is not int:
            self._correct(label, "given the trial's number")
        values, neurons = _read_values(cells["prediction"]), _read_neurons(cells["neuron_ids"])
        if isinstance(values, str) or isinstance(neurons, str):
            reason = values if isinstance(values, str) else neurons
            self._omit(label, f"session {session.session.alias}, trial {trial}: {reason}")
            return None
        values, neurons = self._orient(label, session, trial, values, neurons)
        row = self._spool.add(session.session, trial, values, neurons)
        rows = self._rows.setdefault(tier, [])
        if any(other.sort_key == row.sort_key and other.digest == row.digest for other in rows):
            self._correct(label, "left out, the same row is there already")
            return None
        rows.append(row)
        return tier, row

    def _orient(
        self,
        label: str,
        session: ExpectedSession,
        trial: int,
        values: npt.NDArray[np.floating],
        neurons: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
        """Return values and unit ids with the neurons first and in the store's order, where both can be told."""
        shapes = {(session.neurons.size, len(frames_of(p, session.n_frames[trial]))) for p in FRAMES_PROFILES}
        if values.shape not in shapes and values.shape[::-1] in shapes:
            values = values.T
            self._correct(label, "transposed, neurons first")
        if np.array_equal(neurons, session.neurons) or values.shape[0] != neurons.size:
            return values, neurons
        by_id, wanted = np.argsort(neurons), np.argsort(session.neurons)
        if not np.array_equal(neurons[by_id], session.neurons[wanted]):
            return values, neurons
        order = np.empty_like(by_id)
        order[wanted] = by_id
        self._correct(label, "neurons brought into the store's order, with their predictions")
        return values[order], neurons[order]

    def write(self, folder: Path, store: Store, frames: FramesProfile | None) -> RepairReport:
        """Write the rows that were kept into zips, validate these, and give them their names."""
        tables = {
            name: [self._table(tier) for tier in tiers if tier in self._rows]
            for track in Track
            for name, tiers in zip_members(track).items()
            if any(tier in self._rows for tier in tiers)
        }
        if not tables:
            raise SubmissionError(
                "no row of a submission in these files",
                found="; ".join(_tell(self._omissions)) or "nothing",
                remedy="give predictions files or their zips, and the store of the same sessions",
            )
        partial = {name: folder / f"{name}.partial" for name in tables}
        n_rows, n_written = sum(map(len, self._rows.values())), 0

        def count_row() -> None:
            nonlocal n_written
            n_written += 1
            self._progress("write corrected copy", n_written, n_rows)

        try:
            for name, members in tables.items():
                write_zip(partial[name], name, members, count_row)
            validation = validate_files(partial, store, frames=frames, progress=self._progress)
            for name, path in partial.items():
                path.replace(folder / name)
        finally:
            for path in partial.values():
                path.unlink(missing_ok=True)
        return RepairReport(
            files=tuple(str(folder / name) for name in tables),
            corrections=tuple(_tell(self._corrections)),
            left_out=tuple(_tell(self._omissions)),
            validation=validation,
        )

    def _table(self, tier: Tier) -> PredictionsTable:
        rows = sorted(self._rows[tier], key=lambda row: row.sort_key)
        float_type: FloatType = "float64" if any(row.float_type == "float64" for row in rows) else "float32"
        n_values = sum(row.shape[0] * row.shape[1] for row in rows)
        return PredictionsTable(MEMBER_NAMES[tier], float_type, n_values, lambda: self._spool.read(rows))

    def _correct(self, label: str, what: str, *, n_rows: int = 1) -> None:
        self._corrections[label, what] += n_rows

    def _omit(self, label: str, why: str, *, n_rows: int = 1) -> None:
        self._omissions[label, why] += n_rows


def _require_no_zip(folder: Path) -> None:
    """Refuse a folder that holds a zip of this kind already: it may be the one that is to be corrected."""
    for name in (name for track in Track for name in zip_members(track)):
        if (folder / name).exists():
            raise SubmissionError("there is a zip already", path=folder / name, remedy="name another folder")


def _tell(counter: Counter[tuple[str, str]]) -> Iterator[str]:
    for (label, what), n_rows in counter.items():
        of = f" ({n_rows} {'row' if n_rows == 1 else 'rows'})" if n_rows else ""
        yield f"{label}: {what}{of}"


def _as_whole_number(value: object) -> object:
    """Return the integer that a float is, or the value as it is: an index with gaps makes pandas write floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read_values(cell: pa.Scalar) -> npt.NDArray[np.floating] | str:
    """Return a prediction as an array of two dimensions, or why it is none."""
    try:
        traces = cell.values
        if traces is None or traces.null_count:
            return "a prediction is missing"
        lengths = np.unique(pc.list_value_length(traces).to_numpy(zero_copy_only=False))
        values = traces.flatten()
    except (AttributeError, pa.ArrowException):
        return "the prediction is no list of lists"
    if lengths.size > 1:
        return "the neurons of a prediction have different numbers of frames"
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        array: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
        shape = (len(traces), array.size // max(1, len(traces)))
        if array.dtype in (np.float16, np.float32):
            return np.asarray(array, np.float32).reshape(shape)
        return np.asarray(array, np.float64).reshape(shape)
    return "the predicted values are no numbers"


def _read_neurons(cell: pa.Scalar) -> npt.NDArray[np.int64] | str:
    """Return unit ids, or why they are none."""
    try:
        ids = cell.values
    except AttributeError:
        return "the neuron ids are no list"
    if ids is None or ids.null_count:
        return "neuron ids are missing"
    if not pa.types.is_integer(ids.type):
        return "the neuron ids are no integers"
    return np.asarray(ids.to_numpy(zero_copy_only=False), np.int64)
