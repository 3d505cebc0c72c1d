"""Reading a predictions file row by row, whoever wrote it: its columns' types, and its rows in bounded memory."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from sensorium_data.machine import count_cores

__all__ = ["COLUMN_TYPES", "ColumnType", "PredictionsFile", "describe_type"]

_READ_BUFFER_BYTES = 1 << 20
# A row of 8,000 neurons and 274 frames is 18 MB as float64. A group of more is read row by row, on one core.
_MAX_GROUP_SIZE_BYTES = 64_000_000
_MAX_THREADS = 4
_ROWS_OF_LABELS = 256


@dataclass(frozen=True)
class ColumnType:
    """What a column may be of: a test, and the same in words."""

    accepts: Callable[[pa.DataType], bool]
    description: str


class PredictionsFile:
    """An open Parquet file.

    Decoding brotli takes most of the time, so row groups are decoded ahead on several cores. A file written
    at once by pandas is one row group of many gigabytes; it is read row by row.

    Parameters
    ----------
    open_source : callable
        Opens the file, as often as it is called: a path, or a new seekable file object.

    Raises
    ------
    pyarrow.ArrowException, OSError
        Here and from every method, if the file is damaged.
    """

    def __init__(self, open_source: Callable[[], Path | IO[bytes]]) -> None:
        self._open_source = open_source
        self._file = self._open()

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._file.schema_arrow

    @property
    def n_rows(self) -> int:
        """Number of rows, as the file's metadata claim."""
        return int(self._file.metadata.num_rows)

    @property
    def codec(self) -> str | None:
        """Name of the codec of the first column, ``None`` in an empty file."""
        metadata = self._file.metadata
        if not metadata.num_row_groups or not metadata.num_columns:
            return None
        return str(metadata.row_group(0).column(0).compression)

    def iterate_labels(self, columns: Sequence[str]) -> Iterator[tuple[object, ...]]:
        """Yield the values of some short columns, row by row."""
        for batch in self._file.iter_batches(_ROWS_OF_LABELS, columns=list(columns), use_threads=False):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)

    def iterate_rows(self, columns: Sequence[str]) -> Iterator[pa.StructScalar]:
        """Yield the rows, each with its cells by column name; a few are in memory at a time."""
        metadata = self._file.metadata
        n_groups = metadata.num_row_groups
        largest = max((metadata.row_group(i).total_byte_size for i in range(n_groups)), default=0)
        batches = (
            self._decode_ahead(list(columns))
            if n_groups > 1 and largest <= _MAX_GROUP_SIZE_BYTES
            else self._file.iter_batches(1, columns=list(columns), use_threads=False)
        )
        for batch in batches:
            yield from batch.to_struct_array()

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
            if not isinstance(source, Path):
                source.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close(force=True)


def describe_type(type_: pa.DataType) -> str:
    """Return a type's name without those of nested fields, which depend on who wrote them."""
    return re.sub(r"(element|item): ", "", str(type_))


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _is_integer(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_))


def _is_list_of(is_element: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def accepts(type_: pa.DataType) -> bool:
        is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
        return bool(is_list) and is_element(type_.value_type)

    return accepts


#: What each column has to be of.
COLUMN_TYPES: Mapping[str, ColumnType] = MappingProxyType(
    {
        "mouse": ColumnType(_is_text, "string, the session's full name"),
        "trial_indices": ColumnType(lambda t: _is_integer(t) or _is_text(t), "integer, or string like '1.npy'"),
        "prediction": ColumnType(
            # Half precision came to Parquet after the server's software.
            _is_list_of(_is_list_of(lambda t: t in (pa.float32(), pa.float64()))),
            "list of lists of floats",
        ),
        "neuron_ids": ColumnType(_is_list_of(_is_integer), "list of integers"),
    }
)
