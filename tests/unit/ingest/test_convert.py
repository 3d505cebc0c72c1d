from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fixtures.stores import read_files
from fixtures.tables import each_once
from sensorium_data.archive import SessionArchive
from sensorium_data.errors import ArchiveError, SensoriumError, SourceError, StoreError, TrialError
from sensorium_data.ingest import ConversionReport, convert_session
from sensorium_data.ingest.assembly import CONVERTER_VERSION
from sensorium_data.schema import SCHEMA_VERSION
from sensorium_data.sessions import find_session
from sensorium_data.store import open_session, open_statistics, open_store, read_list
from sensorium_data.testing import Recording, make_movie
from sensorium_data.testing.recordings import make_recording, make_trial


def convert(recording: Recording, folder: Path, **options: object) -> ConversionReport:
    recording.write(folder / "archives")
    return convert_session(recording.session, str(folder / "store"), source=str(folder / "archives"), **options)


def expected_values(values: np.ndarray, n_frames: int) -> np.ndarray:
    stored = values.astype(np.float32)
    stored[..., n_frames:] = np.nan
    return stored


# What is stored


def test_every_array_of_every_trial_is_stored_to_float32_and_nan_past_its_frames(tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle", "none", "live_test_main"], n_frames={0: 20, 1: 17, 3: 24})
    convert(recording, tmp_path)
    dataset = open_session(str(tmp_path / "store"), "A")
    assert dataset.trial.values.tolist() == [0, 1, 3]
    assert dataset.n_frames.values.tolist() == [20, 17, 24]
    for number, trial in recording.trials.items():
        block = dataset.sel(trial=number).load()
        n_frames = int(block.n_frames)
        np.testing.assert_array_equal(block.videos, expected_values(trial.videos, n_frames).transpose(2, 0, 1))
        np.testing.assert_array_equal(block.responses, expected_values(trial.responses, n_frames))
        np.testing.assert_array_equal(block.behavior, expected_values(trial.behavior, n_frames))
        np.testing.assert_array_equal(block.pupil_center, expected_values(trial.pupil_center, n_frames))


def test_neurons_tiers_and_time_are_coordinates(tmp_path: Path) -> None:
    recording = make_recording("F", ["oracle", "train", "final_test_bonus"])
    convert(recording, tmp_path)
    dataset = open_session(str(tmp_path / "store"), "F")
    assert dataset.tier.values.tolist() == ["oracle", "train", "final_test_bonus"]
    np.testing.assert_array_equal(dataset.neuron, recording.unit_ids)
    np.testing.assert_array_equal(np.stack([dataset.x, dataset.y, dataset.z], axis=1), recording.positions)
    np.testing.assert_allclose(dataset.time, np.arange(24) / 30)
    assert dataset.behavior_channel.values.tolist() == ["pupil_dilation", "running_speed"]


def test_withheld_responses_are_nan_and_marked(tmp_path: Path) -> None:
    convert(make_recording("F", ["train", "live_test_main", "final_test_bonus"]), tmp_path)
    dataset = open_session(str(tmp_path / "store"), "F").load()
    assert dataset.responses_withheld.values.tolist() == [False, True, True]
    assert dataset.responses.isnull().all(["neuron", "time"]).values.tolist() == [False, True, True]
    assert dataset.n_frames.values.tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    ("kind", "case"),
    each_once(
        ["zeros", "NaN", "no file"],
        [
            ("A", (2,), "responses of 1 trial of live_test_bonus are not in the archive"),
            ("A", (3, 4), "responses of 2 of 3 trials of final_test_main are not in the archive"),
            ("A", (1,), "responses of 1 of 2 trials of train are not in the archive"),
            ("F", (1,), "responses of 1 of 2 trials of train are not in the archive"),
            ("dynamic1-2-3-Video-lab", (2,), "responses of 1 trial of live_test_bonus are not in the archive"),
        ],
    ),
)
def test_responses_that_are_not_in_the_archive_are_withheld_and_noted(
    kind: str, case: tuple[str, tuple[int, ...], str], tmp_path: Path
) -> None:
    alias, lacking, note = case
    tiers = ["train", "train", "live_test_bonus", *["final_test_main"] * 3]
    recording = make_recording(alias, tiers)
    responses = {"zeros": np.zeros((5, 24)), "NaN": np.full((5, 24), np.nan), "no file": None}[kind]
    for trial in lacking:
        recording = recording.with_trial(trial, responses=responses)
    report = convert(recording, tmp_path)
    expected = [trial in lacking or (alias == "F" and trial > 1) for trial in range(6)]
    dataset = open_session(str(tmp_path / "store"), alias).load()
    assert dataset.responses_withheld.values.tolist() == expected
    assert dataset.responses.isnull().all(["neuron", "time"]).values.tolist() == expected
    assert [one for one in report.notes if "responses" in one] == [note]
    assert note in dataset.attrs["notes"]


