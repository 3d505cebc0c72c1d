"""What holds for every epoch, whatever the sessions, lengths and sizes."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.windows import EpochPlan, SessionTrials, Windows, plan_in_turn, plan_mixed
from sensorium_data.windows.plans import BatchPlan

Window = tuple[str, int, int, int]


@st.composite
def windows_and_sessions(draw: st.DrawFn) -> tuple[Windows, list[SessionTrials]]:
    windows = Windows(
        n_frames=draw(st.integers(1, 12)),
        stride=draw(st.integers(1, 3)),
        position=draw(st.sampled_from(["random", "tiling"])),
        n_per_trial=draw(st.integers(1, 3)),
    )
    sessions = []
    for index, size in enumerate(draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))):
        first_id, id_step = draw(st.integers(0, 1000)), draw(st.sampled_from([-1, 1, 7]))
        ids = range(first_id + size, first_id + size + id_step * size, id_step)
        n_frames = draw(st.lists(st.integers(windows.span, windows.span + 70), min_size=size, max_size=size))
        sessions.append(SessionTrials(f"session {index}", tuple(ids), tuple(n_frames)))
    return windows, sessions


@st.composite
def settings_of(draw: st.DrawFn) -> dict[str, int]:
    return {
        "batch_size": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 2**63)),
        "epoch": draw(st.integers(0, 1000)),
        "n_trials_shuffled": draw(st.integers(1, 20)),
    }


@st.composite
def epochs(draw: st.DrawFn) -> tuple[list[SessionTrials], EpochPlan]:
    windows, sessions = draw(windows_and_sessions())
    planner: Any = draw(st.sampled_from([plan_in_turn, plan_mixed]))
    return sessions, planner(sessions, windows, **draw(settings_of()))


def windows_of(batch: BatchPlan) -> list[Window]:
    """Return a batch's windows: session, trial, first frame and visit."""
    return [
        (part.session, *window)
        for part in batch.parts
        for window in zip(part.trials, part.first_frames, part.visits, strict=True)
    ]


def find_uses(plan: EpochPlan) -> dict[int, list[int]]:
    """Return the batches that use each visit, in order."""
    uses: dict[int, list[int]] = {}
    for number, batch in enumerate(plan):
        for *_, visit in windows_of(batch):
            uses.setdefault(visit, []).append(number)
    return uses


@given(epochs())
def test_windows_lie_inside_their_trials(epoch: tuple[list[SessionTrials], EpochPlan]) -> None:
    sessions, plan = epoch
    lengths = {s.session: dict(zip(s.trials, s.n_frames, strict=True)) for s in sessions}
    form = plan.windows
    for session, trial, first, _ in itertools.chain.from_iterable(map(windows_of, plan)):
        assert first >= 0
        assert first + (form.n_frames - 1) * form.stride < lengths[session][trial]


@given(epochs())
def test_a_visit_is_one_trials_and_gives_no_more_windows_than_one(
    epoch: tuple[list[SessionTrials], EpochPlan],
) -> None:
    sessions, plan = epoch
    lengths = {s.session: dict(zip(s.trials, s.n_frames, strict=True)) for s in sessions}
    by_visit: dict[int, list[tuple[str, int, int]]] = {}
    for session, trial, first, visit in itertools.chain.from_iterable(map(windows_of, plan)):
        by_visit.setdefault(visit, []).append((session, trial, first))
    for given_ in by_visit.values():
        ((session, trial),) = {(session, trial) for session, trial, _ in given_}
        if plan.windows.position == "random":
            assert len(given_) <= plan.windows.n_per_trial
        else:
            firsts = sorted(first for *_, first in given_)
            # No two overlap, and there are no more of them than fit.
            assert all(later - first >= plan.windows.span for first, later in itertools.pairwise(firsts))
            assert len(firsts) <= lengths[session][trial] // plan.windows.span


