"""Windows and whole trials as a model is given them."""

from __future__ import annotations

import functools
import gc
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.recorded_stores import Recorded, record_session
from fixtures.tables import each_once
from sensorium_data.errors import StoreError, UsageError
from sensorium_data.files import ObjectCache
from sensorium_data.sessions import Tier
from sensorium_data.statistics.statistics import competition_normalizer
from sensorium_data.testing import serve_directory
from sensorium_data.windows import (
    Batch,
    EpochPlan,
    RecordedTrial,
    TrialReader,
    WindowLoader,
    Windows,
    plan_in_turn,
    plan_mixed,
)
from sensorium_data.windows.plans import BatchPlan

VARIABLES = ("videos", "responses", "behavior", "pupil_center")
FORTY = Windows(40, n_per_trial=2)
EVERY_OTHER = Windows(16, stride=2, n_per_trial=3)

RecordedStore = tuple[Path, dict[str, Recorded]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedStore:
    """A store of two sessions, of 8 and 5 training trials of several lengths, one of them broken."""
    store = tmp_path_factory.mktemp("store")
    made = [
        record_session(store, "F", lengths={0: 60, 3: 66}, broken=(5,)),
        record_session(store, "G", n_neurons=4, n_by_tier={"train": 5, "oracle": 2, "live_test_main": 2}),
    ]
    return store, {session.name: session for session in made}


def open_loader(
    store: Path | str, aliases: Sequence[str] = ("F", "G"), *, read_ahead: int = 2, **reader_settings: Any
) -> WindowLoader:
    reader = TrialReader(str(store), aliases, **reader_settings)
    normalizers = {session.name: read_normalizer(str(store), session.name) for session in reader.sessions}
    return WindowLoader(reader, normalizers, read_ahead=read_ahead)


# Reading it takes longer than an epoch of these stores.
read_normalizer = functools.cache(competition_normalizer)


def make_plan(
    loader: WindowLoader, windows: Windows = FORTY, *, mixed: bool = False, epoch: int = 1, **settings: Any
) -> EpochPlan:
    trials = [loader.reader.select_trials(s.name, [Tier.TRAIN], labelled=True) for s in loader.reader.sessions]
    planner: Any = plan_mixed if mixed else plan_in_turn
    return planner(trials, windows, **({"batch_size": 3, "seed": 4, "epoch": epoch} | settings))


def count_reads(loader: WindowLoader) -> Counter[tuple[str, int]]:
    """Count the trials that are read from here on."""
    counts: Counter[tuple[str, int]] = Counter()
    read = loader.reader.read
    lock = threading.Lock()

    def count(session: str, trial: int) -> RecordedTrial:
        with lock:
            counts[session, trial] += 1
        return read(session, trial)

    loader.reader.read = count  # type: ignore[method-assign]
    return counts


def count_visits(plans: Sequence[BatchPlan]) -> Counter[tuple[str, int]]:
    """Count the visits to each trial that have a window in these batches."""
    visits = {(p.session, *visit) for one in plans for p in one.parts for visit in zip(p.trials, p.visits, strict=True)}
    return Counter((session, trial) for session, trial, _ in visits)


def normalize(made: Recorded, trial: int, frames: range) -> Mapping[str, np.ndarray]:
    """The competition's normalization of a window, in plain numpy and double precision."""
    position = made.position(trial)

    def cut(variable: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        axis = 0 if variable == "videos" else 1
        window = np.take(getattr(made, variable)[position].astype(float), frames, axis)
        mean, std = (np.take(statistic, frames, axis) for statistic in made.statistics[variable])
        return window, mean, std

    video, video_mean, video_std = cut("videos")
    responses, _, _ = cut("responses")
    std = made.statistics["responses"][1]
    threshold = 0.01 * np.nanmean(std)
    precision = 1 / np.where(std > threshold, std, threshold)
    behavior, _, behavior_std = cut("behavior")
    pupil, pupil_mean, pupil_std = cut("pupil_center")
    return {
        "videos": (video - video_mean) / video_std,
        "responses": responses * precision[:, frames],
        "behavior": behavior / behavior_std,
        "pupil_center": (pupil - pupil_mean) / pupil_std,
    }


def assert_same(found: tuple[Batch, ...], expected: tuple[Batch, ...]) -> None:
    """Values, and where they lie in memory: what runs fast depends on that."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("session", "trials", "first_frames", "stride"):
            assert getattr(one, name) == getattr(other, name)
        for variable in VARIABLES:
            array, same = getattr(one, variable), getattr(other, variable)
            assert array.dtype == same.dtype
            assert array.strides == same.strides
            np.testing.assert_array_equal(array, same)


# ---- what a window holds


@pytest.mark.parametrize(
    ("mixed", "windows"),
    each_once(
        {"in turn": False, "mixed": True},
        {"40": FORTY, "16 of 31": EVERY_OTHER, "tiles": Windows(20, position="tiling")},
    ),
)
def test_windows_hold_the_normalized_frames_they_say(recorded: RecordedStore, windows: Windows, mixed: bool) -> None:
    store, made = recorded
    loader = open_loader(store)
    plan = make_plan(loader, windows, mixed=mixed, batch_size=4)
    batches = list(loader.iter_batches(plan))

    assert len(batches) == len(plan)
    for one, parts in zip(plan, batches, strict=True):
        assert [(b.session, b.trials, b.first_frames) for b in parts] == [
            (part.session, part.trials, part.first_frames) for part in one.parts
        ]
        for batch in parts:
            session = made[batch.session]
            assert batch.videos.shape == (len(batch), windows.n_frames, 36, 64)
            assert batch.responses is not None
            assert batch.responses.shape == (len(batch), len(session.unit_ids), windows.n_frames)
            # In memory time runs slower than neurons, as in the trials that windows are cut from.
            assert batch.responses.transpose(0, 2, 1).flags.c_contiguous
            np.testing.assert_array_equal(batch.unit_ids, session.unit_ids)
            for index, (trial, first) in enumerate(zip(batch.trials, batch.first_frames, strict=True)):
                assert session.tiers[session.position(trial)] == "train"
                frames = range(first, first + windows.n_frames * windows.stride, windows.stride)
                for variable, expected in normalize(session, trial, frames).items():
                    found = getattr(batch, variable)[index]
                    assert found.dtype == np.float32
                    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=variable)


def test_without_normalizers_windows_hold_what_the_store_does(recorded: RecordedStore) -> None:
    store, made = recorded
    loader = WindowLoader(TrialReader(str(store), ["F", "G"]))
    for batch in (part for parts in loader.iter_batches(make_plan(loader, EVERY_OTHER)) for part in parts):
        session = made[batch.session]
        for index, trial in enumerate(batch.trials):
            position, first = session.position(trial), batch.first_frames[index]
            frames = range(first, first + 32, 2)
            np.testing.assert_array_equal(batch.videos[index], session.videos[position, frames])
            for variable in VARIABLES[1:]:
                expected = getattr(session, variable)[position][:, frames]
                np.testing.assert_array_equal(getattr(batch, variable)[index], expected)


def test_in_turn_a_batch_is_one_part_and_mixed_it_has_one_for_each_session(recorded: RecordedStore) -> None:
    store, made = recorded
    loader = open_loader(store)
    in_turn = list(loader.iter_batches(make_plan(loader)))
    assert [[batch.session for batch in parts] for parts in in_turn] == [[name] for name in made] * (len(in_turn) // 2)
    mixed = list(loader.iter_batches(make_plan(loader, mixed=True, batch_size=6)))
    assert {tuple(batch.session for batch in parts) for parts in mixed} <= {tuple(made), *((name,) for name in made)}
    assert any(len(parts) == 2 for parts in mixed)
    assert all(sum(map(len, parts)) == 6 for parts in mixed[:-1])


def test_broken_trials_are_never_seen(recorded: RecordedStore) -> None:
    store, made = recorded
    session = next(iter(made.values()))
    broken = {trial for trial, valid in zip(session.trials, session.valid, strict=True) if not valid}
    assert broken
    loader = open_loader(store, ["F"])
    tiers = [Tier(tier) for tier in set(session.tiers)]
    seen = {batch.trials[0] for batch in loader.iter_trials("F", tiers)}
    assert seen == set(session.trials) - broken


def test_whole_trials_end_where_their_video_ends(recorded: RecordedStore) -> None:
    store, made = recorded
    session = next(iter(made.values()))
    n_seen = 0
    for batch in open_loader(store).iter_trials("F", [Tier.TRAIN, Tier.ORACLE]):
        (trial,) = batch.trials
        n_frames = session.n_frames[session.position(trial)]
        assert batch.n_frames == n_frames
        expected = normalize(session, trial, range(n_frames))
        assert batch.responses is not None
        np.testing.assert_allclose(batch.responses[0], expected["responses"], rtol=1e-4)
        n_seen += 1
    assert n_seen == sum(
        valid and tier in ("train", "oracle") for tier, valid in zip(session.tiers, session.valid, strict=True)
    )


def test_of_whole_trials_some_can_be_chosen(recorded: RecordedStore) -> None:
    store, _ = recorded
    loader = open_loader(store)
    every = [batch.trials[0] for batch in loader.iter_trials("F", [Tier.TRAIN])]
    some = set(every[1:3])
    assert [batch.trials[0] for batch in loader.iter_trials("F", [Tier.TRAIN], only=some)] == every[1:3]
    assert list(loader.iter_trials("F", [Tier.TRAIN], only=())) == []


def test_withheld_responses_are_absent_and_such_trials_are_not_labelled(recorded: RecordedStore) -> None:
    store, _ = recorded
    loader = open_loader(store)
    batches = list(loader.iter_trials("F", [Tier.LIVE_TEST_MAIN]))
    assert batches
    assert all(batch.responses is None for batch in batches)
    with pytest.raises(UsageError, match=r"no valid trial of tier live_test_main with published responses"):
        list(loader.iter_trials("F", [Tier.LIVE_TEST_MAIN], labelled=True))


# ---- what changes nothing


@pytest.mark.parametrize("mixed", [False, True], ids=["in turn", "mixed"])
def test_threads_reading_ahead_and_the_cache_change_nothing(recorded: RecordedStore, mixed: bool) -> None:
    store, _ = recorded
    usual = open_loader(store)
    others = [
        open_loader(store, n_threads=1, cache_bytes=0, read_ahead=1),
        open_loader(store, n_threads=7, cache_bytes=0, read_ahead=5),
        open_loader(store, n_threads=3, cache_bytes=2_000_000),
    ]
    for epoch in (0, 1):
        expected = list(usual.iter_batches(make_plan(usual, mixed=mixed, epoch=epoch)))
        for other in others:
            found = list(other.iter_batches(make_plan(other, mixed=mixed, epoch=epoch)))
            assert len(found) == len(expected)
            for parts, same in zip(found, expected, strict=True):
                assert_same(parts, same)


@pytest.mark.parametrize("mixed", [False, True], ids=["in turn", "mixed"])
def test_an_epoch_entered_at_a_batch_goes_on_as_it_would_have(recorded: RecordedStore, mixed: bool) -> None:
    store, _ = recorded
    loader = open_loader(store, cache_bytes=0)
    plan = make_plan(loader, mixed=mixed, n_trials_shuffled=4)
    whole = list(loader.iter_batches(plan))
    reads = count_reads(loader)
    for first in range(len(plan) + 1):
        reads.clear()
        rest = list(loader.iter_batches(plan, first_batch=first))
        assert len(rest) == len(plan) - first
        for parts, same in zip(rest, whole[first:], strict=True):
            assert_same(parts, same)
        # What was passed over is not read.
        assert reads == count_visits(plan[first:])


@pytest.mark.parametrize(("mixed", "n_ranks"), each_once({"in turn": False, "mixed": True}, {"2": 2, "3": 3}))
def test_ranks_share_each_batch(recorded: RecordedStore, mixed: bool, n_ranks: int) -> None:
    store, _ = recorded
    loader = open_loader(store, cache_bytes=0)
    plan = make_plan(loader, mixed=mixed, batch_size=5)
    whole = list(loader.iter_batches(plan))
    reads = count_reads(loader)
    of_ranks = []
    for rank in range(n_ranks):
        reads.clear()
        of_ranks.append(list(loader.iter_batches(plan, rank=rank, n_ranks=n_ranks)))
        assert reads == count_visits([one.share(rank, n_ranks) for one in plan])
    for parts, *shares in zip(whole, *of_ranks, strict=True):
        expected = [(batch, index) for batch in parts for index in range(len(batch))]
        for rank, share in enumerate(shares):
            found = [(batch, index) for batch in share for index in range(len(batch))]
            assert len(found) == len(expected[rank::n_ranks])
            for (batch, index), (other, number) in zip(found, expected[rank::n_ranks], strict=True):
                assert batch.session == other.session
                for variable in VARIABLES:
                    np.testing.assert_array_equal(getattr(batch, variable)[index], getattr(other, variable)[number])


def test_windows_are_the_same_over_http_and_the_second_epoch_asks_for_nothing(
    recorded: RecordedStore, tmp_path: Path
) -> None:
    store, _ = recorded
    local = open_loader(store)
    with serve_directory(store) as server:

        def count_requests() -> Counter[str]:
            return Counter(r.path for r in server.requests if re.search(r"/(videos|responses)/c/", r.path))

        remote = open_loader(server.url, cache_bytes=0, object_cache=ObjectCache(tmp_path / "objects", 10**9))
        before = count_requests()
        asked_for = []
        for epoch in (0, 1):
            plan = make_plan(local, epoch=epoch)
            for found, expected in zip(remote.iter_batches(plan), local.iter_batches(plan), strict=True):
                assert_same(found, expected)
            asked_for.append(count_requests() - before)
    # Two large objects of each training trial, once; the second epoch had them all.
    assert set(asked_for[0].values()) == {1}
    assert len(asked_for[0]) == 2 * len(count_visits(list(plan)))
    assert asked_for[1] == asked_for[0]


# ---- reading


@pytest.mark.parametrize("mixed", [False, True], ids=["in turn", "mixed"])
def test_a_trial_is_read_once_a_visit_however_many_windows_it_gives(recorded: RecordedStore, mixed: bool) -> None:
    store, _ = recorded
    loader = open_loader(store, cache_bytes=0, n_threads=4)
    reads = count_reads(loader)
    plan = make_plan(loader, Windows(20, n_per_trial=6), mixed=mixed, n_trials_shuffled=6)
    list(loader.iter_batches(plan))
    assert reads == count_visits(list(plan))
    if not mixed:
        # The larger session is visited once.
        largest = loader.reader.sessions[0].name
        assert {n for (session, _), n in reads.items() if session == largest} == {1}


def test_a_trial_is_let_go_after_its_last_batch(tmp_path: Path) -> None:
    record_session(tmp_path, "F", n_neurons=3, n_frames=20, n_by_tier={"train": 40, "oracle": 1})
    read_ahead, n_shuffled, batch_size = 2, 6, 4
    loader = open_loader(tmp_path, ["F"], cache_bytes=0, read_ahead=read_ahead)
    plan = make_plan(loader, Windows(10, n_per_trial=3), batch_size=batch_size, n_trials_shuffled=n_shuffled)
    uses: dict[int, list[int]] = {}
    for number, one in enumerate(plan):
        for trial in one.parts[0].trials:
            uses.setdefault(trial, []).append(number)
    references: list[tuple[int, weakref.ref[RecordedTrial]]] = []
    read = loader.reader.read

    def note(session: str, trial: int) -> RecordedTrial:
        block = read(session, trial)
        references.append((trial, weakref.ref(block)))
        return block

    loader.reader.read = note  # type: ignore[method-assign]

    def find_held() -> set[int]:
        return {trial for trial, reference in list(references) if reference() is not None}

    largest = 0
    for number, _ in enumerate(loader.iter_batches(plan)):
        group = number // read_ahead
        # This group is prepared, the next one may be or is about to: what this one used last is gone.
        allowed = {
            t for t, at in uses.items() if at[0] < (group + 2) * read_ahead and at[-1] >= (group + 1) * read_ahead
        }
        _wait_until(lambda allowed=allowed: find_held() <= allowed)
        largest = max(largest, len(find_held()))
    # Those in use, and the new ones of the group that is being prepared.
    assert largest <= n_shuffled + read_ahead * batch_size
    _wait_until(lambda: not find_held())
    assert len(references) == 40


def _wait_until(holds: Callable[[], bool]) -> None:
    """Threads let go of their last task a moment after it is done."""
    give_up_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_s
        gc.collect()
        time.sleep(0.005)


def test_reading_stays_no_further_ahead_than_allowed(recorded: RecordedStore) -> None:
    store, _ = recorded
    loader = open_loader(store, ["F"], read_ahead=2, cache_bytes=0)
    plan = make_plan(loader, Windows(40), batch_size=1)
    assert len(plan) == 7
    reads = count_reads(loader)
    batches = loader.iter_batches(plan)
    assert not reads
    next(batches)
    # The group of the first two batches, and the next one.
    _wait_until(lambda: reads.total() >= 4)
    time.sleep(0.2)  # for one too many to show up
    assert reads.total() == 4
    batches.close()


def test_stopping_early_leaves_no_thread_behind(recorded: RecordedStore) -> None:
    store, _ = recorded
    loader = open_loader(store, n_threads=3)
    plan = make_plan(loader)

    def stop_early() -> int:
        batches = loader.iter_batches(plan)
        next(batches)
        batches.close()
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
        return threading.active_count()

    after_one = stop_early()
    # The threads that dask reads in wait for the next epoch, and end when that has its own.
    assert max(stop_early() for _ in range(5)) <= after_one + loader.reader.n_threads


def test_an_error_while_reading_ends_the_epoch_and_its_threads(
    recorded: RecordedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = recorded
    loader = open_loader(store, cache_bytes=0, read_ahead=1)
    plan = make_plan(loader)
    bad = plan[3].parts[0]
    read = loader.reader.read

    def fail(session: str, trial: int) -> RecordedTrial:
        if (session, trial) == (bad.session, bad.trials[0]):
            raise StoreError("the store is damaged", session=session, trial=trial)
        return read(session, trial)

    monkeypatch.setattr(loader.reader, "read", fail)
    batches = loader.iter_batches(plan)
    with pytest.raises(StoreError, match=rf"trial {bad.trials[0]}: the store is damaged"):
        list(batches)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


# ---- for who does otherwise with what is read


def test_work_is_given_the_trial_of_each_window(recorded: RecordedStore) -> None:
    store, _ = recorded
    loader = open_loader(store)
    plan = make_plan(loader, mixed=True)

    def work(one: BatchPlan, trials: list[RecordedTrial]) -> tuple[BatchPlan, list[tuple[str, int]]]:
        return one, [(trial.session, trial.trial) for trial in trials]

    for number, (one, trials) in enumerate(loader.map_batches(plan, work, first_batch=2), start=2):
        assert one == plan[number]
        assert trials == [(part.session, trial) for part in one.parts for trial in part.trials]


@pytest.mark.parametrize(("rank", "n_ranks"), [(0, 1), (1, 2)])
def test_each_visit_is_handed_over_once_unless_its_trial_is_known(
    recorded: RecordedStore, rank: int, n_ranks: int
) -> None:
    store, made = recorded
    loader = open_loader(store, cache_bytes=0, read_ahead=3)
    plan = make_plan(loader, n_trials_shuffled=4)
    known = {(name, session.trials[session.tiers.index("train")]) for name, session in made.items()}
    reads = count_reads(loader)
    seen: set[int] = set()
    settings: Any = {"first_batch": 1, "rank": rank, "n_ranks": n_ranks}
    results = list(
        loader.map_new_trials(
            plan,
            lambda block: (block.session, block.trial),
            is_known=lambda session, trial: (session, trial) in known,
            **settings,
        )
    )
    assert [one for one, _ in results] == [one.share(rank, n_ranks) for one in plan[1:]]
    for one, new in results:
        visits = {
            visit: (part.session, trial)
            for part in one.parts
            for trial, visit in zip(part.trials, part.visits, strict=True)
        }
        assert new == {v: trial for v, trial in visits.items() if v not in seen and trial not in known}
        seen |= set(visits)
    expected = count_visits([one for one, _ in results])
    assert reads == Counter({trial: n for trial, n in expected.items() if trial not in known})


# ---- budget


def test_a_budget_keeps_trials_and_is_never_exceeded(recorded: RecordedStore) -> None:
    store, made = recorded
    one_trial = max(sum(getattr(session, name)[0].nbytes for name in VARIABLES) for session in made.values())
    loader = open_loader(store, cache_bytes=3 * one_trial)
    for epoch in range(2):
        for _ in loader.iter_batches(make_plan(loader, epoch=epoch)):
            assert loader.reader.cache.size_bytes <= 3 * one_trial
    assert 2 * one_trial <= loader.reader.cache.size_bytes
    assert len(loader.reader.cache) >= 3


# ---- bad input


def test_a_window_longer_than_a_trial_names_the_trial(recorded: RecordedStore) -> None:
    store, made = recorded
    session = next(iter(made.values()))
    shortest = min(
        (n, trial)
        for n, trial, tier, valid in zip(session.n_frames, session.trials, session.tiers, session.valid, strict=True)
        if tier == "train" and valid
    )
    with pytest.raises(UsageError, match=rf"trial {shortest[1]}: .*found {shortest[0]} frames, expected at least 71"):
        make_plan(open_loader(store), Windows(71))


def test_an_object_that_is_lost_while_training_is_an_error_not_nan(tmp_path: Path) -> None:
    made = record_session(tmp_path, "F", n_by_tier={"train": 2, "oracle": 1})
    loader = open_loader(tmp_path, ["F"])
    position = made.tiers.index("train")
    (tmp_path / made.name / "videos" / "c" / str(position) / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=rf"trial {made.trials[position]}, .*/videos/c/.*damaged: found missing"):
        list(loader.iter_batches(make_plan(loader)))


def test_wrong_settings_are_refused(recorded: RecordedStore) -> None:
    store, _ = recorded
    reader = TrialReader(str(store), ["F"])
    with pytest.raises(UsageError, match="no normalizer: found none"):
        WindowLoader(reader, {})
    with pytest.raises(UsageError, match="found 0, expected at least 1"):
        WindowLoader(reader, read_ahead=0)
