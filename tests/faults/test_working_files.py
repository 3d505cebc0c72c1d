"""What somebody else has under a name that a step uses stays as it is: the step works beside it, or is refused."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.command_line import run_command
from fixtures.places import TESTS
from fixtures.submissions import Predicted, submit
from sensorium_data.errors import SensoriumError
from sensorium_data.files import LocalObjects, OutputFile, open_appending
from sensorium_data.files.part_file import open_part
from sensorium_data.predictions import create_predictions
from sensorium_data.sessions import find_session
from sensorium_data.simulation import simulate
from sensorium_data.submission import repair_submission

F = find_session("F").name
HEX = "0123456789abcdef" * 2
NOTES = OutputFile("the notes", (".txt",), lambda data: data == b"whole")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Predicted:
    predicted = Predicted(tmp_path_factory.mktemp("predicted"))
    submit(predicted, predicted.root / "sound")
    return predicted


def repair(predicted: Predicted, out: Path) -> None:
    repair_submission([predicted.root / "sound" / "submission_main.zip"], predicted.store, out=str(out))


def simulate_one(_predicted: Predicted, out: Path) -> None:
    simulate(out, sessions=[find_session("F")], n_trials=8, n_neurons=2)


def write_notes(_predicted: Predicted, out: Path) -> None:
    with NOTES.replace(out / "notes.txt") as path:
        path.write_bytes(b"whole")


def write_object(_predicted: Predicted, out: Path) -> None:
    LocalObjects(out).write("notes.txt", b"whole")
    LocalObjects(out).clear_unfinished("notes.txt")


def predict(predicted: Predicted, out: Path) -> None:
    with create_predictions(
        str(out / "p"), store=predicted.store, sessions=["F"], tiers=["oracle"], response_units="raw", identity="1"
    ) as writer:
        writer.write_trial("F", 7, predicted.value("F", 7)[:, :70], 0)


@dataclass(frozen=True)
class Step:
    """What writes files into a folder.

    Attributes
    ----------
    run : callable
        Does it.
    beside : sequence of str
        Names, relative to the folder, that look as if they were of unfinished work, or were so in earlier versions.
    refused : sequence of str
        Names that it cannot do without.
    """

    run: Callable[[Predicted, Path], object]
    beside: Sequence[str]
    refused: Sequence[str] = ()


def look_alikes(*names: str) -> tuple[str, ...]:
    return tuple(
        name.format(one)
        for one in names
        for name in (
            "{}.partial",
            "{}.tmp",
            ".{}.tmp",
            ".{}.backup.tmp",
            f".{{}}.{HEX[1:]}.tmp",
            ".{}.ab12cd_z.partial",
        )
    )


STEPS: dict[str, Step] = {
    "submit": Step(
        submit,
        look_alikes("submission_main.zip", "submission_main.json"),
        [f"submission_main.{ending}" for ending in ("zip", "json", "md", "sha256")] + [".partial/submission_main.lock"],
    ),
    "validate --fix": Step(
        repair,
        ("repair.partial", *look_alikes("submission_main.zip", "submission_fixed.json")),
        ["submission_main.zip", "submission_fixed.json", "submission_fixed.sha256", ".partial/repair.lock"],
    ),
    "simulate": Step(
        simulate_one,
        (f"{F}.zip.videos.partial", "truth/thesis", *look_alikes(f"{F}.zip", "simulation.json")),
        [f"{F}.zip", "simulation.json", f"truth/{F}", "truth/zarr.json", ".partial/simulation.lock"],
    ),
    "report": Step(write_notes, look_alikes("notes.txt"), ["notes.txt"]),
    "object": Step(write_object, look_alikes("notes.txt")),
    "predictions": Step(predict, ("p.partial.tmp",), ["p", "p.partial", "p.partial/zarr.json", f"p.partial/{F}"]),
}
# A row is checked in another process, and a trial takes long to invent.
SLOW_WRITERS = ("submit", "repair", "simulate")
KINDS = ("file", "folder", "link", "link to a folder")


def put(kind: str, path: Path, thesis: Path) -> None:
    """Put something of somebody else under a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("years of work")
    elif kind == "folder":
        path.mkdir()
        (path / "chapter").write_text("years of work")
    else:
        path.symlink_to(thesis if kind == "link" else thesis.parent)


