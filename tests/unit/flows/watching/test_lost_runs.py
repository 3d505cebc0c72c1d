"""What runs that were killed have left is closed by the next run of the same work; the server is a fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.filters import ArtifactFilter, FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import Artifact, FlowRun, State, TaskRun
from prefect.states import Completed, Crashed, Running

from flows.watching.lost_runs import close_lost_runs

FLOW = uuid4()
OTHER_FLOW = uuid4()
WORK = {"store": "/data/store", "sessions": ["F"], "jobs": 2}


@dataclass
class Server:
    """Finds runs by the filters that are used here."""

    flow_runs: list[tuple[FlowRun, UUID | None]] = field(default_factory=list)
    task_runs: list[TaskRun] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def add(self, state: State[Any], *, parent: UUID | None = None, flow: UUID = FLOW, **parameters: object) -> FlowRun:
        run = FlowRun(id=uuid4(), flow_id=flow, state=state, state_type=state.type, parameters=WORK | parameters)
        self.flow_runs.append((run, parent))
        return run

    def add_task(self, run: FlowRun, state: State[Any]) -> TaskRun:
        task = TaskRun(
            id=uuid4(), flow_run_id=run.id, task_key="task", dynamic_key="0", state=state, state_type=state.type
        )
        self.task_runs.append(task)
        return task

    def read_flow_runs(
        self, *, flow_run_filter: FlowRunFilter, flow_filter: FlowFilter | None = None, **_: object
    ) -> list[FlowRun]:
        flows = flow_filter.id.any_ if flow_filter and flow_filter.id else None
        parents = flow_run_filter.parent_flow_run_id
        assert flow_run_filter.state
        assert flow_run_filter.state.type
        types: Sequence[object] = flow_run_filter.state.type.any_ or ()
        return [
            run
            for run, parent in self.flow_runs
            if (flows is None or run.flow_id in flows)
            and (parents is None or parent in (parents.any_ or ()))
            and run.state_type in types
        ]

    def read_task_runs(self, *, flow_run_filter: FlowRunFilter, task_run_filter: TaskRunFilter) -> list[TaskRun]:
        assert flow_run_filter.id
        assert task_run_filter.state
        assert task_run_filter.state.type
        types: Sequence[object] = task_run_filter.state.type.any_ or ()
        runs = flow_run_filter.id.any_ or ()
        return [one for one in self.task_runs if one.flow_run_id in runs and one.state_type in types]

    def read_artifacts(self, *, artifact_filter: ArtifactFilter, flow_run_filter: FlowRunFilter) -> list[Artifact]:
        assert artifact_filter.type
        assert flow_run_filter.id
        kinds, runs = artifact_filter.type.any_ or (), flow_run_filter.id.any_ or ()
        return [one for one in self.artifacts if one.type in kinds and one.flow_run_id in runs]

    def delete_artifact(self, artifact: UUID) -> None:
        self.artifacts = [one for one in self.artifacts if one.id != artifact]

    def set_flow_run_state(self, run: UUID, state: State[Any], *, force: bool) -> None:
        assert force
        (found,) = (one for one, _ in self.flow_runs if one.id == run)
        found.state, found.state_type = state, state.type

    def set_task_run_state(self, task: UUID, state: State[Any], *, force: bool) -> None:
        assert force
        (found,) = (one for one in self.task_runs if one.id == task)
        found.state, found.state_type = state, state.type


@pytest.fixture
def server() -> Server:
    return Server()


def close(server: Server) -> int:
    return close_lost_runs(server, server.add(Running(), jobs=8))  # type: ignore[arg-type]


def test_the_running_tasks_of_a_run_that_crashed_are_closed(server: Server) -> None:
    crashed = server.add(Crashed())
    lost, done = server.add_task(crashed, Running()), server.add_task(crashed, Completed())
    # Jobs are another matter: the work is the same.
    assert close(server) == 1
    assert lost.state is not None
    assert lost.state.is_crashed()
    assert "flow run has crashed" in (lost.state.message or "")
    assert done.state is not None
    assert done.state.is_completed()
    assert close(server) == 0


def test_what_runs_or_does_other_work_is_left_alone(server: Server) -> None:
    others = [
        server.add(Running()),
        server.add(Crashed(), flow=OTHER_FLOW),
        server.add(Crashed(), store="/other/store"),
        server.add(Crashed(), sessions=["D"]),
    ]
    tasks = [server.add_task(one, Running()) for one in others]
    assert close(server) == 0
    assert all(one.state is not None and one.state.is_running() for one in tasks)


def test_parts_of_a_run_that_crashed_are_closed_with_their_tasks(server: Server) -> None:
    whole = server.add(Crashed())
    lost = server.add(Running(), parent=whole.id, flow=OTHER_FLOW, store="")
    known = server.add(Crashed(), parent=whole.id, flow=OTHER_FLOW, store="")
    tasks = [server.add_task(one, Running()) for one in (whole, lost, known)]
    assert close(server) == 4
    assert lost.state is not None
    assert lost.state.is_crashed()
    assert all(one.state is not None and one.state.is_crashed() for one in tasks)


def test_the_progress_of_what_crashed_is_deleted_and_what_it_found_stays(server: Server) -> None:
    whole = server.add(Crashed())
    part = server.add(Running(), parent=whole.id, flow=OTHER_FLOW, store="")
    other = server.add(Crashed(), store="/other/store")
    for run in (whole, part, other):
        server.artifacts += [Artifact(flow_run_id=run.id, type=kind, key="k") for kind in ("progress", "table")]
    close(server)
    left = [(one.flow_run_id, one.type) for one in server.artifacts]
    assert left == [(whole.id, "table"), (part.id, "table"), (other.id, "progress"), (other.id, "table")]


def test_a_deployments_run_goes_on_without_the_run_that_started_it(server: Server) -> None:
    whole = server.add(Crashed())
    part = server.add(Running(), parent=whole.id, flow=OTHER_FLOW, store="")
    part.deployment_id = uuid4()
    task = server.add_task(part, Running())
    assert close(server) == 0
    assert part.state is not None
    assert part.state.is_running()
    assert task.state is not None
    assert task.state.is_running()
