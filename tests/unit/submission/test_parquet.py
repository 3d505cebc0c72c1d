from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sensorium_data.submission.parquet as parquet_module
from sensorium_data.errors import SubmissionError
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
        for row, batch in enumerate(file.iterate_rows(COLUMNS)):
            assert batch["trial_indices"].to_pylist() == [row]
            expected = table["prediction"][row].values
            assert batch["prediction"][0].values.equals(expected)
            # Up to here and a buffer or two for each column further, not to the end of the column.
            share = (row + 1) / N_ROWS + 0.35
            assert CountedFile.n_read < share * path.stat().st_size
            assert pa.total_allocated_bytes() - before < 0.5 * path.stat().st_size
    assert row == N_ROWS - 1


def test_groups_of_a_row_each_are_read_in_their_order(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "file", compression="brotli", row_group_size=1)
    with PredictionsFile(lambda: (tmp_path / "file").open("rb")) as file:
        assert (file.n_rows, file.codecs) == (N_ROWS, ["BROTLI"])
        rows = list(file.iterate_rows(["trial_indices"]))
    assert [batch["trial_indices"][0].as_py() for batch in rows] == list(range(N_ROWS))


# Of a file of 40 rows, of 100 neurons and 250 frames.
BOUNDS = [
    ("MAX_SUBMISSION_ROWS", 39, "more row groups than a submission can have: found 40, expected at most 39"),
    ("MAX_SUBMISSION_VALUES", 1_004_000, "more values than a submission can have: found 1,004,080, expected at most"),
    ("MAX_SUBMISSION_ROW_SIZE_BYTES", 200_000, "more bytes in row 0 than a submission can have: found 20"),
    (
        "_BOUNDS",
        {"prediction": (24_999, "N")},
        "more values of prediction in row group 0 than .*: found 25,000",
    ),
    ("_BOUND_OF_LABELS", (99, "N"), "more values of neuron_ids in row group 0 than .* expected at most 99"),
]


@pytest.mark.parametrize(("name", "bound", "expected"), BOUNDS, ids=[b[0] for b in BOUNDS])
def test_every_bound_is_kept_and_named(
    tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch, name: str, bound: object, expected: str
) -> None:
    pq.write_table(table, tmp_path / "file", compression="snappy", row_group_size=1)

    def read() -> None:
        with PredictionsFile(lambda: (tmp_path / "file").open("rb")) as file:
            next(file.iterate_rows(COLUMNS))

    read()
    monkeypatch.setattr(parquet_module, name, bound)
    with pytest.raises(SubmissionError, match=expected):
        read()
