"""Recordings of other labs: what a session in the same layout may lack, or have otherwise, and what is refused."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sensorium_data as sd
from models.runs import describe_data
from sensorium_data.archive import open_archive
from sensorium_data.errors import (
    ArchiveError,
    RunError,
    SensoriumError,
    SourceError,
    TrialError,
    UnknownNameError,
    UsageError,
)
from sensorium_data.ingest import (
    ConversionReport,
    choose_sessions,
    compare_with_archive,
    convert_session,
    resize_frames,
)
from sensorium_data.quality import check_session
from sensorium_data.sessions import Tier, find_session
from sensorium_data.statistics import open_normalizer
from sensorium_data.testing import make_recording

_TIERS = ("train", "train", "train", "validation", "validation")
_FRAMES = {0: 20, 1: 24, 2: 17, 3: 20, 4: 12}


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a session ``mouseA`` of ragged trials without statistics, in uint8 frames of 18 × 40."""
    tree = make_recording("mouseA", _TIERS, n_frames=_FRAMES, n_padded=24).write_tree(tmp_path / "lab")
    shutil.rmtree(tree / "meta/statistics")
    for path in (tree / "data").glob("*/*.npy"):
        edit(path, lambda values, n=_FRAMES[int(path.stem)]: values[..., :n])
    for path in (tree / "data/videos").glob("*.npy"):
        edit(path, lambda video: video[::2, :40].astype(np.uint8))
    return tree.parent


def ingest(lab: Path, **options: object) -> ConversionReport:
    return convert_session(find_session("mouseA"), str(lab / "store"), source=str(lab), **options)  # type: ignore[arg-type]


def compare(lab: Path) -> tuple[str, ...]:
    with open_archive(find_session("mouseA"), [str(lab)]) as archive:
        return compare_with_archive(str(lab / "store"), "mouseA", archive).problems


def load(lab: Path, name: str) -> np.ndarray:
    values: np.ndarray = np.load(lab / "mouseA" / name)
    return values


def test_ragged_trials_other_frames_tiers_and_integers_are_kept_exactly(lab: Path) -> None:
    report = ingest(lab)
    assert report.notes == ("the archive gives no statistics: computed over 3 trials of tier train",)
    mouse = sd.open_session(lab / "store", "mouseA")
    assert mouse.n_frames.values.tolist() == list(_FRAMES.values())
    assert mouse.tier.values.tolist() == list(_TIERS)
    for trial, n in _FRAMES.items():
        stored = mouse.sensorium.trial_block(trial)
        np.testing.assert_array_equal(stored.videos, load(lab, f"data/videos/{trial}.npy").transpose(2, 0, 1))
        np.testing.assert_array_equal(stored.responses, load(lab, f"data/responses/{trial}.npy").astype(np.float32))
        assert np.isnan(mouse.videos[trial, n:]).all()
    assert mouse.videos.shape[1:] == (24, 18, 40)
    assert mouse.sensorium.select(tier="validation").trial.values.tolist() == [3, 4]
    assert compare(lab) == ()
    assert check_session(lab / "store", "mouseA").passed
    assert ingest(lab).status == "already done"


def test_statistics_that_are_missing_are_those_of_the_training_trials(lab: Path) -> None:
    ingest(lab)
    store = sd.open_store(lab / "store")
    trials = np.stack([store["mouseA"].responses.values[trial] for trial in (0, 1, 2)]).astype(np.float64)
    expected = {"mean": np.nanmean, "std": np.nanstd, "min": np.nanmin, "max": np.nanmax}
    for statistic, function in expected.items():
        found = store.statistics("mouseA").responses.sel(statistic=statistic)
        np.testing.assert_allclose(found, function(trials, axis=0), rtol=1e-5, atol=1e-9)
    assert np.isnan(store.statistics("mouseA").responses.sel(statistic="median")).all()
    assert sd.open_session(store, "mouseA").attrs["computed_statistics"].count('"') == 8


def test_resized_frames_are_means_of_areas_and_another_size_converts_anew(lab: Path) -> None:
    assert ingest(lab).status == "converted"
    assert ingest(lab, resize="6x8").status == "updated"
    mouse = sd.open_session(lab / "store", "mouseA")
    video = load(lab, "data/videos/0.npy").transpose(2, 0, 1)
    expected = video.reshape(20, 6, 3, 8, 5).mean(axis=(2, 4))
    np.testing.assert_allclose(mouse.videos[0, :20], expected, rtol=1e-6)
    assert (mouse.attrs["resized_to"], mouse.attrs["resize_rule"]) == ("6x8", "area mean")
    assert ingest(lab).status == "already done"  # as the store has it
    assert compare(lab) == ()
    assert ingest(lab, resize="none").status == "updated"
    assert sd.open_session(lab / "store", "mouseA").sizes["height"] == 18


