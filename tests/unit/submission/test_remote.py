"""Submissions that are written to a URL."""

from __future__ import annotations

import fsspec
import pytest

from fixtures.submissions import Predicted
from sensorium_data.errors import SensoriumError, StoreError
from sensorium_data.files import RemoteObjects
from sensorium_data.submission import write_submission

URL = "memory://lab/submission"


@pytest.fixture
def memory():
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    return file_system


def contents(file_system):
    return {path.rpartition("/")[2]: file_system.cat_file(path) for path in file_system.find("/lab/submission")}


def test_the_same_files_as_in_a_folder_and_only_once(memory, tmp_path):
    predicted = Predicted(tmp_path)
    here = write_submission(predicted.path, predicted.store, track="bonus", out=str(tmp_path / "here"))
    there = write_submission(predicted.path, predicted.store, track="bonus", out=URL)
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
    assert write_submission(predicted.path, predicted.store, track="bonus", out=URL).status == "already done"
    assert {path: memory.modified(path) for path in memory.find("/lab")} == before


def test_what_was_not_sent_whole_is_written_again(memory, tmp_path, monkeypatch):
    predicted = Predicted(tmp_path)
    write_submission(predicted.path, predicted.store, track="main", out=URL)
    expected = contents(memory)
    memory.pipe_file("/lab/submission/submission_main.zip", b"short")
    upload = RemoteObjects.upload

    def fail(self, path, key):
        if key.endswith(".json"):
            raise StoreError("cannot be written", path=self.locate(key), found="no route to host")
        upload(self, path, key)

    with monkeypatch.context() as broken:
        broken.setattr(RemoteObjects, "upload", fail)
        with pytest.raises(SensoriumError, match="no route to host"):
            write_submission(predicted.path, predicted.store, track="main", out=URL)
    assert "submission_main.json" not in contents(memory)
    assert write_submission(predicted.path, predicted.store, track="main", out=URL).status == "written"
    assert contents(memory) == expected
