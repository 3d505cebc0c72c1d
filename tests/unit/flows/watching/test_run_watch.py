"""A run asks the server what it is taken for; the server is a fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import Artifact, FlowRun, State
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Running

import flows.watching.run_watch
from fixtures.places import CHECKOUT
from flows.watching.run_watch import RunWatch, report, server_is_away
from flows.watching.server import is_absence, wait_for_server

AWAY = httpx.ConnectError("nobody there")


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Server:
    """Knows the state of one run, if it is there."""

    state: State[Any] = field(default_factory=Running)
    is_there: bool = True
    forced: list[bool] = field(default_factory=list)
    refusal: Exception | None = None
    progress: list[Artifact] = field(default_factory=list)

    @contextmanager
    def connect(self) -> Iterator[Any]:
        yield self

    def read_flow_run(self, run: UUID) -> FlowRun:
        self.api_healthcheck(raises=True)
        if self.refusal is not None:
            raise self.refusal
        return FlowRun(id=run, flow_id=uuid4(), state=self.state)

    def set_flow_run_state(self, _run: UUID, state: State[Any], *, force: bool) -> None:
        self.state = state
        self.forced.append(force)

    def read_artifacts(self, **_: object) -> list[Artifact]:
        return list(self.progress)

    def delete_artifact(self, artifact: UUID) -> None:
        self.progress = [one for one in self.progress if one.id != artifact]

    def api_healthcheck(self, *, raises: bool = False) -> Exception | None:
        if self.is_there:
            return None
        if raises:
            raise AWAY
        return AWAY


@dataclass
class Watched:
    """A watch over a run, and what it did."""

    server: Server
    clock: Clock
    lines: list[str] = field(default_factory=list)
    n_ended: int = 0

    def end(self) -> None:
        self.n_ended += 1

    def watch(self, patience_s: float = 0.0) -> RunWatch:
        return RunWatch(
            FlowRun(id=uuid4(), flow_id=uuid4()),
            end=self.end,
            write_line=self.lines.append,
            connect=self.server.connect,
            patience_s=patience_s,
            clock=self.clock,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def watched(server: Server, clock: Clock) -> Watched:
    return Watched(server, clock)


@contextmanager
def inside(watch: RunWatch) -> Iterator[None]:
    """Be a part of the run that is watched."""
    token = flows.watching.run_watch._current.set(watch)
    try:
        yield
    finally:
        flows.watching.run_watch._current.reset(token)


def test_a_run_that_is_taken_for_crashed_reports_that_it_is_alive(watched: Watched, server: Server) -> None:
    server.state = Crashed(message="Nothing was heard of this run for 90 s.")
    watched.watch().look()
    assert server.state.is_running()
    # Without force the server keeps final states.
    assert server.forced == [True]
    (line,) = watched.lines
    assert "Nothing was heard of this run for 90 s" in line
    assert "alive" in line


@pytest.mark.parametrize("state", [Cancelling, Cancelled])
def test_a_canceled_run_is_ended_once(watched: Watched, server: Server, state: Callable[[], State[Any]]) -> None:
    watch = watched.watch()
    watch.look()
    assert (watched.n_ended, watch.is_canceled) == (0, False)
    server.state = state()
    watch.look()
    watch.look()
    assert (watched.n_ended, watch.is_canceled) == (1, True)
    assert len(watched.lines) == 1


def test_a_worker_that_listens_has_time_to_end_it(watched: Watched, server: Server, clock: Clock) -> None:
    watch = watched.watch(patience_s=30)
    server.state = Cancelling()
    watch.look()
    clock.now_s += 29
    watch.look()
    assert watched.n_ended == 0
    clock.now_s += 1
    watch.look()
    assert watched.n_ended == 1


@pytest.mark.parametrize("state", [Completed, Running])
def test_other_states_are_left_alone(watched: Watched, server: Server, state: Callable[[], State[Any]]) -> None:
    server.state = state()
    watched.watch().look()
    assert server.forced == []
    assert (watched.n_ended, watched.lines) == (0, [])


def test_a_server_that_is_away_for_an_hour_is_told_of_twice(watched: Watched, server: Server, clock: Clock) -> None:
    watch = watched.watch()
    server.is_there = False
    for _ in range(360):
        watch.look()
        clock.now_s += 10
    assert len(watched.lines) == 1
    assert "nobody there" in watched.lines[0]
    server.is_there = True
    watch.look()
    assert len(watched.lines) == 2
    assert "after 3600 s" in watched.lines[1]
    assert watched.n_ended == 0


def test_nothing_is_ended_once_the_run_is_over(watched: Watched, server: Server) -> None:
    with watched.watch() as watch:
        pass
    server.state = Cancelling()
    watch.look()
    assert watched.n_ended == 0


def test_the_end_that_the_engine_reports_stays(watched: Watched, server: Server) -> None:
    with watched.watch() as watch:
        pass
    server.state = Crashed(message="Execution was aborted by an interrupt signal.")
    # In the watching thread, which the end has overtaken.
    watch.look()
    assert server.state.is_crashed()


def test_a_run_that_the_server_does_not_know_goes_on_and_reports(watched: Watched, server: Server) -> None:
    server.refusal = ValueError("404 Not Found")
    watch = watched.watch()
    watch.look()
    watch.look()
    assert not watch.is_away
    (line,) = watched.lines
    assert "404 Not Found" in line
    reports = Reports()
    with inside(watch):
        report(reports.send)
    assert reports.n_sent == 1


def test_a_part_of_a_canceled_run_is_canceled(watched: Watched, server: Server) -> None:
    whole = watched.watch()
    with inside(whole):
        part = watched.watch()
    assert not part.is_canceled
    server.state = Cancelling()
    whole.look()
    assert part.is_canceled


def test_every_flow_is_watched() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in (CHECKOUT / "flows").glob("*.py")}
    flows_in = {name: source.count("\n@flow(") for name, source in sources.items()}
    assert sum(flows_in.values()) >= 9
    assert {name: source.count("\n@watched\n@flow(") for name, source in sources.items()} == flows_in


class Reports:
    """What a server was sent, unless it refused."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.n_tried = 0
        self.n_sent = 0

    def send(self) -> None:
        self.n_tried += 1
        if self.failures:
            raise self.failures.pop(0)
        self.n_sent += 1


