from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.submissions import LIVE, F, G, Mutation, Recorded, Rows, assert_only, sentences, validate_rows
from sensorium_data.sessions import find_session


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("validation"))


def set_cell(column: str, value: Any, row: int = 0) -> Mutation:
    def mutate(rows: Rows) -> None:
        rows[row][column] = value(rows[row][column]) if callable(value) else value

    return mutate


def transpose(prediction: list[list[float]]) -> list[list[float]]:
    return np.array(prediction).T.tolist()


def with_value(value: float | None) -> Callable[[list[list[float]]], list[list[float]]]:
    def change(prediction: list[list[float]]) -> list[list[float]]:
        prediction[1][3] = value  # type: ignore[call-overload]
        return prediction

    return change


# Rows of the live main file: F 2, F 5, G 2, G 5.
MUTATIONS: list[tuple[str, Mutation, str, str]] = [
    ("missing-row", lambda rows: rows.pop(1) and None, "trials", "trial 5, {file}: the trial has no row"),
    (
        "missing-session",
        lambda rows: rows.__delitem__(slice(2, 4)),
        "trials",
        f"session G ({G}), {{file}}: the session has no row of this tier: expected 2 trials of live_test_main",
    ),
    (
        "duplicate-row",
        lambda rows: rows.append(copy.deepcopy(rows[1])),
        "trials",
        "trial 5, {file}, row 4: the trial is there twice: found rows 1 and 4; keep one",
    ),
    (
        "wrong-tier",
        lambda rows: rows.append(
            {**rows[0], "trial_indices": 6, "prediction": [p[:21] for p in rows[0]["prediction"]]}
        ),
        "trials",
        "trial 6, {file}, row 4: the trial is of another tier: found final_test_main, expected live_test_main",
    ),
    (
        "unknown-trial",
        lambda rows: rows.append({**rows[0], "trial_indices": 99}),
        "trials",
        "{file}, row 4: the session has no such trial: found 99",
    ),
    (
        "negative-trial",
        lambda rows: rows.append({**rows[0], "trial_indices": -2}),
        "trials",
        "row 4: the session has no such trial: found -2",
    ),
    (
        "unknown-session",
        lambda rows: rows.append({**rows[0], "mouse": F[:-1] + "1"}),
        "sessions",
        f"{{file}}, row 4: unknown session: found '{F[:-1]}1'; did you mean {F}",
    ),
    (
        "alias",
        lambda rows: [row.update(mouse="F") for row in rows[:2]],
        "sessions",
        f"row 0: the session's name is not whole: found 'F', in 2 rows, expected {F}; write it whole",
    ),
    (
        "old-session",
        lambda rows: rows.append({**rows[0], "mouse": find_session("A").name}),
        "sessions",
        "row 4: a session that the competition does not score",
    ),
    (
        "session-not-in-store",
        lambda rows: rows.append({**rows[0], "mouse": find_session("J").name}),
        "sessions",
        "row 4: the session is not in the store",
    ),
    (
        "null-session",
        lambda rows: rows.append({**rows[0], "mouse": None}),
        "sessions",
        "row 4: unknown session: found 'None'",
    ),
    (
        "too-few-frames",
        set_cell("prediction", lambda p: [x[:-2] for x in p]),
        "frames",
        f"session F ({F}), trial 2, {{file}}, row 0: wrong shape of a prediction: found (4, 20), "
        "expected (4, 22), or (4, 21) in the profiles 50-298 and 51-299",
    ),
    ("too-many-frames", set_cell("prediction", lambda p: [[0.0] * 50 + x for x in p]), "frames", "found (4, 72)"),
    ("too-few-neurons", set_cell("prediction", lambda p: p[:-1]), "frames", "found (3, 22)"),
    ("no-neurons", set_cell("prediction", lambda p: []), "frames", "found (0, 0)"),
    ("transposed", set_cell("prediction", transpose), "frames", "found (22, 4), expected (4, 22), or"),
    ("transposed-remedy", set_cell("prediction", transpose), "frames", "transpose it: neurons first"),
    (
        "ragged",
        set_cell("prediction", lambda p: [p[0][:-1], *p[1:]]),
        "frames",
        "row 0: the neurons of a prediction have different numbers of frames: found 21 to 22",
    ),
    (
        "mixed-profiles",
        set_cell("prediction", lambda p: [x[:-1] for x in p], row=2),
        "frames",
        f"session G ({G}), trial 2, {{file}}, row 2: the frames are of another profile than those of the other trials: "
        "found (5, 21), which is 50-298 or 51-299, expected official; use one profile for all trials",
    ),
    ("null-prediction", set_cell("prediction", None), "frames", "row 0: a prediction is missing: found null"),
    ("null-trace", set_cell("prediction", lambda p: [None, *p[1:]]), "frames", "row 0: a prediction is missing"),
    (
        "nan",
        set_cell("prediction", with_value(np.nan), row=1),
        "values",
        f"session F ({F}), trial 5, {{file}}, row 1: values that are not finite: found 1, the first for unit",
    ),
    ("inf", set_cell("prediction", with_value(-np.inf)), "values", "values that are not finite: found 1"),
    ("null-value", set_cell("prediction", with_value(None)), "values", "values that are not finite: found 1"),
    (
        "neurons-reordered",
        set_cell("neuron_ids", lambda ids: [ids[1], ids[0], *ids[2:]]),
        "neurons",
        "row 0: neuron ids in another order than the store's: found unit",
    ),
    ("neurons-sorted", set_cell("neuron_ids", sorted), "neurons", "row 0: neuron ids in another order"),
    (
        "neurons-of-others",
        set_cell("neuron_ids", lambda ids: [i + 1 for i in ids]),
        "neurons",
        "row 0: neuron ids of other neurons",
    ),
    (
        "neuron-missing",
        set_cell("neuron_ids", lambda ids: ids[:-1]),
        "neurons",
        "row 0: wrong number of neuron ids: found 3, expected 4",
    ),
    ("neurons-null", set_cell("neuron_ids", None), "neurons", "row 0: neuron ids are missing: found null"),
]


