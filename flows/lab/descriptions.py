"""What a deployment should be: what prefect.yaml describes, what people set on the server, and what a command asks for.

Three descriptions are merged. Where the server differs from what was described when the deployment was last made,
somebody set it there, and it is kept. Everything else follows prefect.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

__all__ = ["Change", "accepts", "compare", "describe_schedule", "merge", "read_deployed", "read_described"]

_MISSING: Any = object()
# What people set on the server, and what would otherwise be reset.
_SETTINGS = ("parameters", "schedules", "concurrency_limit", "work_pool", "tags", "description")


@dataclass(frozen=True)
class Change:
    """One thing that deploying changes.

    Attributes
    ----------
    deployment : str
        Flow and name, ``ingest/ingest``.
    setting : str
        E.g. ``parameters.store`` or ``schedules``.
    before, after : str
        On the server, and once it is deployed; empty for nothing.
    """

    deployment: str
    setting: str
    before: str
    after: str


def read_described(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that an entry of prefect.yaml describes."""
    limit = entry.get("concurrency_limit")
    pool = entry.get("work_pool") or {}
    return {
        "parameters": dict(entry.get("parameters") or {}),
        "schedules": [_plain(one) for one in entry.get("schedules") or ()],
        "concurrency_limit": {"limit": limit} if isinstance(limit, int) else None if limit is None else dict(limit),
        "work_pool": {"name": pool.get("name"), "job_variables": dict(pool.get("job_variables") or {})},
        "tags": sorted(entry.get("tags") or ()),
        "description": str(entry.get("description") or ""),
    }


def read_deployed(deployment: DeploymentResponse) -> dict[str, Any]:
    """Return the settings that a deployment has on the server."""
    limit: dict[str, Any] | None = None
    if deployment.global_concurrency_limit is not None:
        limit = {"limit": deployment.global_concurrency_limit.limit}
        if deployment.concurrency_options is not None:
            limit["collision_strategy"] = str(deployment.concurrency_options.collision_strategy.value)
    return {
        "parameters": dict(deployment.parameters or {}),
        "schedules": [_describe(one) for one in deployment.schedules],
        "concurrency_limit": limit,
        "work_pool": {"name": deployment.work_pool_name, "job_variables": dict(deployment.job_variables or {})},
        "tags": sorted(deployment.tags),
        "description": deployment.description or "",
    }


def merge(
    described: Mapping[str, Any],
    deployed: Mapping[str, Any] | None,
    base: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings that a deployment should have.

    Parameters
    ----------
    described : mapping
        What prefect.yaml describes now, as :func:`read_described` returns it.
    deployed : mapping, optional
        What is on the server; None for a deployment that is not there.
    base : mapping, optional
        What was described when it was last deployed; by default what is described now.
    asked : mapping
        Parameters that the command names.
    """
    if deployed is None:
        return {**described, "parameters": {**described["parameters"], **asked}}
    base = described if base is None else base
    merged = {name: _choose(described[name], deployed[name], base.get(name, described[name])) for name in _SETTINGS}
    merged["parameters"] = _merge_parameters(described["parameters"], deployed["parameters"], base["parameters"])
    merged["parameters"].update(asked)
    merged["schedules"] = _merge_schedules(described["schedules"], deployed["schedules"], base["schedules"])
    return merged


def compare(name: str, deployed: Mapping[str, Any] | None, merged: Mapping[str, Any]) -> list[Change]:
    """Return what changes on the server if a deployment gets the merged settings; of a new one, what flows take."""
    if deployed is None:
        new = Change(name, "deployment", "", "new")
        return [new, *(Change(name, f"parameters.{key}", "", _show(one)) for key, one in merged["parameters"].items())]
    before, after = _flatten(deployed), _flatten(merged)
    return [
        Change(name, setting, _show(before.get(setting)), _show(after.get(setting)))
        for setting in sorted(before.keys() | after.keys())
        if before.get(setting) != after.get(setting)
    ]


def accepts(schema: Mapping[str, Any], value: object) -> bool:
    """Whether a parameter takes a value of this type, by its JSON schema: flows use one name for different things."""
    kinds = {str(one.get("type", "")) for one in (schema, *schema.get("anyOf", ()))}
    return ("array" if isinstance(value, list) else "string") in kinds


def describe_schedule(schedule: Mapping[str, Any]) -> str:
    """Return a schedule in a few words."""
    when = schedule.get("cron") or schedule.get("rrule") or f"every {schedule.get('interval')} s"
    return f"{when} {'on' if schedule.get('active', True) else 'off'}"


def _choose(described: Any, deployed: Any, base: Any) -> Any:
    return described if deployed == base else deployed


def _merge_parameters(
    described: Mapping[str, Any], deployed: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any]:
    merged = {}
    for name in dict.fromkeys((*described, *deployed)):
        ours, theirs, last = (one.get(name, _MISSING) for one in (described, deployed, base))
        chosen = _choose(ours, theirs, last)
        if chosen is not _MISSING:
            merged[name] = chosen
    return merged


def _merge_schedules(
    described: Sequence[dict[str, Any]], deployed: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the described schedules with the switches of the server, or the server's where somebody changed them."""
    if [_without_switch(one) for one in deployed] != [_without_switch(one) for one in base]:
        return [dict(one) for one in deployed]
    switches = {_key(one): one["active"] for one in deployed}
    return [one | {"active": switches.get(_key(one), one["active"])} for one in described]


def _plain(schedule: Mapping[str, Any]) -> dict[str, Any]:
    return {"active": True, **{name: value for name, value in schedule.items() if value not in (None, {}, "")}}


def _describe(schedule: DeploymentSchedule) -> dict[str, Any]:
    """Return a schedule of the server as prefect.yaml would have it."""
    match schedule.schedule:
        case CronSchedule() as cron:
            when: dict[str, Any] = {"cron": cron.cron, "timezone": cron.timezone}
            if not cron.day_or:
                when["day_or"] = False
        case IntervalSchedule() as interval:
            when = {
                "interval": interval.interval.total_seconds(),
                "anchor_date": interval.anchor_date.isoformat(),
                "timezone": interval.timezone,
            }
        case RRuleSchedule() as rule:
            when = {"rrule": rule.rrule, "timezone": rule.timezone}
        case other:
            when = {"schedule": str(other)}
    return _plain(when | {"active": schedule.active, "parameters": schedule.parameters, "slug": schedule.slug})


def _without_switch(schedule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schedule.items() if name != "active"}


def _key(schedule: Mapping[str, Any]) -> str:
    return json.dumps(_without_switch(schedule), sort_keys=True, default=str)


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in settings.items() if name not in ("parameters", "work_pool")}
    flat |= {f"parameters.{name}": value for name, value in settings["parameters"].items()}
    return flat | {f"work_pool.{name}": value for name, value in settings["work_pool"].items()}


def _show(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return ", ".join(map(describe_schedule, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
