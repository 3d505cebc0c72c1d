"""A flow run watched from outside: its states and log lines as they come, also after an absence of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterParentFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.exceptions import ObjectNotFound

from flows.settings import Settings
from flows.watching.server import Connect, is_absence, quick_client
from sensorium_data.commands import quote_command
from sensorium_data.errors import RunError, UsageError

__all__ = ["RunObserver", "find_run"]

_POLL_S = 2.0
# A run looks every ten seconds whether the server takes it for crashed.
_CRASHED_S = 30.0
_PAGE = 200
# Processes send their lines every few seconds, so that some come behind others that were written after them.
_LATE = timedelta(seconds=60)


def find_run(client: SyncPrefectClient, name: str) -> FlowRun:
    """Return the flow run with an id, or the newest one of a deployment.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    name : str
        The run's id, or flow and name of the deployment, ``ingest/ingest``.

    Raises
    ------
    UsageError
        If there is no such run or deployment, or the deployment has no run yet.
    """
    run = _parse_id(name)
    if run is not None:
        try:
            return client.read_flow_run(run)
        except ObjectNotFound as error:
            listed = "`prefect flow-run ls` lists some"
            raise UsageError("the server has no such run", found=name, remedy=listed) from error
    try:
        deployment = client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError) as error:
        raise UsageError(
            "no run and no deployment",
            found=repr(name),
            expected="a run's id, or a deployment such as ingest/ingest",
            remedy="`prefect deployment ls` lists them",
        ) from error
    # Those that a schedule has made for tomorrow are not meant.
    begun = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)))
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=begun,
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    if not runs:
        raise UsageError("the deployment has no run yet", found=name, remedy=f"`prefect deployment run {name}`")
    return runs[0]


class RunObserver:
    """Tells what a flow run does until it has ended.

    Parameters
    ----------
    name : str
        As :func:`find_run` takes it.
    write_line : callable
        Takes a line: a state, or what the run and its subflows have logged.
    longest_s : float, optional
        After so many seconds a server that is away is not waited for any longer; by default
        :attr:`flows.settings.Settings.server_wait_s`.
    connect : callable
        Opens a client.
    clock, sleep : callable
        Seconds that never go back, and what waits for some.
    """

    def __init__(
        self,
        name: str,
        write_line: Callable[[str], None],
        *,
        longest_s: float | None = None,
        connect: Connect = quick_client,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name = name
        self._write_line = write_line
        self._longest_s = Settings().server_wait_s if longest_s is None else longest_s
        self._connect = connect
        self._clock = clock
        self._sleep = sleep
        self._state = ""
        self._away_since_s: float | None = None
        self._crashed_since_s: float | None = None
        self._seen: dict[UUID, datetime] = {}

    def wait(self) -> FlowRun:
        """Wait until the run has ended, and return it.

        Raises
        ------
        UsageError
            If there is no such run.
        RunError
            If the server stays away.
        """
        while True:
            try:
                with self._connect() as client:
                    run = find_run(client, self._name)
                    # From now on this one, though the deployment may begin another.
                    self._name = str(run.id)
                    self._note_presence()
                    self._tell_lines(client, run)
            except Exception as error:
                if not is_absence(error):
                    raise
                self._take_absence(error)
            else:
                self._tell_state(run)
                if self._has_ended(run):
                    self._tell_last_lines(run)
                    return run
            self._sleep(_POLL_S)

    def _has_ended(self, run: FlowRun) -> bool:
        if run.state is None or not run.state.is_crashed():
            self._crashed_since_s = None
            return run.state is not None and run.state.is_final()
        # A server that was away has missed its signs of life; a run that is alive says so soon.
        if self._crashed_since_s is None:
            self._crashed_since_s = self._clock()
        return self._clock() - self._crashed_since_s >= _CRASHED_S

    def _tell_last_lines(self, run: FlowRun) -> None:
        """Tell what arrives after the end, in which nobody is interested enough to wait for a server."""
        self._sleep(_POLL_S)
        try:
            with self._connect() as client:
                self._tell_lines(client, run)
        except Exception as error:
            if not is_absence(error):
                raise

    def _take_absence(self, error: Exception) -> None:
        now_s = self._clock()
        if self._away_since_s is None:
            self._away_since_s = now_s
            self._write_line(
                f"the Prefect server does not answer; it is waited for, {self._longest_s:.0f} s at most ({error!r})"
            )
        elif now_s - self._away_since_s > self._longest_s:
            raise RunError(
                "the Prefect server stays away, and the run is not watched any longer; it may go on",
                found=f"no answer for {now_s - self._away_since_s:.0f} s",
                expected="one within SENSORIUM_SERVER_WAIT_S",
                remedy=f"{quote_command('watch', self._name)} goes on watching when the server is back",
            ) from error

    def _note_presence(self) -> None:
        if self._away_since_s is not None:
            self._write_line(f"the Prefect server answers again after {self._clock() - self._away_since_s:.0f} s")
            self._away_since_s = None

    def _tell_state(self, run: FlowRun) -> None:
        name = "unknown" if run.state is None else str(run.state.name)
        if name != self._state:
            late = ": no worker of its pool has taken it up" if name == "Late" else ""
            self._write_line(f"{run.name}: {name}{late}")
        self._state = name

    def _tell_lines(self, client: SyncPrefectClient, run: FlowRun) -> None:
        runs = [run.id, *_find_subflows(client, run.id)]
        after = max(self._seen.values()) - _LATE if self._seen else None
        wanted = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=runs),
            timestamp=None if after is None else LogFilterTimestamp(after_=after),
        )
        for line in _read_logs(client, wanted):
            if line.id not in self._seen:
                self._seen[line.id] = line.timestamp
                self._write_line(f"{line.timestamp.astimezone():%H:%M:%S} {line.message}")


def _parse_id(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _find_subflows(client: SyncPrefectClient, run: UUID) -> Iterator[UUID]:
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    for child in client.read_flow_runs(flow_run_filter=children):
        yield child.id
        yield from _find_subflows(client, child.id)


def _read_logs(client: SyncPrefectClient, wanted: LogFilter) -> Iterator[Log]:
    n_read = 0
    while True:
        page = client.read_logs(log_filter=wanted, limit=_PAGE, offset=n_read, sort=LogSort.TIMESTAMP_ASC)
        yield from page
        if len(page) < _PAGE:
            return
        n_read += len(page)
