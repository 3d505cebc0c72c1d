"""The automations that a Prefect server has for the deployments: lost runs end, and a webhook is told of failures."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from prefect.automations import AutomationCore, CallWebhook, ChangeFlowRunState, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument, StateType
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.lab.descriptions import Change, Deployed
from sensorium_data.errors import UsageError

__all__ = [
    "FAILURES_AUTOMATION",
    "HEARTBEAT_S",
    "LOST_RUNS_AUTOMATION",
    "WEBHOOK_BLOCK",
    "find_host",
    "make_lost_runs_automation",
    "notify_of_failures",
    "plan_lost_runs_automation",
    "plan_notification",
]

#: Every so many seconds a flow run says that it is alive; set for the runs in ``prefect.yaml``.
HEARTBEAT_S = 30
#: The name of the automation that ends runs of which nothing is heard any more.
LOST_RUNS_AUTOMATION = "sensorium: runs that nothing is heard of have crashed"
#: The name of the automation that tells of failures.
FAILURES_AUTOMATION = "sensorium: tell of failures"
#: The name of the block that keeps the webhook's URL.
WEBHOOK_BLOCK = "sensorium-failures"

# Every deployment has it.
_TAG = "sensorium"
_WITHIN = timedelta(seconds=3 * HEARTBEAT_S)
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


def plan_lost_runs_automation(client: SyncPrefectClient) -> list[Change]:
    """Return what :func:`make_lost_runs_automation` changes."""
    if client.read_automations_by_name(LOST_RUNS_AUTOMATION):
        return []
    return [Change("automation", LOST_RUNS_AUTOMATION, "after", "", _describe_within())]


def make_lost_runs_automation(client: SyncPrefectClient) -> Deployed:
    """Have the server end runs whose process died together with its worker; nobody else would notice."""
    if not plan_lost_runs_automation(client):
        return Deployed("automation", LOST_RUNS_AUTOMATION, "already there", f"after {_describe_within()}")
    heartbeat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        after={heartbeat},
        expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=_WITHIN,
    )
    message = f"Nothing was heard of this run for {_describe_within()}. Run it again: it continues."
    client.create_automation(
        AutomationCore(
            name=LOST_RUNS_AUTOMATION,
            description="A run whose machine lost power would be shown as running for ever.",
            trigger=trigger,
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
        )
    )
    return Deployed("automation", LOST_RUNS_AUTOMATION, "made", f"after {_describe_within()}")


def find_host(webhook: str) -> str:
    """Return the host of a webhook's URL, the only part of it that is no secret.

    Raises
    ------
    UsageError
        If it is no http or https URL.
    """
    try:
        host = urlsplit(webhook).hostname if webhook.startswith(("http://", "https://")) else None
    except ValueError:  # brackets that hold no address
        host = None
    if not host:
        raise UsageError("--notify", expected="an http:// or https:// URL", remedy="e.g. the URL of a Slack webhook")
    return host


def plan_notification(client: SyncPrefectClient, url: str) -> list[Change]:
    """Return what :func:`notify_of_failures` changes; of URLs, the hosts are shown.

    Raises
    ------
    UsageError
        If it is no http or https URL.
    """
    host = find_host(url)
    changes = []
    block = _find_webhook(client)
    before = "" if block is None else str(block.data.get("url"))
    if before != url:
        shown = urlsplit(before).hostname or ""
        after = host if shown != host else f"{host}, another URL"
        changes.append(Change("webhook", WEBHOOK_BLOCK, "url", shown, after))
    if block is None or not _tells(client, block):
        there = "another" if client.read_automations_by_name(FAILURES_AUTOMATION) else ""
        changes.append(Change("automation", FAILURES_AUTOMATION, "posts to", there, host))
    return changes


def notify_of_failures(client: SyncPrefectClient, url: str) -> list[Deployed]:
    """Have the server post to a URL when a run of a deployment fails or crashes.

    What it posts is JSON: ``text``, a line with the run's URL as Slack and its like take it, and ``flow``, ``run``,
    ``state``, ``message`` and ``url``. May be repeated, with another URL too.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    url : str
        An http or https URL. It is kept as a secret, in a block of the server.

    Raises
    ------
    UsageError
        If it is no such URL.
    """
    host = find_host(url)
    changes = {change.kind: change for change in plan_notification(client, url)}
    if "webhook" in changes:
        block = Webhook(method="POST", url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
        block.save(WEBHOOK_BLOCK, overwrite=True)
    if "automation" in changes:
        for old in client.read_automations_by_name(FAILURES_AUTOMATION):
            client.delete_automation(old.id)
        saved = _find_webhook(client)
        assert saved is not None  # noqa: S101 (it has just been saved)
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
                actions=[CallWebhook(block_document_id=saved.id, payload=_PAYLOAD)],
            )
        )
    names = {"webhook": WEBHOOK_BLOCK, "automation": FAILURES_AUTOMATION}
    details = {"webhook": host, "automation": f"posts to {host}"}
    return [Deployed(kind, name, _describe_status(changes.get(kind)), details[kind]) for kind, name in names.items()]


def _describe_status(change: Change | None) -> str:
    if change is None:
        return "already there"
    return "updated" if change.before else "made"


def _find_webhook(client: SyncPrefectClient) -> BlockDocument | None:
    try:
        return client.read_block_document_by_name(WEBHOOK_BLOCK, "webhook")
    except ObjectNotFound:
        return None


def _tells(client: SyncPrefectClient, block: BlockDocument) -> bool:
    """Whether an automation posts what it should to the webhook."""
    return any(
        isinstance(action, CallWebhook) and action.block_document_id == block.id and action.payload == _PAYLOAD
        for one in client.read_automations_by_name(FAILURES_AUTOMATION)
        for action in one.actions
    )


def _describe_within() -> str:
    return f"{_WITHIN.total_seconds():.0f} s"