def read_tree(root: Path) -> dict[str, object]:
    """Return what lies below a folder by its path: a file's bytes, where a link leads, None for a folder."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        key = path.relative_to(root).as_posix()
        found[key] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    path = tmp_path / "thesis" / "thesis.tex"
    path.parent.mkdir()
    path.write_text("years of work")
    return path


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_what_looks_unfinished_and_is_not_stays(step: Step, predicted: Predicted, thesis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, kind in zip(step.beside, itertools.cycle(KINDS), strict=False):
        put(kind, out / name, thesis)
    before = read_tree(out)
    step.run(predicted, out)
    after = read_tree(out)
    assert after.items() >= before.items()
    assert after.keys() > before.keys()
    assert read_tree(thesis.parent) == {"thesis.tex": b"years of work"}


# By default, each name that is refused meets one of the kinds.
CASES = [
    pytest.param(name, one, kind, id=f"{name}-{one}-{kind}", marks=[pytest.mark.slow] if (n + k) % 3 else [])
    for name, step in STEPS.items()
    for n, one in enumerate(step.refused)
    for k, kind in enumerate(KINDS[:3])
]


@pytest.mark.parametrize(("step", "name", "kind"), CASES)
def test_what_has_a_name_that_a_step_needs_stays_and_the_step_is_refused(
    step: str, name: str, kind: str, predicted: Predicted, thesis: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    put(kind, out / name, thesis)
    before = read_tree(out)
    with pytest.raises(SensoriumError):
        STEPS[step].run(predicted, out)
    assert read_tree(out) == before
    assert read_tree(thesis.parent) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_temporary_files_are_files(kind: str, predicted: Predicted, thesis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = {f".{name}.{HEX}.tmp" for name in ("submission_main.zip", "submission_main.json")}
    for name in names:
        put(kind, out / name, thesis)
    before = read_tree(out)
    submit(predicted, out)
    assert read_tree(out).items() >= before.items()


def test_a_named_pipe_in_the_place_of_a_part_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file.part")
    with pytest.raises(SensoriumError, match="a named pipe"), open_part(tmp_path / "file"):
        pass
    assert (tmp_path / "file.part").is_fifo()


@pytest.mark.parametrize("open_file", [open_appending, lambda path: open_part(path.with_suffix("")).__enter__()])
def test_what_is_continued_is_no_link(open_file: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "file.part").symlink_to(tmp_path / "thesis")
    with pytest.raises((OSError, SensoriumError), match="symbolic links"):
        open_file(tmp_path / "file.part")
    assert (tmp_path / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("writer", ["predict", *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW_WRITERS)])
def test_a_killed_writer_leaves_what_the_next_one_finishes_and_clears(
    writer: str, predicted: Predicted, tmp_path: Path
) -> None:
    """Killed before some of its steps, beside files of somebody else."""
    sound = predicted.root / "sound" / "submission_main.zip"
    arguments = [writer, predicted.path, predicted.store, str(sound), str(tmp_path)]
    command = [sys.executable, "-m", "fixtures.writer_crashes", *arguments]
    # Without threads of NumPy's and Arrow's: in a fork their locks could stay taken.
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    done = subprocess.run(command, cwd=TESTS, env=os.environ | alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["others"].items()) <= set(result["whole"].items())
    assert len(result["whole"]) > len(result["others"])
    assert len(result["after"]) >= 5
    for step, (crashed, after) in result["after"].items():
        assert after == result["whole"], step
        assert set(result["others"].items()) <= set(crashed.items())
    # Some had written something by then that was not yet whole.
    assert any(crashed.keys() - result["whole"].keys() for crashed, _ in result["after"].values())


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
