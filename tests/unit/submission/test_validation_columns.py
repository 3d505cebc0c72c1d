from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fixtures.submissions import LIVE, F, Recorded, assert_only
from sensorium_data.submission import validate_submission


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("validation"))


def drop(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(columns=column)


COLUMNS: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame], str]] = [
    ("no-mouse", drop("mouse"), "a column is missing: expected 'mouse'"),
    ("no-prediction", drop("prediction"), "a column is missing: expected 'prediction'"),
    ("renamed", lambda f: f.rename(columns={"neuron_ids": "unit_ids"}), "a column too many: found 'unit_ids'"),
    (
        "index",
        lambda f: f.set_index("mouse", drop=False).rename_axis(None),
        "a column too many: found '__index_level_0__', expected mouse, trial_indices, prediction, neuron_ids; "
        "write it with index=False",
    ),
    (
        "float-trials",
        lambda f: f.astype({"trial_indices": float}),
        "column 'trial_indices' is of the wrong type: found double, expected integer, or string like '1.npy'",
    ),
    (
        "integer-predictions",
        lambda f: f.assign(prediction=[[[1] * len(x) for x in p] for p in f["prediction"]]),
        "column 'prediction' is of the wrong type: found list<list<int64>>, expected list of lists of floats",
    ),
    (
        "flat-predictions",
        lambda f: f.assign(prediction=[np.array(p).ravel().tolist() for p in f["prediction"]]),
        "column 'prediction' is of the wrong type: found list<double>",
    ),
    (
        "text-neurons",
        lambda f: f.assign(neuron_ids=[[str(i) for i in ids] for ids in f["neuron_ids"]]),
        "column 'neuron_ids' is of the wrong type",
    ),
    ("integer-mice", lambda f: f.assign(mouse=range(len(f))), "column 'mouse' is of the wrong type: found int64"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [c[1:] for c in COLUMNS], ids=[c[0] for c in COLUMNS])
def test_wrong_columns_are_refused(
    recorded: Recorded, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], expected: str
) -> None:
    index = None if "index_level" in expected else False
    frame = change(pd.DataFrame(recorded.rows(LIVE)))
    frame.to_parquet(tmp_path / LIVE, compression="brotli", engine="pyarrow", index=index)
    assert_only(validate_submission([tmp_path / LIVE], recorded.store), "columns", f"{LIVE}: {expected}")


def test_half_precision_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(pd.DataFrame(recorded.rows(LIVE)), preserve_index=False)
    halves = [[np.asarray(x, np.float16) for x in p] for p in table["prediction"].to_pylist()]
    column = pa.array(halves, pa.list_(pa.list_(pa.float16())))
    pq.write_table(table.set_column(2, "prediction", column), tmp_path / LIVE, compression="brotli")
    assert_only(validate_submission([tmp_path / LIVE], recorded.store), "columns", "found list<list<halffloat>>")


@pytest.mark.parametrize("kind", ["large", "fixed", "dictionary"])
def test_other_kinds_of_lists_and_strings_pass(recorded: Recorded, tmp_path: Path, kind: str) -> None:
    rows = [row for row in recorded.rows(LIVE) if row["mouse"] == F and row["trial_indices"] == 2]
    table = pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)
    if kind == "large":
        table = table.set_column(2, "prediction", table["prediction"].cast(pa.large_list(pa.large_list(pa.float32()))))
        table = table.set_column(0, "mouse", table["mouse"].cast(pa.large_string()))
    elif kind == "fixed":
        table = table.set_column(2, "prediction", table["prediction"].cast(pa.list_(pa.list_(pa.float32(), 22), 4)))
    else:
        table = table.set_column(0, "mouse", table["mouse"].combine_chunks().dictionary_encode())
    pq.write_table(table, tmp_path / LIVE, compression="brotli")
    report = validate_submission([tmp_path / LIVE], recorded.store)
    assert_only(report, "trials", "the session has no row", "trial 5")
