"""What a deployment should be: what prefect.yaml describes, what people set on the server, and what a command asks for.

Three descriptions are merged. Where the server differs from what was described when the deployment was last made,
somebody set it there, and it is kept. Everything else follows prefect.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.responses import DeploymentResponse

from flows.lab.schedules import describe_schedule, merge_schedules, plain_schedule, read_schedule

__all__ = ["Change", "Deployed", "accepts", "compare", "find_kept", "merge", "read_deployed", "read_described"]

_MISSING: Any = object()
# What people set on the server, and what would otherwise be reset.
_SETTINGS = ("parameters", "schedules", "concurrency_limit", "work_pool", "tags", "description")


@dataclass(frozen=True)
class Change:
    """One thing that deploying changes.

    Attributes
    ----------
    kind : str
        ``work pool``, ``concurrency limit``, ``automation``, ``webhook`` or ``deployment``.
    name : str
        Of a deployment, flow and name, ``ingest/ingest``.
    setting : str
        E.g. ``parameters.store`` or ``schedules``.
    before, after : str
        On the server, and once it is deployed; empty for nothing.
    """

    kind: str
    name: str
    setting: str
    before: str
    after: str


@dataclass(frozen=True)
class Deployed:
    """One thing on the server.

    Attributes
    ----------
    kind : str
        As of a :class:`Change`.
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


def read_described(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that an entry of prefect.yaml describes."""
    limit = entry.get("concurrency_limit")
    pool = entry.get("work_pool") or {}
    return {
        "parameters": dict(entry.get("parameters") or {}),
        "schedules": [plain_schedule(one) for one in entry.get("schedules") or ()],
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
        "schedules": [read_schedule(one) for one in deployment.schedules],
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
    schedules = merge_schedules(described["schedules"], deployed["schedules"], base["schedules"])
    merged["schedules"] = schedules.schedules
    return merged


def find_kept(
    name: str,
    described: Mapping[str, Any],
    deployed: Mapping[str, Any] | None,
    base: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
) -> list[str]:
    """Return a line for each setting that stays as people set it on the server, though it is described anew.

    A schedule of ours that people changed or deleted is named every time.

    Parameters
    ----------
    name : str
        The deployment's.
    described, deployed, base, asked
        As :func:`merge` takes them.
    """
    if deployed is None:
        return []
    base = described if base is None else base
    merged = merge_schedules(described["schedules"], deployed["schedules"], base["schedules"])
    lines = [
        f"{name}: the schedule {before or there} stays as people have set it on the server, {there or 'deleted'}; "
        f"described is {now or 'none'}"
        for before, there, now in merged.kept
    ]
    now, there, before = (_flatten({**one, "schedules": []}) for one in (described, deployed, base))
    for setting in sorted(now.keys() | there.keys()):
        ours, theirs, last = (one.get(setting) for one in (now, there, before))
        is_asked = setting.removeprefix("parameters.") in asked
        if ours != last and theirs not in (ours, last) and not is_asked:
            lines.append(
                f"{name}: {setting} stays as people have set it on the server, {_show(theirs) or 'none'}; described is "
                f"{_show(ours) or 'none'}"
            )
    return lines


def compare(name: str, deployed: Mapping[str, Any] | None, merged: Mapping[str, Any]) -> list[Change]:
    """Return what changes on the server if a deployment gets the merged settings; of a new one, what flows take."""
    if deployed is None:
        parameters = {f"parameters.{key}": one for key, one in merged["parameters"].items()}
        new = {"deployment": "new", **parameters, "schedules": merged["schedules"]}
        return [Change("deployment", name, key, "", shown) for key, one in new.items() if (shown := _show(one))]
    before, after = _flatten(deployed), _flatten(merged)
    return [
        Change("deployment", name, setting, _show(before.get(setting)), _show(after.get(setting)))
        for setting in sorted(before.keys() | after.keys())
        if before.get(setting) != after.get(setting)
    ]


def accepts(schema: Mapping[str, Any], value: object) -> bool:
    """Whether a parameter takes a value of this type, by its JSON schema: flows use one name for different things."""
    kinds = {str(one.get("type", "")) for one in (schema, *schema.get("anyOf", ()))}
    return ("array" if isinstance(value, list) else "string") in kinds


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
