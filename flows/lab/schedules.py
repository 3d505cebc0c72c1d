"""The schedules of a deployment: those that prefect.yaml describes, and those that people set on the server.

A schedule of ours is known by its slug, or else by being what was described when it was last deployed. All others are
people's, and stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

__all__ = [
    "MergedSchedules",
    "describe_schedule",
    "is_same_schedule",
    "merge_schedules",
    "plain_schedule",
    "read_schedule",
]

Schedule = Mapping[str, Any]


@dataclass(frozen=True)
class MergedSchedules:
    """The schedules that a deployment should have.

    Attributes
    ----------
    schedules : list of dict
        As prefect.yaml would have them.
    kept : list of tuple of str
        What is not as described since people changed it: the schedule as it was described last, as it is on the server,
        and as it is described now, each in a few words; empty for none.
    """

    schedules: list[dict[str, Any]]
    kept: list[tuple[str, str, str]]


def merge_schedules(
    described: Sequence[Schedule], deployed: Sequence[Schedule], base: Sequence[Schedule]
) -> MergedSchedules:
    """Return the described schedules with the switches of the server, and people's own.

    Parameters
    ----------
    described, deployed, base : sequence of mapping
        What is described now, what is on the server, and what was described when it was last deployed.
    """
    now_by_base, new = _pair(described, base)
    result: list[Schedule | None] = list(deployed)
    kept: list[tuple[str, str, str]] = []
    for number, before in enumerate(base):
        now = now_by_base.get(number)
        position = _find(before, deployed)
        on_server = None if position is None else deployed[position]
        if position is not None and on_server is not None and is_same_schedule(on_server, before):
            result[position] = None if now is None else {**now, "active": on_server["active"]}
        elif now is not None or on_server is not None:
            there, described_now = ("" if one is None else describe_schedule(one) for one in (on_server, now))
            kept.append((describe_schedule(before), there, described_now))
    for one in new:
        position = _find(one, deployed)
        if position is None:
            result.append(one)
        elif is_same_schedule(deployed[position], one):
            result[position] = {**one, "active": deployed[position]["active"]}
        else:
            kept.append(("", describe_schedule(deployed[position]), describe_schedule(one)))
    return MergedSchedules([dict(one) for one in result if one is not None], kept)


def plain_schedule(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule of prefect.yaml without what says nothing, and with its switch."""
    return {"active": True, **{name: value for name, value in schedule.items() if value not in (None, {}, "")}}


def read_schedule(schedule: DeploymentSchedule) -> dict[str, Any]:
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
    return plain_schedule(when | {"active": schedule.active, "parameters": schedule.parameters, "slug": schedule.slug})


def is_same_schedule(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules are the same, but for their switches and slugs."""
    passed_over = {"active", "slug"}
    if "anchor_date" not in one or "anchor_date" not in other:
        # The server has one of its own for intervals without.
        passed_over.add("anchor_date")
    first, second = ({k: v for k, v in each.items() if k not in passed_over} for each in (one, other))
    return first == second


def describe_schedule(schedule: Schedule) -> str:
    """Return a schedule in a few words."""
    when = schedule.get("cron") or schedule.get("rrule") or f"every {schedule.get('interval')} s"
    slug = f"{schedule['slug']} " if schedule.get("slug") else ""
    return f"{slug}{when} {'on' if schedule.get('active', True) else 'off'}"


def _pair(described: Sequence[Schedule], base: Sequence[Schedule]) -> tuple[dict[int, Schedule], list[Schedule]]:
    """Return which described schedule each one was before, by its position there, and those that are new."""
    pairs: dict[int, Schedule] = {}
    new = []
    for one in described:
        position = _find(one, base)
        if position is None or position in pairs:
            new.append(one)
        else:
            pairs[position] = one
    # Earlier versions gave no slugs; what is left over is in the same order.
    left = [number for number, before in enumerate(base) if number not in pairs and not before.get("slug")]
    for number, one in zip(left, list(new), strict=False):
        pairs[number] = one
        new.remove(one)
    return pairs, new


def _find(schedule: Schedule, among: Sequence[Schedule]) -> int | None:
    """Return where a schedule is, or one that is the same but for its switch."""
    slug = schedule.get("slug")
    by_slug = [number for number, one in enumerate(among) if slug and one.get("slug") == slug]
    by_content = [
        number for number, one in enumerate(among) if not (slug and one.get("slug")) and is_same_schedule(one, schedule)
    ]
    return next(iter([*by_slug, *by_content]), None)
