"""What runs that are over have left on the server: task runs and subflow runs shown as running, and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterType,
    FlowFilter,
    FlowFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

__all__ = ["close_lost_runs", "delete_progress"]

# Two runs of a flow that agree in these do the same work.
_SAME = ("store", "sessions", "preset", "runs", "overrides", "folds", "fold", "predictions", "tiers", "out")
# Older ones were closed by the runs after them.
_N_NEWEST = 50
_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
_MESSAGE = "Its flow run has crashed. The same work was started again."


def close_lost_runs(client: SyncPrefectClient, run: FlowRun) -> int:
    """Report as crashed what is below earlier flow runs of the same work that have crashed, and return how many.

    Their progress artifacts are deleted.
    Whoever is killed cannot tell the server what becomes of its tasks. The run of a process that was taken for
    crashed and is alive reports again by itself.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    run : FlowRun
        The run that starts the work again.
    """
    crashed = client.read_flow_runs(
        flow_filter=FlowFilter(id=FlowFilterId(any_=[run.flow_id])),
        flow_run_filter=FlowRunFilter(state=_flow_state([StateType.CRASHED])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=_N_NEWEST,
    )
    same = [one.id for one in crashed if one.id != run.id and _is_same_work(one.parameters, run.parameters)]
    return _close_below(client, same) if same else 0


def delete_progress(client: SyncPrefectClient, runs: Sequence[UUID]) -> None:
    """Delete the progress artifacts of flow runs that are over."""
    left = client.read_artifacts(
        artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])),
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(runs))),
    )
    for artifact in left:
        client.delete_artifact(artifact.id)


def _close_below(client: SyncPrefectClient, runs: Sequence[UUID]) -> int:
    delete_progress(client, runs)
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(runs))),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_UNFINISHED))),
    )
    for task in tasks:
        client.set_task_run_state(task.id, Crashed(message=_MESSAGE), force=True)
    # Those that have crashed already, by a lack of heartbeats, have unfinished tasks too.
    subflows = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=list(runs)),
            state=_flow_state([*_UNFINISHED, StateType.CRASHED]),
        )
    )
    # A worker of its own does a deployment's run, which may go on.
    subflows = [one for one in subflows if one.deployment_id is None]
    lost = [one for one in subflows if one.state_type in _UNFINISHED]
    for one in lost:
        client.set_flow_run_state(one.id, Crashed(message=_MESSAGE), force=True)
    below = _close_below(client, [one.id for one in subflows]) if subflows else 0
    return len(tasks) + len(lost) + below


def _flow_state(types: list[StateType]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=types))


def _is_same_work(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in _SAME)
