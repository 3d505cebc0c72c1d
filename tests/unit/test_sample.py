"""The sample: made once, found again, made anew when it is damaged, and kept elsewhere where it cannot be written."""

from __future__ import annotations

import logging
import multiprocessing
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sensorium_data as sd
import sensorium_data.sample as sample
from fixtures.command_line import run_command
from flows.cli import app
from sensorium_data.errors import StoreError
from sensorium_data.files import clean_up
from sensorium_data.simulation import open_truth
from sensorium_data.store import repair_command

SMALL = {"n_trials": 2, "n_neurons": 3, "seed": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for caches that holds a sample of fewer trials. Not to be changed."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(sample, "_PARAMETERS", SMALL)
        sd.sample_store()
    return folder


@pytest.fixture
def cache(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and where samples are looked for."""
    folder = tmp_path / "cache"
    shutil.copytree(made, folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(sample, "_PARAMETERS", SMALL)
    return folder


@pytest.fixture
def count_makes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders in which samples were made."""
    makes: list[Path] = []
    make = sample._make

    def count(work: Path, progress: object) -> None:
        makes.append(work)
        make(work, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(sample, "_make", count)
    return makes


def test_a_sample_is_two_simulated_sessions_that_share_movies(cache: Path, count_makes: list[Path]) -> None:
    tree = sd.load_sample()
    sessions = [node.to_dataset() for node in tree.children.values()]
    assert [one.attrs["alias"] for one in sessions] == ["E", "I"]
    assert all(one.attrs["simulated"] for one in sessions)
    assert set(sessions[0].movie_group.values) & set(sessions[1].movie_group.values)
    assert "plot_trial" in dir(sessions[0].sensorium)
    assert not count_makes
    # What is left is the sample and its lock: no archive and no unfinished folder.
    (folder,) = [entry for entry in (cache / "sensorium/sample").iterdir() if not entry.name.endswith(".lock")]
    assert sorted(entry.name for entry in folder.iterdir()) == ["store", "truth"]
    truth = open_truth(folder, "E")
    np.testing.assert_allclose(sessions[0].responses, truth.responses, rtol=1e-3, atol=1e-6)


def test_its_sessions_name_no_folder_that_is_gone(cache: Path) -> None:
    store = sd.open_store(sd.sample_store())
    command = "sensorium simulate DIR --sessions E I --trials 2 --neurons 3 --seed 0"
    for session in store.sessions:
        attributes = store[session].attrs
        assert attributes["source"] == f"not kept: {command}"
        assert ".tmp" not in repr(attributes)
        # The command that it is repaired with asks for the place, since nothing lies at the old one.
        assert "--source SOURCE" in repair_command(store.objects, session, store.group(session))
    words = shlex.split(command)[1:]
    assert app.parse_args(words, exit_on_error=False, print_error=False)


def test_the_command_prints_the_path_and_nothing_else(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run_command(capsys, "sample").out
    assert printed == f"{sd.sample_store()}\n"


def test_its_store_is_as_its_ledgers_say(cache: Path) -> None:
    from sensorium_data.ingest import verify_session

    for alias in sample.SAMPLE_SESSIONS:
        assert verify_session(sd.sample_store(), alias).passed


@pytest.mark.parametrize(
    "damage", ["chunk", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "root", "session"))]
)
def test_a_sample_that_lost_files_is_made_again(damage: str, cache: Path, count_makes: list[Path]) -> None:
    store = Path(sd.sample_store())
    session = sd.find_session("E").name
    files = sorted(path for path in (store / session / "responses").rglob("*") if path.is_file())
    chunk = next(path for path in files if path.name != "zarr.json")
    whole = chunk.read_bytes()
    match damage:
        case "chunk":
            chunk.unlink()
        case "cut":
            chunk.write_bytes(whole[:-1])
        case "root":
            (store / "zarr.json").write_text("{")
        case _:
            shutil.rmtree(store / session)
    assert not count_makes
    assert sd.sample_store() == str(store)
    assert len(count_makes) == 1
    assert chunk.read_bytes() == whole


def test_another_version_has_a_sample_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = sample._name_sample()
    monkeypatch.setattr(sample, "SCHEMA_VERSION", 1000)
    assert sample._name_sample() != old


def test_samples_of_other_versions_and_unfinished_ones_can_be_cleaned_away(cache: Path) -> None:
    folder = cache / "sensorium/sample" / sample._name_sample()
    old, left = folder.with_name("0" * 16), folder.with_name(f".{folder.name}.{'0' * 32}.tmp")
    shutil.copytree(folder, old)
    left.mkdir()
    (folder.parent / "notes").mkdir()
    removed = clean_up(sample.find_sample_leftovers(), min_age_days=0)
    assert {(item.place, item.removed) for item in removed} == {(str(old), True), (str(left), True)}
    assert not old.exists()
    assert not left.exists()
    assert (folder.parent / "notes").exists()
    assert sample._is_whole(folder)


@pytest.mark.slow
def test_what_a_killed_process_left_is_deleted_and_the_sample_is_made(cache: Path, count_makes: list[Path]) -> None:
    folder = cache / "sensorium/sample" / sample._name_sample()
    left = folder.with_name(f".{folder.name}.{'0' * 32}.tmp")
    folder.rename(left)
    other = folder.with_name("notes.txt")
    other.write_text("mine")
    sd.sample_store()
    assert len(count_makes) == 1
    assert not left.exists()
    assert other.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_replaced_by_the_temporary_one(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A file is in the way, which stops root too.
    (tmp_path / "full").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "full"))
    elsewhere = tmp_path / "temporary"
    shutil.copytree(cache / "sensorium/sample", elsewhere)
    monkeypatch.setattr(sample, "_temporary_root", lambda: elsewhere)
    with caplog.at_level(logging.WARNING):
        store = sd.sample_store()
    assert Path(store).is_relative_to(elsewhere)
    assert "cannot be kept" in caplog.text
    assert str(elsewhere) in caplog.text
    assert elsewhere.stat().st_mode & 0o777 == 0o700


def test_without_a_home_a_sample_that_another_user_may_have_made_is_not_opened(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count_makes: list[Path]
) -> None:
    def find_no_home(_: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sample, "cache_folder", find_no_home)
    root = cache / "sensorium/sample"
    monkeypatch.setattr(sample, "_temporary_root", lambda: root)
    assert Path(sd.sample_store()).is_relative_to(root)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setattr(sample, "_temporary_root", lambda: tmp_path / "link")
    with pytest.raises(StoreError, match="belongs to another user, or is no folder"):
        sd.sample_store()
    assert not count_makes


def test_where_nothing_can_be_written_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    # A link in the shared temporary folder may be somebody else's.
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(sample, "_temporary_root", lambda: tmp_path / "link")
    with pytest.raises(StoreError, match="XDG_CACHE_HOME"):
        sd.sample_store()


def ask(results: object) -> None:
    results.put((sd.sample_store(), len(made_here)))  # type: ignore[attr-defined]


made_here: list[Path] = []


@pytest.mark.slow
def test_processes_that_ask_at_once_make_it_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(cache)
    make = sample._make

    def count(work: Path, progress: object) -> None:
        made_here.append(work)
        make(work, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(sample, "_make", count)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=ask, args=(results,)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({store for store, _ in answers}) == 1
    assert sum(n_made for _, n_made in answers) == 1


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_nothing_that_passes_for_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = "import sensorium_data as sd; sd.sample_store()"
    for delay_s in (2.0, 6.0):
        process = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "sensorium/sample" / sample._name_sample()).exists()
    tree = sd.load_sample()
    assert len(tree.children) == 2
    assert not list((tmp_path / "sensorium/sample").glob(".*.tmp"))


@pytest.mark.slow
def test_the_samples_neurons_prefer_the_orientations_that_the_truth_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensorium_data.simulation.plan import plan_session
    from sensorium_data.simulation.stimuli import GABOR_N_FRAMES, list_gabors

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = sd.sample_store()
    session, truth = sd.open_session(store, "E"), open_truth(Path(store).parent, "E")
    n_trials, n_neurons, seed = (sample._PARAMETERS[name] for name in ("n_trials", "n_neurons", "seed"))
    assert session.sizes["trial"] == n_trials
    assert {"Gabor", "GaussianDot", "RandomDots", "NaturalVideo"} == set(session.stimulus.values)
    patches: dict[float, list[np.ndarray]] = {}
    for plan in plan_session(sd.find_session("E"), n_trials=n_trials, n_neurons=n_neurons, seed=seed).trials:
        if plan.movie.stimulus == "Gabor":
            responses = session.responses.sel(trial=plan.trial).values
            for place, (angle, _, _) in enumerate(list_gabors(plan.movie, plan.n_frames, seed)):
                # The filters look back some frames.
                begin = GABOR_N_FRAMES * place + 3
                shown = responses[:, begin : min(begin + GABOR_N_FRAMES, plan.n_frames)]
                patches.setdefault(angle, []).append(shown.mean(axis=1))
    angles = np.array(sorted(patches))
    means = np.stack([np.mean(patches[angle], axis=0) for angle in angles])
    preferred = np.angle((means * np.exp(2j * angles)[:, None]).sum(axis=0)) / 2
    error = np.abs((preferred - truth.rf_orientation.values + np.pi / 2) % np.pi - np.pi / 2)
    selective = truth.kind.values != "spot"
    # By chance half of them would be off by more than 45 degrees.
    assert np.median(error[selective]) < np.deg2rad(15)
