"""A run is watched from outside; the server is a fake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, Log, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Late, Running

from flows.watching.observed_run import RunObserver
from sensorium_data.errors import RunError, UsageError

AWAY = httpx.ConnectError("nobody there")
RUN, SUBFLOW = uuid4(), uuid4()


def log(second: int, message: str, run: UUID = RUN) -> Log:
    return Log(
        name="x", level=20, message=message, timestamp=datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC), flow_run_id=run
    )


class Server:
    """Has a state of the run, or an error, for each time that it is asked, and the lines that there are by then."""

    def __init__(self, *answers: tuple[State[Any], list[Log]] | Exception) -> None:
        self.answers = list(answers)
        self.now_s = 0.0
        self.lines: list[Log] = []
        self.asked_deployments: list[str] = []

    @contextmanager
    def connect(self) -> Iterator[Any]:
        yield self

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def read_flow_run(self, run: UUID) -> FlowRun:
        if run != RUN:
            raise ObjectNotFound(http_exc=Exception())
        return self.answer()

    def answer(self) -> FlowRun:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        state, lines = answer
        self.lines = self.lines + lines
        return FlowRun(id=RUN, flow_id=uuid4(), name="brave-mouse", state=state)

    def read_deployment_by_name(self, name: str) -> Any:
        self.asked_deployments.append(name)
        if name == "train/train":
            return SimpleNamespace(id=uuid4())
        raise ObjectNotFound(http_exc=Exception())

    def read_flow_runs(self, *, flow_run_filter: Any, **others: Any) -> list[Any]:
        if flow_run_filter.parent_flow_run_id is None:
            return [self.answer()]
        return [SimpleNamespace(id=SUBFLOW)] if flow_run_filter.parent_flow_run_id.any_ == [RUN] else []

    def read_logs(self, *, log_filter: Any, limit: int, offset: int, sort: Any) -> list[Log]:
        found = sorted(
            (one for one in self.lines if one.flow_run_id in log_filter.flow_run_id.any_), key=lambda one: one.timestamp
        )
        after = log_filter.timestamp.after_ if log_filter.timestamp else None
        return [one for one in found if after is None or one.timestamp >= after][offset : offset + limit]


def watch(server: Server, name: str = str(RUN), longest_s: float = 100.0) -> tuple[str, list[str]]:
    lines: list[str] = []
    observer = RunObserver(
        name, lines.append, longest_s=longest_s, connect=server.connect, clock=lambda: server.now_s, sleep=server.sleep
    )
    ended = observer.wait()
    assert ended.state is not None
    return str(ended.state.name), [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines]


def test_states_and_lines_are_told_once_and_those_of_subflows_too() -> None:
    server = Server(
        (Late(), []),
        (Running(), [log(2, "two")]),
        # Written before, by another process, and sent after.
        (Running(), [log(1, "one", SUBFLOW), log(3, "three")]),
        (Failed(), [log(4, "four")]),
    )
    ended, lines = watch(server)
    assert ended == "Failed"
    assert lines == [
        "brave-mouse: Late: no worker of its pool has taken it up",
        "two",
        "brave-mouse: Running",
        "one",
        "three",
        "four",
        "brave-mouse: Failed",
    ]


def test_a_restarted_server_is_waited_for() -> None:
    ended, lines = watch(Server((Running(), []), AWAY, AWAY, (Running(), []), (Completed(), [])))
    assert ended == "Completed"
    assert lines == [
        "brave-mouse: Running",
        "the Prefect server does not answer; it is waited for, 100 s at most (ConnectError('nobody there'))",
        "the Prefect server answers again after 4 s",
        "brave-mouse: Completed",
    ]


def test_a_run_that_only_seemed_to_have_crashed_is_watched_on() -> None:
    ended, lines = watch(Server((Running(), []), *[(Crashed(), [])] * 5, (Running(), []), (Completed(), [])))
    assert ended == "Completed"
    assert [line.rpartition(": ")[2] for line in lines] == ["Running", "Crashed", "Running", "Completed"]
    # It ends if the run stays so for half a minute.
    assert watch(Server(*[(Crashed(), [])] * 16))[0] == "Crashed"


def test_a_server_that_stays_away_is_given_up_with_the_command_that_goes_on() -> None:
    server = Server((Running(), []), *[AWAY] * 100)
    with pytest.raises(RunError, match=rf"stays away.*no answer for 12 s.*`sensorium watch {RUN}` goes on") as error:
        watch(server, "train/train", longest_s=10)
    assert error.value.exit_status == 2
    # What was found first is watched, whatever else the deployment begins.
    assert server.asked_deployments == ["train/train"]


@pytest.mark.parametrize(
    ("name", "said"), [("train", "no run and no deployment"), ("2f1c8f0e-5a3d-4c57-9c1b-0d6f2e7a9b34", "no such run")]
)
def test_what_is_not_there_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        watch(Server(), name)
