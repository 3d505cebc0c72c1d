from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures.places import TESTS
from fixtures.session_stores import TrialFacts, write_session_store
from sensorium_data.errors import SensoriumError
from sensorium_data.predictions import from_arrays
from sensorium_data.submission import write_submission
from sensorium_data.testing.disk import FailFrom, faulty_disk

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


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 11])
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
        "submission_main.sha256",
        "submission_main.zip",
    ]


def test_two_writers_of_one_submission_do_not_disturb_each_other(tmp_path: Path) -> None:
    store, predictions = str(tmp_path / "store"), str(tmp_path / "predictions")
    write_session_store(tmp_path / "store", "F", TRIALS, n_neurons=3)
    arrays = {"F": {facts.trial: np.zeros((3, facts.n_frames)) for facts in TRIALS}}
    from_arrays(predictions, store, arrays, response_units="standardized")
    code = (
        "import sys; from sensorium_data.submission.write import write_submission\n"
        "print(write_submission(*sys.argv[1:3], track='main', out=sys.argv[3]).status)"
    )
    command = [sys.executable, "-c", code, predictions, store, str(tmp_path / "out")]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    statuses = sorted(writer.communicate(timeout=120)[0].strip() for writer in writers)
    assert statuses == ["already done", "written"]


@pytest.fixture(scope="module")
def bonus(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Predictions of both bonus tiers, and the session store."""
    root = tmp_path_factory.mktemp("bonus")
    tiers = ["live_test_bonus", "final_test_bonus"] * 3
    trials = tuple(TrialFacts(i, tier, 60 + i) for i, tier in enumerate(tiers))
    write_session_store(root / "store", "F", trials, n_neurons=20)
    rng = np.random.default_rng(0)
    arrays = {"F": {facts.trial: rng.random((20, facts.n_frames)) for facts in trials}}
    from_arrays(str(root / "p"), str(root / "store"), arrays, response_units="standardized")
    return str(root / "p"), str(root / "store")


BONUS_FILES = [
    "submission_bonus.json",
    "submission_bonus.md",
    "submission_bonus.sha256",
    "submission_bonus_final.zip",
    "submission_bonus_live.zip",
]


@pytest.mark.slow  # every step of writing is a crash point
def test_killed_at_any_step_no_zip_is_half_made(bonus: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fixtures.submission_crashes", *bonus, str(tmp_path)]
    done = subprocess.run(command, cwd=TESTS, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout)
    assert len(result["whole"]) == 2
    # Each zip is brought to the disk and named, then the record and the card are written and named.
    assert len(result["outcomes"]) >= 8
    for outcome in result["outcomes"]:
        assert outcome["crashed"].items() <= result["whole"].items()
        assert outcome["again"] == result["whole"]
        assert outcome["names"] == BONUS_FILES
    # The crash points lie around the naming too: some left no zip, some one, some both.
    assert {len(outcome["crashed"]) for outcome in result["outcomes"]} == {0, 1, 2}


@pytest.mark.parametrize(
    ("code", "stride"),
    [(errno.ENOSPC, 3), *(pytest.param(code, 1, marks=pytest.mark.slow) for code in (errno.ENOSPC, errno.EROFS))],
)
def test_disk_that_fails_at_any_step_leaves_nothing_half_made(
    bonus: tuple[str, str], tmp_path: Path, code: int, stride: int
) -> None:
    operations = ("write", "fsync", "replace", "rename", "mkdir")
    whole = write_submission(*bonus, track="bonus", out=str(tmp_path / "whole"))
    digests = {Path(file.path).name: file.sha256 for file in whole.files}
    with faulty_disk(operations=operations) as counter:
        write_submission(*bonus, track="bonus", out=str(tmp_path / "counted"))
    for step in range(0, counter.n_steps, stride):
        out = tmp_path / str(step)
        with (
            faulty_disk(FailFrom(step, code), operations=operations),
            pytest.raises(SensoriumError, match=os.strerror(code)),
        ):
            write_submission(*bonus, track="bonus", out=str(out))
        left = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.zip")}
        assert left.items() <= digests.items()
        assert not list(out.glob("*.partial"))
        assert [file.sha256 for file in write_submission(*bonus, track="bonus", out=str(out)).files] == list(
            digests.values()
        )


# The system's own limit on a file's size, which no code of ours can evade.
LIMITED = """
import resource, signal, sys
from sensorium_data.errors import SubmissionError
from sensorium_data.submission import write_submission
from sensorium_data.submission import repair_submission
predictions, store, out, whole, *sizes = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for size in map(int, sizes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for name, work in (
        ("submit", lambda to: write_submission(predictions, store, track="bonus", out=to)),
        ("repair", lambda to: repair_submission([whole], store, out=to)),
    ):
        try:
            work(f"{out}/{name}")
        except SubmissionError as error:
            print(error)
"""


def test_file_that_cannot_grow_is_named_and_removed(bonus: tuple[str, str], tmp_path: Path) -> None:
    whole = write_submission(*bonus, track="bonus", out=str(tmp_path / "whole")).files[0]
    sizes = [str(int(whole.size_bytes * share)) for share in (0.01, 0.3, 0.8, 0.99)]
    command = [sys.executable, "-c", LIMITED, *bonus, str(tmp_path), whole.path, *sizes]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(sizes), lines
    assert all("cannot be written: found File too large" in line for line in lines)
    for name in ("submit", "repair"):
        assert list((tmp_path / name).iterdir()) == []