def test_what_an_absent_server_does_not_take_is_sent_at_the_end(watched: Watched, server: Server) -> None:
    watch = watched.watch()
    reports = Reports(AWAY)
    with inside(watch):
        report(reports.send)
        server.is_there = False
        watch.look()
        assert server_is_away()
        # Known to be away, it is not even asked.
        report(reports.send)
        assert (reports.n_tried, reports.n_sent) == (1, 0)
    server.is_there = True
    watch.finish()
    assert reports.n_sent == 2


def test_what_is_put_off_may_send_more_than_one_report(watched: Watched, server: Server) -> None:
    watch = watched.watch()
    reports = Reports()
    server.is_there = False
    watch.look()
    with inside(watch):
        report(lambda: report(reports.send))
    server.is_there = True
    watch.finish()
    assert reports.n_sent == 1


def test_a_last_report_is_sent_again_while_the_server_is_busy(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.watching.run_watch._PAUSES_S", (0.0, 0.0))
    watch = watched.watch()
    busy, refused = Reports(AWAY, AWAY, AWAY), Reports(AWAY, ValueError("no such artifact"))
    with inside(watch):
        report(busy.send)
        report(refused.send)
    watch.finish()
    assert (busy.n_tried, busy.n_sent) == (4, 1)
    assert (refused.n_tried, refused.n_sent) == (2, 0)


def test_what_the_server_refuses_is_raised(watched: Watched) -> None:
    refused = ValueError("a key has no such letters")
    with inside(watched.watch()), pytest.raises(ValueError, match="no such letters"):
        report(Reports(refused).send)
    with pytest.raises(httpx.ConnectError):
        report(Reports(AWAY).send)


def test_a_run_that_has_crashed_meanwhile_is_alive_at_its_end(watched: Watched, server: Server) -> None:
    server.state = Crashed()
    watched.watch().finish()
    assert server.state.is_running()


def test_progress_that_is_left_at_the_end_is_deleted(watched: Watched, server: Server) -> None:
    for end in (RunWatch.finish, RunWatch.report_canceled):
        server.progress = [Artifact(type="progress", key="progress-convert-f")]
        end(watched.watch())
        assert server.progress == []


def test_the_end_waits_for_the_server(server: Server, clock: Clock) -> None:
    server.is_there = False

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        server.is_there = clock.now_s >= 3600

    assert wait_for_server(connect=server.connect, longest_s=4000, clock=clock, sleep=sleep)
    assert clock.now_s == pytest.approx(3600, abs=10)


def test_the_end_does_not_wait_for_ever(server: Server, clock: Clock) -> None:
    server.is_there = False
    assert not wait_for_server(connect=server.connect, longest_s=4000, clock=clock, sleep=clock.sleep)
    assert 3900 < clock.now_s <= 4000


@pytest.mark.parametrize(("status", "absent"), [(503, True), (502, True), (429, True), (404, False), (422, False)])
def test_a_server_that_refuses_is_there(status: int, absent: bool) -> None:
    answer = httpx.Response(status, request=httpx.Request("GET", "http://127.0.0.1"))
    with pytest.raises(httpx.HTTPStatusError) as error:
        answer.raise_for_status()
    assert is_absence(error.value) == absent
    assert is_absence(httpx.ReadTimeout(""))
    assert not is_absence(ValueError())
