"""Windows and whole trials as a model is given them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import zarr

from fixtures.recorded_stores import record_session
from sensorium_data.errors import SensoriumError, StoreError, TrialError, UsageError
from sensorium_data.loader import WindowLoader
from sensorium_data.sessions import Tier
from sensorium_data.statistics import competition_normalizer
from sensorium_data.testing.server import serve_directory
from sensorium_data.trial_reader import TrialReader, default_cache_bytes

WINDOWS = {"n_frames": 40, "batch_size": 3, "seed": 4, "epoch": 1}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A store of two sessions, of 8 and 5 training trials of several lengths, one of them broken."""
    store = tmp_path_factory.mktemp("store")
    made = [
        record_session(store, "F", lengths={0: 60, 3: 66}, broken=(5,)),
        record_session(store, "G", n_neurons=4, n_by_tier={"train": 5, "oracle": 2, "live_test_main": 2}),
    ]
    return store, {session.name: session for session in made}


def open_loader(store, aliases=("F", "G"), *, read_ahead=2, **reader_settings):
    reader = TrialReader(str(store), aliases, **reader_settings)
    normalizers = {session.name: competition_normalizer(str(store), session.name) for session in reader.sessions}
    return WindowLoader(reader, normalizers, read_ahead=read_ahead)


def normalize(made, trial, frames):
    """The competition's normalization of a window, in plain numpy and double precision."""
    position = made.position(trial)

    def cut(variable):
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


def test_windows_hold_the_normalized_frames_they_say(recorded):
    store, made = recorded
    batches = list(open_loader(store).iter_batches([Tier.TRAIN], **WINDOWS))

    assert [batch.session for batch in batches] == list(made) * (len(batches) // 2)
    for batch in batches:
        session = made[batch.session]
        assert batch.videos.shape == (len(batch), 40, 36, 64)
        assert batch.responses.shape == (len(batch), len(session.unit_ids), 40)
        for index, (trial, first) in enumerate(zip(batch.trials, batch.first_frames, strict=True)):
            assert session.tiers[session.position(trial)] == "train"
            for variable, expected in normalize(session, trial, range(first, first + 40)).items():
                found = getattr(batch, variable)[index]
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=variable)


def test_broken_trials_are_never_seen(recorded):
    store, made = recorded
    session = next(iter(made.values()))
    broken = {trial for trial, valid in zip(session.trials, session.valid, strict=True) if not valid}
    assert broken
    loader = open_loader(store, ["F"])
    seen = {trial for tier in Tier for trial in _trials_of(loader, tier)}
    assert seen == set(session.trials) - broken


def _trials_of(loader, tier):
    try:
        return [batch.trials[0] for batch in loader.iter_trials("F", [tier])]
    except UsageError:
        return []  # the store has no trial of this tier


@pytest.mark.parametrize(
    "settings",
    [{"n_threads": 1, "cache_bytes": 0}, {"n_threads": 7, "read_ahead": 5}, {"n_threads": 3, "cache_bytes": 2_000_000}],
    ids=["one thread", "many threads", "a small cache"],
)
def test_threads_and_cache_change_nothing(recorded, settings):
    store, _ = recorded
    usual, other = open_loader(store), open_loader(store, **settings)
    for epoch in (0, 1):
        windows = WINDOWS | {"epoch": epoch}
        for expected, found in zip(
            usual.iter_batches([Tier.TRAIN], **windows), other.iter_batches([Tier.TRAIN], **windows), strict=True
        ):
            assert (found.session, found.trials, found.first_frames) == (
                expected.session,
                expected.trials,
                expected.first_frames,
            )
            for variable in ("videos", "responses", "behavior", "pupil_center"):
                np.testing.assert_array_equal(getattr(found, variable), getattr(expected, variable))


def test_windows_are_the_same_over_http(recorded):
    store, _ = recorded
    local = list(open_loader(store).iter_batches([Tier.TRAIN], **WINDOWS))
    with serve_directory(store) as server:
        remote = list(open_loader(server.url).iter_batches([Tier.TRAIN], **WINDOWS))
    assert [batch.trials for batch in remote] == [batch.trials for batch in local]
    for found, expected in zip(remote, local, strict=True):
        np.testing.assert_array_equal(found.videos, expected.videos)
        np.testing.assert_array_equal(found.responses, expected.responses)


def test_whole_trials_end_where_their_video_ends(recorded):
    store, made = recorded
    session = next(iter(made.values()))
    for batch in open_loader(store).iter_trials("F", [Tier.TRAIN, Tier.ORACLE]):
        (trial,) = batch.trials
        n_frames = session.n_frames[session.position(trial)]
        assert batch.n_frames == n_frames
        expected = normalize(session, trial, range(n_frames))
        np.testing.assert_allclose(batch.responses[0], expected["responses"], rtol=1e-4)


