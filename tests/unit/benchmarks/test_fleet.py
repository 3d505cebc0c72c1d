"""The simulated fleet accounts for every second and byte, and is never faster than what it has allows."""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from collections.abc import Sequence, Set
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.places import CHECKOUT


def load_fleet() -> ModuleType:
    """The benchmarks are scripts, and no package."""
    spec = importlib.util.spec_from_file_location("fleet", CHECKOUT / "benchmarks" / "fleet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["fleet"] = module
    spec.loader.exec_module(module)
    return module


fleet = load_fleet()
Stage = fleet.Stage

SIZES = st.floats(0, 100).map(lambda size: round(size, 3))
STAGES = st.builds(
    Stage,
    name=st.sampled_from(["start", "convert", "verify"]),
    cpu_s=SIZES,
    most_cores=st.sampled_from([1.0, 2.0, math.inf]),
    wait_s=SIZES,
    source_bytes=SIZES,
    store_bytes=SIZES,
)
COMMANDS = st.builds(fleet.Command, stages=st.lists(STAGES, min_size=1, max_size=3), n_sessions=st.integers(1, 4))
PLANS = st.builds(
    fleet.Plan,
    commands=st.lists(COMMANDS, min_size=1, max_size=7),
    publish=st.sampled_from([lambda n: (), lambda n: (Stage("publish", cpu_s=1 + n, store_bytes=n),)]),
    link=st.sampled_from([lambda n, new: (), lambda n, new: (Stage("link", cpu_s=0.1 * n + new, wait_s=0.5),)]),
)
FLEETS = st.builds(
    fleet.Fleet,
    n_workers=st.integers(1, 5),
    n_cores=st.sampled_from([1.0, 2.0, 4.0]),
    bytes_per_s=st.fixed_dictionaries(dict.fromkeys(fleet.LINKS, st.sampled_from([1.0, 20.0, math.inf]))),
    locked=st.sets(st.sampled_from(["publish", "link"])),
)


def total(plan: Any, what: str) -> float:
    return sum(getattr(stage, what) for command in plan.commands for stage in command.stages)


def run(sessions: Sequence[Sequence[Any]], n_workers: int = 1, **options: Any) -> Any:
    more = {name: options.pop(name) for name in ("publish", "link") if name in options}
    return fleet.run_fleet(fleet.Plan([*map(fleet.Command, sessions)], **more), fleet.Fleet(n_workers, **options))


@given(PLANS, FLEETS)
def test_every_second_of_every_worker_has_one_reason(plan: Any, machines: Any) -> None:
    found = fleet.run_fleet(plan, machines)
    assert sum(found.limited_s.values()) == pytest.approx(machines.n_workers * found.duration_s, abs=1e-6)
    assert found.worker_s == pytest.approx(sum(found.limited_s.values()) - found.limited_s["idle"], abs=1e-6)
    assert all(seconds >= -1e-9 for seconds in found.limited_s.values())
    assert 0 <= found.cpu_share <= 1 + 1e-9


@given(st.lists(COMMANDS, min_size=1, max_size=7), FLEETS)
def test_the_work_done_is_the_work_there_was(commands: Any, machines: Any) -> None:
    plan = fleet.Plan(commands)
    found = fleet.run_fleet(plan, machines)
    assert found.cpu_s == pytest.approx(total(plan, "cpu_s"), abs=1e-6)
    for link in fleet.LINKS:
        assert found.n_bytes[link] == pytest.approx(total(plan, f"{link}_bytes"), abs=1e-6)


@given(PLANS, FLEETS)
def test_no_fleet_is_faster_than_its_links_and_its_cores(plan: Any, machines: Any) -> None:
    found = fleet.run_fleet(plan, machines)
    least_s = [
        *(total(plan, f"{link}_bytes") / machines.bytes_per_s[link] for link in fleet.LINKS),
        total(plan, "cpu_s") / (machines.n_workers * machines.n_cores),
        *(stage.wait_s for command in plan.commands for stage in command.stages),
    ]
    assert found.duration_s >= max(least_s) - 1e-6


@given(STAGES, FLEETS)
def test_more_workers_are_never_slower_for_sessions_of_one_size(stage: Any, machines: Any) -> None:
    """Numbers of workers that divide the sessions: otherwise the last sessions leave a shared link half empty."""
    options = {"n_cores": machines.n_cores, "bytes_per_s": machines.bytes_per_s}
    durations = [run([[stage]] * 12, n_workers, **options).duration_s for n_workers in (1, 2, 3, 4, 6, 12, 13)]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(durations))


