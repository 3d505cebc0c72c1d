"""Ctrl-C at any moment: once, a command ends cleanly; twice, at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from fixtures.stores import read_files
from sensorium_data.files import open_objects
from sensorium_data.ingest import ingest_sessions
from sensorium_data.ordered_map import as_finished, drop
from sensorium_data.sessions import find_session, find_sessions
from sensorium_data.store.publishing import exclusive_access
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

TOLD = "sensorium: interrupted; run the same command again\n"
#: As the installed program begins; it tells when a press no longer meets Python's own start.
STARTED = (
    "from flows.cli.entry import main\nfrom sensorium_data.interrupts import take_interrupts\n"
    "take_interrupts()\nprint('started', flush=True)\nmain()"
)
TIERS = ["train"] * 6 + ["oracle"] * 2 + ["live_test_main", "final_test_main"]
#: Within how many seconds each command is interrupted. Most of that is what it imports.
COMMANDS = {
    "ingest A F --store {out}/store --source {archives}": 3.0,
    "simulate {out}/archives --sessions F --trials 40 --neurons 20": 3.0,
    "verify {store} --source {archives}": 3.0,
    "inspect {store} --report {out}/report.html": 6.0,
    "train factorized3d-debug --store {store} --runs {out}/runs --set n_frames_window=40": 12.0,
    "predict {run} --store {store} --tier all --out {out}/predictions": 8.0,
    "score {predictions} --store {store} --tier oracle": 4.0,
    "submit {predictions} --store {store} --track main --out {out}": 4.0,
    "validate {zip} --store {store}": 2.0,
    "benchmark {run} --store {store} --out {out}/benchmark": 8.0,
    "demo --dir {out}/demo": 30.0,
    "ui --home {out}/home --port 4517": 20.0,
    "train factorized3d-debug --store {store} --runs {out}/runs --set n_frames_window=40 --flow": 40.0,
    "ingest A F --store {out}/store --source {archives} --flow": 30.0,
}


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [make_recording(alias, TIERS, movies={6: 1, 7: 1}, n_frames=80, n_padded=84) for alias in "AF"]


@pytest.fixture(scope="module")
def world(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for recording in recordings:
        recording.write(folder / "archives")
    return folder


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    ingest_sessions(find_sessions(["A", "F"]), str(folder), sources=[str(world / "archives")])
    return read_files(folder)


def press(command: Sequence[str], at_s: Sequence[float], folder: Path) -> tuple[int, str]:
    """Run a command, press Ctrl-C at some times, and return its status and its last lines."""
    environment = os.environ | {"PREFECT_HOME": str(folder / "prefect")}
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        began = time.monotonic()
        for one in at_s:
            time.sleep(max(0.0, began + one - time.monotonic()))
            process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, told


def check_end(command: str, n_presses: int, seed: int, **places: Path) -> None:
    """Check that a command that is interrupted at some time ends as it should, unless it was done already."""
    rng = random.Random(f"{command} {n_presses} {seed}")
    first_s = rng.uniform(0, COMMANDS[command])
    at_s = [first_s, first_s + rng.uniform(0, 0.5)][:n_presses]
    arguments = [part.format(**places) for part in command.split()]
    status, told = press(arguments, at_s, places["out"])
    where = f"{arguments} at {at_s} s: status {status}\n{told}"
    if status in (0, 1):  # 1: the zip to validate is none.
        return
    assert status == 130, where
    assert told.count(TOLD) == 1, where
    assert "Traceback" not in told, where
    assert "Exception" not in told, where


@pytest.mark.parametrize("n_presses", [1, 2])
def test_an_ingest_ends_at_ctrl_c_and_goes_on_where_it_was(
    n_presses: int, undisturbed: dict[str, bytes], world: Path, tmp_path: Path
) -> None:
    check_end(next(iter(COMMANDS)), n_presses, 0, archives=world / "archives", out=tmp_path)
    ingest_sessions(find_sessions(["A", "F"]), str(tmp_path / "store"), sources=[str(world / "archives")])
    # Whoever got as far as comparing movies keeps what it found.
    files = {name: data for name, data in read_files(tmp_path / "store").items() if not name.startswith("movies")}
    assert files == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_presses", [1, 2])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_at_ctrl_c(
    command: str, n_presses: int, seed: int, finished_world: dict[str, Path], tmp_path: Path
) -> None:
    check_end(command, n_presses, seed, out=tmp_path, **finished_world)


@pytest.fixture(scope="module")
def finished_world(world: Path) -> dict[str, Path]:
    """What the commands read that come after ingest."""
    from fixtures.tiny_training import tiny_config
    from models.prediction import predict
    from models.training import train

    store = str(world / "store")
    ingest_sessions(find_sessions(["A", "F"]), store, sources=[str(world / "archives")])
    run = train(tiny_config(max_epochs=1), store, ["A", "F"], world / "runs").run
    predict([run], store, ["oracle", "live_test_main", "final_test_main"], str(world / "predictions"), device="cpu")
    (world / "nothing.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    return {
        "zip": world / "nothing.zip",
        "archives": world / "archives",
        "store": world / "store",
        "run": Path(run),
        "predictions": world / "predictions",
    }


INTERRUPT_TWICE = """
import os, signal, sys, time
from sensorium_data.ingest import conversion, ingest_sessions
from sensorium_data.sessions import find_sessions

begun = set()

def convert_trial(*arguments):
    while begun < {"convert A", "convert F"}:
        time.sleep(0.1)
    for _ in range(2):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)

conversion.convert_trial = convert_trial
source, store = sys.argv[1:]
progress = lambda label, *numbers, **more: begun.add(label)
ingest_sessions(find_sessions(["A", "F"]), store, sources=[source], jobs=1, progress=progress)
"""


def test_a_program_that_is_interrupted_twice_while_it_ingests_ends(world: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPT_TWICE, str(world / "archives"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.count("\nKeyboardInterrupt") == 2, done.stderr


INTERRUPT_A_WAIT = """
import os, signal, sys
from sensorium_data.ingest import ingest_sessions
from sensorium_data.sessions import find_sessions

def progress(label, *numbers, **more):
    if label.startswith("wait for another run"):
        os.kill(os.getpid(), signal.SIGINT)

source, store = sys.argv[1:]
ingest_sessions(find_sessions(["F"]), store, sources=[source], progress=progress)
"""


def test_an_ingest_that_waits_for_another_one_ends_at_ctrl_c(world: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPT_A_WAIT, str(world / "archives"), str(tmp_path)]
    with exclusive_access(open_objects(str(tmp_path)), find_session("F").name):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGINT, done.stderr


def test_futures_that_a_pool_canceled_are_finished() -> None:
    go_on = Event()
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(go_on.wait, 60) for _ in range(3)]
        pool.shutdown(wait=False, cancel_futures=True)
        go_on.set()
        drop(futures)
        assert [future.cancelled() for future in as_finished(futures)].count(True) == 2