def test_missing_files_are_noted_where_zeros_are_published(tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "live_test_main", "live_test_main"]).with_trial(2, responses=None)
    notes = convert(recording, tmp_path).notes
    assert "responses of 1 of 2 trials of live_test_main are not in the archive" in notes


def test_an_earlier_release_does_not_replace_the_one_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_recording("A", ["train", "live_test_bonus"])
    paths = (whole.write(tmp_path / "whole"), whole.with_trial(1, responses=None).write(tmp_path / "first"))
    monkeypatch.setattr(type(whole.session), "urls", tuple(map(str, paths)))
    store = str(tmp_path / "store")
    paths[0].rename(tmp_path / "away")
    assert convert_session(whole.session, store).source == str(paths[1])
    assert convert_session(whole.session, store).status == "already done"
    (tmp_path / "away").rename(paths[0])
    report = convert_session(whole.session, store)
    assert (report.status, report.source, report.n_trials_copied) == ("updated", str(paths[0]), 1)
    assert open_session(store, "A").attrs["source"] == str(paths[0])
    paths[0].rename(tmp_path / "away")
    with pytest.raises(SourceError, match=r"whole.*there is no such file"):
        convert_session(whole.session, store)
    assert not open_session(store, "A").responses_withheld.any()


def test_statistics_keep_their_frame_axis(tmp_path: Path) -> None:
    recording = make_recording("A")
    convert(recording, tmp_path)
    statistics = open_statistics(str(tmp_path / "store"), "A").load()
    assert statistics.statistic.values.tolist() == ["mean", "std", "median", "min", "max"]
    for (variable, statistic), values in recording.statistics.items():
        expected = values.astype(np.float32)
        expected = expected.transpose(2, 0, 1) if variable == "videos" else expected
        np.testing.assert_array_equal(statistics[variable].sel(statistic=statistic), expected)


def test_repeats_share_a_movie_and_others_do_not(tmp_path: Path) -> None:
    recording = make_recording("A", ["oracle"] * 6, movies={0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 3})
    convert(recording, tmp_path)
    movies = open_session(str(tmp_path / "store"), "A").movie.values.tolist()
    assert movies == [f"29156-11-10:{first}" for first in (0, 1, 0, 1, 0, 5)]


def test_stimuli_are_recognized_by_their_length(tmp_path: Path) -> None:
    recording = make_recording(
        "F", ["train", "live_test_bonus", "final_test_bonus", "final_test_bonus", "train"],
        n_frames={0: 300, 1: 324, 2: 240, 3: 315, 4: 299}, n_padded=324,
    )  # fmt: skip
    convert(recording, tmp_path)
    stimuli = open_session(str(tmp_path / "store"), "F").stimulus.values.tolist()
    assert stimuli == ["NaturalVideo", "PinkNoise", "RandomDots", "GaussianDot", "unknown"]


def test_largest_error_of_the_stored_precision_is_recorded(tmp_path: Path) -> None:
    recording = make_recording("A", n_neurons=70)
    convert(recording, tmp_path)
    dataset = open_session(str(tmp_path / "store"), "A")
    for variable in ("videos", "responses", "behavior", "pupil_center"):
        errors = [
            np.abs(values[..., :20] - values[..., :20].astype(np.float32)).max()
            for values in (getattr(trial, variable) for trial in recording.trials.values())
        ]
        assert dataset[variable].attrs["largest_absolute_error"] == pytest.approx(max(errors), rel=1e-12)
        assert max(errors) > 0


@pytest.mark.parametrize("dtype", ["float32", "float16", ">f8"])
def test_other_floating_precisions_are_taken(dtype: str, tmp_path: Path) -> None:
    recording = make_recording("A")
    behavior = recording.trials[1].behavior.astype(dtype)
    convert(recording.with_trial(1, behavior=behavior), tmp_path)
    stored = open_session(str(tmp_path / "store"), "A").behavior.sel(trial=1)
    np.testing.assert_array_equal(stored[:, :20], behavior[:, :20].astype(np.float32))


