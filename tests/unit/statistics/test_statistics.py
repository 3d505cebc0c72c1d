from __future__ import annotations

import numpy as np
import pytest

from sensorium_data.errors import UsageError
from sensorium_data.ingest import convert_session
from sensorium_data.statistics import response_precision
from sensorium_data.statistics.statistics import competition_normalizer
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording


def precision_as_the_starter_kit_computes_it(std: np.ndarray) -> np.ndarray:
    """With its standard deviations carried on where they end; it never sees those frames."""
    threshold = 0.01 * np.nanmean(std)
    carried = std.copy()
    for frame in range(1, std.shape[1]):
        carried[:, frame] = np.where(np.isnan(std[:, frame]), carried[:, frame - 1], std[:, frame])
    precision = np.ones_like(std) / threshold
    above = carried > threshold
    precision[above] = 1 / carried[above]
    return precision


@pytest.fixture(scope="module")
def recording() -> Recording:
    made = make_recording("A", tiers=["train"] * 4, n_frames=20, n_padded=24, n_neurons=6)
    statistics = {name: array.copy() for name, array in made.statistics.items()}
    statistics["responses", "std"][0, 3] = 0.0
    statistics["responses", "std"][1, 4:] = np.nan
    # Statistics that end before the longest trial does, and a channel that never changes.
    statistics["videos", "mean"][..., 22:] = np.nan
    statistics["videos", "std"][..., 22:] = np.nan
    statistics["videos", "std"][0, 0, :] = 0.0
    statistics["pupil_center", "mean"][1, 21:] = np.nan
    statistics["behavior", "std"][1] = 0.0
    statistics["behavior", "std"][0, :2] = np.nan
    return Recording(**{**vars(made), "statistics": statistics})


@pytest.fixture(scope="module")
def store(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("statistics")
    recording.write(folder / "archives")
    convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"))
    return str(folder / "store")


def test_precision_equals_the_starter_kits() -> None:
    std = np.random.default_rng(0).gamma(0.3, 10.0, (50, 30))
    std[3] = 0
    std[5, 7:] = np.nan
    np.testing.assert_allclose(response_precision(std), precision_as_the_starter_kit_computes_it(std), rtol=1e-6)
    assert response_precision(std).dtype == np.float32


@pytest.mark.parametrize("std", [np.zeros((3, 4)), np.full((3, 4), np.nan)])
def test_precision_of_nothing_is_refused(std: np.ndarray) -> None:
    with pytest.raises(UsageError, match="no positive mean"):
        response_precision(std)


def test_responses_are_multiplied_by_their_precision(store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    raw = recording.trials[0].responses.astype(np.float32)
    expected = raw * precision_as_the_starter_kit_computes_it(recording.statistics["responses", "std"])
    np.testing.assert_allclose(normalizer.responses(raw), expected, rtol=1e-5)


def test_videos_are_standardized_by_pixel_and_frame(store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    video = recording.trials[1].videos.transpose(2, 0, 1).astype(np.float32)
    mean, std = (recording.statistics["videos", name].transpose(2, 0, 1) for name in ("mean", "std"))
    expected = (video[:20] - mean[:20]) / np.where(std[:20] > 0, std[:20], 1)
    np.testing.assert_allclose(normalizer.videos(video)[:20], expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(normalizer.videos(video)[20:]).all()


def test_a_frame_without_statistics_takes_those_of_the_last_that_has_some(store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    video = np.full((24, 36, 64), 100, np.float32)
    normalized = normalizer.videos(video)
    assert np.isfinite(normalized).all()
    np.testing.assert_array_equal(normalized[22:], np.broadcast_to(normalized[21], (2, 36, 64)))


def test_behavior_is_divided_and_not_centered(store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    behavior = recording.trials[2].behavior.astype(np.float32)
    std = recording.statistics["behavior", "std"]
    np.testing.assert_allclose(normalizer.behavior(behavior)[0, 2:], behavior[0, 2:] / std[0, 2:], rtol=1e-5)
    # The first frames take the first known standard deviation; the second channel's is zero.
    np.testing.assert_allclose(normalizer.behavior(behavior)[0, :2], behavior[0, :2] / std[0, 2], rtol=1e-5)
    np.testing.assert_array_equal(normalizer.behavior(behavior)[1], behavior[1])


def test_pupil_center_is_standardized(store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    pupil = recording.trials[3].pupil_center.astype(np.float32)
    mean, std = (recording.statistics["pupil_center", name] for name in ("mean", "std"))
    expected = (pupil[:, :20] - mean[:, :20]) / std[:, :20]
    np.testing.assert_allclose(normalizer.pupil_center(pupil)[:, :20], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frames", [slice(3, 15), slice(2, 20, 2), np.array([5, 1, 7])], ids=["part", "stride", "any"])
def test_a_window_is_normalized_as_in_its_trial(frames: slice | np.ndarray, store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    trial = recording.trials[0]
    video = trial.videos.transpose(2, 0, 1).astype(np.float32)
    batch = np.stack([video, video])
    np.testing.assert_array_equal(normalizer.videos(batch[:, frames], frames)[1], normalizer.videos(video)[frames])
    for name in ("responses", "behavior", "pupil_center"):
        normalize, values = getattr(normalizer, name), getattr(trial, name).astype(np.float32)
        np.testing.assert_array_equal(normalize(values[:, frames], frames), normalize(values)[:, frames])


def test_normalizing_leaves_its_input_alone_and_gives_float32(store: str, recording: Recording) -> None:
    normalizer = competition_normalizer(store, "A")
    for name in ("responses", "behavior", "pupil_center"):
        values = getattr(recording.trials[0], name).copy()
        assert getattr(normalizer, name)(values).dtype == np.float32
        np.testing.assert_array_equal(values, getattr(recording.trials[0], name))
