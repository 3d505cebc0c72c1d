"""What a deployment should be, of what is described, what people set and what is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from flows.lab.descriptions import Change, accepts, compare, find_kept, merge, read_described

ENTRY: dict[str, Any] = {
    "name": "ingest",
    "parameters": {"sessions": ["new"], "store": "store"},
    "schedules": [{"cron": "0 3 * * *", "timezone": "UTC", "active": False}],
    "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
    "work_pool": {"name": "cpu", "job_variables": {"env": {"A": "1"}}},
    "tags": ["sensorium", "data"],
    "description": "Archives to stores.",
}
DESCRIBED = read_described(ENTRY)


def described(**changes: Any) -> dict[str, Any]:
    return read_described({**ENTRY, **changes})


def test_a_new_deployment_is_what_is_described_and_asked_for() -> None:
    merged = merge(DESCRIBED, None, None, {"store": "/data"})
    assert merged == {**DESCRIBED, "parameters": {"sessions": ["new"], "store": "/data"}}
    assert compare("ingest/ingest", None, merged) == [
        Change("deployment", "ingest/ingest", setting, "", after)
        for setting, after in (
            ("deployment", "new"),
            ("parameters.sessions", '["new"]'),
            ("parameters.store", "/data"),
            ("schedules", "0 3 * * * off"),
        )
    ]
    assert find_kept("ingest/ingest", DESCRIBED, None, None, {}) == []


def test_what_is_as_described_stays() -> None:
    assert merge(DESCRIBED, DESCRIBED, None, {}) == DESCRIBED
    assert compare("ingest/ingest", DESCRIBED, DESCRIBED) == []


def test_what_people_set_stays_and_what_is_described_anew_changes() -> None:
    on_server = described(
        parameters={"sessions": ["F"], "store": "store", "jobs": 2},
        schedules=[{"cron": "30 4 * * 1", "timezone": "Europe/Berlin", "active": True}],
        tags=["sensorium", "data", "ours"],
    )
    now = described(
        parameters={"sessions": ["new"], "store": "stores", "mode": "auto"},
        schedules=[{"cron": "0 6 * * *", "timezone": "UTC", "active": False}],
        description="Archives to session stores.",
        work_pool={"name": "big", "job_variables": {"env": {"A": "2"}}},
    )
    merged = merge(now, on_server, DESCRIBED, {})
    assert merged["parameters"] == {"sessions": ["F"], "store": "stores", "mode": "auto", "jobs": 2}
    assert merged["schedules"] == [{"cron": "30 4 * * 1", "timezone": "Europe/Berlin", "active": True}]
    assert merged["tags"] == ["data", "ours", "sensorium"]
    assert (merged["description"], merged["work_pool"]["name"]) == ("Archives to session stores.", "big")
    assert {change.setting for change in compare("ingest/ingest", on_server, merged)} == {
        "parameters.store",
        "parameters.mode",
        "description",
        "work_pool.name",
        "work_pool.job_variables",
    }
    # What was described anew, and does not arrive.
    assert find_kept("ingest/ingest", now, on_server, DESCRIBED, {}) == [
        "ingest/ingest: the schedule 0 3 * * * off stays as people have set it on the server, deleted; described is "
        "0 6 * * * off"
    ]
    newer = described(parameters={"sessions": ["all"], "store": "store"})
    assert find_kept("ingest/ingest", newer, on_server, DESCRIBED, {})[1:] == [
        'ingest/ingest: parameters.sessions stays as people have set it on the server, ["F"]; described is ["all"]'
    ]
    assert find_kept("ingest/ingest", newer, on_server, DESCRIBED, {"sessions": ["G"]})[1:] == []


def test_what_people_took_away_stays_away() -> None:
    on_server = described(parameters={"store": "store"}, schedules=[])
    merged = merge(DESCRIBED, on_server, DESCRIBED, {})
    assert merged["parameters"] == {"store": "store"}
    assert merged["schedules"] == []


def test_what_is_described_no_more_goes_unless_people_set_it() -> None:
    now = described(parameters={"store": "store"})
    assert merge(now, DESCRIBED, DESCRIBED, {})["parameters"] == {"store": "store"}
    on_server = described(parameters={"sessions": ["F"], "store": "store"})
    assert merge(now, on_server, DESCRIBED, {})["parameters"] == {"sessions": ["F"], "store": "store"}


@pytest.mark.parametrize("is_on", [True, False])
def test_a_switch_is_kept_where_the_schedule_is_as_described(is_on: bool) -> None:
    on_server = described(schedules=[{"cron": "0 3 * * *", "timezone": "UTC", "active": is_on}])
    assert merge(DESCRIBED, on_server, DESCRIBED, {})["schedules"] == on_server["schedules"]


def test_what_is_asked_for_counts_before_all() -> None:
    on_server = described(parameters={"sessions": ["F"], "store": "/theirs"})
    assert merge(DESCRIBED, on_server, DESCRIBED, {"store": "/asked"})["parameters"]["store"] == "/asked"


def test_flows_use_a_name_for_a_folder_or_for_a_list() -> None:
    assert accepts({"anyOf": [{"type": "string"}, {"type": "null"}]}, "/runs")
    assert not accepts({"type": "array", "items": {"type": "string"}}, "/runs")
    assert accepts({"anyOf": [{"type": "array"}, {"type": "string"}]}, ["a"])
    assert not accepts({"type": "string"}, ["a"])
