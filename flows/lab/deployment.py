"""What a Prefect server has to know before workers can run the flows: pools, limits, an automation, deployments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from prefect.automations import AutomationCore, CallWebhook, ChangeFlowRunState, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.training import GPU_LIMIT
from sensorium_data.errors import UsageError

__all__ = [
    "FAILURES_AUTOMATION",
    "HEARTBEAT_S",
    "LOST_RUNS_AUTOMATION",
    "Deployed",
    "deploy",
    "find_checkout",
    "find_host",
    "notify_of_failures",
]

#: Every so many seconds a flow run says that it is alive; set for the runs in ``prefect.yaml``.
HEARTBEAT_S = 30
#: The name of the automation that ends runs of which nothing is heard any more.
LOST_RUNS_AUTOMATION = "sensorium: runs that nothing is heard of have crashed"
#: The name of the automation that tells of failures.
FAILURES_AUTOMATION = "sensorium: tell of failures"

_FILE = "prefect.yaml"
_WEBHOOK_BLOCK = "sensorium-failures"
#: Every deployment has it.
_TAG = "sensorium"
# The type of pools that do not exist yet; a pool that somebody made keeps its own.
_POOL_TYPE = "process"
# Whatever names and messages hold, it is JSON.
_PAYLOAD = """{
  "text": {{ ("sensorium: " ~ flow.name ~ ", " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ". "
             ~ (flow_run.state.message or ""))|tojson }},
  "flow": {{ flow.name|tojson }},
  "run": {{ flow_run.name|tojson }},
  "state": {{ flow_run.state.name|tojson }},
  "message": {{ (flow_run.state.message or "")|tojson }},
  "url": {{ (flow_run|ui_url)|tojson }}
}"""
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


@dataclass(frozen=True)
class Deployed:
    """One thing on the server.

    Attributes
    ----------
    kind : str
        ``work pool``, ``concurrency limit``, ``automation`` or ``deployment``.
    name : str
    status : str
        ``made``, ``already there`` or ``updated``.
    detail : str
        What is worth knowing of it.
    """

    kind: str
    name: str
    status: str
    detail: str = ""


def find_checkout() -> Path:
    """Return the folder of ``prefect.yaml``, in which deployed flows run.

    Raises
    ------
    UsageError
        If the package was installed without it.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / _FILE).is_file():
        raise UsageError(
            "the deployments are not described here",
            path=folder / _FILE,
            found="no such file",
            remedy="run it from a clone of the repository, installed with `pip install --editable .`",
        )
    return folder


def deploy(parameters: Mapping[str, Any], checkout: Path) -> list[Deployed]:
    """Put the deployments on the server that ``PREFECT_API_URL`` names, with all that they need there.

    May be repeated: what is there is left as it is, but for the deployments, which become what ``prefect.yaml`` and
    the parameters say. Schedules that somebody switched on, or off, stay so.

    Parameters
    ----------
    parameters : mapping
        Parameters to set in each deployment whose flow has one of that name.
    checkout : Path
        The folder of ``prefect.yaml``.

    Returns
    -------
    list of Deployed
        What the server has now, in the order in which it was put there.

    Raises
    ------
    UsageError
        If Prefect refuses the deployments.
    """
    described = yaml.safe_load((checkout / _FILE).read_text(encoding="utf-8"))["deployments"]
    names = [f"{Path(one['entrypoint'].partition(':')[0]).stem}/{one['name']}" for one in described]
    with get_client(sync_client=True) as client:
        done = [_make_pool(client, name) for name in dict.fromkeys(one["work_pool"]["name"] for one in described)]
        done += [_make_limit(client), _make_automation(client)]
        switched = {name: _read_switches(client, name) for name in names}
        _run_prefect_deploy(checkout)
        for name, one in zip(names, described, strict=True):
            detail = _adjust(client, name, parameters, switched[name] or {})
            status = "made" if switched[name] is None else "updated"
            done.append(Deployed("deployment", name, status, f"pool {one['work_pool']['name']}{detail}"))
    return done


def find_host(webhook: str) -> str:
    """Return the host of a webhook's URL, the only part of it that is no secret.

    Raises
    ------
    UsageError
        If it is no http or https URL.
    """
    host = urlsplit(webhook).hostname if webhook.startswith(("http://", "https://")) else None
    if not host:
        raise UsageError("--notify", expected="an http:// or https:// URL", remedy="e.g. the URL of a Slack webhook")
    return host


