"""Simulated archives have the layout and the quirks of the published ones, and their truth beside them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fixtures.session_stores import TrialFacts, write_session_store
from fixtures.simulation import SIZE
from fixtures.stores import read_files
from sensorium_data.errors import StoreError, UnknownNameError, UsageError
from sensorium_data.sessions import Session, find_session, find_sessions
from sensorium_data.simulation import SimulationReport, open_truth, simulate
from sensorium_data.simulation.frame_statistics import TrialStack

MODALITIES = ("videos", "responses", "behavior", "pupil_center")
N_TRIALS, N_NEURONS = SIZE["n_trials"], SIZE["n_neurons"]


@dataclass(frozen=True)
class Recording:
    """An archive read with the standard library, and its truth."""

    session: Session
    directory: Path

    @cached_property
    def archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.directory / f"{self.session.name}.zip")

    @cached_property
    def truth(self) -> xr.Dataset:
        return open_truth(self.directory, self.session.alias)

    def read(self, path: str) -> np.ndarray:
        return np.load(io.BytesIO(self.archive.read(f"{self.session.name}/{path}")), allow_pickle=False)

    def trials(self, modality: str) -> set[int]:
        prefix = f"{self.session.name}/data/{modality}/"
        return {int(Path(n).stem) for n in self.archive.namelist() if n.startswith(prefix) and n.endswith(".npy")}


@pytest.fixture(scope="module", params=["D", "F"])
def recording(request: pytest.FixtureRequest, archives: Path) -> Recording:
    return Recording(find_session(request.param), archives)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The archive


def test_every_member_is_sound_and_small_ones_are_partly_stored(recording: Recording) -> None:
    assert recording.archive.testzip() is None
    methods = {info.compress_type for info in recording.archive.infolist() if not info.is_dir()}
    assert methods == {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def test_layout_is_gin_s(recording: Recording) -> None:
    name, names = recording.session.name, recording.archive.namelist()
    for path in (
        "config.json",
        "meta/neurons/unit_ids.npy",
        "meta/neurons/cell_motor_coordinates.npy",
        *(f"meta/trials/{k}.npy" for k in ("tiers", "animal_id", "session", "scan_idx", "target_fps")),
        *(
            f"meta/statistics/{modality}/all/{statistic}.npy"
            for modality in MODALITIES
            for statistic in ("mean", "std", "median", "min", "max")
        ),
    ):
        assert f"{name}/{path}" in names
    assert {path.split("/")[0] for path in names} == {name, "__MACOSX"}
    assert isinstance(json.loads(recording.archive.read(f"{name}/config.json")), dict)
    assert len({frozenset(recording.trials(modality)) for modality in MODALITIES}) == 1


def test_ids_have_gaps_where_trials_were_never_published(recording: Recording) -> None:
    tiers, trials = recording.read("meta/trials/tiers.npy"), recording.trials("videos")
    assert tiers.dtype.kind == "U"
    assert len(trials) == N_TRIALS
    assert {id_ for id_, tier in enumerate(tiers) if tier != "none"} == trials
    assert (len(tiers) > N_TRIALS) == (recording.session.alias == "D")


def test_new_sessions_alone_tell_each_trials_numbers_in_the_recording(archives: Path) -> None:
    old, new = (Recording(find_session(alias), archives) for alias in "DF")
    assert not any("trial_idx" in name for name in old.archive.namelist())
    numbers = new.read("meta/trials/trial_idx.npy")
    assert numbers.dtype.kind == "U"
    assert len(numbers) == N_TRIALS
    assert np.all(np.diff(numbers.astype(int)) > 0), "ids are in the order of presentation"


def test_behavior_goes_on_from_one_clip_to_the_next(recording: Recording) -> None:
    truth = recording.truth.sortby("presentation")
    following = np.flatnonzero(np.diff(truth.presentation) == 1)
    assert len(following) > 20
    trials, lengths = truth.trial.values, np.rint(np.diff(truth.onset) * 29.967).astype(int)
    for modality in ("behavior", "pupil_center"):
        steps, between = [], []
        for place in following:
            first, second = (recording.read(f"data/{modality}/{trials[p]}.npy") for p in (place, place + 1))
            n_frames = lengths[place]
            if np.isfinite(first[:, :n_frames]).all():
                steps.append(np.abs(second[:, 0] - first[:, n_frames - 1]))
                between.append(np.abs(second[:, 0] - first[:, 0]))
        assert np.mean(steps) < 0.2 * np.mean(between), modality


def test_arrays_are_of_the_releases_dtype_and_the_padded_length_in_both_orders(recording: Recording) -> None:
    length = recording.session.n_frames_padded
    shapes = {"videos": (36, 64), "responses": (N_NEURONS,), "behavior": (2,), "pupil_center": (2,)}
    for modality, shape in shapes.items():
        arrays = [recording.read(f"data/{modality}/{trial}.npy") for trial in sorted(recording.trials(modality))[:8]]
        assert {array.shape for array in arrays} == {(*shape, length)}
        assert {array.dtype for array in arrays} == {np.dtype({"D": "<f4", "F": "<f8"}[recording.session.alias])}
        assert {array.flags.f_contiguous for array in arrays} == {True, False}


def test_modalities_are_padded_each_in_its_own_way(recording: Recording) -> None:
    truth = recording.truth
    for trial in truth.trial.values[truth.valid.values]:
        facts = truth.sel(trial=trial)
        n = int(facts.n_frames)
        video, responses, behavior, pupil = (recording.read(f"data/{modality}/{trial}.npy") for modality in MODALITIES)
        for padded in (video, pupil, behavior) if facts.responses_withheld else (video, pupil, behavior, responses):
            assert np.isfinite(padded[..., :n]).all()
            assert np.isnan(padded[..., n:]).all()
        if facts.responses_withheld:
            assert not responses.any()
            assert not np.isnan(responses).any()
        assert video[..., :n].min() >= 0
        assert video[..., :n].max() <= 255


def test_behavior_may_go_on_after_the_stimulus_and_nothing_else_differs(small: Path, tmp_path: Path) -> None:
    simulate_small(tmp_path, behavior_padding="finite")
    usual, other = (Recording(find_session("F"), folder) for folder in (small, tmp_path))
    assert usual.archive.namelist() == other.archive.namelist()
    n_longer = 0
    for trial in usual.truth.trial.values.tolist():
        for modality in MODALITIES:
            padded, goes_on = (one.read(f"data/{modality}/{trial}.npy") for one in (usual, other))
            if modality == "behavior":
                assert np.isfinite(goes_on).all()
                n = int(usual.truth.n_frames.sel(trial=trial))
                assert n == goes_on.shape[1] or np.ptp(goes_on[0, n:]) > 0
                n_longer += n < goes_on.shape[1]
                goes_on[:, n:] = np.nan
            np.testing.assert_array_equal(padded, goes_on)
    assert n_longer > 0


def test_statistics_may_cover_all_frames(tmp_path: Path) -> None:
    simulate_small(tmp_path, n_trials=8, n_statistics_frames=None)
    recording = Recording(find_session("F"), tmp_path)
    longest = int(recording.truth.n_frames.max())
    assert longest > 300
    std = recording.read("meta/statistics/responses/all/std.npy")
    assert np.isfinite(std[:, :longest]).all()
    assert np.isnan(std[:, longest:]).all()


def test_only_new_sessions_withhold_and_only_test_tiers(recording: Recording) -> None:
    truth = recording.truth
    is_test = np.array([str(tier).startswith(("live", "final")) for tier in truth.tier.values])
    expected = is_test if recording.session.alias == "F" else np.zeros_like(is_test)
    np.testing.assert_array_equal(truth.responses_withheld, expected)


def test_the_broken_trial_shows_nothing_at_all(archives: Path) -> None:
    recording = Recording(find_session("D"), archives)
    (trial,) = recording.truth.trial.values[~recording.truth.valid.values]
    assert np.isnan(recording.read(f"data/videos/{trial}.npy")).all()
    assert np.isfinite(recording.read(f"data/responses/{trial}.npy")).all()
    assert recording.truth.tier.sel(trial=trial) == "live_test_bonus"
    assert recording.truth.n_frames.sel(trial=trial) == 0
    assert np.isnan(recording.truth.responses.sel(trial=trial)).all()


def test_luminance_of_the_new_release_is_more_than_float32_holds(archives: Path) -> None:
    recording = Recording(find_session("F"), archives)
    video = recording.read(f"data/videos/{min(recording.trials('videos'))}.npy")
    assert np.nanmean(video != video.astype(np.float32)) > 0.5


def test_published_responses_are_the_true_ones(recording: Recording) -> None:
    truth = recording.truth
    shown = truth.trial.values[~truth.responses_withheld.values & truth.valid.values]
    for trial in shown[:10]:
        archived = recording.read(f"data/responses/{trial}.npy")
        np.testing.assert_array_equal(archived.astype(np.float32), truth.responses.sel(trial=trial))


def test_statistics_are_over_valid_trials_frame_by_frame_with_nothing_withheld(recording: Recording) -> None:
    truth = recording.truth
    valid = truth.trial.values[truth.valid.values]
    stacks = {m: np.stack([recording.read(f"data/{m}/{t}.npy") for t in valid]) for m in MODALITIES if m != "responses"}
    stacks["responses"] = truth.responses.sel(trial=valid).values.astype(np.float64)
    stacks["videos"] = stacks["videos"][:, ::7, ::9]
    functions: dict[str, Callable[..., np.ndarray]] = {
        "mean": np.nanmean,
        "std": np.nanstd,
        "median": np.nanmedian,
        "min": np.nanmin,
        "max": np.nanmax,
    }
    for modality, stack in stacks.items():
        shown = np.isfinite(stack).any(axis=(0, *range(1, stack.ndim - 1)))
        assert shown[300:].any(), "trials reach past the statistics"
        shown[300:] = False
        for statistic, function in functions.items():
            found = recording.read(f"meta/statistics/{modality}/all/{statistic}.npy")
            if modality == "videos":
                assert found.shape == (36, 64, recording.session.n_frames_padded)
                found = found[::7, ::9]
            assert found.shape == stack.shape[1:]
            expected = function(stack[..., shown], axis=0)
            # float32 holds luminance to 1e-5; where no two trials differ by more, neither do their statistics.
            atol = 1e-9 if modality == "responses" else 3e-5
            np.testing.assert_allclose(found[..., shown], expected, rtol=1e-5, atol=atol, err_msg=statistic)
            assert np.isnan(found[..., ~shown]).all()


def test_responses_are_as_sparse_and_as_large_as_the_recordings(recording: Recording) -> None:
    responses = recording.truth.responses.values
    responses = np.concatenate(list(responses), axis=1)
    responses = responses[:, np.isfinite(responses).all(axis=0)]
    assert -3.1e-7 <= responses.min() < 0
    mean, std = responses.mean(axis=1), responses.std(axis=1)
    assert 0.1 < mean.min() < mean.max() < 48
    assert 0.75 < std.min() < std.max() < 140
    assert 4 < np.median(std / mean) < 5.5
    assert np.mean(np.median(responses, axis=1) < 1e-6) > 0.75


# The truth


def test_truth_is_a_session_with_rates_and_receptive_fields(recording: Recording) -> None:
    truth = recording.truth
    assert truth.responses.dims == truth.rates.dims == ("trial", "neuron", "time")
    assert truth.responses.chunks is not None
    for name in ("tier", "n_frames", "movie", "stimulus", "responses_withheld", "valid"):
        assert truth[name].dims == ("trial",)
        assert truth[name].chunks is None
    for name in ("x", "y", "z", "rf_x", "rf_y", "rf_sigma", "rf_period", "rf_orientation", "kind"):
        assert truth[name].dims == ("neuron",)
    np.testing.assert_array_equal(truth.neuron, recording.read("meta/neurons/unit_ids.npy"))
    positions = recording.read("meta/neurons/cell_motor_coordinates.npy")
    np.testing.assert_array_equal(np.stack([truth.x, truth.y, truth.z], axis=1), positions)
    assert positions.dtype.kind == "i"


def test_repeats_show_nearly_the_same_frames_and_are_never_identical(recording: Recording) -> None:
    truth = recording.truth
    tested = truth.trial.values[(truth.tier != "train").values & truth.valid.values]
    movies = truth.movie.sel(trial=tested)
    n_equal = []
    for movie in np.unique(movies):
        videos = [recording.read(f"data/videos/{trial}.npy") for trial in tested[(movies == movie).values]]
        assert len(videos) >= 2
        for other in videos[1:]:
            n = min(int(np.isfinite(video[0, 0]).sum()) for video in (videos[0], other))
            equal = (np.abs(videos[0][..., :n] - other[..., :n]) <= 1.0).all(axis=(0, 1)).mean()
            assert equal >= 0.8
            n_equal.append(equal)
            assert not np.array_equal(videos[0], other, equal_nan=True)
    assert min(n_equal) < 0.9


def correlate(truth: xr.Dataset, values: xr.DataArray, trials: xr.DataArray) -> np.ndarray:
    """Correlate with the responses, per neuron, over the trials' frames but each trial's first 50."""
    traces: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for trial in truth.trial.values[trials.values & truth.valid.values]:
        frames = slice(50, int(truth.n_frames.sel(trial=trial)))
        for trace, array in zip(traces, (values, truth.responses), strict=True):
            trace.append(array.sel(trial=trial).values[:, frames])
    ours, theirs = (np.concatenate(trace, axis=1) for trace in traces)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)])


def test_expected_responses_explain_a_fifth_of_the_variance_of_single_trials(recording: Recording) -> None:
    truth = recording.truth
    ceiling = correlate(truth, truth.rates, truth.stimulus == "NaturalVideo")
    assert 0.4 < ceiling.mean() < 0.55
    assert np.quantile(ceiling, 0.1) > 0.2


def test_the_ceiling_is_gone_when_trials_are_exchanged(recording: Recording) -> None:
    truth = recording.truth
    exchanged = truth.rates.copy(data=np.nan_to_num(truth.rates.values))
    positions = np.flatnonzero(truth.tier == "oracle")
    movies = truth.movie.values[positions]
    swapped = [next(q for q, m in zip(positions, movies, strict=True) if m != movie) for movie in movies]
    exchanged.values[positions] = exchanged.values[swapped]
    assert correlate(truth, exchanged, truth.tier == "oracle").mean() < 0.1


@pytest.mark.parametrize("name", ["F", "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"])
def test_truth_opens_from_either_folder_by_either_name(archives: Path, name: str) -> None:
    for where in (archives, archives / "truth", f"file://{archives}"):
        assert open_truth(where, name).sizes["neuron"] == N_NEURONS


def test_missing_truth_is_said_so(archives: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no truth of a simulation here"):
        open_truth(tmp_path, "F")
    # A store has a group of this name, too.
    write_session_store(tmp_path / "store", "F", (TrialFacts(4, "oracle", 60, "m0"),), n_neurons=3)
    with pytest.raises(StoreError, match="no truth of a simulation here"):
        open_truth(tmp_path / "store", "F")
    with pytest.raises(StoreError, match=r"session G .*was not simulated"):
        open_truth(archives, "G")
    with pytest.raises(UnknownNameError):
        open_truth(archives, "Z")


def test_a_truth_that_lacks_a_chunk_is_damaged_and_made_again(tmp_path: Path) -> None:
    simulate_small(tmp_path)
    truth = tmp_path / "truth" / find_session("F").name
    whole = read_files(truth)
    chunk = min(path for path in (truth / "rates" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(StoreError, match=r"chunks are missing of rates; remove the session's truth, and simulate"):
        open_truth(tmp_path, "F")
    assert simulate_small(tmp_path).status == "simulated"
    assert read_files(truth) == whole
    # Damage is told by what reads a chunk.
    shutil.rmtree(truth)
    assert simulate_small(tmp_path).status == "simulated"
    assert read_files(truth) == whole


# The directory


def simulate_small(directory: Path, **changes: object) -> SimulationReport:
    arguments: dict[str, object] = {"sessions": find_sessions(["F"]), "n_trials": 4, "n_neurons": 4, "seed": 5}
    return simulate(directory, **{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small simulation. Not to be changed."""
    directory = tmp_path_factory.mktemp("small")
    simulate_small(directory, jobs=1)
    return directory


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(small: Path, tmp_path: Path) -> None:
    simulate_small(tmp_path, jobs=3)
    paths = [path.relative_to(small) for path in sorted(small.rglob("*")) if path.is_file()]
    assert len(paths) > 20
    assert paths == [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert [digest(small / path) for path in paths] == [digest(tmp_path / path) for path in paths]


def test_another_seed_gives_other_bytes(small: Path, tmp_path: Path) -> None:
    (made,) = simulate_small(tmp_path, seed=6).sessions
    assert digest(Path(made.path)) != digest(small / Path(made.path).name)


def test_zip64_changes_the_container_alone(small: Path, tmp_path: Path) -> None:
    (made,) = simulate_small(tmp_path, zip64=True).sessions
    path = Path(made.path)
    assert b"PK\x06\x06" in path.read_bytes()
    with zipfile.ZipFile(path) as wide, zipfile.ZipFile(small / path.name) as narrow:
        assert wide.namelist() == narrow.namelist()
        assert [info.CRC for info in wide.infolist()] == [info.CRC for info in narrow.infolist()]


def test_the_report_tells_what_was_made(small: Path) -> None:
    report = simulate_small(small)
    (row,) = report.sessions
    assert report.directory == str(small)
    assert report.truth == str(small / "truth")
    assert (row.alias, row.n_trials, row.n_neurons) == ("F", 4, 4)
    assert Path(row.path).stat().st_size == row.size_bytes


def test_a_rerun_does_nothing(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    told: list[object] = []
    report = simulate_small(small, progress=lambda *call: told.append(call))
    assert report.status == "already done"
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_nothing_unfinished_is_left_beside_the_archives(small: Path) -> None:
    assert {path.name for path in small.iterdir()} == {f"{find_session('F').name}.zip", "truth", "simulation.json"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 6}, "found seed 5, expected seed 6"),
        ({"n_trials": 9, "n_neurons": 5}, "n_trials 4, n_neurons 4"),
        ({"behavior_padding": "finite"}, "found behavior_padding nan, expected behavior_padding finite"),
    ],
)
def test_other_parameters_need_another_directory(small: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        simulate_small(small, **changes)


def test_sessions_that_nobody_published_cannot_be_simulated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only published sessions can be simulated: found mouseA, expected"):
        simulate(tmp_path, sessions=find_sessions(["F", "mouseA"]), n_trials=8, n_neurons=4)
    assert not list(tmp_path.iterdir())


def test_a_simulation_of_another_version_needs_another_directory(tmp_path: Path) -> None:
    (tmp_path / "simulation.json").write_text('{"parameters": {"simulator_version": 1, "seed": 5}, "sessions": {}}')
    with pytest.raises(UsageError, match="found simulator_version 1, expected simulator_version 3; choose"):
        simulate_small(tmp_path)


def test_sessions_are_added_and_lost_ones_made_again(small: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    directory = shutil.copytree(small, tmp_path / "small")
    report = simulate_small(
        directory,
        sessions=find_sessions(["A", "F"]),
        progress=lambda label, done, total: told.append((label, done, total)),
    )
    assert [row.alias for row in report.sessions] == ["A", "F"]
    assert told == [("simulate A", n, 4) for n in range(1, 5)] + [("summarize A", n, 4) for n in range(1, 5)]
    archive = directory / f"{find_session('F').name}.zip"
    whole = digest(archive)
    archive.unlink()
    assert simulate_small(directory).status == "simulated"
    assert digest(archive) == whole
    assert open_truth(directory, "A").sizes == open_truth(directory, "F").sizes


def test_an_interrupted_simulation_leaves_no_archive_and_is_finished_by_a_rerun(small: Path, tmp_path: Path) -> None:
    def stop(label: str, n_done: int, n_total: int) -> None:
        if n_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_small(tmp_path, progress=stop)
    assert list(tmp_path.glob("*.zip")) == []
    with pytest.raises(StoreError):
        open_truth(tmp_path, "F")
    report = simulate_small(tmp_path)
    assert report.status == "simulated"
    assert list(tmp_path.glob("*.partial")) == []
    (row,) = report.sessions
    assert digest(Path(row.path)) == digest(small / Path(row.path).name)


def test_archives_that_no_simulation_wrote_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / f"{find_session('F').name}.zip"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="no simulation wrote"):
        simulate_small(tmp_path)
    assert path.read_bytes() == b"precious"


def test_an_archive_put_beside_a_simulation_is_left_alone(small: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(small, tmp_path / "small")
    path = directory / f"{find_session('A').name}.zip"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="no simulation wrote"):
        simulate_small(directory, sessions=find_sessions(["A", "F"]))
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "kind",
    [
        "a bit",
        "link",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("cut", "another archive", "pipe", "folder")),
    ],
)
def test_an_archive_that_was_changed_since_is_told_and_left_alone(kind: str, small: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(small, tmp_path / "small")
    archive = directory / f"{find_session('F').name}.zip"
    whole = archive.read_bytes()
    archive.unlink()
    match kind:
        case "cut":
            archive.write_bytes(whole[:1000])
        case "a bit":
            archive.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
        case "another archive":
            archive.write_bytes(b"a recording")
        case "pipe":
            os.mkfifo(archive)
        case "link":
            archive.symlink_to(archive)
        case "folder":
            archive.mkdir()
    # Reading changes its time of access, and a write its time of change.
    before = archive.lstat().st_ino, archive.lstat().st_ctime_ns
    told = "cannot be read: found a " if kind in ("pipe", "link", "folder") else "was changed since it was simulated"
    with pytest.raises(UsageError, match=rf"{archive}: the archive {told}.*; move it"):
        simulate_small(directory)
    assert (archive.lstat().st_ino, archive.lstat().st_ctime_ns) == before
    (archive.rmdir if kind == "folder" else archive.unlink)()
    assert simulate_small(directory).status == "simulated"
    assert archive.read_bytes() == whole


@pytest.mark.parametrize("is_own", [True, False])
def test_an_archive_of_a_killed_simulation_is_made_anew_and_another_is_left_alone(
    is_own: bool, small: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(small, tmp_path / "small")
    archive = directory / f"{find_session('F').name}.zip"
    whole = archive.read_bytes()
    record = json.loads((directory / "simulation.json").read_text())
    record["sessions"] = dict.fromkeys(record["sessions"])
    (directory / "simulation.json").write_text(json.dumps(record))
    if is_own:
        assert simulate_small(directory).status == "simulated"
        assert archive.read_bytes() == whole
    else:
        archive.write_bytes(b"a recording")
        with pytest.raises(UsageError, match="an archive that no simulation wrote; choose another directory"):
            simulate_small(directory)
        assert archive.read_bytes() == b"a recording"


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"session F .*file/simulated.*written.*the file .*file where a folder"):
        simulate_small(tmp_path / "file" / "simulated")
    with pytest.raises(StoreError, match="found a file, not a folder; name another folder"):
        simulate_small(tmp_path / "file")


def test_a_full_disk_is_an_error_and_leaves_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stack: TrialStack, position: int, values: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TrialStack, "write", fail)
    with pytest.raises(StoreError, match="No space left on device; check the space"):
        simulate_small(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"simulation.json", "truth"}


def test_a_damaged_record_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(UsageError, match=r"simulation\.json"):
        simulate_small(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_trials": 0},
        {"n_neurons": 0},
        {"jobs": 0},
        {"seed": -1},
        {"sessions": ()},
        {"n_statistics_frames": 0},
        {"behavior_padding": "zeros"},
    ],
)
def test_senseless_numbers_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        simulate_small(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_simulation_works(tmp_path: Path) -> None:
    simulate(tmp_path, sessions=find_sessions(["J"]), n_trials=1, n_neurons=1)
    assert open_truth(tmp_path, "J").sizes == {"trial": 1, "neuron": 1, "time": 414}
