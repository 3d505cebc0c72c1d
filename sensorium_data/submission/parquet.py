"""Decoding a predictions file row by row, whoever wrote it, in bounded memory."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from sensorium_data.errors import SubmissionError
from sensorium_data.frames import COLUMNS
from sensorium_data.limits import (
    MAX_SUBMISSION_FRAMES,
    MAX_SUBMISSION_NEURONS,
    MAX_SUBMISSION_ROW_SIZE_BYTES,
    MAX_SUBMISSION_ROWS,
    MAX_SUBMISSION_VALUES,
)
from sensorium_data.machine import count_cores

__all__ = ["ENCRYPTED", "PredictionsFile"]

_READ_BUFFER_BYTES = 1 << 20
# A row of 8,000 neurons and 274 frames is 18 MB as float64. A group of more is read row by row, on one core.
_MAX_GROUP_SIZE_BYTES = 64_000_000
_MAX_THREADS = 4
_VALUE_SIZE_BYTES = 8
# A file's last bytes: the size of its footer, and the format's mark.
_END = struct.Struct("<I4s")
# Nonce and tag.
_SIGNATURE_SIZE_BYTES = 12 + 16

#: How an encrypted file is called in errors.
ENCRYPTED = "the file is encrypted"
# How many values a row of a column may have, and how that bound is called.
_BOUNDS = {
    "prediction": (
        MAX_SUBMISSION_NEURONS * MAX_SUBMISSION_FRAMES,
        "MAX_SUBMISSION_NEURONS times MAX_SUBMISSION_FRAMES for each row",
    )
}
# Of the other labels only a wrong type can hold more than one.
_BOUND_OF_LABELS = (MAX_SUBMISSION_NEURONS, "MAX_SUBMISSION_NEURONS for each row")


class PredictionsFile:
    """An open Parquet file.

    Decoding brotli takes most of the time, so row groups are decoded ahead on several cores. A file written
    at once by pandas is one row group of many gigabytes; it is read row by row.

    A hostile file can make pyarrow end the process, or fill the memory: :mod:`sensorium_data.submission.reader` uses
    this class in a process of its own.

    Parameters
    ----------
    open_source : callable
        Opens the file, as often as it is called.

    Raises
    ------
    SubmissionError
        If the file is encrypted or larger than anything that could be a submission.
    pyarrow.ArrowException, OSError, MemoryError
        Here and from every method, if the file is damaged.
    """

    def __init__(self, open_source: Callable[[], IO[bytes]]) -> None:
        self._open_source = open_source
        self._file = self._open()
        try:
            self._require_plain()
            self._leaves = self._find_leaves()
            self._largest_group_size_bytes = self._require_bounds()
        except BaseException:
            self._file.close(force=True)
            raise

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._file.schema_arrow

    @property
    def n_rows(self) -> int:
        """Number of rows, as the file's metadata claim."""
        return int(self._file.metadata.num_rows)

    @property
    def codecs(self) -> list[str]:
        """Names of the codecs of the submission's columns, sorted."""
        metadata = self._file.metadata
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        return sorted({str(group.column(leaf).compression) for group in groups for leaf in self._leaves})

    def iterate_rows(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows, each as a batch of one row with these columns; a few are in memory at a time."""
        batches = (
            self._decode_ahead(list(columns))
            if self._file.metadata.num_row_groups > 1 and self._largest_group_size_bytes <= _MAX_GROUP_SIZE_BYTES
            else self._file.iter_batches(1, columns=list(columns), use_threads=False)
        )
        for row, batch in enumerate(batches):
            _require_row_bounds(row, batch)
            yield _as_named(batch, columns)

    def _decode_ahead(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        n_threads = min(_MAX_THREADS, count_cores())
        # A Parquet reader is not safe to share between threads.
        idle = [self._open() for _ in range(n_threads)]

        def decode(group: int) -> pa.Table:
            reader = idle.pop()
            try:
                return reader.read_row_group(group, columns=columns, use_threads=False)
            finally:
                idle.append(reader)

        pool = ThreadPoolExecutor(n_threads, thread_name_prefix="parquet")
        pending: deque[Future[pa.Table]] = deque()
        try:
            for group in range(self._file.metadata.num_row_groups):
                pending.append(pool.submit(decode, group))
                if len(pending) > n_threads:
                    yield from pending.popleft().result().to_batches(max_chunksize=1)
            while pending:
                yield from pending.popleft().result().to_batches(max_chunksize=1)
        finally:
            pool.shutdown(cancel_futures=True)
            for reader in idle:
                reader.close(force=True)

    def _open(self) -> pq.ParquetFile:
        source = self._open_source()
        try:
            # Read page by page. With pre_buffer, which some versions of pyarrow take for granted, a column of a row
            # group would be in memory as a whole, and buffer_size in vain.
            return pq.ParquetFile(source, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False)
        except BaseException:
            source.close()
            raise

    def _require_plain(self) -> None:
        """Refuse encrypted columns: their metadata alone make pyarrow end the process."""
        with self._open_source() as file:
            file.seek(-_END.size, os.SEEK_END)
            footer_size_bytes, _ = _END.unpack(file.read(_END.size))
        # An encrypted file with a readable footer has it signed, and the signature is part of the footer.
        if footer_size_bytes - self._file.metadata.serialized_size == _SIGNATURE_SIZE_BYTES:
            raise SubmissionError(ENCRYPTED, remedy="write it without encryption")

    def _find_leaves(self) -> dict[int, str]:
        """Return the submission's column that each leaf of the file's schema is of."""
        schema = self._file.schema
        columns = [schema.column(leaf).path.partition(".")[0] for leaf in range(len(schema))]
        return {leaf: column for leaf, column in enumerate(columns) if column in COLUMNS}

    def _require_bounds(self) -> int:
        """Compare what the metadata claim with the bounds, and return the decoded size of the largest row group."""
        metadata = self._file.metadata
        _require("row groups", metadata.num_row_groups, MAX_SUBMISSION_ROWS, "MAX_SUBMISSION_ROWS")
        largest = n_rows = n_values = 0
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            n_of_group = 0
            for leaf, column in self._leaves.items():
                n_of_leaf = group.column(leaf).num_values
                n_of_row, name = _BOUNDS.get(column, _BOUND_OF_LABELS)
                _require(f"values of {column} in row group {i}", n_of_leaf, n_of_row * group.num_rows, name)
                n_of_group += n_of_leaf
            n_rows += group.num_rows
            n_values += n_of_group
            largest = max(largest, group.total_byte_size, n_of_group * _VALUE_SIZE_BYTES)
        _require("rows", max(n_rows, metadata.num_rows), MAX_SUBMISSION_ROWS, "MAX_SUBMISSION_ROWS")
        _require("values", n_values, MAX_SUBMISSION_VALUES, "MAX_SUBMISSION_VALUES")
        return largest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close(force=True)


def _require(what: str, found: int, bound: int, name: str) -> None:
    if found > bound:
        raise SubmissionError(
            f"more {what} than a submission can have",
            found=f"{found:,}",
            expected=f"at most {bound:,} ({name})",
            remedy="write one row for each trial, with one list of frames for each neuron",
        )


def _require_row_bounds(row: int, batch: pa.RecordBatch) -> None:
    _require(f"bytes in row {row}", batch.nbytes, MAX_SUBMISSION_ROW_SIZE_BYTES, "MAX_SUBMISSION_ROW_SIZE_BYTES")


def _as_named(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Return the first column of each name, without the dictionaries, which are of the whole file."""
    names = batch.schema.names
    chosen = {name: batch.column(names.index(name)) for name in columns if name in names}
    plain = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in chosen.values()
    ]
    return pa.RecordBatch.from_arrays(plain, list(chosen))