def notify_of_failures(url: str) -> Deployed:
    """Have the server post to a URL when a run of a deployment fails or crashes.

    What it posts is JSON: ``text``, a sentence as Slack and its like take it, and ``flow``, ``run``, ``state``,
    ``message`` and ``url``. May be repeated, with another URL too.

    Parameters
    ----------
    url : str
        An http or https URL. It is kept as a secret, in a block of the server.

    Raises
    ------
    UsageError
        If it is no such URL.
    """
    host = find_host(url)
    block = Webhook(method="POST", url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
    block_id = block.save(_WEBHOOK_BLOCK, overwrite=True)
    with get_client(sync_client=True) as client:
        for old in client.read_automations_by_name(FAILURES_AUTOMATION):
            if any(isinstance(one, CallWebhook) and one.block_document_id == block_id for one in old.actions):
                return Deployed("automation", FAILURES_AUTOMATION, "updated", f"posts to {host}")
            client.delete_automation(old.id)
        trigger = EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{_TAG}"},
            posture=Posture.Reactive,
            threshold=1,
        )
        client.create_automation(
            AutomationCore(
                name=FAILURES_AUTOMATION,
                description="Posts a line to a webhook when a run fails.",
                trigger=trigger,
                actions=[CallWebhook(block_document_id=block_id, payload=_PAYLOAD)],
            )
        )
    return Deployed("automation", FAILURES_AUTOMATION, "made", f"posts to {host}")


def _make_pool(client: SyncPrefectClient, name: str) -> Deployed:
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=_POOL_TYPE))
    except ObjectAlreadyExists:
        return Deployed("work pool", name, "already there", client.read_work_pool(name).type)
    return Deployed("work pool", name, "made", _POOL_TYPE)


def _make_limit(client: SyncPrefectClient) -> Deployed:
    try:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
    except ObjectAlreadyExists:
        limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT).limit
        return Deployed("concurrency limit", GPU_LIMIT, "already there", f"{limit} at a time")
    return Deployed("concurrency limit", GPU_LIMIT, "made", "1 at a time")


def _make_automation(client: SyncPrefectClient) -> Deployed:
    """Have the server end runs whose process died together with its worker; nobody else would notice."""
    within = timedelta(seconds=3 * HEARTBEAT_S)
    detail = f"after {within.total_seconds():.0f} s"
    if client.read_automations_by_name(LOST_RUNS_AUTOMATION):
        return Deployed("automation", LOST_RUNS_AUTOMATION, "already there", detail)
    heartbeat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        after={heartbeat},
        expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
    message = f"Nothing was heard of this run for {within.total_seconds():.0f} s. Run it again: it continues."
    client.create_automation(
        AutomationCore(
            name=LOST_RUNS_AUTOMATION,
            description="A run whose machine lost power would be shown as running for ever.",
            trigger=trigger,
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
        )
    )
    return Deployed("automation", LOST_RUNS_AUTOMATION, "made", detail)


def _read_switches(client: SyncPrefectClient, name: str) -> dict[str, bool] | None:
    """Return which of a deployment's schedules are on, by what they are; None if there is no such deployment."""
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None
    return {str(one.schedule): one.active for one in client.read_deployment_schedules(deployment.id)}


def _run_prefect_deploy(checkout: Path) -> None:
    """Have Prefect read ``prefect.yaml``, the way that its own users know."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S603 (our own)
    if done.returncode:
        raise UsageError(
            "Prefect refused the deployments",
            path=checkout / _FILE,
            found=" ".join((done.stderr or done.stdout).split())[-500:],
            remedy=f"try `prefect deploy --all` in {checkout}",
        )


def _adjust(client: SyncPrefectClient, name: str, parameters: Mapping[str, Any], switched: Mapping[str, bool]) -> str:
    """Set a deployment's parameters and its schedules' switches, and return in words what is scheduled."""
    deployment = client.read_deployment_by_name(name)
    known = (deployment.parameter_openapi_schema or {}).get("properties", {})
    chosen = {key: value for key, value in parameters.items() if key in known}
    if chosen:
        client.update_deployment(deployment.id, DeploymentUpdate(parameters={**deployment.parameters, **chosen}))
    details: list[str] = []
    for one in client.read_deployment_schedules(deployment.id):
        active = switched.get(str(one.schedule), one.active)
        if active != one.active:
            client.update_deployment_schedule(deployment.id, one.id, active=active)
        details.append(f", schedule {_describe_schedule(one.schedule)} {'on' if active else 'off'}")
    return "".join(details)


def _describe_schedule(schedule: Any) -> str:
    return str(getattr(schedule, "cron", schedule))
