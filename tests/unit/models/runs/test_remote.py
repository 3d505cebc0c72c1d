"""Runs that are kept behind a URL: what one machine has trained or begun, another finds."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch

from fixtures.recorded_stores import record_session
from fixtures.starter_kit_files import SMALL, make_state, save_state
from fixtures.stores import read_files
from fixtures.tiny_training import tiny_config
from models.conversion import export_checkpoint, import_checkpoint
from models.prediction import predict
from models.runs import find_members, load_run
from models.runs.files import MODEL_FILE, REQUIRED_FILES
from models.runs.location import open_runs
from models.training import Variations, find_finished_run, train, train_ensemble
from sensorium_data.errors import RunError, StoreError, UnknownNameError
from sensorium_data.files import RemoteObjects
from sensorium_data.predictions import find_runs
from sensorium_data.testing import serve_directory

pytestmark = pytest.mark.usefixtures("no_curves")

URL = "memory://lab/runs"
CONFIG = {"checkpoint_every_steps": 1, "max_epochs": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    record_session(path, "F", n_by_tier={"train": 4, "oracle": 2, "live_test_main": 1})
    return str(path)


@pytest.fixture(autouse=True)
def memory(monkeypatch, tmp_path):
    """An empty object store, and a machine that has copied nothing yet."""
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    use_machine(monkeypatch, tmp_path / "first")
    return file_system


def use_machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Go on as a machine with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def run_here(store, tmp_path, **overrides):
    """The same run in a folder of this machine."""
    return train(tiny_config(**(CONFIG | overrides)), store, None, tmp_path / "here")


class StopError(Exception):
    """Training that was killed."""


def stop_after(n_epochs):
    def take(metrics):
        if metrics.epoch == n_epochs:
            raise StopError

    return take


def weights(run):
    return (load_run(run).path / "model.safetensors").read_bytes()


def keys(file_system, folder):
    return {path.rpartition("/")[2] for path in file_system.find(f"/lab/runs/{folder}")}


def test_a_run_is_there_for_other_machines(store, memory, monkeypatch, tmp_path):
    report = train(tiny_config(**CONFIG), store, None, URL)
    name = Path(report.run).name
    assert report.run == f"{URL}/{name}"
    assert set(REQUIRED_FILES) <= keys(memory, name)
    assert not memory.exists(f"/lab/runs/{name}.partial")
    use_machine(monkeypatch, tmp_path / "second")
    assert load_run(report.run).location == report.run
    assert weights(report.run) == weights(run_here(store, tmp_path).run)
    before = {path: memory.modified(path) for path in memory.find("/lab")}
    again = train(tiny_config(**CONFIG), store, None, URL)
    assert (again.status, again.run) == ("already done", report.run)
    found = find_finished_run(tiny_config(**CONFIG), store, None, URL)
    assert found is not None
    assert found.run == report.run
    assert {path: memory.modified(path) for path in memory.find("/lab")} == before
    predicted = predict([report.run], store, ["oracle"], str(tmp_path / "predictions"))
    assert predicted.runs == (report.run,)
    digest = load_run(report.run).digest
    assert find_runs(URL, [digest])[digest].path == report.run


@pytest.mark.parametrize("same_machine", [True, False])
def test_an_interrupted_run_goes_on(store, memory, monkeypatch, tmp_path, same_machine):
    with pytest.raises(StopError):
        train(tiny_config(**CONFIG), store, None, URL, on_epoch=stop_after(1))
    (folder,) = {path.split("/")[3] for path in memory.find("/lab/runs")}
    assert folder.endswith(".partial")
    with pytest.raises(RunError, match="unfinished"):
        load_run(f"{URL}/{folder.removesuffix('.partial')}")
    if not same_machine:
        use_machine(monkeypatch, tmp_path / "second")
    with pytest.raises(RunError, match=r"no unfinished run.*max_epochs 2, not 3"):
        train(tiny_config(**(CONFIG | {"max_epochs": 3})), store, None, URL, resume=True)
    report = train(tiny_config(**CONFIG), store, None, URL, resume=True)
    assert report.resumed_step > 0
    assert weights(report.run) == weights(run_here(store, tmp_path).run)
    assert not memory.exists(f"/lab/runs/{folder}")


def test_code_in_packages_of_packages_is_received(memory, tmp_path):
    content = {
        "config-given.json": b'{"preset": "own", "settings": {}, "model": "m:M"}',
        "code/lab/sub/helper.py": b"x = 1",
        "checkpoints/epoch-00001-step-000000004.json": b"{}",
    }
    for key, data in content.items():
        memory.pipe(f"/lab/runs/own-1.partial/{key}", data)
    runs = open_runs(URL)
    runs.receive_unfinished("own-1")
    copy = runs.path("own-1.partial")
    assert read_files(copy) == content
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("suffix", ["", ".partial"])
def test_files_of_somebody_else_under_the_runs_name_are_kept(store, memory, monkeypatch, tmp_path, suffix):
    report = train(tiny_config(**CONFIG), store, None, URL)
    name = report.run.rpartition("/")[2]
    memory.rm(f"/lab/runs/{name}", recursive=True)
    memory.pipe(f"/lab/runs/{name}{suffix}/config.json", b"years of work")
    memory.pipe(f"/lab/runs/{name}{suffix}/notes.txt", b"years of work")
    if suffix:
        # This machine has a copy of the finished run, and sends it.
        train(tiny_config(**CONFIG), store, None, URL)
        memory.rm(f"/lab/runs/{name}", recursive=True)
        use_machine(monkeypatch, tmp_path / "second")
    with pytest.raises(RunError, match=r"something else has the name of the run: found config.json, without a config"):
        train(tiny_config(**CONFIG), store, None, URL, restart=True)
    assert {*map(memory.cat_file, memory.find("/lab/runs"))} == {b"years of work"}
    memory.rm(f"/lab/runs/{name}{suffix}/config.json")
    train(tiny_config(**CONFIG), store, None, URL, restart=True)
    assert memory.cat_file(f"/lab/runs/{name}{suffix}/notes.txt") == b"years of work"


def test_the_machine_that_is_further_wins(store, memory, monkeypatch, tmp_path):
    with pytest.raises(StopError):
        train(tiny_config(**CONFIG), store, None, URL, on_epoch=stop_after(1))
    first = tmp_path / "first"
    use_machine(monkeypatch, tmp_path / "second")
    with pytest.raises(StopError):
        train(tiny_config(**CONFIG), store, None, URL, on_epoch=stop_after(2))
    records = [path for path in memory.find("/lab/runs") if "/checkpoints/" in path and path.endswith(".json")]
    n_steps = max(int(path.removesuffix(".json").rpartition("-")[2]) for path in records)
    use_machine(monkeypatch, first)
    report = train(tiny_config(**CONFIG), store, None, URL)
    assert report.resumed_step == n_steps
    assert [epoch.epoch for epoch in load_run(report.run).metrics()] == [1, 2]


def test_restarting_throws_away_what_was_sent(store, memory):
    with pytest.raises(StopError):
        train(tiny_config(**CONFIG), store, None, URL, on_epoch=stop_after(1))
    assert train(tiny_config(**CONFIG), store, None, URL, restart=True).resumed_step == 0


def test_a_checkpoint_that_cannot_be_sent_ends_no_training(store, monkeypatch):
    upload = RemoteObjects.upload

    def fail(self, path, key):
        if ".partial" in self.url:
            raise StoreError("cannot be written", path=self.locate(key), found="no route to host")
        upload(self, path, key)

    monkeypatch.setattr(RemoteObjects, "upload", fail)
    report = train(tiny_config(**CONFIG), store, None, URL)
    assert any("was not sent" in note and "no route to host" in note for note in report.notes)
    assert weights(report.run)


@pytest.mark.parametrize("failing", [MODEL_FILE, pytest.param("model.safetensors", marks=pytest.mark.slow)])
def test_a_run_that_could_not_be_sent_whole_is_none_and_is_sent_by_the_next(
    store, memory, monkeypatch, tmp_path, failing
):
    upload = RemoteObjects.upload

    def fail(self, path, key):
        if key == failing and ".partial" not in self.url:
            raise StoreError("cannot be written", path=self.locate(key), found="no route to host")
        upload(self, path, key)

    with monkeypatch.context() as broken:
        broken.setattr(RemoteObjects, "upload", fail)
        with pytest.raises(StoreError, match="no route to host"):
            train(tiny_config(**CONFIG), store, None, URL)
    (name,) = {path.split("/")[3].removesuffix(".partial") for path in memory.find("/lab/runs")}
    with pytest.raises(RunError):
        load_run(f"{URL}/{name}")
    assert find_finished_run(tiny_config(**CONFIG), store, None, URL) is None
    assert train(tiny_config(**CONFIG), store, None, URL).status == "already done"
    use_machine(monkeypatch, tmp_path / "second")
    assert weights(f"{URL}/{name}") == weights(run_here(store, tmp_path).run)


def test_a_run_is_read_from_a_web_server(store, tmp_path):
    report = run_here(store, tmp_path)
    name = Path(report.run).name
    with serve_directory(tmp_path / "here") as server:
        run = load_run(f"{server.url}/{name}")
        assert run.metrics() == load_run(report.run).metrics()
        assert weights(f"{server.url}/{name}") == weights(report.run)
        with pytest.raises(RunError, match="there is no run here"):
            load_run(f"{server.url}/nothing")
        (tmp_path / "here" / name / "data.json").unlink()
        (tmp_path / "here" / name / "model.json").write_text("{}")
        with pytest.raises(RunError, match=r"a file of the run is missing.*no data.json"):
            load_run(f"{server.url}/{name}")


def test_what_is_wrong_is_said(store, memory):
    with pytest.raises(RunError, match="there is no run here"):
        load_run(f"{URL}/nothing")
    memory.pipe_file("/lab/runs/odd/model.json", b"{}")
    with pytest.raises(RunError, match=r"lab/runs/odd: files of the run are missing.*no config.json"):
        load_run(f"{URL}/odd")
    memory.pipe_file("/lab/runs/evil/model.json", b"{}")
    memory.store["/lab/runs/evil/../../x"] = memory.store["/lab/runs/evil/model.json"]
    with pytest.raises(RunError, match="leads out of the run"):
        load_run(f"{URL}/evil")
    with pytest.raises(StoreError, match="URLs of this kind are not supported"):
        load_run("nosuch://lab/runs/x")


def test_a_checkpoint_that_was_imported_there_is_exported_elsewhere(memory, tmp_path, monkeypatch):
    store = tmp_path / "store"
    one = record_session(store, "F", n_by_tier={"train": 1})
    sizes = SMALL["gru-equivariant"]
    state = make_state(sizes, {"F": one.positions[:, :2]})
    # Rounded otherwise than here: the run keeps it beside the weights.
    state["core.features.layer0.hermite_conv.rotate_hermite.H"] *= 1 + 1e-7
    path = save_state(tmp_path / "final.pth", state)
    report = import_checkpoint("starter-kit", [path], str(store), f"{URL}/published")
    assert (report.run, report.status) == (f"{URL}/published", "imported")
    use_machine(monkeypatch, tmp_path / "second")
    again = import_checkpoint("starter-kit", [path], str(store), f"{URL}/published")
    assert again.status == "already done"
    use_machine(monkeypatch, tmp_path / "third")
    export_checkpoint(f"{URL}/published", "starter-kit", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_an_ensemble_that_was_trained_there_is_found_elsewhere(store, tmp_path, monkeypatch):
    config = tiny_config(max_epochs=1)
    report = train_ensemble(config, store, None, URL, Variations(n_seeds=2, first_seed=5), name="pair")
    assert report.record == f"{URL}/pair.ensemble.json"
    use_machine(monkeypatch, tmp_path / "second")
    members = find_members(URL, "pair")
    assert members == tuple(run.run for run in report.runs)
    assert [load_run(member).config.seed for member in members] == [5, 6]
    with pytest.raises(UnknownNameError, match="did you mean pair"):
        find_members(URL, "pear")
