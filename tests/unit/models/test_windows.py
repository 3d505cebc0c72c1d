"""Windows as tensors: in the form that each published model takes, from the host or from trials on a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fixtures.recorded_stores import record_session
from models.inputs import InputPreparer, ModelInputs, open_normalizers
from models.layouts import INPUT_LAYOUTS, find_layout
from models.torch_dataset import WindowDataset
from models.windows import DeviceWindows, HostWindows, open_windows
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.ingest import convert_session
from sensorium_data.sessions import Tier, find_session
from sensorium_data.statistics.normalizations import NORMALIZATIONS
from sensorium_data.store import Precision
from sensorium_data.testing.recordings import make_recording
from sensorium_data.windows import (
    Batch,
    BlockCache,
    EpochPlan,
    TrialReader,
    WindowLoader,
    Windows,
    plan_in_turn,
    plan_mixed,
    window_batches,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sessions; not to be changed."""
    root = tmp_path_factory.mktemp("store")
    record_session(root, "F", lengths={0: 60, 3: 66})
    record_session(root, "G", n_neurons=4, n_by_tier={"train": 5, "oracle": 2, "live_test_main": 2})
    return str(root)


@pytest.fixture(scope="module")
def compact_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A session of rounded values; not to be changed."""
    root = tmp_path_factory.mktemp("compact")
    make_recording("F", ["train"] * 4 + ["oracle"], n_neurons=6, seed=3).write(root / "source")
    convert_session(
        find_session("F"), str(root / "store"), source=str(root / "source"), precision=Precision.COMPACT, jobs=1
    )
    return str(root / "store")


def make_plan(reader: TrialReader, windows: Windows, *, mixed: bool = False, epoch: int = 0) -> EpochPlan:
    trials = [reader.select_trials(session.name, [Tier.TRAIN], labelled=True) for session in reader.sessions]
    plan = plan_mixed if mixed else plan_in_turn
    return plan(trials, windows, batch_size=3, seed=1, epoch=epoch)


def open_device_windows(
    reader: TrialReader, store: str, budget_bytes: int, normalization: str = "competition"
) -> DeviceWindows:
    names = [session.name for session in reader.sessions]
    preparer = InputPreparer(find_layout("starter-kit"), CPU, open_normalizers(normalization, store, names))
    return DeviceWindows(WindowLoader(reader), preparer, BlockCache(budget_bytes))


def assert_same(found: ModelInputs, expected: ModelInputs, *, atol: float = 0.0) -> None:
    for name in ("session", "trials", "first_frames", "stride"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("videos", "behavior", "pupil_center", "responses"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=max(atol, 1e-6))


@pytest.mark.parametrize("budget_bytes", [0, 1_500_000, 1 << 30], ids=["nothing stays", "some stay", "all stay"])
@pytest.mark.parametrize("mixed", [False, True])
def test_windows_cut_on_the_device_are_those_cut_on_the_host(store: str, budget_bytes: int, mixed: bool) -> None:
    reader = TrialReader(store, ["F", "G"], cache_bytes=0)
    names = [session.name for session in reader.sessions]
    host = HostWindows(
        WindowLoader(reader, open_normalizers("competition", store, names)),
        InputPreparer(find_layout("starter-kit"), CPU),
    )
    device = open_device_windows(reader, store, budget_bytes)
    for epoch in range(2):
        plan = make_plan(reader, Windows(16, 2, n_per_trial=3), mixed=mixed, epoch=epoch)
        for expected, found in zip(host.iter_batches(plan), device.iter_batches(plan), strict=True):
            for one, other in zip(expected, found, strict=True):
                assert_same(other, one)
        assert device.cache.size_bytes <= budget_bytes
    assert (len(device.cache) > 0) == (budget_bytes > 0)


def test_an_epoch_on_the_device_can_be_entered_anywhere(store: str) -> None:
    reader = TrialReader(store, ["F", "G"], cache_bytes=0)
    plan = make_plan(reader, Windows(20, n_per_trial=3))
    whole = list(open_device_windows(reader, store, 0).iter_batches(plan))
    rest = list(open_device_windows(reader, store, 0).iter_batches(plan, first_batch=4))
    assert len(rest) == len(whole) - 4
    for expected, found in zip(whole[4:], rest, strict=True):
        assert_same(found[0], expected[0])


def test_trials_that_stay_are_not_read_again(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TrialReader(store, ["F"], cache_bytes=0)
    device = open_device_windows(reader, store, 1 << 30)
    list(device.iter_batches(make_plan(reader, Windows(20))))

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(reader, "read", fail)
    assert list(device.iter_batches(make_plan(reader, Windows(20), epoch=1)))


def test_trials_of_a_compact_store_stay_in_half_the_memory_and_lose_nothing(compact_store: str) -> None:
    reader = TrialReader(compact_store, ["F"], cache_bytes=0)
    device = open_device_windows(reader, compact_store, 1 << 30, "none")
    plan = make_plan(reader, Windows(10))
    session = reader.sessions[0].name
    for (part,) in device.iter_batches(plan):
        for index, (trial, first) in enumerate(zip(part.trials, part.first_frames, strict=True)):
            block = reader.read(session, trial)
            frames = slice(first, first + 10)
            np.testing.assert_array_equal(part.videos[index, 0].numpy(), block.videos[frames])
            assert block.responses is not None
            np.testing.assert_allclose(part.responses[index].numpy(), block.responses[:, frames], rtol=0, atol=2e-9)
    sizes = sum(
        reader.read(session, trial).size_bytes for trial in {t for (p,) in device.iter_batches(plan) for t in p.trials}
    )
    assert device.cache.size_bytes < 0.55 * sizes


@pytest.mark.parametrize("normalization", sorted(set(NORMALIZATIONS) - {"vivit", "vivit-legacy", "vivit-closed-loop"}))
def test_a_device_normalizes_as_the_host_does(store: str, normalization: str) -> None:
    reader = TrialReader(store, ["F"])
    name = reader.sessions[0].name
    normalizers = open_normalizers(normalization, store, [name])
    plan = make_plan(reader, Windows(16, 2))
    host = InputPreparer(find_layout("vivit"), CPU)
    device = InputPreparer(find_layout("vivit"), CPU, normalizers)
    batches = WindowLoader(reader, normalizers).iter_batches(plan)
    raw = WindowLoader(reader).iter_batches(plan)
    for (expected,), (found,) in zip(batches, raw, strict=True):
        assert_same(device.prepare(found), host.prepare(expected))


def one_batch(store: str) -> Batch:
    reader = TrialReader(store, ["F"])
    return next(WindowLoader(reader).iter_batches(make_plan(reader, Windows(12))))[0]


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("video", (1, 36, 64)),
        ("starter-kit", (3, 36, 64)),
        ("vivit", (5, 36, 64)),
        ("dwiseneuro", (5, 64, 64)),
        ("vivit-closed-loop", (5, 41, 69)),
    ],
)
def test_each_layout_composes_the_video_its_models_take(store: str, layout: str, shape: tuple[int, int, int]) -> None:
    batch = one_batch(store)
    inputs = InputPreparer(find_layout(layout), CPU).prepare(batch)
    assert inputs.videos.shape == (len(batch), shape[0], 12, *shape[1:])
    top, bottom, left, right = INPUT_LAYOUTS[layout].padding
    inner = inputs.videos[..., top : shape[1] - bottom, left : shape[2] - right]
    np.testing.assert_array_equal(inner[:, 0].numpy(), batch.videos)
    states = np.concatenate([batch.behavior, batch.pupil_center], axis=1)
    for channel in range(1, shape[0]):
        expected = np.broadcast_to(states[:, channel - 1, :, None, None], inner[:, channel].shape)
        np.testing.assert_array_equal(inner[:, channel].numpy(), expected)
    if any(INPUT_LAYOUTS[layout].padding):
        border = inputs.videos[:, :, :, 0, 0]
        assert not border[:, 0].any()
        if layout == "dwiseneuro":
            np.testing.assert_array_equal(border[:, 1:].numpy(), states)
        else:
            assert not border.any()


def test_an_unknown_layout_names_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="starter-kit"):
        find_layout("starterkit")


def test_trials_cannot_stay_on_a_gpu_that_is_not_there(store: str) -> None:
    reader = TrialReader(store, ["F"])
    with pytest.raises(UsageError, match=r"cannot stay on the device.*choose the cache memory"):
        open_windows(reader, {}, find_layout("starter-kit"), CPU, [], cache="device")


@pytest.mark.parametrize(("cache", "kept"), [("none", False), ("memory", True), ("auto", True)])
def test_the_cache_is_what_was_asked_for(store: str, cache: str, kept: bool) -> None:
    reader = TrialReader(store, ["F"])
    name = reader.sessions[0].name
    normalizers = open_normalizers("competition", store, [name])
    source = open_windows(reader, normalizers, find_layout("starter-kit"), CPU, [], cache=cache, cache_bytes=1 << 22)  # type: ignore[arg-type]
    list(source.iter_batches(make_plan(reader, Windows(20))))
    assert (reader.cache.size_bytes > 0) == kept
    assert reader.cache.size_bytes <= 1 << 22


def test_whole_trials_come_in_the_same_form(store: str) -> None:
    reader = TrialReader(store, ["F"])
    name = reader.sessions[0].name
    source = open_windows(reader, open_normalizers("competition", store, [name]), find_layout("vivit"), CPU, [])
    for trial in source.iter_trials("F", [Tier.TRAIN, Tier.ORACLE]):
        assert trial.videos.shape[1] == 5
        assert trial.n_frames == reader.read("F", trial.trials[0]).n_frames


def test_torchs_own_tools_get_the_same_batches_and_one_epoch_after_the_other(store: str) -> None:
    batches = window_batches(store, sessions=["F", "G"], n_frames=20, seed=3)
    dataset = WindowDataset(batches)
    data_loader = DataLoader(dataset, batch_size=None)
    assert len(data_loader) == len(batches)
    for epoch in range(2):
        expected = [(batch.trials, batch.videos.copy()) for batch in batches.iter_epoch(epoch)]
        found = list(data_loader)
        assert [batch.trials for batch in found] == [trials for trials, _ in expected]
        for batch, (_, videos) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(batch.videos[:, 0].numpy(), videos)
    dataset.set_epoch(0)
    assert [batch.trials for batch in data_loader] == [batch.trials for batch in batches.iter_epoch(0)]


def test_worker_processes_are_refused_before_they_lock_up(store: str) -> None:
    dataset = WindowDataset(window_batches(store, sessions=["F"], n_frames=20), "video")
    with pytest.raises(UsageError, match="threads, not by worker processes"):
        list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork"))
    with pytest.raises(UsageError, match="threads, not by worker processes"):
        list(DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"))


def test_a_batch_has_names(store: str) -> None:
    batch = one_batch(store)
    named = batch.to_xarray()
    assert dict(named.sizes) == {
        "window": 3, "time": 12, "height": 36, "width": 64, "neuron": 6, "behavior_channel": 2, "eye_axis": 2
    }  # fmt: skip
    np.testing.assert_array_equal(named.responses.values, batch.responses)
    assert named.trial.values.tolist() == list(batch.trials)
    assert float(named.time[3]) == pytest.approx(0.1)
    assert named.attrs["session"] == batch.session
