"""What a Prefect server has to know before workers can run the flows: pools, limits, an automation, deployments."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from prefect.automations import AutomationCore, CallWebhook, ChangeFlowRunState, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    VariableCreate,
    VariableUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.lab.checkout import DEPLOYMENTS_FILE, ENTER_CHECKOUT
from flows.lab.descriptions import (
    Change,
    accepts,
    compare,
    describe_schedule,
    merge,
    read_deployed,
    read_described,
)
from flows.training import GPU_LIMIT
from sensorium_data.errors import UsageError, describe_os_error
from sensorium_data.files import describe_damage

__all__ = [
    "FAILURES_AUTOMATION",
    "HEARTBEAT_S",
    "LOST_RUNS_AUTOMATION",
    "Deployed",
    "Deployment",
    "deploy",
    "find_host",
    "notify_of_failures",
]

#: Every so many seconds a flow run says that it is alive; set for the runs in ``prefect.yaml``.
HEARTBEAT_S = 30
#: The name of the automation that ends runs of which nothing is heard any more.
LOST_RUNS_AUTOMATION = "sensorium: runs that nothing is heard of have crashed"
#: The name of the automation that tells of failures.
FAILURES_AUTOMATION = "sensorium: tell of failures"

# The variable on the server that keeps what was described when the deployments were last made.
_BASES_VARIABLE = "sensorium-described"
_WEBHOOK_BLOCK = "sensorium-failures"
#: Every deployment has it.
_TAG = "sensorium"
# The type of pools that do not exist yet; a pool that somebody made keeps its own.
_POOL_TYPE = "process"
# Whatever names and messages hold, it is JSON.
_PAYLOAD = """{
  "text": {{ ("sensorium: " ~ flow.name ~ ", " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ". "
             ~ (flow_run.state.message or "") ~ " " ~ (flow_run|ui_url))|tojson }},
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
        ``made``, ``already there``, or ``updated``.
    detail : str
        What is worth knowing of it.
    """

    kind: str
    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class Deployment:
    """What deploying did.

    Attributes
    ----------
    done : tuple of Deployed
        What the server has now; empty if nothing was to be changed.
    changes : tuple of Change
        What differs from what the server had.
    """

    done: tuple[Deployed, ...]
    changes: tuple[Change, ...]


def deploy(
    parameters: Mapping[str, Any], checkout: Path, *, file: Path | None = None, dry_run: bool = False
) -> Deployment:
    """Put the deployments on the server that ``PREFECT_API_URL`` names, with all that they need there.

    May be repeated: what ``prefect.yaml`` describes is brought up to date, and what people set on the server stays as
    they set it, namely parameters, schedules and their switches, limits, pools, tags and descriptions.

    Parameters
    ----------
    parameters : mapping
        Parameters to set in each deployment whose flow takes one of that name and type, whatever it had.
    checkout : Path
        The folder of ``prefect.yaml``.
    file : Path, optional
        What describes the deployments in the place of ``prefect.yaml``. Its ``definitions.pools`` may say the ``type``
        of pools that do not exist yet, and the file of their ``base_job_template``, relative to ``checkout``; pools of
        another type are refused then.
    dry_run : bool
        Change nothing, and return what would change.

    Returns
    -------
    Deployment
        What the server has now, in the order in which it was put there, and what changed.

    Raises
    ------
    UsageError
        If a file cannot be read, a pool is of another type, or Prefect refuses the deployments.
    """
    file = file or checkout / DEPLOYMENTS_FILE
    document = _read_description(file)
    kind = _PoolKind.read(document, checkout, file)
    entries = {_name(one): one for one in document["deployments"]}
    with get_client(sync_client=True) as client:
        bases = _read_bases(client)
        settings: dict[str, dict[str, Any]] = {}
        changes: list[Change] = []
        is_new: dict[str, bool] = {}
        for name, entry in entries.items():
            found = _find(client, name)
            described, deployed = read_described(entry), None if found is None else read_deployed(found)
            is_new[name] = found is None
            asked = _choose_parameters(checkout, entry, parameters)
            settings[name] = merge(described, deployed, bases.get(name), asked)
            changes += compare(name, deployed, settings[name])
        pools = dict.fromkeys(one["work_pool"]["name"] for one in settings.values())
        for name in pools:
            kind.require_fitting(client, name)
        if dry_run:
            return Deployment((), tuple(changes))
        done = [_make_pool(client, name, kind) for name in pools]
        done += [_make_limit(client), _make_automation(client)]
        # A worker on another machine has its clone elsewhere.
        pull = document.get("pull") or [{ENTER_CHECKOUT: {"directory": str(checkout)}}]
        _run_prefect_deploy(
            checkout,
            file,
            {**document, "pull": pull, "deployments": [entry | settings[name] for name, entry in entries.items()]},
        )
        _write_bases(client, {name: read_described(entry) for name, entry in entries.items()})
        changed = {change.deployment for change in changes}
        for name, one in settings.items():
            status = "made" if is_new[name] else "updated" if name in changed else "already there"
            schedules = "".join(f", schedule {describe_schedule(schedule)}" for schedule in one["schedules"])
            done.append(Deployed("deployment", name, status, f"pool {one['work_pool']['name']}{schedules}"))
    return Deployment(tuple(done), tuple(changes))


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

    What it posts is JSON: ``text``, a line with the run's URL as Slack and its like take it, and ``flow``, ``run``,
    ``state``, ``message`` and ``url``. May be repeated, with another URL too.

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
            ours = [one for one in old.actions if isinstance(one, CallWebhook) and one.block_document_id == block_id]
            if any(one.payload == _PAYLOAD for one in ours):
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


@dataclass(frozen=True)
class _PoolKind:
    """What kind of work pool is made where there is none.

    Attributes
    ----------
    type : str
        Prefect's name for it.
    template : mapping
        Its base job template; empty for Prefect's own.
    is_required : bool
        Whether the deployments fit no pool of another type.
    """

    type: str = _POOL_TYPE
    template: Mapping[str, Any] = field(default_factory=dict)
    is_required: bool = False

    @classmethod
    def read(cls, document: Mapping[str, Any], checkout: Path, file: Path) -> _PoolKind:
        described = (document.get("definitions") or {}).get("pools")
        if described is None:
            return cls()
        try:
            template = described.get("base_job_template")
            return cls(
                type=str(described["type"]),
                template={} if template is None else json.loads((checkout / template).read_text(encoding="utf-8")),
                is_required=True,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                "definitions.pools cannot be used",
                path=file,
                found=describe_os_error(error) if isinstance(error, OSError) else describe_damage(error),
                expected="a type, and the file of a base_job_template if it is not Prefect's own",
            ) from error

    def require_fitting(self, client: SyncPrefectClient, name: str) -> None:
        """Raise a :class:`UsageError` if there is a pool of this name on which the deployments could not run."""
        try:
            found = client.read_work_pool(name).type
        except ObjectNotFound:
            return
        if self.is_required and found != self.type:
            raise UsageError(
                f"the work pool {name} is of another type",
                found=found,
                expected=self.type,
                remedy=f"delete it with `prefect work-pool delete {name}`, or give the pools in the file other names",
            )


def _read_description(file: Path) -> dict[str, Any]:
    """Return what a file like ``prefect.yaml`` describes."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not document["deployments"]:
            raise ValueError("no deployments")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        found = describe_os_error(error) if isinstance(error, OSError) else describe_damage(error)
        raise UsageError(
            "the file does not describe deployments",
            path=file,
            found=found,
            expected="YAML as prefect.yaml has it",
            remedy="name another file",
        ) from error
    return dict(document)


def _make_pool(client: SyncPrefectClient, name: str, kind: _PoolKind) -> Deployed:
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind.type, base_job_template=dict(kind.template)))
    except ObjectAlreadyExists:
        return Deployed("work pool", name, "already there", client.read_work_pool(name).type)
    return Deployed("work pool", name, "made", kind.type)


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


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['entrypoint'].partition(':')[2]}/{entry['name']}"


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _choose_parameters(checkout: Path, entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a flow takes: `runs` is a folder for some flows, and a list of runs for others."""
    if not parameters:
        return {}
    known = load_flow_from_entrypoint(str(checkout / entry["entrypoint"])).parameters.properties
    return {name: value for name, value in parameters.items() if name in known and accepts(known[name], value)}


def _read_bases(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    """Return what was described when each deployment was last made."""
    variable = client.read_variable_by_name(_BASES_VARIABLE)
    return dict(variable.value) if variable is not None and isinstance(variable.value, dict) else {}


def _write_bases(client: SyncPrefectClient, bases: Mapping[str, Any]) -> None:
    if client.read_variable_by_name(_BASES_VARIABLE) is None:
        client.create_variable(VariableCreate(name=_BASES_VARIABLE, value=dict(bases)))
    else:
        client.update_variable(VariableUpdate(name=_BASES_VARIABLE, value=dict(bases)))


def _run_prefect_deploy(checkout: Path, described_in: Path, document: Mapping[str, Any]) -> None:
    """Have Prefect deploy what a file like ``prefect.yaml`` describes."""
    with tempfile.TemporaryDirectory(prefix="sensorium-deploy-") as folder:
        file = Path(folder, DEPLOYMENTS_FILE)
        file.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S603 (our own)
    if done.returncode:
        raise UsageError(
            "Prefect refused the deployments",
            path=described_in,
            found=" ".join((done.stderr or done.stdout).split())[-500:],
            remedy=f"try `prefect deploy --all --prefect-file {described_in}` in {checkout}",
        )
