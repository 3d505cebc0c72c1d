"""Training windows in one call: which ones, in which units, epoch after epoch."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import sensorium_data as sd
from fixtures.recorded_stores import Recorded, record_session
from sensorium_data.errors import StoreError, UnknownNameError, UsageError
from sensorium_data.windows import Batch

Drawn = list[tuple[str, tuple[int, ...], tuple[int, ...]]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Recorded]]:
    """A store of two sessions, of 8 and 5 training trials, one of them broken; not to be changed."""
    store = tmp_path_factory.mktemp("store")
    made = [
        record_session(store, "F", lengths={0: 60, 3: 66}, broken=(5,)),
        record_session(store, "G", n_neurons=4, n_by_tier={"train": 5, "oracle": 2, "live_test_main": 2}),
    ]
    return str(store), {session.name: session for session in made}


def drawn(batches: list[Batch]) -> Drawn:
    return [(batch.session, batch.trials, batch.first_frames) for batch in batches]


def test_windows_are_the_recorded_frames(recorded: tuple[str, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    batches = sd.window_batches(store, n_frames=16, stride=2, batch_size=3, normalization="none", seed=1)
    n_windows = 0
    for batch in batches:
        written = sessions[batch.session]
        for index, (trial, first) in enumerate(zip(batch.trials, batch.first_frames, strict=True)):
            position = written.position(trial)
            assert written.tiers[position] == "train"
            assert written.valid[position]
            frames = slice(first, first + 31, 2)
            assert frames.start + 30 < written.n_frames[position]
            np.testing.assert_array_equal(batch.videos[index], written.videos[position, frames])
            np.testing.assert_array_equal(batch.responses[index], written.responses[position][:, frames])  # type: ignore[index]
            np.testing.assert_array_equal(batch.behavior[index], written.behavior[position][:, frames])
            np.testing.assert_array_equal(batch.pupil_center[index], written.pupil_center[position][:, frames])
            n_windows += 1
    assert n_windows > 10


def test_the_competitions_units_by_its_formulas(recorded: tuple[str, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    batch = next(iter(sd.window_batches(store, sessions=["F"], n_frames=20, seed=1)))
    written = sessions[batch.session]
    position, first = written.position(batch.trials[0]), batch.first_frames[0]
    frames = slice(first, first + 20)
    mean, std = written.statistics["videos"]
    expected = (written.videos[position, frames] - mean[frames]) / std[frames]
    np.testing.assert_allclose(batch.videos[0], expected, rtol=1e-4, atol=1e-4)
    std = written.statistics["responses"][1]
    # As the starter kit has it: neurons whose deviation is below a hundredth of the mean one are divided by that.
    threshold = 0.01 * np.nanmean(std)
    precision = 1 / np.where(std > threshold, std, threshold)
    expected = written.responses[position][:, frames] * precision[:, frames]
    np.testing.assert_allclose(batch.responses[0], expected, rtol=1e-4)  # type: ignore[index]


def test_each_iteration_is_the_next_epoch_and_an_epoch_can_be_chosen(recorded: tuple[str, object]) -> None:
    store, _ = recorded
    batches = sd.window_batches(store, n_frames=20, batch_size=3, seed=7)
    first, second = drawn(list(batches)), drawn(list(batches))
    assert first != second
    assert batches.epoch == 2
    assert [len(batches)] * 2 == [len(first), len(second)]
    batches.set_epoch(0)
    assert drawn(list(batches)) == first
    assert drawn(list(batches.iter_epoch(1))) == second
    assert drawn(list(batches.iter_epoch(1, first_batch=2))) == second[2:]
    assert batches.epoch == 1
    for wrong in (-1, 1.5, True, float("nan")):
        with pytest.raises(UsageError, match=r"the epoch: found .*expected a whole number from 0 up"):
            batches.set_epoch(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the first batch: found -1"):
        next(batches.iter_epoch(0, first_batch=-1))


def test_an_epoch_that_is_left_early_is_over(recorded: tuple[str, object]) -> None:
    store, _ = recorded
    batches = sd.window_batches(store, n_frames=20, batch_size=3, seed=7)
    for _ in batches:
        break
    assert drawn(list(batches)) == drawn(list(batches.iter_epoch(1)))


def test_the_same_arguments_give_the_same_batches_and_another_seed_others(recorded: tuple[str, object]) -> None:
    store, _ = recorded
    one = drawn(list(sd.window_batches(store, n_frames=20, seed=7, n_threads=1, cache_bytes=0)))
    assert drawn(list(sd.window_batches(sd.open_store(store), n_frames=20, seed=7, n_threads=3))) == one
    assert drawn(list(sd.window_batches(store, n_frames=20, seed=8))) != one


def test_sessions_take_turns_in_the_order_they_are_named(recorded: tuple[str, object]) -> None:
    store, _ = recorded
    batches = sd.window_batches(store, sessions=["G", "F"], n_frames=20, batch_size=2)
    aliases = [sd.find_session(batch.session).alias for batch in batches]
    assert aliases == ["G", "F"] * (len(aliases) // 2)
    assert [session.alias for session in batches.sessions] == ["G", "F"]
    assert repr(batches).startswith("<WindowBatches of G, F: 12 trials, 20 frames a window, ")


def test_several_tiers(recorded: tuple[str, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    batches = sd.window_batches(store, sessions=["G"], tier=["train", "oracle"], n_frames=20)
    (written,) = (session for session in sessions.values() if session.name == batches.sessions[0].name)
    seen = {trial for batch in batches for trial in batch.trials}
    assert {written.tiers[written.position(trial)] for trial in seen} == {"train", "oracle"}


def test_what_cannot_be_had(recorded: tuple[str, object], tmp_path: Path) -> None:
    store, _ = recorded
    with pytest.raises(UsageError, match="no valid trial of tier live_test_main with published responses"):
        sd.window_batches(store, tier="live_test_main")
    with pytest.raises(UsageError, match=r"a trial is shorter than the window.*at least 80"):
        sd.window_batches(store)
    with pytest.raises(UnknownNameError, match="trian"):
        sd.window_batches(store, tier="trian")
    with pytest.raises(UnknownNameError, match="competiton"):
        sd.window_batches(store, n_frames=20, normalization="competiton")
    with pytest.raises(StoreError, match="no such folder"):
        sd.window_batches(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not in the store"):
        sd.window_batches(store, sessions=["A"])
    with pytest.raises(UsageError, match="batch size"):
        sd.window_batches(store, n_frames=20, batch_size=0)
    with pytest.raises(UsageError, match=r"n_frames of a window: found 20\.0"):
        sd.window_batches(store, n_frames=20.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no tier to take trials from"):
        sd.window_batches(store, tier=[])
    with pytest.raises(UsageError, match="no session to take trials from"):
        sd.window_batches(store, sessions=[])


def test_sessions_are_named_as_the_command_line_names_them(recorded: tuple[str, dict[str, Recorded]]) -> None:
    store, sessions = recorded
    opened = sd.open_store(store)
    for names in (max(sessions), [max(sessions)], "G", opened.sessions[1:]):
        assert [one.alias for one in sd.window_batches(opened, sessions=names, n_frames=20).sessions] == ["G"]


def test_batches_are_not_sent_to_another_process(recorded: tuple[str, object]) -> None:
    store, _ = recorded
    with pytest.raises(UsageError, match="threads of this process"):
        pickle.dumps(sd.window_batches(store, n_frames=20))
