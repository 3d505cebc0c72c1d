"""The scripts for Slurm, run with stand-ins for its commands and for ours."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fixtures.places import CHECKOUT
from fixtures.programs import find_program, make_program, run_program
from flows.cli import app

SCRIPTS = sorted((CHECKOUT / "deploy" / "slurm").glob("*.sbatch"))
JOB = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "8"}
ARGUMENTS = {"ingest": (), "train": ("factorized3d", "--set", "max_epochs=2")}
SIGNALS = {"ingest": "INT", "train": "TERM"}
# Bounded: a script that is wrong leaves it behind.
WORK = "for _ in {1..600}; do sleep 0.05; done"
STATUSES = {"ingest": 130, "train": 143}


@pytest.mark.parametrize("script", [*SCRIPTS, CHECKOUT / "deploy" / "entrypoint.sh"], ids=lambda path: path.name)
def test_the_linter_finds_nothing(script: Path) -> None:
    shell = "sh" if script.suffix == ".sh" else "bash"
    assert run_program(shell, "-n", script).returncode == 0
    done = run_program(find_program("shellcheck"), "--shell", shell, script)
    assert done.returncode == 0, done.stdout


def test_there_are_scripts() -> None:
    assert {script.stem for script in SCRIPTS} == {"ingest", "train"}


@pytest.mark.parametrize("name", ["ingest", "train"])
def test_the_job_asks_for_a_signal_and_a_requeue(name: str) -> None:
    options = re.findall(r"^#SBATCH (\S+)", (CHECKOUT / f"deploy/slurm/{name}.sbatch").read_text(), re.MULTILINE)
    # The log goes on as well.
    assert {"--requeue", "--open-mode=append", "--signal=B:TERM@120"} <= set(options)


class Job:
    """A job whose ``sensorium`` and ``scontrol`` are stand-ins that note what they are called with."""

    def __init__(self, name: str, folder: Path, sensorium: str, **environment: str) -> None:
        self.name, self.folder = name, folder
        (folder / "bin").mkdir()
        make_program(folder / "bin" / "sensorium", f'printf "%s\\n" "$*" > {folder}/called\n{sensorium}')
        make_program(folder / "bin" / "scontrol", f'printf "%s\\n" "$*" > {folder}/requeued')
        path = f"{folder}/bin:{os.environ['PATH']}"
        self.environment = {"PATH": path, "STORE": "my store", **JOB, **environment}

    def start(self) -> subprocess.Popen[bytes]:
        """Start the job, and wait until its command runs."""
        script = CHECKOUT / "deploy" / "slurm" / f"{self.name}.sbatch"
        with (self.folder / "log").open("w") as log:
            job = subprocess.Popen(
                ["bash", script, *ARGUMENTS[self.name]], env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        while not (self.folder / "ready").exists() and job.poll() is None:
            time.sleep(0.01)
        return job

    def finish(self) -> int:
        """Run the job to its end, and return its status."""
        return self.start().wait()

    @property
    def called(self) -> str:
        return (self.folder / "called").read_text().strip()

    @property
    def requeued(self) -> str:
        path = self.folder / "requeued"
        return path.read_text().strip() if path.exists() else ""


@pytest.mark.parametrize("name", ["ingest", "train"])
@pytest.mark.parametrize("status", [0, 2])
def test_the_job_ends_as_its_command_does(name: str, status: int, tmp_path: Path) -> None:
    job = Job(name, tmp_path, f"exit {status}")
    assert job.finish() == status
    assert job.requeued == ""


@pytest.mark.parametrize("name", ["ingest", "train"])
def test_a_job_whose_time_is_up_is_requeued_when_its_command_has_ended(name: str, tmp_path: Path) -> None:
    # It takes a while to save what it has.
    wait = f"trap 'sleep 0.3; touch {tmp_path}/saved; exit {STATUSES[name]}' {SIGNALS[name]}\n"
    job = Job(name, tmp_path, f"{wait}touch {tmp_path}/ready\n{WORK}")
    running = job.start()
    running.send_signal(signal.SIGTERM)
    running.wait()
    assert (tmp_path / "saved").exists()
    assert job.requeued == {"ingest": "requeue 7_1", "train": "requeue 7"}[name]


@pytest.mark.parametrize(("name", "status"), [("ingest", 0), ("train", 0), ("train", 2)])
def test_a_job_that_ends_otherwise_is_not_requeued(name: str, status: int, tmp_path: Path) -> None:
    wait = f"trap 'exit {status}' {SIGNALS[name]}\n"
    job = Job(name, tmp_path, f"{wait}touch {tmp_path}/ready\n{WORK}")
    running = job.start()
    running.send_signal(signal.SIGTERM)
    running.wait()
    assert (running.returncode, job.requeued) == (status, "")


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("ingest", {}, "ingest G --store my store --jobs 8"),
        ("ingest", {"SESSIONS": "A B", "SOURCE": "/a s3://b"}, "ingest B --store my store --jobs 8 --source /a s3://b"),
        ("train", {"RUNS": "r"}, "train factorized3d --set max_epochs=2 --store my store --runs r"),
    ],
)
def test_the_command_is_one_of_ours(name: str, environment: dict[str, str], expected: str, tmp_path: Path) -> None:
    job = Job(name, tmp_path, "exit 0", **environment)
    assert job.finish() == 0
    assert job.called == expected
    words = shlex.split(job.called.replace("my store", "'my store'"))
    command, _, ignored = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__name__ == name
    assert not ignored


@pytest.mark.parametrize("name", ["ingest", "train"])
def test_a_job_without_a_store_says_so(name: str, tmp_path: Path) -> None:
    job = Job(name, tmp_path, "exit 0")
    del job.environment["STORE"]
    running = job.start()
    assert running.wait() != 0
    assert "name the root of the session stores" in (tmp_path / "log").read_text()
