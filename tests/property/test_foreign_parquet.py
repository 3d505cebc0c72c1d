"""Predictions files of every physical type, by pyarrow and pandas: what the validator and the repair make of them.

The oracle is plain Python: it knows the rows as they were meant to be, and what was changed in them.
"""

from __future__ import annotations

import copy
import io
import itertools
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.submissions import LIVE, Recorded, Rows, sentences
from sensorium_data.errors import SubmissionError
from sensorium_data.submission import repair_submission, validate_submission

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
#: Types of each column's values that a right file may have, and others that can be written.
ACCEPTED = {
    "mouse": ("string", "large_string", "dictionary"),
    "trial_indices": (*INTEGERS, "string", "large_string"),
    "prediction": ("float", "double"),
    "neuron_ids": INTEGERS,
}
OTHERS = {
    "mouse": ("binary", "large_binary"),
    "trial_indices": ("halffloat", "float", "double", "binary", "decimal"),
    "prediction": ("halffloat", *INTEGERS, "decimal", "string"),
    "neuron_ids": ("halffloat", "float", "double", "string"),
}
LISTS = ("list", "large_list")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("foreign"))


def value_type(name: str) -> pa.DataType:
    named = {
        "float": pa.float32(),
        "double": pa.float64(),
        "halffloat": pa.float16(),
        "decimal": pa.decimal128(38, 0),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
    }
    return named.get(name) or getattr(pa, name)()


def make_column(values: list[Any], name: str, depth: int, kind: str) -> pa.Array:
    """Return a column of lists so deep, whose values are of a type."""
    plain = {
        "string": str,
        "large_string": str,
        "binary": lambda v: str(v).encode(),
        "large_binary": lambda v: str(v).encode(),
    }
    type_ = value_type(name)
    for _ in range(depth):
        type_ = pa.list_(type_) if kind == "list" else pa.large_list(type_)

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(v) for v in value]
        if value is None:
            return None
        if "float" in name or name == "double":
            return np.float16(value) if name == "halffloat" else float(value)
        return plain.get(name, lambda v: v)(value)

    return pa.array(convert(values), type_)


@dataclass
class Foreign:
    """A file: its rows, types, and how it is written; which checks fail, and which rows a copy may lack."""

    rows: Rows
    types: dict[str, str]
    kind: str = "list"
    options: dict[str, Any] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)

    def table(self) -> pa.Table:
        depths = {"mouse": 0, "trial_indices": 0, "prediction": 2, "neuron_ids": 1}
        return pa.table(
            {
                name: make_column([row[name] for row in self.rows], self.types[name], depth, self.kind)
                for name, depth in depths.items()
            }
        )

    def write(self, path: Path) -> Path:
        pq.write_table(self.table(), path, **self.options)
        return path


def small_rows(recorded: Recorded) -> Rows:
    """Right rows of whole numbers, which every type holds."""
    rows = copy.deepcopy(recorded.rows(LIVE))
    for i, row in enumerate(rows):
        shape = np.array(row["prediction"]).shape
        row["prediction"] = (np.arange(shape[0] * shape[1]) % (100 + i)).reshape(shape).tolist()
    return rows


def with_first(change: Callable[[list[Any]], None]) -> Callable[[Rows, int], None]:
    return lambda rows, i: change(rows[i]["prediction"])


def transpose(rows: Rows, i: int) -> None:
    rows[i]["prediction"] = np.array(rows[i]["prediction"]).T.tolist()


# What happens to a row, and which check fails then.
CHANGES: dict[str, tuple[Callable[[Rows, int], None], str]] = {
    "nan": (with_first(lambda p: p[0].__setitem__(0, float("nan"))), "values"),
    "inf": (with_first(lambda p: p[-1].__setitem__(-1, float("inf"))), "values"),
    "null-value": (with_first(lambda p: p[0].__setitem__(0, None)), "values"),
    "null-trace": (with_first(lambda p: p.__setitem__(0, None)), "frames"),
    "ragged": (with_first(lambda p: p[0].pop()), "frames"),
    "short": (lambda rows, i: rows[i].update(prediction=[x[:-2] for x in rows[i]["prediction"]]), "frames"),
    "transposed": (transpose, "frames"),
    "fewer-neurons": (with_first(lambda p: p.pop()), "frames"),
    "no-prediction": (lambda rows, i: rows[i].update(prediction=None), "frames"),
    "reordered": (lambda rows, i: rows[i]["neuron_ids"].reverse(), "neurons"),
    "no-neurons": (lambda rows, i: rows[i].update(neuron_ids=None), "neurons"),
    "no-trial": (lambda rows, i: rows[i].update(trial_indices=99), "trials"),
    "twice": (lambda rows, i: rows.append(copy.deepcopy(rows[i])), "trials"),
    "unknown-session": (lambda rows, i: rows.append({**rows[i], "mouse": "nobody"}), "sessions"),
}  # fmt: skip
NEED_FLOATS = {"nan", "inf"}


