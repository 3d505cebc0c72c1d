"""What has its name survives a power cut, and what is done is found done, on a disk that cannot be written too."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.command_line import run_command
from fixtures.session_stores import TrialFacts, write_session_store
from fixtures.tiny_training import tiny_config
from models.runs.data import RunData
from models.runs.folder import publish_run
from models.runs.location import open_runs
from sensorium_data.ingest import convert_session
from sensorium_data.predictions import from_arrays
from sensorium_data.submission import repair_submission, write_submission
from sensorium_data.testing.disk import FailFrom, faulty_disk
from sensorium_data.testing.recordings import make_recording

TRIALS = tuple(TrialFacts(i, "live_test_main" if i < 2 else "final_test_main", 60 + i) for i in range(4))


class SyncLog:
    """What was synced, and what was not when something got its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._unsynced: dict[str, list[str]] = {}
        self._steps: list[tuple[str, object]] = []
        self._synced: dict[tuple[int, int], int] = {}
        monkeypatch.setattr(os, "fsync", self._sync)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._naming(getattr(os, name)))

    def _sync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._synced[status.st_dev, status.st_ino] = status.st_mtime_ns
        self._steps.append(("sync", (status.st_dev, status.st_ino)))

    def _is_synced(self, path: Path) -> bool:
        status = path.stat()
        return self._synced.get((status.st_dev, status.st_ino)) == status.st_mtime_ns

    def _naming(self, name: Callable[..., None]) -> Callable[..., None]:
        def step(source: Any, target: Any) -> None:
            below = [Path(source), *Path(source).rglob("*")]
            self._unsynced[str(target)] = [str(path) for path in below if not self._is_synced(path)]
            name(source, target)
            self._steps.append(("name", str(target)))

        return step

    def assert_durable(self, path: Path) -> None:
        """All that ``path`` holds was on the disk when it got its name, and then its name was."""
        assert self._unsynced[str(path)] == []
        named = self._steps.index(("name", str(path)))
        folder = path.parent.stat()
        assert ("sync", (folder.st_dev, folder.st_ino)) in self._steps[named:]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("recorded") / "store"
    write_session_store(root, "F", TRIALS, n_neurons=3)
    return str(root)


def test_a_session_is_on_the_disk_when_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = make_recording("F", ["train", "oracle", "train"])
    recording.write(tmp_path)
    log = SyncLog(monkeypatch)
    convert_session(recording.session, str(tmp_path / "store"), source=str(tmp_path))
    log.assert_durable(tmp_path / "store" / recording.session.name)


def write_arrays(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "F").mkdir(parents=True)
    for facts in TRIALS:
        np.save(folder / "F" / f"{facts.trial}.npy", rng.random((3, facts.n_frames)))
    return folder


def make_arrays() -> dict[str, dict[int, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {"F": {facts.trial: rng.random((3, facts.n_frames)) for facts in TRIALS}}


def test_predictions_and_zips_are_on_the_disk_when_they_get_their_names(
    recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SyncLog(monkeypatch)
    from_arrays(str(tmp_path / "p"), recorded, make_arrays(), response_units="standardized")
    log.assert_durable(tmp_path / "p")
    written = write_submission(str(tmp_path / "p"), recorded, track="main", out=str(tmp_path / "out"))
    log.assert_durable(tmp_path / "out" / "submission_main.zip")
    log.assert_durable(tmp_path / "out" / "submission_main.json")
    repair_submission([written.files[0].path], recorded, out=tmp_path / "fixed")
    log.assert_durable(tmp_path / "fixed" / "submission_main.zip")
    log.assert_durable(tmp_path / "fixed" / "submission_fixed.json")


def test_run_is_on_the_disk_when_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = SyncLog(monkeypatch)
    data = RunData(store="store", sessions=())
    with publish_run(open_runs(tmp_path / "runs"), "run", "identity", tiny_config(), data) as folder:
        (folder.path / "model.safetensors").write_bytes(b"weights")
    log.assert_durable(tmp_path / "runs" / "run")


def test_finished_work_is_found_done_on_a_disk_that_cannot_be_written(
    recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, p, out, fixed = write_arrays(tmp_path / "arrays"), tmp_path / "p", tmp_path / "out", tmp_path / "fixed"
    commands = [
        ["from-arrays", arrays, "--store", recorded, "--units", "standardized", "--out", p],
        ["submit", p, "--store", recorded, "--track", "main", "--out", out],
        ["validate", out / "submission_main.zip", "--store", recorded, "--fix", fixed],
    ]
    for command in commands:
        assert run_command(capsys, *command).status == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with faulty_disk(FailFrom(0, errno.EROFS)):
        for command in commands:
            outcome = run_command(capsys, *command)
            assert outcome.status == 0, outcome.err
            assert "already done" in outcome.out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_work_is_not_found_done(recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, p, out, fixed = write_arrays(tmp_path / "arrays"), tmp_path / "p", tmp_path / "out", tmp_path / "fixed"
    from_folder = ["from-arrays", arrays, "--store", recorded, "--units", "standardized", "--out", p]
    submit = ["submit", p, "--store", recorded, "--track", "main", "--out", out]
    fix = ["validate", out / "submission_main.zip", "--store", recorded, "--fix", fixed]
    for command in (from_folder, submit, fix):
        assert run_command(capsys, *command).status == 0
    # Another title, one value that differs, a trial less; other options of the copy; a copy that was changed.
    run_command(capsys, *from_folder, "--title", "other").assert_refused("something lies there already")
    values = np.load(arrays / "F" / "1.npy")
    values[0, 20] += 1
    np.save(arrays / "F" / "1.npy", values)
    run_command(capsys, *from_folder).assert_refused("something lies there already")
    (arrays / "F" / "1.npy").unlink()
    run_command(capsys, *from_folder).assert_refused("not every trial of the tiers was predicted")
    assert "there is a zip already" in run_command(capsys, *fix, "--frames", "official").err
    zip_path = fixed / "submission_main.zip"
    zip_path.write_bytes(zip_path.read_bytes() + b"x")
    assert "the zip of the corrected copy was changed" in run_command(capsys, *fix).err


@pytest.mark.parametrize("n_named", [0, 1])
def test_killed_fix_is_taken_up_by_the_same_command(recorded: str, tmp_path: Path, n_named: int) -> None:
    """The record is there, and some zips have their names."""
    from_arrays(str(tmp_path / "p"), recorded, make_arrays(), response_units="standardized")
    source = write_submission(str(tmp_path / "p"), recorded, track="main", out=str(tmp_path / "out")).files[0].path
    first = repair_submission([source], recorded, out=tmp_path / "fixed")
    zip_path = Path(first.files[0])
    whole = zip_path.read_bytes()
    if not n_named:
        zip_path.unlink()
    again = repair_submission([source], recorded, out=tmp_path / "fixed")
    assert again.status == ("already done" if n_named else "written")
    assert zip_path.read_bytes() == whole
    names = {"submission_main.zip", "submission_fixed.json", "submission_fixed.sha256"}
    assert {path.name for path in (tmp_path / "fixed").iterdir()} == names
