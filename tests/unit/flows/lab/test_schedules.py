"""Our schedules and those that people add, on the server and in prefect.yaml."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from flows.lab.schedules import merge_schedules, plain_schedule, read_schedule


def schedule(cron: str, *, active: bool = False, slug: str = "") -> dict[str, Any]:
    return plain_schedule({"cron": cron, "timezone": "UTC", "active": active, "slug": slug})


OURS, OURS_NOW = schedule("0 3 * * *", slug="nightly"), schedule("0 6 * * *", slug="nightly")
THEIRS = schedule("0 12 * * 1", active=True)


@pytest.mark.parametrize("slug", ["nightly", ""])
def test_a_change_arrives_and_what_people_added_stays(slug: str) -> None:
    before, now = schedule("0 3 * * *", slug=slug), schedule("0 6 * * *", slug=slug)
    merged = merge_schedules([now], [{**before, "active": True}, THEIRS], [before])
    assert merged.schedules == [{**now, "active": True}, THEIRS]
    assert merged.kept == []


@pytest.mark.parametrize("now", [OURS, OURS_NOW], ids=["unchanged", "changed"])
def test_a_schedule_of_earlier_versions_gets_its_slug(now: dict[str, object]) -> None:
    without = schedule("0 3 * * *", active=True)
    merged = merge_schedules([now], [THEIRS, without], [schedule("0 3 * * *")])
    assert merged.schedules == [THEIRS, {**now, "active": True}]


def test_what_people_changed_stays_and_is_told() -> None:
    changed = schedule("15 3 * * *", active=True, slug="nightly")
    merged = merge_schedules([OURS_NOW], [changed, THEIRS], [OURS])
    assert merged.schedules == [changed, THEIRS]
    assert merged.kept == [("nightly 0 3 * * * off", "nightly 15 3 * * * on", "nightly 0 6 * * * off")]


def test_what_people_deleted_does_not_come_back() -> None:
    merged = merge_schedules([OURS_NOW], [THEIRS], [OURS])
    assert merged.schedules == [THEIRS]
    assert merged.kept == [("nightly 0 3 * * * off", "", "nightly 0 6 * * * off")]


def test_what_is_described_no_more_goes_and_what_is_new_comes() -> None:
    weekly = schedule("0 4 * * 0", slug="weekly")
    merged = merge_schedules([weekly], [OURS, THEIRS], [OURS])
    assert merged.schedules == [THEIRS, weekly]
    assert merged.kept == []


def test_the_slug_of_what_people_have_is_theirs() -> None:
    theirs = schedule("0 12 * * 1", active=True, slug="nightly")
    merged = merge_schedules([OURS], [theirs], [])
    assert merged.schedules == [theirs]
    assert merged.kept == [("", "nightly 0 12 * * 1 on", "nightly 0 3 * * * off")]


@pytest.mark.parametrize(
    "kind",
    [
        CronSchedule(cron="0 3 * * *", timezone="Europe/Berlin", day_or=False),
        IntervalSchedule(interval=3600, timezone="UTC"),
        RRuleSchedule(rrule="FREQ=DAILY;BYHOUR=3", timezone="UTC"),
    ],
)
def test_schedules_of_every_kind_are_known_again(kind: Any) -> None:
    there = read_schedule(DeploymentSchedule(schedule=kind, active=True, parameters={"jobs": 2}))
    # An interval without a beginning gets one on the server.
    before = {name: value for name, value in there.items() if name != "anchor_date"} | {"active": False}
    now = {**before, "timezone": "America/New_York"}
    assert merge_schedules([now], [there], [before]).schedules == [{**now, "active": True}]