def test_fortran_order_makes_no_difference(tmp_path: Path) -> None:
    recording = make_recording("A")
    trial = recording.trials[1]
    turned = {name: np.asfortranarray(array) for name, array in trial.arrays().items()}
    convert(recording, tmp_path / "c")
    convert(recording.with_trial(1, **turned), tmp_path / "f")
    digests = [open_store(str(tmp_path / order / "store")).digest("A") for order in "cf"]
    assert digests[0] == digests[1]


def test_attributes_say_how_to_cite_and_where_it_came_from(tmp_path: Path) -> None:
    recording = make_recording("F")
    convert(recording, tmp_path)
    archive = tmp_path / "archives" / f"{recording.session.name}.zip"
    attributes = open_session(str(tmp_path / "store"), "F").attrs
    assert attributes["license"] == "CC BY-NC-ND 4.0"
    assert "2305.19654" in attributes["references"]
    assert attributes["source"] == str(archive)
    assert attributes["source_size_bytes"] == archive.stat().st_size
    with SessionArchive.open(str(archive)) as opened:
        assert attributes["source_digest"] == opened.digest
    assert (attributes["schema_version"], attributes["converter_version"]) == (SCHEMA_VERSION, CONVERTER_VERSION)


# Broken trials


def broken_video(kind: str) -> np.ndarray:
    video = np.full((36, 64, 350), np.nan)
    match kind:
        case "no frame":
            pass
        case "gap":
            video[..., :300] = make_movie(300, 1)
            video[7, 8, 100] = np.nan
        case "late start":
            video[..., 1:300] = make_movie(299, 1)
        case "empty":
            video[...] = 0
    return video


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no frame", "no valid frame"),
        pytest.param("gap", "frame 100 is not finite", marks=pytest.mark.slow),
        ("late start", "first frame is not finite"),
        ("empty", "350 frames of one constant value"),
    ],
)
def test_a_broken_stimulus_keeps_its_place_without_a_valid_frame(kind: str, reason: str, tmp_path: Path) -> None:
    recording = make_recording("A", ["train", "oracle", "oracle"], n_frames=300, n_padded=350, movies={0: 1, 1: 1})
    report = convert(recording.with_trial(1, videos=broken_video(kind)), tmp_path)
    dataset = open_session(str(tmp_path / "store"), "A").load()
    assert dataset.valid.values.tolist() == [True, False, True]
    assert dataset.n_frames.values.tolist() == [300, 0, 300]
    assert dataset.movie.values[1] == "29156-11-10:1"
    assert dataset.stimulus.values[1] == "unknown"
    for variable in ("videos", "responses", "behavior", "pupil_center"):
        assert dataset[variable][1].isnull().all()
    assert any("trial 1 is broken: the video" in note and reason in note for note in report.notes)
    assert reason in read_list(dataset.attrs, "broken_trials")[0]


def test_a_constant_video_of_a_stimulus_length_is_valid(tmp_path: Path) -> None:
    recording = make_recording("A", ["train"], n_frames=300, n_padded=326)
    gray = make_trial("train", np.full((36, 64, 326), 127.0), n_neurons=5, n_padded=326, seed=0)
    recording.trials[0] = gray
    convert(recording, tmp_path)
    assert open_session(str(tmp_path / "store"), "A").n_frames.values.tolist() == [326]


# What is reported


def test_report_states_what_was_done(tmp_path: Path) -> None:
    recording = make_recording("F")
    report = convert(recording, tmp_path)
    assert (report.session, report.alias, report.status) == (recording.session.name, "F", "converted")
    assert report.path == str(tmp_path / "store" / recording.session.name)
    assert (report.n_trials, report.n_trials_resumed) == (4, 0)
    archive = tmp_path / "archives" / f"{recording.session.name}.zip"
    with zipfile.ZipFile(archive) as opened:
        members = [info.compress_size for info in opened.infolist() if "/data/" in info.filename]
    assert report.n_bytes_read == sum(members)
    stored = sum(len(data) for key, data in read_files(Path(report.path)).items() if key != "ledger.json")
    assert report.store_size_bytes == stored


def test_counts_that_differ_from_the_published_ones_are_notes(tmp_path: Path) -> None:
    notes = convert(make_recording("F", ["train", "oracle"]), tmp_path).notes
    assert "train has 1 trial, published are 348" in notes
    assert "5 neurons, published are 7,863" in notes
    assert "trials are padded to 24 frames, published is 324" in notes
    assert open_session(str(tmp_path / "store"), "F").attrs["notes"] == json.dumps(notes)