def test_statistics_of_the_resized_videos_of_a_published_session_are_computed(tmp_path: Path) -> None:
    session = find_session("F")
    make_recording("F", ["train", "train", "oracle"]).write(tmp_path / "archives")
    for size in (None, "6x8"):
        convert_session(session, str(tmp_path / "store"), source=str(tmp_path / "archives"), resize=size)
    mouse = sd.open_session(tmp_path / "store", "F")
    assert mouse.videos.shape[2:] == (6, 8)
    statistics = sd.open_store(tmp_path / "store").statistics("F")
    found = statistics.videos.sel(statistic="mean")[:20]
    np.testing.assert_allclose(found, mouse.videos[:2, :20].mean("trial"), rtol=1e-5)
    with open_archive(session, (str(tmp_path / "archives"),)) as archive:
        np.testing.assert_allclose(
            statistics.responses.sel(statistic="mean"), archive.read_statistic("responses", "mean"), rtol=1e-6
        )
        assert compare_with_archive(str(tmp_path / "store"), "F", archive).problems == ()


def test_sizes_that_do_not_divide_share_pixels_by_area() -> None:
    line = np.array([[[3.0, 6.0, 9.0]]])
    np.testing.assert_allclose(resize_frames(line, (1, 2)), [[[4.0, 8.0]]])
    frames = np.random.default_rng(0).random((2, 7, 11))
    np.testing.assert_allclose(resize_frames(frames, (5, 13)).mean(axis=(1, 2)), frames.mean(axis=(1, 2)))


def test_tiers_are_renamed_and_statistics_follow(lab: Path) -> None:
    ingest(lab)
    report = ingest(lab, tier_map=["validation=oracle", "train=live_test_main"])
    assert report.n_trials_copied == 5
    assert "no trial of tier train" in report.notes[0]
    mouse = sd.open_session(lab / "store", "mouseA")
    assert set(mouse.tier.values.tolist()) == {"live_test_main", "oracle"}
    assert np.isnan(sd.open_statistics(lab / "store", "mouseA").responses).all()
    assert compare(lab) == ()
    with pytest.raises(UsageError, match=r"no trial has this tier: found test; there are train, validation"):
        ingest(lab, tier_map=["test=oracle"])
    assert "computed_statistics" not in mouse.attrs
    for pairs in (["validation=oracle", "none"], ["none", "validation=oracle"]):
        with pytest.raises(UsageError, match="contradicts itself"):
            ingest(lab, tier_map=pairs)
    with pytest.raises(UnknownNameError, match="did you mean oracle"):
        ingest(lab, tier_map=["validation=orcle"])


def test_what_is_not_recorded_is_absent_and_models_say_so(lab: Path) -> None:
    for name in ("behavior", "pupil_center"):
        shutil.rmtree(lab / "mouseA/data" / name)
    (lab / "mouseA/meta/neurons/cell_motor_coordinates.npy").unlink()
    assert ingest(lab, resize="36x64").notes[:3] == (
        "the recording has no behavior",
        "the recording has no pupil centers",
        "the recording has no cell positions",
    )
    store = sd.open_store(lab / "store")
    assert sorted(store["mouseA"].data_vars) == ["responses", "videos"]
    assert not {"x", "y", "z", "eye_axis"} & set(store["mouseA"].coords)
    quality = check_session(store, "mouseA")
    assert quality.passed
    assert {check.check for check in quality.checks} >= {"modalities not recorded", "neurons without a position"}
    for normalization in ("competition", "vivit", "vivit-closed-loop", "none"):
        assert open_normalizer(normalization, store, "mouseA").behavior_scale.shape == (0, 24)
    batches = sd.window_batches(store, sessions=["mouseA"], tier="validation", n_frames=10, batch_size=2)
    batch = next(iter(batches))
    assert (batch.videos.shape, batch.behavior.shape) == ((2, 10, 36, 64), (2, 0, 10))
    assert "behavior" not in batch.to_xarray()
    assert compare(lab) == ()
    with pytest.raises(RunError, match="no behavior"):
        describe_data(store, [find_session("mouseA")])
    assert store["mouseA"].sensorium.plot_trial(0) is not None


def test_models_name_the_frame_size_and_how_to_get_it(lab: Path) -> None:
    ingest(lab)
    with pytest.raises(RunError, match=r"36 x 64 pixels: found 18 x 40.*--resize 36x64"):
        describe_data(str(lab / "store"), [find_session("mouseA")])


