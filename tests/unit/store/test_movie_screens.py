"""The screens of sessions' movies, kept beside the sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorium_data.files import open_objects
from sensorium_data.store import MovieScreen, keep_screens_of, locate_screen
from sensorium_data.store.movie_screens import delete_damaged_screens, find_screen_problems

SCREEN = MovieScreen(
    session="mouse-1",
    ledger="aa",
    content="bb",
    digest="cc",
    largest_error=0.0625,
    movies=("1-1-1:0", "1-1-1:0", "1-1-1:2"),
    n_frames=np.array([4, 3, 0]),
    cells=np.array([[1, 2, 0], [3, 65535, 0], [5, 6, 0], [7, 0, 0]], np.uint16),
)


def read(root: Path, **expected: str) -> MovieScreen | None:
    return MovieScreen.read(open_objects(root), "mouse-1.v2", **{"session": "mouse-1", "ledger": "aa", **expected})


def test_a_screen_survives_its_file(tmp_path: Path) -> None:
    SCREEN.write(open_objects(tmp_path), "mouse-1.v2")
    assert [path.name for path in (tmp_path / "movies").iterdir()] == ["mouse-1.v2.screen"]
    found = read(tmp_path)
    assert found is not None
    for name, value in vars(SCREEN).items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert found.cells.dtype == np.uint16
    assert found.to_bytes() == SCREEN.to_bytes()


def test_a_screen_of_another_session_or_ledger_is_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    SCREEN.write(open_objects(tmp_path), "mouse-1.v2")
    assert read(tmp_path, ledger="ab") is None
    assert read(tmp_path, session="mouse-2") is None


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    data = SCREEN.to_bytes()
    for place in range(len(data)):
        for damaged in (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], data[:place]):
            with pytest.raises(ValueError, match=r"."):
                MovieScreen.from_bytes(damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"movies": ("a", "b")},
        {"n_frames": np.array([4, 3])},
        {"n_frames": np.array([5, 3, 0])},
        {"cells": np.zeros((4, 2), np.uint16)},
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="do not fit each other"):
        MovieScreen.from_bytes(replace(SCREEN, **change).to_bytes())


def test_another_versions_screen_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium_data.store.movie_screens._VERSION", 0)
    SCREEN.write(open_objects(tmp_path), "mouse-1.v2")
    monkeypatch.undo()
    assert read(tmp_path) is None


@pytest.mark.parametrize("url", ["{}", "memory://{}"])
def test_screens_of_replaced_groups_are_deleted_and_nothing_else(url: str, tmp_path: Path) -> None:
    objects = open_objects(url.format(tmp_path))
    for group in ("mouse-1", "mouse-1.v2"):
        SCREEN.write(objects, group)
    objects.write("movies/notes.txt", b"somebody's own")
    keep_screens_of(objects, {"mouse-1.v2", "mouse-2"})
    assert objects.child("movies").keys() == ["mouse-1.v2.screen", "notes.txt"]


def test_damaged_screens_are_named_and_deleted(tmp_path: Path) -> None:
    objects = open_objects(tmp_path)
    assert find_screen_problems(objects, {"mouse-1"}) == {}
    for group in ("mouse-1", "mouse-2"):
        SCREEN.write(objects, group)
    path = tmp_path / locate_screen("mouse-2")
    path.write_bytes(path.read_bytes()[:-1])
    assert find_screen_problems(objects, {"mouse-1"}) == {
        "movies/mouse-2.screen": "its bytes are not those that were written"
    }
    delete_damaged_screens(objects)
    assert objects.child("movies").keys() == ["mouse-1.screen"]