@given(windows_and_sessions(), settings_of())
def test_in_turn_every_trial_is_used_and_none_more_than_a_pass_more_often(
    made: tuple[Windows, list[SessionTrials]], settings: dict[str, int]
) -> None:
    windows, sessions = made
    plan = plan_in_turn(sessions, windows, **settings)
    n_in_trial = {
        (s.session, trial): n // windows.span if windows.position == "tiling" else windows.n_per_trial
        for s in sessions
        for trial, n in zip(s.trials, s.n_frames, strict=True)
    }
    used = Counter((session, trial) for session, trial, *_ in itertools.chain.from_iterable(map(windows_of, plan)))
    n_batches = {
        s.session: -(-sum(n_in_trial[s.session, trial] for trial in s.trials) // settings["batch_size"])
        for s in sessions
    }
    n_steps = max(n_batches.values())
    for s in sessions:
        n_whole_passes = n_steps // n_batches[s.session]
        for trial in s.trials:
            n_in_pass = n_in_trial[s.session, trial]
            assert n_whole_passes * n_in_pass <= used[s.session, trial] <= (n_whole_passes + 1) * n_in_pass
        if n_batches[s.session] == n_steps:
            assert all(used[s.session, trial] == n_in_trial[s.session, trial] for trial in s.trials)


@given(windows_and_sessions(), settings_of())
def test_in_turn_sessions_follow_each_other_in_batches_of_one(
    made: tuple[Windows, list[SessionTrials]], settings: dict[str, int]
) -> None:
    windows, sessions = made
    plan = plan_in_turn(sessions, windows, **settings)
    assert all(len(batch.parts) == 1 for batch in plan)
    assert all(1 <= len(batch) <= settings["batch_size"] for batch in plan)
    order = [batch.parts[0].session for batch in plan]
    assert len(order) % len(sessions) == 0
    assert order == [s.session for s in sessions] * (len(order) // len(sessions))


@given(windows_and_sessions(), settings_of(), st.none() | st.integers(1, 60))
def test_mixed_every_session_gives_as_many_windows(
    made: tuple[Windows, list[SessionTrials]], settings: dict[str, int], n_windows_per_session: int | None
) -> None:
    windows, sessions = made
    plan = plan_mixed(sessions, windows, **settings, n_windows_per_session=n_windows_per_session)
    given_ = list(itertools.chain.from_iterable(map(windows_of, plan)))
    n_of_pass = [
        sum(n // windows.span for n in s.n_frames) if windows.position == "tiling" else len(s) * windows.n_per_trial
        for s in sessions
    ]
    expected = n_windows_per_session or max(n_of_pass)
    assert Counter(session for session, *_ in given_) == {s.session: expected for s in sessions}
    sizes = [len(batch) for batch in plan]
    assert plan.n_windows == sum(sizes) == expected * len(sessions)
    assert all(size == settings["batch_size"] for size in sizes[:-1])
    assert 1 <= sizes[-1] <= settings["batch_size"]
    # A trial is not drawn again before all others of its session were.
    for s, n in zip(sessions, n_of_pass, strict=True):
        visits = Counter(
            trial for trial, _ in {(trial, visit) for session, trial, _, visit in given_ if session == s.session}
        )
        assert max(visits.values()) <= -(-expected // n)
        assert min(visits[trial] for trial in s.trials) >= expected // n


@given(windows_and_sessions(), settings_of())
def test_no_more_trials_are_in_use_than_are_shuffled(
    made: tuple[Windows, list[SessionTrials]], settings: dict[str, int]
) -> None:
    windows, sessions = made
    n_spread = max(1, settings["n_trials_shuffled"] // len(sessions))
    for plan, n_most_of_session, n_most in (
        # A window moves back by less than n_spread visits, and a pass ends before the next one begins: between two
        # batches, only the last n_spread visits of each session may have given some windows and not all.
        (plan_in_turn(sessions, windows, **settings), n_spread, n_spread * len(sessions)),
        (plan_mixed(sessions, windows, **settings), settings["n_trials_shuffled"], settings["n_trials_shuffled"]),
    ):
        uses = find_uses(plan)
        session_of = {visit: session for batch in plan for session, _, _, visit in windows_of(batch)}
        for number in range(len(plan)):
            held = Counter(session_of[visit] for visit, at in uses.items() if at[0] <= number < at[-1])
            assert held.total() <= n_most
            assert all(n <= n_most_of_session for n in held.values())


@given(epochs())
def test_last_batches_are_those_that_use_a_visit_last(epoch: tuple[list[SessionTrials], EpochPlan]) -> None:
    _, plan = epoch
    uses = find_uses(plan)
    last = plan.find_last_batches().tolist()
    assert last == [uses[visit][-1] if visit in uses else -1 for visit in range(max(uses) + 1)]


@given(epochs(), st.integers(1, 5))
def test_shares_of_ranks_are_the_batch_in_almost_equal_parts(
    epoch: tuple[list[SessionTrials], EpochPlan], n_ranks: int
) -> None:
    _, plan = epoch
    for batch in plan:
        shares = [batch.share(rank, n_ranks) for rank in range(n_ranks)]
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert all(len(part) > 0 for share in shares for part in share.parts)
        assert all(share.windows == batch.windows for share in shares)
        # As multisets: none is lost, and none is given twice.
        together = Counter(window for share in shares for window in windows_of(share))
        assert together == Counter(windows_of(batch))


@given(windows_and_sessions(), settings_of(), st.data())
def test_a_batch_is_the_same_whether_or_not_those_before_it_were_looked_at(
    made: tuple[Windows, list[SessionTrials]], settings: dict[str, int], data: st.DataObject
) -> None:
    windows, sessions = made
    for planner in (plan_in_turn, plan_mixed):
        batches = list(planner(sessions, windows, **settings))
        position = data.draw(st.integers(-len(batches), len(batches) - 1))
        assert planner(sessions, windows, **settings)[position] == batches[position]
