"""Control characters from files and servers: written out wherever people read them."""

from __future__ import annotations

import json
import logging
import pickle
import unicodedata
from pathlib import Path

import pytest

from fixtures.session_stores import write_session_store
from flows.cli.entry import main
from flows.cli.options import print_lines
from flows.cli.tables import error_console, print_table, table_console
from flows.reporting import artifacts, file_links, run_logging
from flows.reporting.progress import throttled_lines
from sensorium_data.errors import SensoriumError, StoreError, UnknownNameError
from sensorium_data.visible_text import make_lines_visible, make_visible, show_value

#: A file's name that clears the screen, pretends to be a line of ours, and turns the rest around.
NAME = "a\x1b[2J\x9b31m\nsensorium: done\r\u202etxt.exe\x7f\ud800"
SHOWN = r"a\u001b[2J\u009b31m\nsensorium: done\r\u202etxt.exe\u007f\ud800"


def acts(character: str) -> bool:
    """Whether a character is none to be read, as the Unicode database has it."""
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or character in "\u061c\u200e\u200f\ufeff"
    )


def test_every_character_that_acts_is_written_out_as_json_has_it_and_no_other() -> None:
    every = [chr(code) for code in range(0x10000)]
    hostile = [character for character in every if acts(character)]
    rest = "".join(character for character in every if not acts(character))
    assert make_visible(rest) == rest
    assert [json.loads(f'"{make_visible(character)}"') for character in hostile] == hostile
    assert not any(map(acts, make_visible("".join(hostile))))
    assert len(hostile) > 2048 + 65


def test_lines_stay_lines_and_json_keeps_its_meaning() -> None:
    assert make_lines_visible(f"# A\n\n\t{NAME}") == "# A\n\n\t" + SHOWN.replace(r"\n", "\n")
    value = {NAME: [NAME, "é", "日本"]}
    text = make_lines_visible(json.dumps(value, indent=1, ensure_ascii=False))
    assert json.loads(text) == value
    assert not any(acts(character) for character in text if character != "\n")


def test_what_is_written_out_stays_as_it_is() -> None:
    assert make_visible(SHOWN) == SHOWN
    assert [show_value(value) for value in (NAME, 1.5, None)] == [SHOWN, 1.5, None]


@pytest.mark.parametrize("part", ["session", "trial", "path", "found", "expected", "remedy", "problem"])
def test_an_error_shows_every_part_in_one_line(part: str) -> None:
    parts = {"problem": "wrong", part: NAME}
    error = StoreError(parts.pop("problem"), **parts)
    assert SHOWN in str(error)
    assert not any(map(acts, str(error)))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert (str(again), getattr(again, part)) == (str(error), NAME)


def test_an_error_around_an_error_shows_it_once() -> None:
    inner = StoreError("wrong", found=NAME)
    assert SHOWN in str(SensoriumError("several", found=f"{inner} | {inner}"))
    assert not any(map(acts, str(UnknownNameError.of("session", NAME, ["F", NAME]))))


def test_a_terminal_shows_names_in_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = table_console()
    print_table(console, NAME, [{NAME.replace("\n", ""): NAME}])
    console.print(NAME, soft_wrap=True)
    error_console().print(f"note: {NAME}", soft_wrap=True)
    print_lines(json.dumps(NAME, ensure_ascii=False))
    shown = capsys.readouterr()
    assert shown.err == f"note: {SHOWN}\n"
    assert shown.out.count(SHOWN) == 4
    assert not any(acts(character) for character in shown.out if character != "\n")


@pytest.mark.parametrize("command", ["inspect", "verify", "score", "train x --store"])
def test_a_command_says_in_one_line_what_it_cannot_use(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), NAME, *(["--store", NAME] if command == "score" else [])])
    error = capsys.readouterr().err
    assert error.endswith("\n")
    assert not any(map(acts, error[:-1]))


def test_verify_shows_what_lies_in_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_session_store(tmp_path, n_neurons=2)
    path = tmp_path / made.session.name / "ledger.json"
    ledger = json.loads(path.read_text())
    first = next(iter(ledger["objects"].values()))
    ledger["objects"]["x\n\x1b[1mfine"] = first
    path.write_text(json.dumps(ledger))
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(tmp_path)])
    shown = capsys.readouterr()
    assert exit_.value.code == 1
    assert r"x\n\u001b[1mfine" in shown.out + shown.err
    assert not any(acts(character) for character in shown.out + shown.err if character != "\n")


def test_artifacts_show_names_in_their_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(artifacts, "report", lambda send: send())
    monkeypatch.setattr(artifacts, "create_artifact", lambda *parts: made.append(parts))
    artifacts.publish_table("k", [{NAME: NAME}], NAME.replace("\n", ""))
    artifacts.publish_markdown("k", f"# {NAME}", "d")
    file_links.publish_file("k", f"/data/{NAME}", "d")
    (_, _, table, _), (_, _, text, _), (_, _, place, _) = made
    assert json.loads(str(table)) == [{SHOWN: SHOWN}]
    assert text == "# " + SHOWN.replace(r"\n", "\n")
    assert place == f"`/data/{SHOWN}`"
    assert not any(acts(c) for parts in made for one in parts for c in str(one) if c != "\n")


def test_logs_show_names_in_their_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(run_logging, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(run_logging, "artifact_progress", lambda warn: throttled_lines(lambda line: None))
    with caplog.at_level(logging.INFO, "run"):
        run_logging.log_line(NAME)
        run_logging.run_progress()(NAME, 1, 1)
    assert [record.getMessage().startswith(SHOWN) for record in caplog.records] == [True, True]
