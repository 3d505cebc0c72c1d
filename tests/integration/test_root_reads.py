"""How often a step reads a store's root: what is there, which version counts and which movies are shared."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures.command_line import Outcome
from fixtures.tiny_training import tiny_config
from models.training import train
from models.training.batches import TrainingBatches
from sensorium_data.ingest import convert_session
from sensorium_data.movies import link_movies
from sensorium_data.sessions import find_sessions
from sensorium_data.simulation import simulate
from sensorium_data.testing.server import serve_directory

ROOT_OBJECTS = ("zarr.json", "versions.json", "movies.json")
Command = Callable[..., Outcome]

_opened: list[str] | None = None


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | Path):
        _opened.append(str(arguments[0]))


@contextmanager
def counting_files(root: Path) -> Iterator[Counter[str]]:
    """Count how often each of the root's objects is opened, by whatever code of this process."""
    global _opened
    counts: Counter[str] = Counter()
    _opened = []
    try:
        yield counts
    finally:
        opened, _opened = _opened, None
        counts.update(name for path in opened for name in ROOT_OBJECTS if path == str(root / name))


@pytest.fixture(scope="module", autouse=True)
def _listening() -> None:
    sys.addaudithook(_note_opened)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of two sessions, their store, a run, and predictions of everything."""
    root = tmp_path_factory.mktemp("world")
    sessions = find_sessions(("F", "G"))
    simulate(root / "archives", sessions=sessions, n_trials=12, n_neurons=4, seed=5)
    for session in sessions:
        convert_session(session, str(root / "store"), source=str(root / "archives"))
    link_movies(str(root / "store"))
    (root / "run").symlink_to(train(tiny_config(max_epochs=1), str(root / "store"), None, root / "runs").run)
    return root


@pytest.fixture(scope="module")
def predictions(world: Path) -> Path:
    from models.prediction import predict

    tiers = ["oracle", "live_test_main", "final_test_main"]
    predict([str(world / "run")], str(world / "store"), tiers, str(world / "predictions"))
    return world / "predictions"


def commands(world: Path, store: str, out: Path) -> dict[str, tuple[object, ...]]:
    """Each step's command line, with a store at a path or URL."""
    made = world / "predictions"
    picture, truth = out / "picture.png", world / "archives" / "truth"
    return {
        "inspect": ("inspect", store),
        "inspect session": ("inspect", store, "F"),
        "inspect report": ("inspect", store, "--report", out / "report.html"),
        "verify": ("verify", store),
        "predict": ("predict", world / "run", "--store", store, "--tier", "oracle", "--out", out / "predictions"),
        "score": ("score", made, "--store", store, "--truth", truth, "--picture", picture, "--resamples", "100"),
        "submit": ("submit", made, "--store", store, "--track", "main", "--out", out / "submission"),
    }


STEPS = ("inspect", "inspect session", "inspect report", "verify", "predict", "score", "submit")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("predictions")
def test_a_step_reads_each_object_of_a_local_root_at_most_once(
    sensorium: Command, world: Path, tmp_path: Path, step: str
) -> None:
    with counting_files(world / "store") as counts:
        done = sensorium(*commands(world, str(world / "store"), tmp_path)[step])
    assert done.status == 0, done.err
    # Checking and predicting need the versions; who does not ask which movies are shared does not read that.
    assert counts["versions.json"] == 1, counts
    assert max(counts.values()) == 1, counts


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("predictions")
def test_a_step_reads_each_object_of_a_root_over_http_at_most_once(
    sensorium: Command, world: Path, tmp_path: Path, step: str
) -> None:
    with serve_directory(world / "store") as server:
        done = sensorium(*commands(world, server.url, tmp_path)[step])
        assert done.status == 0, done.err
        paths = Counter(urlsplit(request.path).path.lstrip("/") for request in server.requests)
    counts = {name: paths[name] for name in ROOT_OBJECTS}
    # Nobody can list a folder over HTTP, so the root's metadata are read in any case.
    assert counts["zarr.json"] == 1, counts
    assert max(counts.values()) <= 1, counts


def test_ingest_of_finished_work_reads_each_object_of_the_root_at_most_once(sensorium: Command, world: Path) -> None:
    store = world / "store"
    with counting_files(store) as counts:
        done = sensorium("ingest", "F", "G", "--store", store, "--source", world / "archives")
    assert done.status == 0, done.err
    assert done.out.count("already done") == 2
    assert counts == dict.fromkeys(ROOT_OBJECTS, 1)


@pytest.mark.parametrize("remote", [False, True])
def test_training_reads_each_object_of_the_root_at_most_once_before_its_first_batch(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    class FirstBatchError(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise FirstBatchError

    monkeypatch.setattr(TrainingBatches, "iter_batches", stop)
    with serve_directory(world / "store") as server, counting_files(world / "store") as counts:
        with pytest.raises(FirstBatchError):
            train(tiny_config(seed=9), server.url if remote else str(world / "store"), None, tmp_path)
        if remote:
            paths = [urlsplit(request.path).path.lstrip("/") for request in server.requests]
            assert {name: paths.count(name) for name in ROOT_OBJECTS} == dict.fromkeys(ROOT_OBJECTS, 1)
    if not remote:
        assert counts["movies.json"] == 1
        assert max(counts.values()) <= 1, counts
