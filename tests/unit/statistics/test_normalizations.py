"""Each normalization against its reference's formula, written out in plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.recorded_stores import Recorded, record_session
from models.inputs import DeviceNormalizer
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.ingest import convert_session
from sensorium_data.statistics import Normalizer, open_normalizer
from sensorium_data.statistics.normalizations import NORMALIZATIONS, vivit_closed_loop_normalizer, vivit_normalizer
from sensorium_data.statistics.train_statistics import compute_train_statistics
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

EPS = np.finfo(np.float32).eps
N_FRAMES = 14


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recorded]:
    def dip(arrays: dict[str, np.ndarray]) -> None:
        # Deconvolved traces dip below zero by their numerical noise; one neuron hardly ever fires.
        arrays["responses"][:, 0] *= 1e-4
        arrays["responses"][:, 1, :N_FRAMES:3] = -1e-7

    store = tmp_path_factory.mktemp("normalizations")
    made = record_session(store, "F", n_by_tier={"train": 7, "oracle": 3}, n_frames=N_FRAMES, seed=2, change=dip)
    return str(store), made


@pytest.fixture(scope="module")
def normalizers(recorded: tuple[str, Recorded]) -> dict[str, Normalizer]:
    return {name: open_normalizer(name, recorded[0], "F") for name in NORMALIZATIONS}


def train_trials(made: Recorded, variable: str, n_frames: int = N_FRAMES) -> np.ndarray:
    """(trial, …) float64, without the padding that no trial fills."""
    values = getattr(made, variable)[np.array(made.tiers) == "train"].astype(np.float64)
    return values[:, :n_frames] if variable == "videos" else values[..., :n_frames]


def oracle_trial(made: Recorded, variable: str, n_frames: int = N_FRAMES) -> np.ndarray:
    values = getattr(made, variable)[made.tiers.index("oracle")]
    return values[:n_frames] if variable == "videos" else values[..., :n_frames]


def precision(std: np.ndarray) -> np.ndarray:
    """As every reference computes it: 1 / std above one hundredth of the mean std, one over that elsewhere."""
    threshold = 0.01 * np.nanmean(std)
    result = np.ones_like(std) / threshold
    result[std > threshold] = 1 / std[std > threshold]
    return result


def archived_precision(made: Recorded) -> np.ndarray:
    return precision(made.statistics["responses"][1])[:, :N_FRAMES]


def assert_scale(normalizer: Normalizer, made: Recorded, **expected: np.ndarray) -> None:
    for variable, values in expected.items():
        found = getattr(normalizer, variable)(oracle_trial(made, variable), slice(0, N_FRAMES))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values, rtol=2e-4, atol=2e-4, err_msg=variable)


def test_competition(recorded: tuple[str, Recorded], normalizers: dict[str, Normalizer]) -> None:
    made = recorded[1]
    video_mean, video_std = made.statistics["videos"][:, :N_FRAMES]
    pupil_mean, pupil_std = made.statistics["pupil_center"][..., :N_FRAMES]
    assert_scale(
        normalizers["competition"],
        made,
        videos=(oracle_trial(made, "videos") - video_mean) / video_std,
        responses=oracle_trial(made, "responses") * archived_precision(made),
        behavior=oracle_trial(made, "behavior") / made.statistics["behavior"][1, :, :N_FRAMES],
        pupil_center=(oracle_trial(made, "pupil_center") - pupil_mean) / pupil_std,
    )


def test_dwiseneuro_is_raw_but_for_negative_responses(
    recorded: tuple[str, Recorded], normalizers: dict[str, Normalizer]
) -> None:
    made = recorded[1]
    raw = {name: oracle_trial(made, name) for name in ("videos", "responses", "behavior", "pupil_center")}
    assert (raw["responses"] < 0).any()
    assert_scale(normalizers["dwiseneuro"], made, **raw | {"responses": np.maximum(raw["responses"], 0)})
    assert (normalizers["dwiseneuro"].responses(raw["responses"], slice(0, N_FRAMES)) >= 0).all()


def test_none_changes_no_bit(recorded: tuple[str, Recorded], normalizers: dict[str, Normalizer]) -> None:
    for name in ("videos", "responses", "behavior", "pupil_center"):
        raw = oracle_trial(recorded[1], name)
        np.testing.assert_array_equal(getattr(normalizers["none"], name)(raw, slice(0, N_FRAMES)), raw)


@pytest.mark.parametrize(("name", "lowest", "highest"), [("vivit", np.min, np.max), ("vivit-legacy", np.mean, np.std)])
def test_vivit_scales_by_min_and_max_and_took_mean_and_std_for_those_of_videos(
    recorded: tuple[str, Recorded],
    normalizers: dict[str, Normalizer],
    name: str,
    lowest: Callable[..., np.ndarray],
    highest: Callable[..., np.ndarray],
) -> None:
    made = recorded[1]
    video_min, video_max = (take(train_trials(made, "videos"), axis=0) for take in (lowest, highest))
    scaled = {}
    for variable in ("behavior", "pupil_center"):
        least, most = train_trials(made, variable).min(axis=0), train_trials(made, variable).max(axis=0)
        scaled[variable] = (oracle_trial(made, variable) - least) / (most - least)
    assert_scale(
        normalizers[name],
        made,
        videos=(oracle_trial(made, "videos") - video_min) / (video_max - video_min),
        responses=oracle_trial(made, "responses") * precision(train_trials(made, "responses").std(axis=0)),
        **scaled,
    )


def test_vivit_closed_loop_knows_no_time(recorded: tuple[str, Recorded], normalizers: dict[str, Normalizer]) -> None:
    made = recorded[1]
    pixels, pupil = train_trials(made, "videos"), train_trials(made, "pupil_center")
    response_std = train_trials(made, "responses").std(axis=(0, 2))[:, None]
    assert_scale(
        normalizers["vivit-closed-loop"],
        made,
        videos=(oracle_trial(made, "videos") - pixels.mean()) / (pixels.std() + EPS),
        responses=oracle_trial(made, "responses") * precision(response_std),
        behavior=oracle_trial(made, "behavior") / train_trials(made, "behavior").std(axis=(0, 2))[:, None],
        pupil_center=(oracle_trial(made, "pupil_center") - pupil.mean(axis=(0, 2))[:, None])
        / (pupil.std(axis=(0, 2))[:, None] + EPS),
    )


def test_vivit_looks_at_the_first_300_frames(tmp_path: Path) -> None:
    made = record_session(
        tmp_path, "A", n_neurons=3, n_by_tier={"train": 3, "oracle": 1}, n_frames=304, dtypes={"videos": "float16"}
    )
    normalizer = open_normalizer("vivit", str(tmp_path), "A")
    std = train_trials(made, "responses", 300).std(axis=0)
    expected = np.concatenate([precision(std), precision(std)[:, 299:].repeat(4, axis=1)], axis=1)
    np.testing.assert_allclose(normalizer.precision[:, :304], expected, rtol=1e-5)
    lowest, highest = (f(train_trials(made, "behavior", 300), axis=0) for f in (np.min, np.max))
    late = oracle_trial(made, "behavior", 304)[:, 300:]
    found = normalizer.behavior(late, slice(300, 304))
    np.testing.assert_allclose(found, (late - lowest[:, 299:]) / (highest - lowest)[:, 299:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
def test_whatever_the_scale_predictions_come_to_the_competitions(
    name: str, recorded: tuple[str, Recorded], normalizers: dict[str, Normalizer]
) -> None:
    made, normalizer = recorded[1], normalizers[name]
    frames = slice(3, 11)
    raw = np.abs(oracle_trial(made, "responses"))[:, frames]
    predicted = normalizer.responses(raw, frames)
    np.testing.assert_allclose(normalizer.responses_to_raw(predicted, frames), raw, rtol=1e-5)
    on_the_scale = normalizer.responses_to_competition(predicted, frames)
    np.testing.assert_allclose(on_the_scale, raw * archived_precision(made)[:, frames], rtol=1e-5)
    assert on_the_scale.dtype == np.float32
    assert normalizer.name == name


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
@pytest.mark.parametrize("frames", [slice(2, 12, 2), np.array([7, 1, 4])], ids=["stride", "any"])
def test_a_window_is_normalized_as_in_its_trial(
    name: str, frames: slice | np.ndarray, recorded: tuple[str, Recorded], normalizers: dict[str, Normalizer]
) -> None:
    normalizer, all_frames = normalizers[name], slice(0, N_FRAMES)
    video = oracle_trial(recorded[1], "videos")
    np.testing.assert_array_equal(
        normalizer.videos(video[frames], frames), normalizer.videos(video, all_frames)[frames]
    )
    for variable in ("responses", "behavior", "pupil_center"):
        values, normalize = oracle_trial(recorded[1], variable), getattr(normalizer, variable)
        np.testing.assert_array_equal(normalize(values[:, frames], frames), normalize(values, all_frames)[:, frames])


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
def test_what_is_missing_stays_missing_and_nothing_else_does(name: str, normalizers: dict[str, Normalizer]) -> None:
    normalizer = normalizers[name]
    for variable, shape in {
        "responses": normalizer.precision.shape,
        "behavior": normalizer.behavior_scale.shape,
    }.items():
        values = np.ones(shape)
        values[0, 5] = np.nan
        np.testing.assert_array_equal(np.isnan(getattr(normalizer, variable)(values)), np.isnan(values))


def test_what_never_changes_in_training_is_divided_by_one(tmp_path: Path) -> None:
    def stand(arrays: dict[str, np.ndarray]) -> None:
        arrays["behavior"][:, 1] *= 0

    made = record_session(tmp_path, "A", n_by_tier={"train": 3}, n_frames=6, change=stand)
    for name in ("competition", "vivit", "vivit-closed-loop"):
        running = open_normalizer(name, str(tmp_path), "A").behavior(np.full((2, 6), 3.0), slice(0, 6))[1]
        np.testing.assert_array_equal(running, 3.0)
    assert made.n_frames == (6, 6, 6)


def test_an_unknown_name_has_near_ones(recorded: tuple[str, Recorded]) -> None:
    with pytest.raises(UnknownNameError, match=r"normalization.*did you mean vivit"):
        open_normalizer("ViViT", recorded[0], "F")


def test_statistics_of_another_kind_or_session_are_refused(recorded: tuple[str, Recorded]) -> None:
    store = recorded[0]
    overall = compute_train_statistics(store, "F", axes="trials and time")
    with pytest.raises(UsageError, match=r"found statistics of .* over trials and time, expected .* over trials;"):
        vivit_normalizer(store, "F", overall)
    with pytest.raises(UsageError, match="expected statistics of dynamic29623"):
        vivit_closed_loop_normalizer(store, "G", overall)


# ---- statistics that end before the trials do

N_KNOWN = 8


@pytest.fixture(scope="module")
def cut_short(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Recording]:
    """A session whose archive has statistics of its first frames alone, and of one neuron none."""
    made = make_recording("A", ["train", "train", "train", "oracle"], n_frames=12, n_padded=14, n_neurons=4)
    statistics = {name: array.copy() for name, array in made.statistics.items()}
    for array in statistics.values():
        array[..., N_KNOWN:] = np.nan
    statistics["responses", "std"][2] = np.nan
    statistics["responses", "std"][0, N_KNOWN - 1] = 1e-6
    folder = tmp_path_factory.mktemp("cut_short")
    made = replace(made, statistics=statistics)
    made.write(folder / "archives")
    convert_session(made.session, str(folder / "store"), source=str(folder / "archives"))
    return str(folder / "store"), made


def carried_precision(made: Recording) -> np.ndarray:
    std = made.statistics["responses", "std"].copy()
    expected = precision(std)
    expected[:, N_KNOWN:] = expected[:, N_KNOWN - 1 : N_KNOWN]
    expected[2] = 1 / (0.01 * np.nanmean(std))
    return expected


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
def test_later_frames_are_scaled_as_the_last_one_with_statistics(name: str, cut_short: tuple[str, Recording]) -> None:
    store, made = cut_short
    normalizer, frames = open_normalizer(name, store, "A"), slice(0, 12)
    raw = np.abs(made.trials[3].responses[:, frames])
    found = normalizer.responses_to_competition(normalizer.responses(raw, frames), frames)
    np.testing.assert_allclose(found, raw * carried_precision(made)[:, frames], rtol=1e-5)
    np.testing.assert_allclose(
        normalizer.responses_to_raw(normalizer.responses(raw, frames), frames), raw, rtol=1e-5, atol=1e-12
    )
    on_device = DeviceNormalizer(normalizer, torch.device("cpu"))
    late = torch.arange(N_KNOWN - 1, 12)[None]
    responses_BTN = torch.from_numpy(raw.T[None, N_KNOWN - 1 :].astype(np.float32))
    np.testing.assert_allclose(
        on_device.responses(responses_BTN, late)[0].T, normalizer.responses(raw, frames)[:, N_KNOWN - 1 :], rtol=1e-6
    )


def test_later_inputs_are_scaled_as_the_last_ones_with_statistics(cut_short: tuple[str, Recording]) -> None:
    store, made = cut_short
    normalizer = open_normalizer("competition", store, "A")
    late, last = slice(N_KNOWN, 12), slice(N_KNOWN - 1, N_KNOWN)
    trial = made.trials[3]
    mean, std = ({v: made.statistics[v, s][..., last] for v in ("videos", "behavior", "pupil_center")} for s in
                 ("mean", "std"))  # fmt: skip
    video = (trial.videos[..., late] - mean["videos"]) / std["videos"]
    np.testing.assert_allclose(
        normalizer.videos(trial.videos.transpose(2, 0, 1)[late], late), video.transpose(2, 0, 1), rtol=1e-4, atol=1e-4
    )
    behavior = trial.behavior[:, late]
    np.testing.assert_allclose(normalizer.behavior(behavior, late), behavior / std["behavior"], rtol=1e-5)
    pupil = (trial.pupil_center[:, late] - mean["pupil_center"]) / std["pupil_center"]
    np.testing.assert_allclose(normalizer.pupil_center(trial.pupil_center[:, late], late), pupil, rtol=1e-4, atol=1e-4)
