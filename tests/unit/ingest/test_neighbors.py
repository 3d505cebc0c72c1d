"""Ingests that run on a machine at the same time share its cores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sensorium_data.ingest import SessionConverter, default_jobs, session_converter
from sensorium_data.ingest.neighbors import counted_ingests


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of a machine's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def lock_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_ingests_of_this_process_and_of_others_are_counted(folder: Path) -> None:
    program = "import sys; from sensorium_data.ingest.neighbors import counted_ingests\n"
    program += "with counted_ingests() as n: print(n, flush=True); sys.stdin.read()"
    with counted_ingests() as alone:
        assert alone == 1
        environment = os.environ | {"TMPDIR": str(folder)}
        command = [sys.executable, "-c", program]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "2\n"
            with counted_ingests() as together:
                assert together == 3
            other.kill()
        # What the killed one has left is seen as that.
        with counted_ingests() as without:
            assert without == 2
        assert len(lock_files(folder)) == 1
    assert lock_files(folder) == []


def test_those_on_other_cores_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_ingests():
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1001, 1002}, raising=False)
        with counted_ingests() as own:
            assert own == 1


@pytest.mark.parametrize("how", ["file", "link", "gone"])
def test_a_temporary_folder_that_cannot_be_used_is_no_obstacle(folder: Path, how: str) -> None:
    with counted_ingests():
        (made,) = folder.iterdir()
    made.rmdir()
    if how == "file":
        made.touch()
    elif how == "link":
        made.symlink_to(folder.parent)
    else:
        folder.rmdir()
    with counted_ingests() as alone:
        assert alone == 1
    assert sorted(folder.parent.iterdir()) == ([] if how == "gone" else [folder])


def test_each_gets_its_share_and_what_was_asked_for_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_converter, "count_cores", lambda: 12)
    monkeypatch.setattr(session_converter, "bound_jobs", lambda n_jobs: n_jobs)
    store, sources = str(tmp_path / "store"), [str(tmp_path)]
    with SessionConverter(store, sources=sources) as first, SessionConverter(store, sources=sources) as second:
        assert (first.jobs, second.jobs) == (12, 6)
        with SessionConverter(store, sources=sources, jobs=9) as third:
            assert third.jobs == 9
        with SessionConverter(store, sources=["https://gin"]) as fourth:
            assert fourth.jobs == 4
    assert default_jobs(sources, store, n_ingests=5) == 3