def test_what_is_missing_from_the_statistics_is_a_note(tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "train"], n_frames={0: 20, 1: 22})
    statistics = {name: array.copy() for name, array in recording.statistics.items()}
    for array in statistics.values():
        array[..., 18:] = np.nan
    recording = Recording(**{**vars(recording), "statistics": statistics})
    note = "the statistics end at frame 18 of 22; later frames take frame 17's"
    assert note in convert(recording, tmp_path).notes
    assert note in read_list(open_session(str(tmp_path / "store"), "F").attrs, "notes")
    # A later version takes the unchanged statistics over, and says the same of them.
    report = convert(recording.with_trial(0, behavior=recording.trials[0].behavior + 1), tmp_path)
    assert (report.status, report.n_trials_copied) == ("updated", 1)
    assert note in report.notes


def test_progress_counts_trials_and_then_objects(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    convert(make_recording("F"), tmp_path, jobs=1, progress=lambda *call, **_: calls.append(call))
    assert [call[1:] for call in calls if call[0] == "convert F"] == [(n, 4) for n in range(5)]
    verified = [call for call in calls if call[0] == "verify F"]
    assert verified[-1][1] == verified[-1][2] == len(read_files(tmp_path / "store" / find_session("F").name)) - 2
    assert calls[-1] == verified[-1]


# Again


def test_a_second_run_reads_no_member_and_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = make_recording("F")
    first = convert(recording, tmp_path)
    before = read_files(tmp_path / "store")
    monkeypatch.setattr(SessionArchive, "read_member", lambda self, name: pytest.fail(f"{name} was read"))
    second = convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path / "archives"))
    assert second.status == "already done"
    assert (second.path, second.n_trials, second.store_size_bytes) == (
        first.path,
        first.n_trials,
        first.store_size_bytes,
    )
    assert second.notes == first.notes
    assert second.n_bytes_read == 0
    assert read_files(tmp_path / "store") == before


def test_an_unreachable_source_is_an_error_even_when_the_session_is_there(tmp_path: Path) -> None:
    recording = make_recording("F")
    convert(recording, tmp_path)
    with pytest.raises(SourceError):
        convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path / "nowhere"))


def test_a_mirror_gives_the_same_content(tmp_path: Path) -> None:
    recording = make_recording("F")
    for place in ("one", "other"):
        convert(recording, tmp_path / place)
    assert open_store(str(tmp_path / "one" / "store")).digest("F") == open_store(
        str(tmp_path / "other" / "store")
    ).digest("F")


def test_a_store_made_with_another_schema_is_not_taken_for_done(tmp_path: Path) -> None:
    recording = make_recording("F")
    path = Path(convert(recording, tmp_path).path) / "zarr.json"
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 7'))
    with pytest.raises(StoreError, match="another schema version: found 7, expected 2 or 3"):
        convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path / "archives"))


@pytest.mark.parametrize("jobs", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_the_number_of_threads_changes_no_byte(jobs: int, tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "oracle"] * 5, n_neurons=1500, movies={1: 5, 3: 5, 5: 5})
    recording.write(tmp_path / "archives")
    stores = []
    for name, n in (("serial", 1), ("threads", jobs)):
        convert_session(recording.session, str(tmp_path / name), source=str(tmp_path / "archives"), jobs=n)
        stores.append(read_files(tmp_path / name))
    assert stores[0] == stores[1]