@st.composite
def foreign_files(draw: st.DrawFn, rows: Rows) -> Foreign:
    types = {
        name: draw(st.sampled_from((*ACCEPTED[name], *ACCEPTED[name], *OTHERS[name])), label=name) for name in ACCEPTED
    }
    file = Foreign(
        copy.deepcopy(rows),
        types,
        draw(st.sampled_from(LISTS)),
        {
            "compression": draw(st.sampled_from(["brotli", "snappy", "gzip", "zstd", "none"])),
            "row_group_size": draw(st.sampled_from([1, 2, 100])),
            "use_dictionary": draw(st.booleans()),
            "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        },
    )
    if any(types[name] not in ACCEPTED[name] for name in types):
        file.failing.add("columns")
    # Each row is changed in one way at most, so that no change hides another in the same row.
    for i in range(len(rows)):
        names = ["", *CHANGES]
        if types["prediction"] not in ("float", "double", "halffloat"):
            names = [name for name in names if name not in NEED_FLOATS]
        change = draw(st.sampled_from(names))
        if change:
            CHANGES[change][0](file.rows, i)
            file.failing.add(CHANGES[change][1])
    order = draw(st.permutations(range(len(file.rows))))
    file.rows = [file.rows[i] for i in order]
    return file


def read_copy(paths: tuple[str, ...]) -> list[tuple[str, int, np.ndarray, list[int]]]:
    """Return the rows of a copy, read by pyarrow alone."""
    found = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                for row in pq.read_table(io.BytesIO(archive.read(member))).to_pylist():
                    found.append(
                        (row["mouse"], row["trial_indices"], np.array(row["prediction"], float), row["neuron_ids"])
                    )
    return found


def as_meant(recorded: Recorded, row: dict[str, Any]) -> tuple[str, int, np.ndarray, list[int]] | None:
    """Return a row with its neurons first and in the store's order; None if the format has no place for it."""
    if row["prediction"] is None or row["neuron_ids"] is None or row["mouse"] not in recorded.sessions:
        return None
    if None in row["prediction"] or len({len(trace) for trace in row["prediction"]}) > 1:
        return None
    values, ids = np.array(row["prediction"], float), row["neuron_ids"]
    wanted = recorded.sessions[row["mouse"]].neurons.tolist()
    if values.shape[0] > values.shape[1]:
        values = values.T
    if sorted(ids) == sorted(wanted) and len(ids) == values.shape[0]:
        values, ids = values[[ids.index(unit) for unit in wanted]], wanted
    return row["mouse"], row["trial_indices"], values, ids


@settings(max_examples=20)
@given(data=st.data())
def test_verdicts_are_the_oracles_and_a_copy_changes_no_value(recorded: Recorded, data: st.DataObject) -> None:
    file = data.draw(foreign_files(small_rows(recorded)))
    with tempfile.TemporaryDirectory() as folder:
        path = file.write(Path(folder) / LIVE)
        report = validate_submission([path], recorded.store)
        assert {violation.check for violation in report.violations} == file.failing, sentences(report)
        meant = [row for row in (as_meant(recorded, row) for row in file.rows) if row is not None]
        is_usable = file.types["prediction"] not in ("decimal", "string")
        if not is_usable or all(trial == 99 for _, trial, _, _ in meant):
            with pytest.raises(SubmissionError, match="no row of a submission"):
                repair_submission([path], recorded.store, out=Path(folder) / "out")
            return
        copied = repair_submission([path], recorded.store, out=Path(folder) / "out")
        told = "\n".join(copied.corrections)
        for mouse, trial, values, ids in read_copy(copied.files):
            assert any(
                (m, t, i) == (mouse, trial, ids) and np.array_equal(v, values, equal_nan=True) for m, t, v, i in meant
            )
        if file.types["prediction"] not in ("float", "double"):
            assert "written as float" in told
        if file.types["neuron_ids"] not in INTEGERS:
            assert "unit ids written as integers" in told
        if file.types["trial_indices"] not in INTEGERS:
            assert "given the trial's number" in told
        if any(None in trace for row in file.rows for trace in row["prediction"] or [] if trace is not None):
            assert "missing values (null) written as NaN" in told


@settings(max_examples=5)
@given(
    types=st.fixed_dictionaries(
        {
            "prediction": st.sampled_from(["float16", "float32", "float64", "int32", "uint8"]),
            "neuron_ids": st.sampled_from(["int64", "uint64", "int32", "float64"]),
        }
    ),
    trial=st.sampled_from([int, str, "{}.npy".format, float]),
)
def test_files_of_pandas_get_the_verdict_of_their_types(
    recorded: Recorded, types: dict[str, str], trial: Callable[[int], Any]
) -> None:
    frame = pd.DataFrame(small_rows(recorded))
    frame["trial_indices"] = frame["trial_indices"].map(trial)
    frame["prediction"] = [[np.array(x, types["prediction"]) for x in p] for p in frame["prediction"]]
    frame["neuron_ids"] = [np.array(ids, types["neuron_ids"]) for ids in frame["neuron_ids"]]
    right = types["prediction"] in ("float32", "float64") and types["neuron_ids"] != "float64" and trial is not float
    with tempfile.TemporaryDirectory() as folder:
        frame.to_parquet(Path(folder) / LIVE, compression="brotli", index=False)
        report = validate_submission([Path(folder) / LIVE], recorded.store)
    assert {violation.check for violation in report.violations} == (set() if right else {"columns"})


# Values and unit ids that another type would change: refused, not wrapped or rounded.
UNHOLDABLE: list[tuple[str, str, Any, str, str]] = [
    ("integer", "int64", 2**53 + 1, "prediction", "float64 does not hold the predicted values of type int64"),
    ("unsigned", "uint64", 2**64 - 1, "prediction", "float64 does not hold the predicted values of type uint64"),
    ("decimal", "decimal", 1, "prediction", "float64 does not hold the predicted values of type decimal"),
    ("text", "string", "1.1", "prediction", "float64 does not hold the predicted values of type string"),
    ("unit-id", "uint64", 2**64 - 5, "neuron_ids", "unit id 18446744073709551611 is larger than"),
    ("fraction", "double", 1.5, "neuron_ids", "the neuron ids are no integers"),
]


@pytest.mark.parametrize(
    ("type_", "value", "column", "expected"), [u[1:] for u in UNHOLDABLE], ids=[u[0] for u in UNHOLDABLE]
)
def test_what_the_format_does_not_hold_is_refused(
    recorded: Recorded, tmp_path: Path, type_: str, value: Any, column: str, expected: str
) -> None:
    rows = small_rows(recorded)
    (rows[0]["prediction"][0] if column == "prediction" else rows[0]["neuron_ids"])[0] = value
    types = {"mouse": "string", "trial_indices": "int64", "prediction": "double", "neuron_ids": "int64"}
    path = Foreign(rows, types | {column: type_}).write(tmp_path / LIVE)
    report = validate_submission([path], recorded.store)
    is_right_type = type_ in ACCEPTED[column]
    assert {violation.check for violation in report.violations} == ({"neurons"} if is_right_type else {"columns"})
    if column == "prediction" and type_ in ("decimal", "string"):  # All rows are of that type.
        with pytest.raises(SubmissionError, match=expected):
            repair_submission([path], recorded.store, out=tmp_path / "out")
        return
    copied = repair_submission([path], recorded.store, out=tmp_path / "out")
    assert any(expected in reason for reason in copied.left_out)
    assert (rows[0]["mouse"], rows[0]["trial_indices"]) not in [row[:2] for row in read_copy(copied.files)]


WRONG_TYPES = [(name, type_) for name, types in OTHERS.items() for type_ in (types[0], types[-1])]


@pytest.mark.parametrize(("column", "type_"), [*WRONG_TYPES, ("mouse", ""), ("neuron_ids", "")])
def test_a_wrong_or_missing_column_hides_no_other_violation(
    recorded: Recorded, tmp_path: Path, column: str, type_: str
) -> None:
    """Every kind of change beside it is reported too, one pair at a time, in one file."""
    types = {"mouse": "string", "trial_indices": "int64", "prediction": "double", "neuron_ids": "int64"}
    pairs = itertools.product([(column, type_)], CHANGES)
    for index, (_, change) in enumerate(pairs):
        mutate, check = CHANGES[change]
        holds_floats = column != "prediction" or "float" in type_
        is_gone = not type_ and (check, column) in {("sessions", "mouse"), ("neurons", "neuron_ids")}
        if (change in NEED_FLOATS and not holds_floats) or is_gone:
            continue
        rows = small_rows(recorded)
        mutate(rows, 0)
        file = Foreign(rows, types | ({column: type_} if type_ else {}))
        table = file.table() if type_ else file.table().drop_columns(column)
        folder = tmp_path / str(index)
        folder.mkdir()
        pq.write_table(table, folder / LIVE, compression="brotli")
        report = validate_submission([folder / LIVE], recorded.store)
        found = {violation.check for violation in report.violations}
        assert {"columns", check} <= found, (change, sentences(report))