def test_statistics_shorter_than_a_trial_are_padded(lab: Path) -> None:
    for statistic in ("mean", "std", "median", "min", "max"):
        path = lab / f"mouseA/meta/statistics/responses/all/{statistic}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((5, 20), 2.0))
    report = ingest(lab)
    assert any("end at frame 20 of 24" in note for note in report.notes)
    stored = sd.open_statistics(lab / "store", "mouseA").responses
    assert (stored[:, :, :20] == 2).all()
    assert np.isnan(stored[:, :, 20:]).all()
    assert compare(lab) == ()


def test_a_padded_integer_video_ends_with_the_responses(lab: Path) -> None:
    edit(lab / "mouseA/data/videos/4.npy", lambda video: np.pad(video, [(0, 0), (0, 0), (0, 8)]))
    for name in ("responses", "behavior", "pupil_center"):
        edit(lab / f"mouseA/data/{name}/4.npy", lambda a: np.pad(a, [(0, 0), (0, 8)], constant_values=np.nan))
    report = ingest(lab)
    assert any("1 trial with a video of integers" in note and "8 frames before" in note for note in report.notes)
    assert sd.open_session(lab / "store", "mouseA").n_frames.values[4] == 12


def test_an_integer_video_goes_on_where_shorter_responses_end(lab: Path) -> None:
    edit(lab / "mouseA/data/responses/1.npy", lambda responses: responses[:, :16])
    report = ingest(lab)
    assert "in 1 trial responses end 8 frames before the video" in report.notes
    assert not any("integers" in note for note in report.notes)
    mouse = sd.open_session(lab / "store", "mouseA")
    assert mouse.n_frames.values[1] == 24
    assert not np.isnan(mouse.videos.values[1]).any()
    assert compare(lab) == ()


def test_responses_of_nan_alone_are_withheld(lab: Path) -> None:
    edit(lab / "mouseA/data/responses/3.npy", lambda responses: np.full_like(responses, np.nan))
    assert "responses of 1 of 2 trials of validation are not in the archive" in ingest(lab).notes
    mouse = sd.open_session(lab / "store", "mouseA")
    assert mouse.responses_withheld.values.tolist() == [False, False, False, True, False]
    assert mouse.n_frames.values[3] == 20
    assert compare(lab) == ()


def test_infinity_is_kept_and_noted_without_warnings(lab: Path) -> None:
    for trial in (1, 3):
        edit(lab / f"mouseA/data/responses/{trial}.npy", lambda a: np.where(np.arange(a.shape[1]) == 2, np.inf, a))
    edit(lab / "mouseA/data/behavior/0.npy", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 3, -np.inf, a))
    notes = ingest(lab).notes
    assert "responses of trials 1, 3 hold infinity, in 10 values" in notes
    assert "behavior of trial 0 holds infinity, in 1 value" in notes
    assert sd.open_session(lab / "store", "mouseA").responses.values[1, 0, 2] == np.inf
    assert sd.open_statistics(lab / "store", "mouseA").responses.sel(statistic="max").values[0, 2] == np.inf
    assert compare(lab) == ()
    # Trials that are copied into another version are noted as well.
    assert "responses of trials 1, 3 hold infinity, in 10 values" in ingest(lab, tier_map=["train=oracle"]).notes


def lacks_behavior(tree: Path) -> None:
    (tree / "data/behavior/3.npy").unlink()


def holds_another_session(tree: Path) -> None:
    edit(tree / "data/responses/1.npy", lambda responses: responses[:4])


def holds_other_frames(tree: Path) -> None:
    edit(tree / "data/videos/2.npy", lambda video: video[:, :32])


def is_sampled_otherwise(tree: Path) -> None:
    edit(tree / "data/behavior/1.npy", lambda behavior: behavior.repeat(2, axis=1))


def numbers_a_unit_past_int64(tree: Path) -> None:
    np.save(tree / "meta/neurons/unit_ids.npy", np.array([1, 2, 3, 4, 2**63 + 1], np.uint64))


def has_half_of_the_statistics(tree: Path) -> None:
    (tree / "meta/statistics/videos/all").mkdir(parents=True)
    np.save(tree / "meta/statistics/videos/all/mean.npy", np.zeros((18, 40, 24)))


def pickles_its_tiers(tree: Path) -> None:
    np.save(tree / "meta/trials/tiers.npy", np.array(_TIERS, dtype=object), allow_pickle=True)


def names_a_tier_like_a_path(tree: Path) -> None:
    np.save(tree / "meta/trials/tiers.npy", np.array([*_TIERS[:4], "../x"]))


def has_no_videos(tree: Path) -> None:
    shutil.rmtree(tree / "data/videos")