def test_withheld_responses_are_absent_and_such_trials_are_not_labelled(recorded):
    store, _ = recorded
    loader = open_loader(store)
    batches = list(loader.iter_trials("F", [Tier.LIVE_TEST_MAIN]))
    assert batches
    assert all(batch.responses is None for batch in batches)
    with pytest.raises(UsageError, match=r"no valid trial of tier live_test_main with published responses"):
        list(loader.iter_trials("F", [Tier.LIVE_TEST_MAIN], labelled=True))


def test_a_budget_keeps_blocks_and_is_never_exceeded(recorded):
    store, made = recorded
    one_trial = max(
        sum(getattr(made[name], variable)[0].nbytes for variable in ("videos", "responses", "behavior", "pupil_center"))
        for name in made
    )
    loader = open_loader(store, cache_bytes=3 * one_trial)
    for epoch in range(2):
        list(loader.iter_batches([Tier.TRAIN], **WINDOWS | {"epoch": epoch}))
    assert 2 * one_trial <= loader.reader.cached_bytes <= 3 * one_trial


def test_a_kept_trial_is_not_read_again(recorded, monkeypatch):
    store, _ = recorded
    loader = open_loader(store)
    list(loader.iter_batches([Tier.TRAIN], **WINDOWS))

    def fail(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(zarr.Array, "__getitem__", fail)
    assert list(loader.iter_batches([Tier.TRAIN], **WINDOWS))


def test_what_is_kept_cannot_be_changed(recorded):
    store, made = recorded
    reader = TrialReader(str(store), ["F"])
    trial = made[reader.sessions[0].name].trials[0]
    with pytest.raises(ValueError, match="read-only"):
        reader.read("F", trial).videos[0] = 0


def test_prediction_reads_no_responses(recorded):
    store, made = recorded
    reader = TrialReader(str(store), ["F"], reads_responses=False)
    assert reader.read("F", made[reader.sessions[0].name].trials[0]).responses is None


def test_reading_stays_no_further_ahead_than_allowed(recorded):
    store, _ = recorded
    loader = open_loader(store, ["F"], read_ahead=2)
    loaded = []
    load = loader._load
    loader._load = lambda plan: loaded.append(plan) or load(plan)
    batches = loader.iter_batches([Tier.TRAIN], n_frames=40, batch_size=1, seed=0, epoch=0)
    next(batches)
    give_up_s = time.monotonic() + 30
    while len(loaded) < 3 and time.monotonic() < give_up_s:
        time.sleep(0.01)
    time.sleep(0.2)  # for one too many to show up
    assert len(loaded) == 3
    batches.close()


def test_stopping_early_leaves_no_thread_behind(recorded):
    store, _ = recorded
    loader = open_loader(store)
    batches = loader.iter_batches([Tier.TRAIN], **WINDOWS)
    next(batches)
    batches.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_window_longer_than_a_trial_names_the_trial(recorded):
    store, made = recorded
    session = next(iter(made.values()))
    shortest = min(
        (n, trial)
        for n, trial, tier, valid in zip(session.n_frames, session.trials, session.tiers, session.valid, strict=True)
        if tier == "train" and valid
    )
    with pytest.raises(UsageError, match=rf"trial {shortest[1]}: .*found {shortest[0]} frames, expected at least 71"):
        next(open_loader(store).iter_batches([Tier.TRAIN], **WINDOWS | {"n_frames": 71}))


def test_a_chunk_that_is_lost_while_training_is_an_error_not_nan(tmp_path):
    made = record_session(tmp_path, "F", n_by_tier={"train": 2, "oracle": 1})
    loader = open_loader(tmp_path, ["F"])
    position = made.tiers.index("train")
    (tmp_path / made.name / "videos" / "c" / str(position) / "0" / "0" / "0").unlink()
    with pytest.raises(StoreError, match=rf"trial {made.trials[position]}.*videos holds.*no numbers.*verify the store"):
        list(loader.iter_batches([Tier.TRAIN], **WINDOWS))


def test_wrong_requests_are_refused(recorded):
    store, _ = recorded
    reader = TrialReader(str(store), ["F"])
    with pytest.raises(TrialError, match="no such trial"):
        reader.read("F", 10_000)
    with pytest.raises(UsageError, match="not opened"):
        reader.read("G", 0)
    with pytest.raises(UsageError, match="no valid trial of tier final_test_bonus"):
        reader.select_trials("F", [Tier.FINAL_TEST_BONUS])
    with pytest.raises(UsageError, match="no session"):
        TrialReader(str(store), [])
    with pytest.raises(UsageError, match="thread"):
        TrialReader(str(store), ["F"], n_threads=0)
    with pytest.raises(UsageError, match="negative"):
        TrialReader(str(store), ["F"], cache_bytes=-1)
    with pytest.raises(UsageError, match="normalizer"):
        WindowLoader(reader, {})
    with pytest.raises(SensoriumError):
        TrialReader(str(store), ["H"])


def test_the_default_cache_is_a_share_of_the_memory():
    assert 2**20 < default_cache_bytes() < 2**50
