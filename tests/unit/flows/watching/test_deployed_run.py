"""A run waits for a deployment's run; the server is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import AwaitingRetry, Completed, Failed, Late, Running

from flows.watching.deployed_run import wait_for_run

AWAY = httpx.ConnectError("nobody there")


class Server:
    """Has a state of the run, or an error, for each time that it is asked."""

    def __init__(self, *answers: State[Any] | Exception) -> None:
        self.answers = list(answers)

    @contextmanager
    def connect(self) -> Iterator[Any]:
        yield self

    def read_flow_run(self, run: UUID) -> FlowRun:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return FlowRun(id=run, flow_id=uuid4(), state=answer)


def wait(server: Server) -> tuple[str, list[str]]:
    lines: list[str] = []
    run = FlowRun(id=uuid4(), flow_id=uuid4())
    ended = wait_for_run(run, write_line=lines.append, connect=server.connect, sleep=lambda _: None)
    assert ended.id == run.id
    assert ended.state is not None
    return str(ended.state.name), lines


def test_each_state_is_told_once() -> None:
    server = Server(Late(), Running(), Running(), AwaitingRetry(), Failed())
    ended, lines = wait(server)
    assert ended == "Failed"
    assert lines == ["Late: no worker of its pool has taken it up", "Running", "AwaitingRetry", "Failed"]


def test_an_absence_of_the_server_is_waited_out() -> None:
    ended, lines = wait(Server(Running(), AWAY, AWAY, Running(), Completed()))
    assert (ended, lines) == ("Completed", ["Running", "Completed"])


def test_a_run_that_somebody_deleted_is_not_waited_for() -> None:
    with pytest.raises(ValueError, match="no such run"):
        wait(Server(Running(), ValueError("no such run")))
