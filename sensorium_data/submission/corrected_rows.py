"""The rows of anybody's submission files, put right where that needs no guessing; what was done is noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensorium_data.errors import SubmissionError
from sensorium_data.frames import (
    COLUMNS,
    ENCRYPTED_PARQUET_MAGIC,
    FRAMES_PROFILES,
    MEMBER_NAMES,
    PARQUET_MAGIC,
    ZIP_MAGIC,
    FloatType,
    frames_of,
    member_tiers,
)
from sensorium_data.progress import Progress
from sensorium_data.sessions import SESSIONS, Release, Tier
from sensorium_data.submission.cells import read_label, read_neurons, read_prediction
from sensorium_data.submission.expectation import ExpectedSession, full_name_of, parse_trial
from sensorium_data.submission.reader import ParquetReader
from sensorium_data.submission.section import FileSection, read_magic
from sensorium_data.submission.spool import RowSpool, SpooledRow
from sensorium_data.submission.writer import PredictionsTable
from sensorium_data.submission.zip import list_members, open_member, open_zip

__all__ = ["CorrectedRows"]


class CorrectedRows:
    """Takes the rows of files, puts them right, and keeps them on the disk.

    Parameters
    ----------
    expected : mapping of str to ExpectedSession
        The scored sessions of the store, by full name.
    reader : ParquetReader
        What reads the files.
    spool : RowSpool
        Where the values are kept.
    progress : Progress
        Told after every row.
    """

    def __init__(
        self, expected: Mapping[str, ExpectedSession], reader: ParquetReader, spool: RowSpool, progress: Progress
    ) -> None:
        self._expected = expected
        self._reader = reader
        self._spool = spool
        self._progress = progress
        self._rows: dict[Tier, list[SpooledRow]] = {}
        self._labels: dict[Tier, dict[str, None]] = {}
        self._known: set[tuple[str, int, bytes]] = set()
        #: How many rows each correction and each omission was for; 0 if it was for a file as a whole.
        self._corrections: Counter[tuple[str, str]] = Counter()
        self._omissions: Counter[tuple[str, str]] = Counter()

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that there are rows of."""
        return tuple(self._rows)

    @property
    def n_rows(self) -> int:
        """Number of rows that were kept."""
        return sum(map(len, self._rows.values()))

    @property
    def corrections(self) -> tuple[str, ...]:
        """What was put right, in sentences."""
        return tuple(_tell(self._corrections))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was not kept, and why, in sentences."""
        return tuple(_tell(self._omissions))

    def take_file(self, path: Path) -> None:
        """Take the rows of a zip or a predictions file."""
        magic = read_magic(path)
        if magic in ZIP_MAGIC:
            self._take_zip(path)
        elif magic in (PARQUET_MAGIC, ENCRYPTED_PARQUET_MAGIC):
            self._correct(path.name, "packed into a zip", n_rows=0)
            self._take_table(path.name, path.name, FileSection(path))
            self._forget_unless_kept(path.name)
        else:
            self._omit(path.name, "it is neither a zip nor a Parquet file", n_rows=0)

    def make_table(self, tier: Tier) -> PredictionsTable:
        """Return a tier's rows as a predictions file to be written."""
        rows = sorted(self._rows[tier], key=lambda row: row.sort_key)
        float_type: FloatType = "float64" if any(row.float_type == "float64" for row in rows) else "float32"
        n_widened = sum(row.float_type != float_type for row in rows)
        name = MEMBER_NAMES[tier]
        if n_widened:
            self._correct(name, "float32 values written as float64, as those of the other rows", n_rows=n_widened)
        if len(self._labels[tier]) > 1:
            self._correct(name, f"put together from {', '.join(self._labels[tier])}", n_rows=len(rows))
        n_values = sum(row.shape[0] * row.shape[1] for row in rows)
        return PredictionsTable(name, float_type, n_values, lambda: self._spool.read(rows))

    def _take_zip(self, path: Path) -> None:
        try:
            archive = open_zip(path)
        except SubmissionError as error:
            self._omit(path.name, str(error), n_rows=0)
            return
        with archive:
            for member in list_members(archive):
                label = f"{path.name}: {member.printable_name}"
                if not member.is_predictions:
                    self._correct(label, "no predictions file, left out", n_rows=0)
                    continue
                if member.folder:
                    self._correct(label, "taken out of its folder", n_rows=0)
                try:
                    with open_member(archive, path, member.info) as section:
                        self._take_table(label, member.name, section)
                except SubmissionError as error:
                    self._omit(label, str(error), n_rows=0)
                self._forget_unless_kept(label)

    def _take_table(self, label: str, name: str, section: FileSection) -> None:
        named_for = member_tiers().get(name)
        if named_for is None:
            self._correct(label, "named as the server wants it", n_rows=0)
        previous: dict[Tier, SpooledRow] = {}
        n_done = 0
        try:
            for n_done, n_rows, cells in self._iterate_rows(label, section):
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
            self._omit(label, f"rows from {n_done} on: {error}" if n_done else str(error), n_rows=0)

    def _iterate_rows(self, label: str, section: FileSection) -> Iterator[tuple[int, int, pa.StructScalar]]:
        """Yield the rows of a file, each with its number from 1 and the number of all."""
        table = self._reader.open(section)
        names = table.schema.names
        lacking = [column for column in COLUMNS if names.count(column) != 1]
        if lacking:
            raise SubmissionError(f"there is not one column {' and one '.join(lacking)}")
        if set(names) != set(COLUMNS):
            self._correct(label, "columns too many left out", n_rows=0)
        codecs = [codec for codec in table.codecs if codec != "BROTLI"]
        if codecs:
            self._correct(label, f"compressed with brotli instead of {', '.join(codecs)}", n_rows=0)
        for n_done, cells in enumerate(table.iterate_rows(COLUMNS), 1):
            yield n_done, table.n_rows, cells

    def _take_row(self, label: str, cells: pa.StructScalar) -> tuple[Tier, SpooledRow] | None:
        """Keep a row, corrected, unless nobody knows what it is or it cannot be written as it is."""
        mouse = read_label(cells["mouse"])
        name = full_name_of(mouse)
        session = self._expected.get(name)
        if session is None:
            known = SESSIONS.get(name)
            if known is not None and known.release is Release.OLD:
                self._correct(label, f"left out, session {known.alias} is not scored")
            else:
                self._omit(label, f"the store has no session {mouse!r}")
            return None
        given_trial = read_label(cells["trial_indices"])
        trial = parse_trial(given_trial)
        tier = session.tiers.get(trial) if trial is not None else None
        if trial is None or tier is None or tier not in MEMBER_NAMES:
            self._omit(label, f"session {session.session.alias} has no trial {given_trial!r} in a test tier")
            return None
        read = _read_row(cells)
        if isinstance(read, str):
            self._omit(label, f"session {session.session.alias}, trial {trial}: {read}")
            return None
        values, neurons, corrections = read
        if cells["mouse"].as_py() != name:
            corrections.append("given the session's full name")
        if not pa.types.is_integer(cells["trial_indices"].type):
            corrections.append("given the trial's number")
        values, neurons = _orient(session, trial, values, neurons, corrections)
        row = self._spool.add(session.session, trial, values, neurons)
        key = (session.session.name, trial, row.digest)
        if key in self._known:
            self._correct(label, "left out, the same row is there already")
            return None
        self._known.add(key)
        for correction in corrections:
            self._correct(label, correction)
        self._rows.setdefault(tier, []).append(row)
        self._labels.setdefault(tier, {})[label] = None
        return tier, row

    def _forget_unless_kept(self, label: str) -> None:
        """Take back what was put right of a file as a whole if the copy holds no row of it."""
        if not any(label in labels for labels in self._labels.values()):
            for key in [key for key, n_rows in self._corrections.items() if key[0] == label and n_rows == 0]:
                del self._corrections[key]

    def _correct(self, label: str, what: str, *, n_rows: int = 1) -> None:
        self._corrections[label, what] += n_rows

    def _omit(self, label: str, why: str, *, n_rows: int = 1) -> None:
        self._omissions[label, why] += n_rows