def holds_complex_numbers(tree: Path) -> None:
    edit(tree / "data/responses/0.npy", lambda responses: responses.astype(np.complex64))


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lacks_behavior, ArchiveError, "trial 3.*1 of 5 lack behavior.*left out for all trials"),
        (holds_another_session, TrialError, r"trial 1.*found \(4, 24\), expected \(5, frames\)"),
        (holds_other_frames, TrialError, r"trial 2.*2.npy: wrong shape of videos: found \(18, 32, 17\)"),
        (is_sampled_otherwise, TrialError, "trial 1.*behavior is not sampled.*found 48 frames, expected 24.*resample"),
        (numbers_a_unit_past_int64, TrialError, "unit_ids.npy: a unit id is too large.*found 9223372036854775809"),
        (has_half_of_the_statistics, ArchiveError, "std.npy: statistics of videos are not whole: found 1 of 5"),
        (pickles_its_tiers, TrialError, "tiers.npy: .*never unpickled.*allow_pickle"),
        (names_a_tier_like_a_path, TrialError, r"trial 4.*'\.\./x'.*letters, digits"),
        (has_no_videos, ArchiveError, "no videos"),
        (holds_complex_numbers, TrialError, "trial 0.*found complex64, expected float16.*save responses as float32"),
    ],
)
def test_what_cannot_be_ingested_is_refused_by_name(
    lab: Path, spoil: Callable[[Path], None], kind: type[SensoriumError], words: str
) -> None:
    spoil(lab / "mouseA")
    with pytest.raises(kind, match=words) as raised:
        ingest(lab)
    assert "mouseA" in str(raised.value)
    assert not (lab / "store/mouseA").exists()


@pytest.mark.parametrize("name", ["mouseA", "M113", "2024-01-M7", "MOUSE113_101"])
def test_names_of_other_labs_are_sessions(name: str) -> None:
    assert find_session(name).name == name


@pytest.mark.parametrize(
    "name",
    ["../mouseA", "mouse/A1", "movies.json", "mouseA.v2", "mouseA.zip", "olds", ".partial", "a1", "dynamic29515"],
)
def test_names_that_are_paths_files_of_the_store_or_mistyped_words_are_not(name: str) -> None:
    with pytest.raises(UnknownNameError):
        find_session(name)


@pytest.mark.parametrize("name", [".hid-1", "mouseA.v2", "m1"])
def test_the_rule_for_names_is_told(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"other labs' sessions are 4 to 128 letters.*not ending in"):
        find_session(name)


def test_all_warns_of_sessions_without_a_usable_name(lab: Path) -> None:
    tree = lab / "mouseA"
    shutil.copytree(tree, lab / "mouse A1")
    for name in ("mouse", "mouse\x1bA.v2"):
        shutil.make_archive(str(lab / name), "zip", lab, "mouseA")
    (lab / "notes.zip").write_bytes(b"no archive")
    warnings: list[str] = []
    assert choose_sessions(["all"], [str(lab)], warn=warnings.append) == (find_session("mouseA"),)
    assert [text.partition("found ")[2].partition(", expected 4 to 128 letters")[0] for text in warnings] == [
        "'mouse'",
        r"'mouse\x1bA.v2'",
        "'mouse A1'",
    ]
    shutil.rmtree(tree)
    with pytest.raises(SourceError, match="no archive or folder there has a session's name: found 'mouse'"):
        choose_sessions(["all"], [str(lab)])


@pytest.mark.parametrize("packing", ["folder", "archive", "archive of a neutral folder"])
def test_files_named_like_another_session_are_refused(lab: Path, packing: str) -> None:
    other = (lab / "mouseA").rename(lab / ("unpacked" if "neutral" in packing else "mouseB"))
    source = str(other)
    if packing != "folder":
        source = shutil.make_archive(str(lab / "mouseB"), "zip", lab, other.name)
    with pytest.raises(SensoriumError, match=r"session mouseA, .*mouseB.*or rename"):
        convert_session(find_session("mouseA"), str(lab / "store"), source=source)


def test_files_in_a_folder_of_a_neutral_name_are_taken(lab: Path) -> None:
    tree = (lab / "mouseA").rename(lab / "unpacked")
    report = convert_session(find_session("mouseA"), str(lab / "store"), source=str(tree))
    assert any("that it is this session's is assumed" in note for note in report.notes)


def test_a_tier_of_another_lab_is_one_object_and_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(Tier("validation"))) is Tier("validation")  # noqa: S301
    assert not Tier("validation").is_test
    assert not Tier("validation").is_known
    assert len(Tier) == 6
    with pytest.raises(ValueError, match="none"):
        Tier("none")
