"""What holds for every epoch, whatever the sessions, lengths and sizes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.sampling import SessionTrials, count_steps, plan_batch, plan_epoch

WINDOW = 16


@st.composite
def epochs(draw):
    sizes = draw(st.lists(st.integers(1, 17), min_size=1, max_size=4))
    sessions = []
    for index, size in enumerate(sizes):
        ids = draw(st.lists(st.integers(0, 10_000), min_size=size, max_size=size, unique=True))
        n_frames = draw(st.lists(st.integers(WINDOW, WINDOW + 40), min_size=size, max_size=size))
        sessions.append(SessionTrials(f"session {index}", tuple(ids), tuple(n_frames)))
    settings = {
        "n_frames": WINDOW,
        "batch_size": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 2**63)),
        "epoch": draw(st.integers(0, 1000)),
        "n_windows_per_trial": draw(st.integers(1, 3)),
    }
    return sessions, settings


@given(epochs())
def test_windows_lie_inside_their_trials(epoch):
    sessions, settings = epoch
    lengths = {s.session: dict(zip(s.trials, s.n_frames, strict=True)) for s in sessions}
    for plan in plan_epoch(sessions, **settings):
        for trial, first in zip(plan.trials, plan.first_frames, strict=True):
            assert 0 <= first <= lengths[plan.session][trial] - WINDOW


@given(epochs())
def test_every_trial_is_used_and_none_more_than_a_pass_more_often_than_another(epoch):
    sessions, settings = epoch
    used = {s.session: Counter() for s in sessions}
    for plan in plan_epoch(sessions, **settings):
        used[plan.session].update(plan.trials)
    for session in sessions:
        counts = [used[session.session][trial] for trial in session.trials]
        assert min(counts) >= 1
        assert max(counts) - min(counts) <= 1
    largest = max(sessions, key=len)
    assert set(used[largest.session].values()) == {settings["n_windows_per_trial"]}


@given(epochs())
def test_sessions_take_turns(epoch):
    sessions, settings = epoch
    order = [plan.session for plan in plan_epoch(sessions, **settings)]
    assert order == [s.session for s in sessions] * count_steps(
        sessions, settings["batch_size"], settings["n_windows_per_trial"]
    )


@given(epochs(), st.data())
def test_a_batch_can_be_planned_without_those_before_it(epoch, data):
    sessions, settings = epoch
    plans = list(plan_epoch(sessions, **settings))
    position = data.draw(st.integers(0, len(plans) - 1))
    step, turn = divmod(position, len(sessions))
    del settings["n_windows_per_trial"]
    assert plan_batch(sessions[turn], step, **settings) == plans[position]