@pytest.mark.parametrize(("mutate", "check", "expected"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_every_mutation_of_the_rows_is_refused_in_its_own_words(
    recorded: Recorded, tmp_path: Path, mutate: Mutation, check: str, expected: str
) -> None:
    assert_only(validate_rows(recorded, tmp_path, mutate), check, expected.format(file=LIVE))


def test_the_rows_are_right_without_a_mutation(recorded: Recorded, tmp_path: Path) -> None:
    assert validate_rows(recorded, tmp_path, lambda rows: None).passed


def test_every_violation_is_reported_at_once(recorded: Recorded, tmp_path: Path) -> None:
    def mutate(rows: Rows) -> None:
        rows[0]["prediction"] = with_value(np.nan)(rows[0]["prediction"])
        rows[1]["neuron_ids"] = sorted(rows[1]["neuron_ids"])
        rows[2]["mouse"] = "G"
        rows.pop(3)
        for row in rows:
            row["animal"] = 1

    report = validate_rows(recorded, tmp_path, mutate)
    assert {v.check for v in report.violations} == {"values", "neurons", "sessions", "trials", "columns"}
    by_check = {v.check: v for v in report.violations}
    assert (by_check["values"].row, by_check["values"].trial) == (0, 2)
    assert by_check["values"].session == f"F ({F})"
    assert by_check["trials"].trial == 5


def test_many_violations_of_one_kind_are_counted(recorded: Recorded, tmp_path: Path) -> None:
    report = validate_rows(
        recorded, tmp_path, lambda rows: rows.extend({**rows[0], "trial_indices": 1000 + i} for i in range(50))
    )
    assert len(report.violations) == 21
    assert sentences(report)[-1] == f"{LIVE}: the session has no such trial: 30 more of this kind"
    assert report.to_frame().set_index("check").loc["trials", "finding"] == "50 violations"
