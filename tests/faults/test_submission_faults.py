from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures.session_stores import TrialFacts, write_session_store
from sensorium_data.predictions import from_arrays
from sensorium_data.submission import write_submission

TRIALS = tuple(TrialFacts(i, "live_test_main" if i < 4 else "final_test_main", 60 + i) for i in range(6))

# Six rows are written and six are checked.
KILL = """
import os, sys
from sensorium_data.submission import write_submission
predictions, store, out, step = sys.argv[1:]
n_steps = 0
def progress(label, n_done, n_total):
    global n_steps
    n_steps += 1
    if n_steps == int(step):
        os.kill(os.getpid(), 9)
write_submission(predictions, store, track="main", out=out, progress=progress)
"""


@pytest.mark.parametrize("step", [2, 11])
def test_killed_writer_leaves_no_named_zip_and_a_rerun_writes_the_same_bytes(tmp_path: Path, step: int) -> None:
    store, predictions = str(tmp_path / "store"), str(tmp_path / "predictions")
    write_session_store(tmp_path / "store", "F", TRIALS, n_neurons=3)
    rng = np.random.default_rng(0)
    arrays = {"F": {facts.trial: rng.random((3, facts.n_frames)) for facts in TRIALS}}
    from_arrays(predictions, store, arrays, response_units="standardized")
    whole = write_submission(predictions, store, track="main", out=str(tmp_path / "whole"))
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILL, predictions, store, str(out), str(step)], check=False)
    assert killed.returncode == -9
    assert not list(out.glob("*.zip"))
    assert not list(out.glob("*.json"))
    report = write_submission(predictions, store, track="main", out=str(out))
    assert report.status == "written"
    assert report.files[0].sha256 == whole.files[0].sha256
    assert sorted(path.name for path in out.iterdir()) == [
        "submission_main.json",
        "submission_main.md",
        "submission_main.zip",
    ]


def test_two_writers_of_one_submission_do_not_disturb_each_other(tmp_path: Path) -> None:
    store, predictions = str(tmp_path / "store"), str(tmp_path / "predictions")
    write_session_store(tmp_path / "store", "F", TRIALS, n_neurons=3)
    arrays = {"F": {facts.trial: np.zeros((3, facts.n_frames)) for facts in TRIALS}}
    from_arrays(predictions, store, arrays, response_units="standardized")
    code = (
        "import sys; from sensorium_data.submission import write_submission\n"
        "print(write_submission(*sys.argv[1:3], track='main', out=sys.argv[3]).status)"
    )
    command = [sys.executable, "-c", code, predictions, store, str(tmp_path / "out")]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    statuses = sorted(writer.communicate(timeout=120)[0].strip() for writer in writers)
    assert statuses == ["already done", "written"]
