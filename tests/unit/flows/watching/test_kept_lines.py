"""Log lines are kept while the server is away; what sends them is a fake."""

from __future__ import annotations

from typing import Any

import prefect.logging.handlers
import pytest

import flows.watching.kept_lines
from flows.watching.kept_lines import KeptLines


class Sender:
    """Takes lines as Prefect's sender does."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.n_waited = 0

    def instance(self) -> Sender:
        return self

    def send(self, line: dict[str, Any]) -> None:
        self.sent.append(line)

    def drain_all(self, timeout: float) -> None:
        assert timeout <= 90
        self.n_waited += 1


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Sender:
    sender = Sender()
    monkeypatch.setattr(flows.watching.kept_lines, "APILogWorker", sender)
    monkeypatch.setattr(prefect.logging.handlers, "APILogWorker", sender)
    return sender


def write(message: str) -> None:
    """As Prefect's handler does with a line."""
    prefect.logging.handlers.emit_api_log({"message": message})


def test_lines_of_an_absence_are_sent_in_order_afterwards(sender: Sender) -> None:
    kept = KeptLines()
    write("before")
    kept.hold()
    write("first")
    # Two runs of one process notice the same absence.
    kept.hold()
    write("second")
    assert [line["message"] for line in sender.sent] == ["before"]
    kept.release()
    kept.release()
    write("after")
    assert [line["message"] for line in sender.sent] == ["before", "first", "second", "after"]


def test_others_who_take_lines_are_left_alone(sender: Sender) -> None:
    theirs: list[dict[str, Any]] = []
    kept = KeptLines()
    kept.hold()
    kept.release()
    prefect.logging.handlers.set_api_log_sink(theirs.append)
    try:
        kept.release()
        write("for them")
    finally:
        prefect.logging.handlers.set_api_log_sink(None)
    assert [line["message"] for line in theirs] == ["for them"]
    assert sender.sent == []


def test_only_what_was_kept_is_waited_for(sender: Sender) -> None:
    kept = KeptLines()
    kept.wait_until_sent()
    assert sender.n_waited == 0
    kept.hold()
    write("kept")
    kept.release()
    kept.wait_until_sent()
    assert sender.n_waited == 1
