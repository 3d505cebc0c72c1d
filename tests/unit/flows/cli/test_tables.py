"""What a terminal shows of names that are not ours."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from flows.cli.summaries import print_checks, print_findings, print_training
from flows.cli.tables import error_console, print_next, print_table, table_console
from models.runs import EpochMetrics
from models.training import TrainingReport
from sensorium_data.sessions import find_session
from sensorium_data.submission.findings import Check, ValidationReport

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


SCORES = [
    {"session": session, "tier": tier, "stimulus": stimulus, "trials": 12, "score": score, "further": score / 2}
    for session, tier, stimulus, score in (
        ("A", "oracle", "all", 0.125),
        ("mean over neurons", "oracle", "all", 0.25),
        ("A", "final_test_bonus", "all", 0.375),
        ("A", "final_test_bonus", "RandomDots", 0.5),
        ("mean over neurons", "final_test_bonus", "all", 0.625),
    )
]


def test_keys_that_do_not_fit_are_nested_and_optional_columns_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of all stimuli stands at its tier; what is left out is named."""
    monkeypatch.setenv("COLUMNS", "46")
    print_table(table_console(), "Scores", SCORES, n_keys=3, optional=("further", "trials"))
    shown = capsys.readouterr().out
    lines = [line.split("│")[0].rstrip() for line in shown.splitlines() if "│" in line]
    assert lines == [
        " A",
        "   oracle",
        "   final_test_bonus",
        "     RandomDots",
        " mean over neurons",
        "   oracle",
        "   final_test_bonus",
    ]
    values = [line.split("│")[-1].strip() for line in shown.splitlines() if "│" in line]
    assert values == ["", "0.125", "0.375", "0.500", "", "0.250", "0.625"]
    assert "Not shown at 46 columns: further. A wider" in shown
    monkeypatch.setenv("COLUMNS", "100")
    print_table(table_console(), "Scores", SCORES, n_keys=3, optional=("further", "trials"))
    wide = capsys.readouterr().out
    assert "Not shown" not in wide
    assert wide.count("mean over neurons") == 2
    assert [line.split("│")[-1].strip() for line in wide.splitlines() if "│" in line] == [
        f"{row['further']:.3f}" for row in SCORES
    ]


def test_a_long_text_comes_below_its_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "learning_rate", "value": 0.5, "meaning": "what it means " * 9}, {"name": "seed", "value": 1.25}]
    monkeypatch.setenv("COLUMNS", "60")
    print_table(table_console(), "Settings", rows, below=("meaning",))
    title, heading, first, *text, last = capsys.readouterr().out.strip().splitlines()
    assert (title, heading.split(), first.split()) == ("Settings", ["name", "value"], ["learning_rate", "0.500"])
    assert last.split() == ["seed", "1.250"]
    assert first.index("0.500") == last.index("1.250")
    assert " ".join(" ".join(text).split()) == str(rows[0]["meaning"]).strip()
    assert all(line.startswith("    ") and len(line) <= 60 for line in text)
    # A line that is too long is broken, and nothing of it is lost.
    print_table(
        table_console(), "Files", [{"file": "folder/" * 12, "size": "3 MB", "meaning": "short"}], below=("meaning",)
    )
    shown = capsys.readouterr().out
    assert "".join(shown.split()) == f"Files{'folder/' * 12}size:3MBshort"
    assert max(map(len, shown.splitlines())) <= 60


def test_checks_of_a_submission_are_counted_and_those_that_failed_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    member = "a.zip: predictions_live_main.parquet.brotli"
    checks = (Check("a.zip", "size", True, "3 bytes"), *(Check(member, f"check {n}", n > 1, "found") for n in range(5)))
    print_findings(table_console(), "Checks", ValidationReport(checks, (), ()))
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line]
    assert rows == [
        ["a.zip", "", "1", "1", ""],
        ["a.zip", "predictions_live_main.parquet.brotli", "5", "3", "check 0, check 1"],
    ]


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
