"""What a terminal shows of names that are not ours."""

from __future__ import annotations

import pytest

from flows.cli.tables import error_console, print_next, print_table, table_console

NAME = "[v1]/[bold]F[/bold]"


def test_square_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console = table_console()
    print_table(console, NAME, [{"path": NAME}], columns={"path": NAME})
    print_next(console, [(NAME, NAME)])
    console.print(NAME)
    error_console().print(NAME)
    shown = capsys.readouterr()
    assert shown.out.count(NAME) == 6
    assert shown.err == f"{NAME}\n"
