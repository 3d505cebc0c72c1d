"""Writing predictions files into zips: row by row, arrays straight into list columns, the same bytes every time."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sensorium_data.errors import SubmissionError
from sensorium_data.files import sync_folder
from sensorium_data.frames import MAX_UPLOAD_SIZE_BYTES, FloatType, submission_schema

__all__ = ["PredictionsTable", "SubmissionRow", "measure_rows", "name_zips", "require_uploadable", "write_zip"]

_Item = TypeVar("_Item")

# Brotli's fastest level without a dictionary: measured on 30 trials, higher levels take twice as long for 1 %, and a
# dictionary thirteen times as long for a larger file. Plain values, because the server's pyarrow may not read others.
_PARQUET_OPTIONS: Mapping[str, Any] = {
    "compression": "brotli",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
}
# Above this, a member's size may need Zip64, which has to be announced before it is written.
_ZIP64_SIZE_BYTES = 2_000_000_000
# Fixed, so that the same predictions give the same bytes on any machine at any time.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


@dataclass(frozen=True, eq=False)
class SubmissionRow:
    """One row of a predictions file.

    Attributes
    ----------
    session : str
        The session's full name.
    trial : int
        The trial's id.
    values : np.ndarray
        (neuron, frame), floats.
    neurons : np.ndarray
        Unit ids, in the order of the values' neurons.
    """

    session: str
    trial: int
    values: npt.NDArray[np.floating]
    neurons: npt.NDArray[np.int64]

    def to_batch(self, float_type: FloatType) -> pa.RecordBatch:
        """Return a table of one row, its lists made of the arrays themselves: no Python object for each value."""
        n_neurons, n_frames = self.values.shape
        values = np.ascontiguousarray(self.values, float_type).reshape(-1)
        traces = pa.ListArray.from_arrays(
            np.arange(n_neurons + 1, dtype=np.int32) * np.int32(n_frames), pa.array(values)
        )
        whole = np.array([0, n_neurons], np.int32)
        columns = [
            pa.array([self.session], pa.string()),
            pa.array([self.trial], pa.int64()),
            pa.ListArray.from_arrays(whole, traces),
            pa.ListArray.from_arrays(np.array([0, self.neurons.size], np.int32), pa.array(self.neurons, pa.int64())),
        ]
        schema = submission_schema(float_type)
        return pa.record_batch(
            [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )


@dataclass(frozen=True, eq=False)
class PredictionsTable:
    """A predictions file to be written.

    Attributes
    ----------
    name : str
        Its name in the zip.
    float_type : str
        ``float32`` or ``float64``.
    n_values : int
        Predicted values of all rows.
    read_rows : callable
        Returns an iterator over the rows. The next row is read while the last one is compressed.
    """

    name: str
    float_type: FloatType
    n_values: int
    read_rows: Callable[[], Iterator[SubmissionRow]]

    @property
    def values_size_bytes(self) -> int:
        """Size of the values, which the compressed file hardly falls short of."""
        return self.n_values * np.dtype(self.float_type).itemsize


def write_zip(path: Path, label: str, tables: Sequence[PredictionsTable], on_row: Callable[[], None]) -> None:
    """Write predictions files into a zip.

    Memory holds about two rows, whatever the size. The members are stored: Parquet is compressed already.

    Parameters
    ----------
    path : Path
        Where to; nothing may be there.
    label : str
        What to call the zip in an error.
    tables : sequence of PredictionsTable
        Its members, in their order.
    on_row : callable
        Called after every row.

    Raises
    ------
    SubmissionError
        As soon as the zip is too large to upload.
    OSError
        If it cannot be written.
    """
    with path.open("xb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for table in tables:
                member = zipfile.ZipInfo(table.name, _ZIP_DATE)
                member.create_system = _UNIX
                member.external_attr = 0o644 << 16
                with (
                    archive.open(member, "w", force_zip64=table.values_size_bytes > _ZIP64_SIZE_BYTES) as stream,
                    pq.ParquetWriter(stream, submission_schema(table.float_type), **_PARQUET_OPTIONS) as writer,
                ):
                    for row in _read_ahead(table.read_rows()):
                        writer.write_batch(row.to_batch(table.float_type))  # A row group of its own.
                        on_row()
                        require_uploadable(label, file.tell(), tables, found="more than ")
        file.flush()
        os.fsync(file.fileno())


def name_zips(written: Mapping[str, Path], folder: Path) -> None:
    """Give written zips their names in a folder, and return when not even a power cut would undo it."""
    for name, path in written.items():
        path.replace(folder / name)
    sync_folder(folder)


def require_uploadable(label: str, size_bytes: int, tables: Sequence[PredictionsTable], *, found: str = "") -> None:
    """Raise a :class:`SubmissionError` if a zip of this size is too large to upload."""
    if size_bytes <= MAX_UPLOAD_SIZE_BYTES:
        return
    doubles = any(table.float_type == "float64" for table in tables)
    raise SubmissionError(
        "the zip is too large to upload",
        path=label,
        found=f"{found}{size_bytes:,} bytes",
        expected=f"at most {MAX_UPLOAD_SIZE_BYTES:,}",
        remedy="write float32 values"
        if doubles
        else "predict no more than the five scored sessions; the profile 50-298 holds fewer frames than official",
    )


def measure_rows(rows: Iterable[SubmissionRow], float_type: FloatType) -> float:
    """Return the bytes that a value and its share of the labels take in a predictions file, measured on some rows."""
    n_bytes = n_values = 0
    for row in rows:
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, submission_schema(float_type), **_PARQUET_OPTIONS) as writer:
            writer.write_batch(row.to_batch(float_type))
        group = pq.read_metadata(pa.BufferReader(sink.getvalue())).row_group(0)
        n_bytes += sum(group.column(i).total_compressed_size for i in range(group.num_columns))
        n_values += row.values.size
    return n_bytes / n_values if n_values else 0.0


def _read_ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the items, making the next one in another thread meanwhile."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="submission") as pool:
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
