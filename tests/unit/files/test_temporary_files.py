from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensorium_data.files import delete_temporaries, replace_whole, temporary_of, temporary_path


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with replace_whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary_of(temporary.name) == "notes.txt"
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"notes.txt": "new"}


@pytest.mark.parametrize("has_begun", [False, True])
def test_what_is_raised_leaves_nothing_but_the_old_file(tmp_path: Path, has_begun: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def fail() -> None:
        with replace_whole(path) as temporary:
            if has_begun:
                temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"notes.txt": "old"}


def test_no_two_have_the_same_name() -> None:
    assert len({temporary_path(Path("notes.txt")) for _ in range(1000)}) == 1000


def test_only_temporary_files_of_the_files_that_are_meant_are_deleted(tmp_path: Path) -> None:
    ours = temporary_path(tmp_path / "notes.txt")
    others = [
        temporary_path(tmp_path / "thesis.txt"),
        *(tmp_path / name for name in ("notes.txt", ".notes.txt.tmp", f".notes.txt.{'0' * 31}.tmp")),
        tmp_path / f".notes.txt.{'G' * 32}.tmp",
        ours.with_name(f"{ours.name}.backup"),
    ]
    for path in (ours, *others):
        path.write_text("mine")
    folder, link = temporary_path(tmp_path / "notes.txt"), temporary_path(tmp_path / "notes.txt")
    folder.mkdir()
    link.symlink_to(tmp_path / "notes.txt")
    delete_temporaries(tmp_path, {"notes.txt"}.__contains__)
    assert set(tmp_path.iterdir()) == {*others, folder, link}
    delete_temporaries(tmp_path / "nowhere", {"notes.txt"}.__contains__)
    assert os.readlink(link) == str(tmp_path / "notes.txt")
