"""What is no file lies in the place of one: in a store, predictions, a run, a submission."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.changed_stores import A, F
from fixtures.command_line import run_command
from fixtures.predicted_sessions import PredictedSessions
from fixtures.stores import read_files
from sensorium_data.files import LocalObjects, write_object
from sensorium_data.store import LEDGER_KEY, ObjectLedger
from sensorium_data.submission import write_submission


@pytest.fixture(scope="module")
def kept(predicted: PredictedSessions, sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind that is verified."""
    root = tmp_path_factory.mktemp("kept")
    write_submission(str(predicted.root / "sound"), predicted.store, track="bonus", out=str(root / "submission"))
    run = LocalObjects(root / "run")
    files = {name: write_object(run, name, b"{}") for name in ("model.json", "data.json", "model.safetensors")}
    run.write(LEDGER_KEY, ObjectLedger(files).write("run"))
    return {"store": sound, "predictions": predicted.root / "sound", "run": run.root, "submission": root / "submission"}


@contextlib.contextmanager
def put_in_the_place_of(path: Path, kind: str, elsewhere: Path) -> Iterator[None]:
    if kind == "an unreadable file":
        open_file = os.open

        def refuse(name: str | os.PathLike[str], *arguments: Any, **options: Any) -> int:
            if os.fspath(name) == str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return open_file(name, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", refuse)
            yield
        return
    path.rename(elsewhere)
    match kind:
        case "a link that leads to itself":
            path.symlink_to(path.name)
        case "a link that leads to nothing":
            path.symlink_to("nothing")
        case "a link leads out":
            path.symlink_to(elsewhere)
        case "a folder":
            path.mkdir()
        case "a named pipe":
            os.mkfifo(path)
    yield
    (path.rmdir if kind == "a folder" else path.unlink)()
    elsewhere.rename(path)


KINDS = {
    "a link that leads to itself": "found a link that leads to itself, not a file",
    "a link that leads to nothing": "found a link that leads to nothing, not a file",
    "a link leads out": "a link leads out of the folder",
    "a folder": "found a folder, not a file",
    "a named pipe": "found a named pipe, not a file",
    "an unreadable file": "found Permission denied",
}


PLACES = (
    *(("store", name) for name in ("versions.json", "zarr.json", "movies.json", f"{A.name}/ledger.json")),
    *(("predictions", name) for name in ("zarr.json", "ledger.json", f"{F.name}/trial/c/0")),
    *(("run", name) for name in ("ledger.json", "model.json", "data.json")),
    *(("submission", f"submission_bonus{name}") for name in (".json", ".sha256", ".md", "_live.zip")),
)
ONE_KIND, *OTHER_KINDS = KINDS


@pytest.mark.parametrize(
    ("what", "name", "kinds"),
    [
        *((*place, [ONE_KIND]) for place in PLACES),
        (*PLACES[0], OTHER_KINDS),
        *(pytest.param(*place, OTHER_KINDS, marks=pytest.mark.slow) for place in PLACES[1:]),
    ],
)
def test_what_is_no_file_in_the_place_of_one_is_damage(
    what: str,
    name: str,
    kinds: list[str],
    kept: dict[str, Path],
    predicted: PredictedSessions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = shutil.copytree(kept[what], tmp_path / what)
    store, submit = ("--store", predicted.store), ("submit", kept["predictions"], "--track", "bonus")
    # A run is read with torch alone; the tests of models do it.
    readers: dict[str, tuple[object, ...]] = {
        "store": ("inspect", place),
        "predictions": ("submit", place, *store, "--track", "bonus", "--out", tmp_path / "out"),
        "submission": (*submit, *store, "--out", place),
    }
    for kind in kinds:
        words = KINDS[kind]
        with put_in_the_place_of(place / name, kind, tmp_path / "elsewhere"):
            verified = run_command(capsys, "verify", place)
            assert (verified.status, verified.err.count(words)) == (1, 1), verified.err
            (line,) = (line for line in verified.err.splitlines() if words in line)
            assert name in line
            if what in readers and kind != "an unreadable file":
                run_command(capsys, *readers[what]).assert_refused(name)
    assert read_files(place) == read_files(kept[what])
