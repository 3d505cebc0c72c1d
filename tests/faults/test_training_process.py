"""A training in a process of its own ends with whoever waits for it, and says how."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flows.training.supervisor
from fixtures.recorded_stores import record_session
from flows.reporting import ignore_note
from flows.training import TrainingJob, ready_process, supervise_training, train_here
from models.runs import EpochMetrics
from sensorium_data.errors import RunError, UsageError

# Leaves a process behind whenever a training process starts, as libraries do, with the training's pipes open.
LEAVE_A_PROCESS = """
import subprocess, sys
if "flows.training.process" in sys.orig_argv:
    left = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    print("left process", left.pid, file=sys.stderr)
"""
SUPERVISE = """
import sys
from flows.training import TrainingJob
from flows.training import supervise_training
say = lambda *said, **more: print(*said, flush=True)
job = TrainingJob.model_validate_json(sys.argv[1])
supervise_training(job, progress=say, on_epoch=say, write_line=say)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    record_session(root, "F", n_by_tier={"train": 4, "oracle": 2})
    return root


def tiny_job(store: Path, runs: Path, **settings: object) -> TrainingJob:
    small = {"model.channels": "2,2", "n_windows_per_trial": 1, "device": "cpu"} | settings
    return TrainingJob(
        preset="factorized3d-debug",
        settings={name: str(value) for name, value in small.items()},
        store=str(store),
        sessions=("F",),
        runs=str(runs),
    )


def endless_job(store: Path, runs: Path) -> TrainingJob:
    return tiny_job(store, runs, max_epochs=1_000_000)


def read_state(pid: int) -> str:
    """The kernel's letter for what a process is at; X once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not asked after yet does not."""
    return read_state(pid) not in "ZX"


def wait_until_gone(*pids: int, timeout_s: float = 30) -> None:
    until = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < until, f"of {pids} still there: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.05)


def pids_in(text: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"(?:training in|left) process (\d+)", text)]


@pytest.fixture
def leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training process starts another process that does not end by itself."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LEAVE_A_PROCESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.mark.usefixtures("leaving")
def test_it_trains_as_in_this_process_and_leaves_nothing_behind(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    apart: list[EpochMetrics] = []
    here: list[EpochMetrics] = []
    with ready_process():
        (waiting,) = flows.training.supervisor._waiting.get()
        report = supervise_training(
            tiny_job(store, tmp_path / "apart", max_epochs=2),
            progress=ignore_note,
            on_epoch=apart.append,
            write_line=lines.append,
        )
    same = train_here(tiny_job(store, tmp_path / "here", max_epochs=2), progress=ignore_note, on_epoch=here.append)
    assert report.status == same.status == "trained"
    assert Path(report.run).name == Path(same.run).name
    assert [epoch.correlation for epoch in apart] == [epoch.correlation for epoch in here]
    pids = pids_in("\n".join(lines))
    assert len(pids) == 2
    assert waiting.pid in pids
    wait_until_gone(*pids)


def test_a_process_that_was_ready_for_nothing_is_gone_with_the_block() -> None:
    with ready_process():
        (waiting,) = flows.training.supervisor._waiting.get()
        assert is_alive(waiting.pid)
    assert not is_alive(waiting.pid)
    # If the one that started it ends without a word, too.
    command = [sys.executable, "-m", "flows.training.process", str(os.getpid())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


def test_a_known_error_arrives_in_the_same_words(store: Path, tmp_path: Path) -> None:
    job = tiny_job(store, tmp_path / "runs", n_frames_window=5000)
    with pytest.raises(UsageError) as here:
        train_here(job, progress=ignore_note, on_epoch=lambda _: None)
    lines: list[str] = []
    with pytest.raises(UsageError) as apart:
        supervise_training(job, progress=ignore_note, on_epoch=lambda _: None, write_line=lines.append)
    assert str(apart.value) == str(here.value)
    assert "Traceback" not in "\n".join(lines)


def test_a_process_that_is_killed_is_told_of(store: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def kill(_metrics: EpochMetrics) -> None:
        (pid,) = pids_in("\n".join(lines))
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(RunError, match=r"SIGKILL.*memory.*batch_size"):
        supervise_training(endless_job(store, tmp_path), progress=ignore_note, on_epoch=kill, write_line=lines.append)
    (unfinished,) = tmp_path.iterdir()
    assert unfinished.suffix == ".partial"


def test_one_that_does_not_end_when_asked_is_killed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.training.supervisor, "GRACE_S", 0.5)
    lines: list[str] = []

    def interrupt(_metrics: EpochMetrics) -> None:
        (pid,) = pids_in("\n".join(lines))
        os.kill(pid, signal.SIGSTOP)
        # One that is not stopped yet would still end when asked.
        while read_state(pid) != "T":
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervise_training(
            endless_job(store, tmp_path), progress=ignore_note, on_epoch=interrupt, write_line=lines.append
        )
    assert not is_alive(pids_in("\n".join(lines))[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a process of its parent's death on Linux alone")
def test_it_dies_with_a_parent_that_is_killed(store: Path, tmp_path: Path) -> None:
    job = endless_job(store, tmp_path / "runs")
    command = [sys.executable, "-c", SUPERVISE, job.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids: list[int] = []
        for line in parent.stdout:
            pids += pids_in(line)
            if line.startswith("training windows"):
                break
        assert len(pids) == 1
        assert is_alive(pids[0])
        parent.kill()
        parent.wait()
        wait_until_gone(*pids)
    (unfinished,) = (tmp_path / "runs").iterdir()
    assert unfinished.suffix == ".partial"
