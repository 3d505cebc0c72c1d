"""Submissions that are written to a URL."""

from __future__ import annotations

import fsspec
import pytest

from fixtures.submissions import Predicted
from sensorium_data.errors import StoreError, SubmissionError, UsageError
from sensorium_data.files import RemoteObjects
from sensorium_data.submission import verify_submission, write_submission

URL = "memory://lab/submission"


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Predictions, and ``other`` ones that lack a frame more."""
    made = Predicted(tmp_path_factory.mktemp("predicted"))
    made.write("other", first=17)
    return made


@pytest.fixture
def memory():
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    return file_system


def contents(file_system):
    return {path.rpartition("/")[2]: file_system.cat_file(path) for path in file_system.find("/lab/submission")}


def test_the_same_files_as_in_a_folder_and_only_once(memory, predicted, tmp_path):
    here = write_submission(predicted.path, predicted.opened, track="bonus", out=str(tmp_path / "here"))
    there = write_submission(predicted.path, predicted.opened, track="bonus", out=URL)
    assert (here.status, there.status) == ("written", "written")
    assert contents(memory) == {
        path.name: path.read_bytes() for path in (tmp_path / "here").iterdir() if path.is_file()
    }
    assert [file.path for file in there.files] == [
        f"{URL}/submission_bonus_live.zip",
        f"{URL}/submission_bonus_final.zip",
    ]
    assert there.card == f"{URL}/submission_bonus.md"
    before = {path: memory.modified(path) for path in memory.find("/lab")}
    assert write_submission(predicted.path, predicted.opened, track="bonus", out=URL).status == "already done"
    assert {path: memory.modified(path) for path in memory.find("/lab")} == before


def write_main(predicted):
    return write_submission(predicted.path, predicted.opened, track="main", out=URL)


@pytest.mark.parametrize("killed_at", [".zip", pytest.param(".md", marks=pytest.mark.slow), ".sha256"])
def test_what_a_killed_writer_left_is_written_again(memory, predicted, monkeypatch, killed_at):
    other = str(predicted.root / "other")
    write_submission(other, predicted.opened, track="main", out=URL)
    put = RemoteObjects._put

    def fail(self, key, send):
        if key.endswith(killed_at):
            raise KeyboardInterrupt
        return put(self, key, send)

    with monkeypatch.context() as killed:
        killed.setattr(RemoteObjects, "_put", fail)
        with pytest.raises(KeyboardInterrupt):
            write_main(predicted)
    assert write_main(predicted).status == "written"
    left = contents(memory)
    assert verify_submission(URL).passed
    assert write_main(predicted).status == "already done"
    memory.store.clear()
    write_main(predicted)
    fresh = contents(memory)
    assert {name: left[name] for name in left if name.endswith(".zip")} == {
        name: fresh[name] for name in fresh if name.endswith(".zip")
    }


@pytest.mark.parametrize("name", ["submission_main.zip", "submission_main.json", "submission_main.md"])
@pytest.mark.parametrize("change", ["edited", pytest.param("another", marks=pytest.mark.slow)])
def test_files_that_were_not_written_there_or_changed_since_are_left_alone(memory, predicted, name, change):
    write_main(predicted)
    sound = contents(memory)[name]
    # Of the same size: a server says nothing else of an object.
    data = bytes([sound[0], sound[1] ^ 1]) + sound[2:] if change == "edited" else b"mine".ljust(len(sound))
    memory.pipe_file(f"/lab/submission/{name}", data)
    before = contents(memory)
    if not name.endswith(".json"):
        assert [problem.partition(":")[0] for problem in verify_submission(URL).problems] == [name]
    for predictions in (predicted.path, str(predicted.root / "other")):
        with pytest.raises(SubmissionError, match=rf"{URL}/{name}: .*; move it"):
            write_submission(predictions, predicted.opened, track="main", out=URL)
    assert contents(memory) == before


def test_nothing_is_written_into_a_run_or_predictions(memory, predicted):
    memory.pipe_file("/lab/ledger.json", b"{}")
    with pytest.raises(UsageError, match="memory://lab, which has a list of what belongs to it"):
        write_main(predicted)
    assert contents(memory) == {}


@pytest.mark.parametrize("n_damages", [1, 3])
def test_bytes_that_arrive_damaged_are_sent_again(memory, predicted, monkeypatch, n_damages):
    upload, damaged = RemoteObjects.upload, []

    def damage(self, path, key):
        upload(self, path, key)
        if key.endswith(".zip") and len(damaged) < n_damages:
            damaged.append(key)
            full = self.locate(key).removeprefix("memory:/")
            memory.pipe_file(full, memory.cat_file(full)[::-1])

    monkeypatch.setattr(RemoteObjects, "upload", damage)
    if n_damages == 3:
        with pytest.raises(StoreError, match=r"submission_main\.zip: other bytes arrive than were sent: found so 3"):
            write_main(predicted)
        assert "submission_main.zip" not in contents(memory)
    assert write_main(predicted).status == "written"
    assert verify_submission(URL).passed
