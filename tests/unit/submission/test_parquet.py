from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium_data.frames import COLUMNS
from sensorium_data.submission.parquet import PredictionsFile

N_ROWS, N_NEURONS, N_FRAMES = 40, 100, 250


class CountedFile(io.FileIO):
    """A file that counts the bytes which are read from it."""

    n_read = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n_bytes = super().readinto(buffer)
        CountedFile.n_read += n_bytes
        return n_bytes


@pytest.fixture(scope="module")
def table() -> pa.Table:
    values = np.random.default_rng(0).random(N_ROWS * N_NEURONS * N_FRAMES)
    traces = pa.ListArray.from_arrays(np.arange(0, values.size + 1, N_FRAMES, dtype=np.int32), pa.array(values))
    whole = np.arange(0, N_ROWS * N_NEURONS + 1, N_NEURONS, dtype=np.int32)
    ids = pa.ListArray.from_arrays(whole, pa.array(np.tile(np.arange(N_NEURONS), N_ROWS)))
    columns = [["a"] * N_ROWS, np.arange(N_ROWS), pa.ListArray.from_arrays(whole, traces), ids]
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_one_group_of_all_rows_is_read_page_by_page(tmp_path: Path, table: pa.Table, use_dictionary: bool) -> None:
    path = tmp_path / "file"
    pq.write_table(table, path, compression="brotli", use_dictionary=use_dictionary)
    assert pq.ParquetFile(path).num_row_groups == 1

    def open_counted() -> IO[bytes]:
        CountedFile.n_read = 0
        return io.BufferedReader(CountedFile(path))

    before = pa.total_allocated_bytes()
    with PredictionsFile(open_counted) as file:
        for row, cells in enumerate(file.iterate_rows(COLUMNS)):
            assert cells["trial_indices"].as_py() == row
            expected = table["prediction"][row].values
            assert cells["prediction"].values.equals(expected)
            # Up to here and a buffer or two for each column further, not to the end of the column.
            share = (row + 1) / N_ROWS + 0.35
            assert CountedFile.n_read < share * path.stat().st_size
            assert pa.total_allocated_bytes() - before < 0.5 * path.stat().st_size
    assert row == N_ROWS - 1


def test_groups_of_a_row_each_are_read_in_their_order(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "file", compression="brotli", row_group_size=1)
    with PredictionsFile(lambda: tmp_path / "file") as file:
        assert (file.n_rows, file.codec) == (N_ROWS, "BROTLI")
        rows = list(file.iterate_rows(["trial_indices"]))
    assert [cells["trial_indices"].as_py() for cells in rows] == list(range(N_ROWS))
