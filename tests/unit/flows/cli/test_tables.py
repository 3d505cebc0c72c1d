"""What a terminal shows of names that are not ours."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from flows.cli.summaries import print_checks, print_training
from flows.cli.tables import error_console, print_next, print_table, table_console
from models.runs import EpochMetrics
from models.training import TrainingReport
from sensorium_data.sessions import find_session

NAME = "[v1]/[bold]F[/bold]"


def test_columns_that_do_not_fit_come_in_further_tables_with_the_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number and no word of usual length is broken at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    scores = {f"score number {number}": 0.125 + number for number in range(9)}
    rows = [{"session": "mean over neurons", "tier": tier, **scores} for tier in ("live_test_main", "final_test_main")]
    print_table(table_console(), "A title that is longer than a line of the terminal: " + "x" * 60, rows, n_keys=2)
    shown = capsys.readouterr().out
    title, *lines = shown.strip().splitlines()
    assert title.endswith("x" * 60)
    assert max(map(len, lines)) <= 80
    for number in range(9):
        assert shown.count(f"{number}.125") == 2
    n_tables = sum("━" in line for line in lines)
    assert n_tables > 1
    for tier in ("live_test_main", "final_test_main"):
        assert shown.count(tier) == n_tables


def test_joined_columns_stay_with_the_one_before_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no width a further table begins with an interval, or an interval is broken."""
    row = {
        "session": "F",
        "trials": 3,
        "score": 0.125,
        "interval": "-0.100 to 0.150",
        "other": 0.5,
        "other_interval": "–",
    }
    columns = {name: "95%" if name.endswith("interval") else name for name in row}
    for width in range(37, 70):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(table_console(), "Scores", [row], columns=columns, joined=("interval", "other_interval"))
        shown = capsys.readouterr().out
        assert "-0.100 to 0.150" in shown
        headings = [line.split("┃") for line in shown.splitlines() if "┃" in line]
        assert all("95%" not in parts[1] for parts in headings)
        assert sum(len(parts) - 1 for parts in headings) == len(row) - 1


def test_numbers_and_intervals_are_whole_and_lines_fit_at_any_usual_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The widest keys that a table of scores has; a narrow terminal gets the interval below its score."""
    row = {
        "session": "mean over neurons",
        "tier": "final_test_main",
        "stimulus": "NaturalImages",
        "trials": 1234567,
        "score": -0.125,
        "interval": "-0.130 to -0.069",
        "entry": "runs/my-factorized-predictions",
    }
    headings = {"score": "single-trial\ncorrelation", "interval": "95%"}
    columns = {name: headings.get(name, name) for name in row}
    stacked = []
    for width in range(44, 125):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(table_console(), "Scores", [row], columns=columns, n_keys=3, joined=("interval",))
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= width
        for cell in ("1234567", "-0.125", "-0.130 to -0.069", "correlation", "trials"):
            assert cell in shown, (width, cell)
        stacked.append(not any("-0.125" in line and "-0.130" in line for line in shown.splitlines()))
        if width >= 60:
            # Names are broken where their parts meet.
            words = set(shown.replace("│", " ").replace("┃", " ").split())
            assert words & {"final_test_main", "final_test_", "final_"}
            assert words & {"runs/my-factorized-predictions", "predictions", "factorized-predictions"}
    assert stacked == sorted(stacked, reverse=True)
    assert (stacked[0], stacked[80 - 44], stacked[-1]) == (True, False, False)


def test_checks_are_told_once_and_in_few_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    meaning = "Trials with NaN or infinite values inside their valid frames, where responses are published."
    kinds = [("failed", "trial 7", 3), ("noted", "trial 8", 3), ("passed", "none", 50)]
    rows = [
        {"check": f"values {outcome} {i}", "outcome": outcome, "found": found, "expected": "none", "sentence": meaning}
        for outcome, found, n in kinds
        for i in range(n)
    ]
    quality: Any = SimpleNamespace(to_table=lambda: pd.DataFrame(rows))
    print_checks(table_console(), quality)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 40
    assert " ".join(shown.split()).count(meaning) == 1
    assert "sentence" not in shown
    assert all(row["check"] in " ".join(shown.split()) for row in rows)
    assert "50 checks passed" in shown


def test_what_rounds_to_zero_has_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(table_console(), "Scores", [{"session": "F", "score": -0.0001}])
    assert "│ 0.000" in " ".join(capsys.readouterr().out.split())


def test_a_training_is_told_as_a_table_and_not_as_markdown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    name = find_session("F").name
    epochs = [
        EpochMetrics(epoch, 1.0, 0.1, 1.5, 0.25, {name: 0.25}, 0.005, epoch == 1, 1.0, 10.4, 0.0) for epoch in (1, 2)
    ]
    monkeypatch.setattr("models.runs.load_run", lambda _: SimpleNamespace(metrics=lambda: epochs))
    report = TrainingReport("runs/x", "trained", (name,), 2, 1, 0.25, 2.0, notes=("A note.",))
    print_training(table_console(), report)
    shown = capsys.readouterr().out
    assert shown.startswith("runs/x: trained\nA note.\n")
    assert not any(mark in shown for mark in ("# ", "| ---", "!["))
    first, second = (line for line in shown.splitlines() if "0.005" in line)
    assert ("kept" in first, "kept" in second) == (True, False)
    assert shown.endswith("Curves: runs/x/curves.png\nSummary: runs/x/summary.md\n")
    print_training(table_console(), dataclasses.replace(report, best_epoch=0))
    shown = capsys.readouterr().out
    assert "runs/x: trained; no epoch beat the model as it was before training, whose weights are kept" in shown
    assert "untrained" not in shown


def test_square_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console = table_console()
    print_table(console, NAME, [{"path": NAME}], columns={"path": NAME})
    print_next(console, [(NAME, NAME)])
    console.print(NAME)
    error_console().print(NAME)
    shown = capsys.readouterr()
    assert shown.out.count(NAME) == 6
    assert shown.err == f"{NAME}\n"
