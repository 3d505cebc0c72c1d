"""Whatever a file holds and a system refuses, a command ends with one line that says so."""

from __future__ import annotations

import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fixtures.command_line import run_command
from fixtures.predicted_sessions import PredictedSessions
from fixtures.recorded_stores import record_session
from fixtures.tiny_training import tiny_config
from models.training import train
from sensorium_data.archive.npy import NpyError, parse_npy
from sensorium_data.errors import RunError
from sensorium_data.sessions import find_session
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording, npy

F = find_session("F").name
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    sessions = PredictedSessions(tmp_path_factory.mktemp("world"))
    sessions.write("predictions")
    return sessions


@pytest.fixture(scope="module")
def recording() -> Recording:
    return make_recording("F", ["train", "oracle", "oracle"], n_frames=60, n_padded=64, n_neurons=3)


def npy_of_shape(shape: object, payload: bytes = bytes(64)) -> bytes:
    """A ``.npy`` file whose header states a shape, written by hand."""
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, values=np.zeros(3))
    return stream.getvalue()


# What a folder of arrays may hold in place of a trial's.
ARRAYS: dict[str, tuple[str, bytes | None, tuple[str, ...]]] = {
    "huge": ("7.npy", npy_of_shape((10**9, 10**9)), ("trial 7", "another size than its header says")),
    "more than the system can count": ("7.npy", npy_of_shape((10**30, 2)), ("trial 7", "another size")),
    "of bools": ("7.npy", npy_of_shape((True, True), bytes(4)), ("trial 7", "shape is impossible")),
    "cut zip": ("7.npy", npz()[:-30], ("trial 7", "not a .npy array")),
    "zip": ("7.npy", npz(), ("trial 7", "not a .npy array")),
    "pipe": ("7.npy", None, ("trial 7", "cannot be read")),
    "name of 200 digits": ("9" * 200 + ".npy", b"", ("no trial's array", "up to 9 digits")),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_none(
    case: str, world: PredictedSessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, words = ARRAYS[case]
    (tmp_path / "arrays" / "F").mkdir(parents=True)
    session = world.sessions["F"]
    for facts in session.of_tier("oracle"):
        np.save(tmp_path / "arrays" / "F" / f"{facts.trial}.npy", np.ones((len(session.neurons), facts.n_frames)))
    path = tmp_path / "arrays" / "F" / name
    path.unlink(missing_ok=True)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    options = ("--store", world.store, "--units", "raw", "--out", tmp_path / "out")
    run_command(capsys, "from-arrays", tmp_path / "arrays", *options).assert_refused(*words)


# Members that take the place of those of a sound archive, or lie beside them.
MEMBERS = {
    "a shape of bools": ("data/responses/1.npy", npy_of_shape((True, True), bytes(4)), "shape is impossible"),
    "a shape of 10**30": ("data/videos/1.npy", npy_of_shape((36, 64, 10**30)), "another size than its header says"),
    "a trial of 5,000 digits": (f"data/videos/{'9' * 5000}.npy", npy(np.zeros(3)), "integer of up to 9 digits"),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_archives_with_a_member_that_cannot_be(
    case: str, recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, word = MEMBERS[case]
    members = {f"{F}/{name}": content}
    path = recording.write(tmp_path)
    with zipfile.ZipFile(path) as sound:
        members = {info.filename: sound.read(info) for info in sound.infolist()} | members
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    run_command(capsys, "ingest", "F", "--store", tmp_path / "store", "--source", tmp_path).assert_refused(word, F)


def test_a_shape_of_bools_whose_size_fits_is_no_array() -> None:
    with pytest.raises(NpyError, match="shape is impossible"):
        parse_npy(npy_of_shape((True,), bytes(4)))


# Files of JSON in a store or in predictions, and the command that reads each.
DOCUMENTS = {
    "versions.json": ("store/versions.json", "inspect {store}", 2),
    "group": (f"store/{F}/zarr.json", "inspect {store}", 2),
    "ledger": (f"store/{F}/ledger.json", "inspect {store} F", 2),
    "movies.json": ("store/movies.json", "inspect {store} F", 2),
    "predictions": ("predictions/zarr.json", "score {predictions} --store {store}", 2),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents_that_are_nested_too_deeply(
    case: str, world: PredictedSessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, command, status = DOCUMENTS[case]
    for name in ("store", "predictions"):
        shutil.copytree(world.root / name, tmp_path / name)
    (tmp_path / place).write_bytes(DEEP)
    arguments = command.format(store=tmp_path / "store", predictions=tmp_path / "predictions").split()
    run_command(capsys, *arguments).assert_refused("nested too deeply", status=status)


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk refuses what does not fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.slow  # trains a model
def test_a_disk_that_fills_up_while_a_model_is_trained(
    tmp_path: Path, no_curves: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit holds for git too, which the system would kill while it writes to the repository.
    monkeypatch.setattr("models.runs.folder._find_commit", lambda: None)
    record_session(tmp_path / "store", "F", n_frames=40, seed=5)
    config = tiny_config(n_frames_window=20, max_epochs=1)
    # The best weights, and a checkpoint, are larger.
    for size_bytes in (4000, 12_000):
        with files_up_to(size_bytes), pytest.raises(RunError, match=r"runs/tiny-.*: the run cannot be written: found "):
            train(config, str(tmp_path / "store"), ["F"], tmp_path / "runs")
    assert train(config, str(tmp_path / "store"), ["F"], tmp_path / "runs").status == "trained"


def test_a_path_may_have_colons(world: PredictedSessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(world.root / "store", tmp_path / "a::b")
    outcome = run_command(capsys, "inspect", tmp_path / "a::b")
    assert outcome.status == 0, outcome.err


def test_output_that_cannot_be_encoded_is_escaped() -> None:
    command = [sys.executable, "-c", "from flows.cli.entry import main\nmain()", "--help"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert r"archives \u2192 Zarr" in done.stdout


def test_names_that_are_no_utf8_are_escaped(
    world: PredictedSessions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("predictions_live_main.parquet.brotli", b"nothing")
    outcome = run_command(capsys, "validate", path, "--store", world.store)
    assert outcome.status == 1, outcome.err
    assert r"\xff.zip" in outcome.out


@pytest.mark.parametrize(
    "refusal",
    [
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("can't start new thread"),
        ImportError("lib.so: failed to map segment from shared object"),
    ],
    ids=["memory", "threads", "libraries"],
)
def test_what_the_system_refuses_is_told(
    refusal: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise refusal

    monkeypatch.setattr("sensorium_data.ingest.ingest_sessions", refuse)
    run_command(capsys, "ingest", "F", "--store", tmp_path).assert_refused("--jobs", "ulimit -v")


def test_too_little_address_space_is_told_before_libraries_wait_for_it(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (700_000_000, resource.RLIM_INFINITY))\n"
        "from flows.cli.entry import main\n"
        "sys.argv = ['sensorium', 'inspect', sys.argv[1]]\n"
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "sensorium: there is not enough memory: found a limit of 0.7 GB of address space, expected 1 GB or more; raise "
        "it (see `ulimit -v`)"
    ]