def test_one_worker_takes_the_sum_of_what_each_stage_takes() -> None:
    sessions = [
        [Stage("start", cpu_s=3, most_cores=1), Stage("convert", cpu_s=8, most_cores=math.inf, source_bytes=10)],
        [Stage("convert", cpu_s=1, source_bytes=50, store_bytes=5), Stage("list", wait_s=2)],
    ]
    found = run(sessions, n_cores=2, bytes_per_s={"source": 5, "store": 1}, publish=lambda n: (Stage("p", cpu_s=n),))
    # 3 of one core, 8 of two; 50 bytes at 5 a second, the answers, and listing the second.
    assert found.duration_s == pytest.approx(3 + 4 + 10 + 2 + 1)
    assert found.limited_s == pytest.approx({"CPU": 8, "source": 10, "latency": 2, "idle": 0})
    assert found.limit == "source"
    assert found.stage_s == pytest.approx({"start": 3, "convert": 14, "list": 2, "p": 1})


def test_a_link_is_shared_and_what_one_leaves_goes_to_the_others() -> None:
    slow, fast = Stage("slow", cpu_s=10, source_bytes=10), Stage("fast", source_bytes=90)
    # The slow one takes 1 byte a second, and the fast one has the other 9.
    assert fleet.share_links([slow, fast], 1, {"source": 10, "store": math.inf}) == [(0.1, "CPU"), (0.1, "source")]
    found = run([[slow], [fast]], 2, bytes_per_s={"source": 10, "store": math.inf})
    assert found.duration_s == pytest.approx(10)


def test_a_stage_held_back_by_one_link_leaves_the_other_to_others() -> None:
    both, one = Stage("both", source_bytes=1, store_bytes=1), Stage("one", store_bytes=1)
    rates = fleet.share_links([both, one], 1, {"source": 1, "store": 10})
    assert rates == [(pytest.approx(1), "source"), (pytest.approx(9), "store")]


def test_workers_take_turns_where_there_are_locks() -> None:
    found = run([[Stage("convert", cpu_s=1)]] * 3, 3, publish=lambda n: (Stage("publish", cpu_s=10),))
    assert found.duration_s == pytest.approx(31)
    assert found.limited_s["turn"] == pytest.approx(10 + 20)
    assert (found.most_attempts, found.cpu_lost_s) == (1, 0)


def test_workers_begin_again_where_somebody_else_has_written() -> None:
    found = run(
        [[Stage("convert", cpu_s=1)]] * 3,
        3,
        locked=frozenset(),
        publish=lambda n: (Stage("publish", cpu_s=10),),
        retry_wait_s=lambda attempt: 0.5,
    )
    # One is done in each round; those who wait half a second are overtaken by nobody who is at work.
    assert found.duration_s == pytest.approx(1 + 3 * 10 + 2 * 0.5)
    assert found.most_attempts == 3
    assert found.cpu_lost_s == pytest.approx(20 + 10)
    assert found.limited_s["turn"] == pytest.approx(2 * 10.5 + 10.5)


@pytest.mark.parametrize(
    ("locked", "duration_s", "asked"),
    [
        ({"link"}, 11, [(0, 1), (1, 2), (3, 0)]),
        # The others begin before the first has written, and once more when it has; then one of them is overtaken.
        (frozenset(), 13, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 2), (3, 0)]),
    ],
)
def test_whoever_links_links_all_that_are_listed(
    locked: Set[str], duration_s: float, asked: list[tuple[int, int]]
) -> None:
    found_asked = []

    def link(n_linked: int, n_new: int) -> list[Any]:
        found_asked.append((n_linked, n_new))
        return [Stage("link", cpu_s=5.0 if n_new else 0.0)]

    sessions = [[Stage("convert", cpu_s=seconds)] for seconds in (1, 2, 3)]
    found = run(sessions, 3, locked=locked, link=link)
    assert found_asked == asked
    assert found.duration_s == pytest.approx(duration_s)


def test_sessions_of_one_command_are_listed_and_linked_together() -> None:
    asked = []

    def link(n_linked: int, n_new: int) -> list[Any]:
        asked.append((n_linked, n_new))
        return []

    commands = [fleet.Command([Stage("convert", cpu_s=1)], n_sessions) for n_sessions in (3, 2)]
    listed: list[int] = []
    plan = fleet.Plan(commands, lambda n_listed: listed.append(n_listed) or [], link)
    fleet.run_fleet(plan, fleet.Fleet(1))
    assert listed == [0, 3]
    assert asked == [(0, 3), (3, 2)]