def _read_row(cells: pa.StructScalar) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64], list[str]] | str:
    """Return a row's values, its unit ids, and how their types were changed; or why it cannot be written as it is."""
    prediction, ids = read_prediction(cells["prediction"]), read_neurons(cells["neuron_ids"])
    if isinstance(prediction, str):
        return prediction
    if isinstance(ids, str):
        return ids
    type_ = prediction.value_type
    if prediction.n_frames is None:
        return "the prediction is no list of lists"
    if prediction.shape is None:
        return "the neurons of a prediction have different numbers of frames"
    if not prediction.is_exact:
        return f"float64 does not hold the predicted values of type {type_} as they are"
    if ids.size and ids.max() > np.iinfo(np.int64).max:
        return f"unit id {ids.max()} is larger than the format's int64 holds"
    conversions = []
    if prediction.n_null:
        # Pandas writes NaN so.
        conversions.append("missing values (null) written as NaN")
    if pa.types.is_float16(type_):
        conversions.append("half-precision values written as float32")
    elif pa.types.is_integer(type_):
        conversions.append(f"{type_} values written as float64")
    if not pa.types.is_integer(cells["neuron_ids"].type.value_type):
        conversions.append(f"{cells['neuron_ids'].type.value_type} unit ids written as integers")
    values = prediction.values.reshape(prediction.shape)
    if prediction.values.dtype == np.float16:
        values = values.astype(np.float32)
    return values, ids.astype(np.int64), conversions


def _orient(
    session: ExpectedSession,
    trial: int,
    values: npt.NDArray[np.floating],
    neurons: npt.NDArray[np.int64],
    corrections: list[str],
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
    """Return values and unit ids with the neurons first and in the store's order, where both can be told.

    What was done is added to the row's corrections.
    """
    shapes = {(session.neurons.size, len(frames_of(p, session.n_frames[trial]))) for p in FRAMES_PROFILES}
    if values.shape not in shapes and values.shape[::-1] in shapes:
        values = values.T
        corrections.append("transposed, neurons first")
    if np.array_equal(neurons, session.neurons) or values.shape[0] != neurons.size:
        return values, neurons
    by_id, wanted = np.argsort(neurons), np.argsort(session.neurons)
    if not np.array_equal(neurons[by_id], session.neurons[wanted]):
        return values, neurons
    order = np.empty_like(by_id)
    order[wanted] = by_id
    corrections.append("neurons brought into the store's order, with their predictions")
    return values[order], neurons[order]


def _tell(counter: Counter[tuple[str, str]]) -> Iterator[str]:
    for (label, what), n_rows in counter.items():
        of = f" ({n_rows} {'row' if n_rows == 1 else 'rows'})" if n_rows else ""
        yield f"{label}: {what}{of}"