def test_two_sessions_side_by_side_are_both_listed(tmp_path: Path) -> None:
    recordings = [make_recording(alias) for alias in "FA"]
    for recording in recordings:
        recording.write(tmp_path / "archives")
    threads = [
        threading.Thread(
            target=convert_session,
            args=(recording.session, str(tmp_path / "store")),
            kwargs={"source": str(tmp_path / "archives")},
        )
        for recording in recordings
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tree = xr.open_datatree(tmp_path / "store", engine="zarr")
    assert set(tree.children) == {recording.session.name for recording in recordings}
    assert not (tmp_path / "store" / ".partial").exists()


# What is refused


def misshapen(recording: Recording, variable: str, array: np.ndarray) -> Recording:
    return recording.with_trial(1, **{variable: array})


@pytest.mark.parametrize(
    ("variable", "array", "found", "expected"),
    [
        ("videos", np.zeros((36, 64, 23)), r"\(36, 64, 23\)", r"\(36, 64, 24\)"),
        ("videos", np.zeros((64, 36, 24)), r"\(64, 36, 24\)", r"\(36, 64, 24\)"),
        ("responses", np.zeros((4, 24)), r"\(4, 24\)", r"\(5, 24\)"),
        ("behavior", np.zeros((3, 24)), r"\(3, 24\)", r"\(2, 24\)"),
        ("pupil_center", np.zeros(24), r"\(24,\)", r"\(2, 24\)"),
        ("responses", np.zeros((5, 24), int), "int64", "float64"),
        ("behavior", np.zeros((2, 24), complex), "complex128", "float64"),
        ("pupil_center", np.full((2, 24), 1e300), r"1e\+300", r"3.4e\+38"),
    ],
)
def test_a_wrong_array_is_named_with_what_was_found_and_expected(
    variable: str, array: np.ndarray, found: str, expected: str, tmp_path: Path
) -> None:
    recording = misshapen(make_recording("F"), variable, array)
    with pytest.raises(
        TrialError, match=rf"session F .*trial 1, .*data/{variable}/1\.npy.*found {found}, expected.*{expected}; \w"
    ):
        convert(recording, tmp_path)


@pytest.mark.parametrize(
    ("tiers", "found"),
    [(["train"], "found 1 tier, expected at least 2"), (["train", "none"], "'none'"), (["train", "tests"], "'tests'")],
)
def test_a_trial_with_files_needs_a_known_tier(tiers: list[str], found: str, tmp_path: Path) -> None:
    recording = make_recording("F", ["train", "oracle"])
    recording.tiers[:] = tiers
    with pytest.raises(TrialError, match=rf"session F .*trial 1, .*tiers\.npy.*tier.*{found}"):
        convert(recording, tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"unit_ids": np.arange(5.0)}, "unit_ids"),
        ({"unit_ids": np.arange(4)}, "cell_motor_coordinates"),
        ({"positions": np.zeros((5, 2))}, "cell_motor_coordinates"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(changes: dict[str, np.ndarray], named: str, tmp_path: Path) -> None:
    recording = Recording(**{**vars(make_recording("F")), **changes})
    with pytest.raises(TrialError, match=named):
        convert(recording, tmp_path)


@pytest.mark.parametrize("key", [("videos", "mean"), ("responses", "std"), ("behavior", "max")])
def test_statistics_of_another_shape_are_refused(key: tuple[str, str], tmp_path: Path) -> None:
    recording = make_recording("F")
    recording.statistics[key] = recording.statistics[key][..., :-1].copy()
    with pytest.raises(TrialError, match="statistics"):
        convert(recording, tmp_path)


def test_missing_statistics_are_an_archive_error(tmp_path: Path) -> None:
    recording = make_recording("F")
    del recording.statistics["behavior", "std"]
    with pytest.raises(ArchiveError, match=r"meta/statistics/behavior/all/std\.npy"):
        convert(recording, tmp_path)


def test_a_refused_archive_leaves_no_session_behind(tmp_path: Path) -> None:
    recording = misshapen(make_recording("F"), "behavior", np.zeros((3, 24)))
    with pytest.raises(TrialError):
        convert(recording, tmp_path)
    with pytest.raises(StoreError, match="ingest has not finished"):
        open_session(str(tmp_path / "store"), "F")


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_a_store_that_cannot_be_made_is_a_store_error(place: str, tmp_path: Path) -> None:
    recording = make_recording("F")
    recording.write(tmp_path / "archives")
    (tmp_path / "a file").write_text("")
    with pytest.raises(StoreError, match="the folder cannot be locked for writing"):
        convert_session(recording.session, str(tmp_path / place), source=str(tmp_path / "archives"))


def test_every_error_is_one_line(tmp_path: Path) -> None:
    recording = misshapen(make_recording("F"), "videos", np.zeros((1, 2, 3)))
    with pytest.raises(SensoriumError) as caught:
        convert(recording, tmp_path)
    assert "\n" not in str(caught.value)


# Elsewhere than on a disk


def test_a_store_behind_a_url_holds_the_same_bytes(tmp_path: Path) -> None:
    recording = make_recording("F")
    convert(recording, tmp_path)
    remote = f"memory://{tmp_path}/store"
    report = convert_session(recording.session, remote, source=str(tmp_path / "archives"))
    assert report.status == "converted"
    again = convert_session(recording.session, remote, source=str(tmp_path / "archives"))
    assert again.status == "already done"
    xr.testing.assert_identical(open_session(remote, "F").load(), open_session(str(tmp_path / "store"), "F").load())
    assert open_store(remote).digest("F") == open_store(str(tmp_path / "store")).digest("F")
