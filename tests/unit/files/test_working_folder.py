from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from sensorium_data.files import LocalObjects, Objects, WorkingFolder, open_objects

WORK = WorkingFolder(
    marker="begun.json",
    is_marker=lambda data: data == b"work",
    makes=lambda key: re.fullmatch(r"begun\.json|parts/c(/[0-9]+)*", key) is not None,
)
HEX = "0" * 32


@pytest.fixture(params=["local", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "local":
        return open_objects(tmp_path / "work")
    fsspec.filesystem("memory").store.clear()
    return open_objects("memory://lab/work")


def write(objects: Objects, *keys: str) -> None:
    for key in keys:
        objects.write(key, b"work" if key == WORK.marker else b"")


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ((), ""),
        (("begun.json", "parts/c/0", "notes.txt"), ""),
        ((f".begun.json.{HEX}.tmp",), ""),
        (("parts/c/0",), "parts"),
        (("notes.txt",), "notes.txt"),
        ((f".notes.txt.{HEX}.tmp",), ".notes.txt"),
        (("a", "b", "c", "d", "e"), "a, b, c and 2 more, without a begun.json that this software wrote"),
    ],
)
def test_work_begins_where_nothing_is_and_goes_on_where_it_began(
    objects: Objects, keys: tuple[str, ...], found: str
) -> None:
    write(objects, *keys)
    assert WORK.find_obstacle(objects).startswith(found)
    assert bool(WORK.find_obstacle(objects)) is bool(found)


def test_a_marker_is_what_the_work_wrote(objects: Objects) -> None:
    assert not WORK.bears_marker(objects)
    objects.write("begun.json", b"mine")
    assert not WORK.bears_marker(objects)
    assert "begun.json, without" in WORK.find_obstacle(objects)
    objects.write("begun.json", b"work")
    assert WORK.bears_marker(objects)


def test_what_the_work_did_not_make_stays(objects: Objects) -> None:
    own = ("begun.json", "parts/c/0", "parts/c/1/2", f"parts/c/.0.{HEX}.tmp")
    others = ("notes.txt", "parts/notes.txt", f"parts/c/.notes.{HEX}.tmp", ".begun.json.tmp", "parts/c/0.tmp")
    write(objects, *own, *others)
    assert set(WORK.list_foreign(objects)) == set(others)
    told = ".begun.json.tmp, notes.txt, parts/c/.notes."
    assert WORK.describe_foreign(objects).startswith(f"it holds {told}")
    assert WORK.describe_foreign(objects, within="begun") == ""
    WORK.delete_own(objects)
    assert set(objects.keys() or ()) == set(others)


def test_all_of_it_is_discarded_where_nothing_else_is(objects: Objects) -> None:
    write(objects, "begun.json", "parts/c/0", "parts/c/1/2")
    WORK.discard(objects)
    assert not objects.keys()
    assert not isinstance(objects, LocalObjects) or not objects.root.exists()


def test_the_marker_goes_last(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    write(objects, "begun.json", "parts/c/0")

    def fail(self: Objects, keys: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(objects), "delete_keys", fail)
    with pytest.raises(KeyboardInterrupt):
        WORK.delete_own(objects)
    assert WORK.bears_marker(objects)
    monkeypatch.undo()
    WORK.delete_own(objects)
    assert not objects.keys()


def test_folders_of_somebody_else_are_not_discarded(tmp_path: Path) -> None:
    (tmp_path / "work" / "parts" / "c").mkdir(parents=True)
    WORK.discard(LocalObjects(tmp_path / "work"))
    assert (tmp_path / "work" / "parts" / "c").is_dir()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_in_the_way(tmp_path: Path, kind: str) -> None:
    work, path = LocalObjects(tmp_path), tmp_path / "parts" / "c" / "0"
    write(work, "begun.json", "parts/c/1/2")
    if kind == "link":
        path.symlink_to("1")
    else:
        os.mkfifo(path)
    assert WORK.find_obstacle(work) == f"parts/c/0: a {'link' if kind == 'link' else 'named pipe'}, not a file"
    WORK.delete_own(work)
    assert os.path.lexists(path)


@pytest.mark.parametrize(
    ("key", "kind", "found"),
    [
        ("parts", "file", "parts: a file, not a folder"),
        ("parts", "link", "parts: a link, not a folder"),
        ("parts", "folder", ""),
        ("table.json", "folder", "table.json: a folder, not a file"),
        ("parts/c/0", "folder", ""),
        ("notes", "file", ""),
    ],
)
def test_files_and_folders_have_their_names_alone(tmp_path: Path, key: str, kind: str, found: str) -> None:
    work = replace(
        WORK,
        makes=lambda key: WORK.makes(key) or key == "table.json",
        folders=frozenset({"parts"}),
        holds_no_folders=lambda key: key == "table.json",
    )
    write(LocalObjects(tmp_path), "begun.json")
    path = tmp_path / key
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "file":
            path.write_text("mine")
        case "link":
            path.symlink_to("elsewhere")
        case "folder":
            path.mkdir()
    assert work.find_obstacle(LocalObjects(tmp_path)) == found
