"""Files that a step works in are made new: what has their name, a link or a named pipe, is not written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command_line import run_command
from fixtures.submissions import Predicted, submit
from sensorium_data.errors import SensoriumError
from sensorium_data.files import create_file, open_appending
from sensorium_data.files.part_file import open_part
from sensorium_data.sessions import find_session
from sensorium_data.simulation import simulate
from sensorium_data.submission import repair_submission


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    return Predicted(tmp_path_factory.mktemp("predicted"))


def repair(predicted: Predicted, out: Path) -> None:
    submit(predicted, out.parent / "sound")
    repair_submission([out.parent / "sound" / "submission_main.zip"], predicted.store, out=str(out))


def simulate_one(_predicted: Predicted, out: Path) -> None:
    simulate(out, sessions=[find_session("F")], n_trials=20, n_neurons=2)


STEPS: dict[str, tuple[Callable[[Predicted, Path], object], str]] = {
    "submit": (submit, "submission_main.zip.partial"),
    "validate --fix": (repair, "repair.partial"),
    "simulate": (simulate_one, f"{find_session('F').name}.zip.partial"),
}


@pytest.mark.parametrize(("step", "name"), STEPS.values(), ids=STEPS)
def test_a_link_in_the_place_of_a_working_file_is_not_written_through(
    step: Callable[[Predicted, Path], object], name: str, predicted: Predicted, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis"
    thesis.write_text("years of work")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(thesis)
    step(predicted, out)
    assert thesis.read_text() == "years of work"
    zips = list(out.glob("*.zip"))
    assert zips
    assert not any(path.is_symlink() for path in zips)


def test_a_named_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    with create_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("open_file", [open_appending, lambda path: open_part(path.with_suffix("")).__enter__()])
def test_what_is_continued_is_no_link(open_file: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "file.part").symlink_to(tmp_path / "thesis")
    with pytest.raises((OSError, SensoriumError), match="symbolic links"):
        open_file(tmp_path / "file.part")
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_a_store_that_a_submission_was_written_into_is_still_verified(
    predicted: Predicted, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(predicted, Path(predicted.store))
    chunk = next(path for path in Path(predicted.store).rglob("responses/c/*/0/0") if path.is_file())
    sound = chunk.read_bytes()
    chunk.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        assert "the digest of its bytes differs" in run_command(capsys, "verify", predicted.store).err
    finally:
        chunk.write_bytes(sound)
