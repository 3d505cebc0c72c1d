"""Trials that are left out: how they are written, and which ones there have to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.session_stores import write_session_store
from sensorium_data.errors import StoreError, TrialError, UsageError
from sensorium_data.sessions import find_session
from sensorium_data.store import format_exclusions, open_store, parse_exclusions, read_exclusions, require_trials

F, G = find_session("F").name, find_session("G").name


def test_entries_are_sessions_and_trials_each_once() -> None:
    assert parse_exclusions(["G:4", "F:23, F:17", f"{F}:17"]) == {F: {17, 23}, G: {4}}
    assert format_exclusions(parse_exclusions("F:23,F:17,F:17")) == (f"{F}:17", f"{F}:23")
    assert parse_exclusions(()) == {}


@pytest.mark.parametrize(
    "entry", ["F17", "F:", ":17", "F:-1", "F:1.5", "F:1234567890", "", "Q:1", "F:1,,F:2", "\x1b:1"]
)
def test_entries_of_another_form_are_refused_by_name(entry: str) -> None:
    with pytest.raises(UsageError, match="SESSION:TRIAL, for example F:17") as refusal:
        parse_exclusions([entry])
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("entries", [1, [("F", 17)], [b"F:17"]])
def test_what_is_no_text_is_refused(entries: object) -> None:
    with pytest.raises(UsageError, match="SESSION:TRIAL, for example F:17"):
        parse_exclusions(entries)


def test_a_file_has_an_entry_a_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_bytes("\ufeff# blinks\r\nF:23  # second\r\n\r\nF:17\r\n".encode())
    assert read_exclusions(path) == (f"{F}:17", f"{F}:23")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"F:1\n\nF 2\n", r"trials\.txt: line 3: .*found 'F 2'"),
        (b"F:1\nQ:2\n", r"line 2: .*unknown session: found 'Q:2'"),
        (b"F:1\n\xff\xfe", "not text in UTF-8: expected a line a trial"),
        (b"#" * (2**22 + 1), "over 4 MB"),
    ],
    ids=["form", "session", "binary", "size"],
)
def test_a_file_that_is_no_list_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_exclusions(path)
    with pytest.raises(UsageError, match=r"nowhere: .*cannot be read"):
        read_exclusions(tmp_path / "nowhere")


def test_what_is_left_out_has_to_be_there(tmp_path: Path) -> None:
    write_session_store(tmp_path, "F")
    store = open_store(tmp_path)
    require_trials(store, parse_exclusions("F:12"))
    with pytest.raises(TrialError, match=r"session F .*trial 13, .*found 13 trials, ids 0 to 12, without 13, 99"):
        require_trials(store, parse_exclusions("F:12,F:99,F:13"))
    with pytest.raises(StoreError, match=r"session G .*not in the store: found F"):
        require_trials(store, parse_exclusions("G:1"))
