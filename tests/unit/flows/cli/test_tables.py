"""What a terminal shows of names that are not ours."""

from __future__ import annotations

import pytest

from flows.cli.tables import error_console, print_next, print_table, table_console

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


def test_square_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console = table_console()
    print_table(console, NAME, [{"path": NAME}], columns={"path": NAME})
    print_next(console, [(NAME, NAME)])
    console.print(NAME)
    error_console().print(NAME)
    shown = capsys.readouterr()
    assert shown.out.count(NAME) == 6
    assert shown.err == f"{NAME}\n"
