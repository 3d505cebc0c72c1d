"""Checkpoints as runs, and runs as checkpoints: bit by bit there and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fixtures.recorded_stores import Recorded, record_session
from fixtures.starter_kit_files import SMALL, make_state, save_state
from fixtures.tiny_training import tiny_config
from models.conversion import export_checkpoint, import_checkpoint, load_checkpoint
from models.runs import load_run
from models.training import train
from sensorium_data.errors import RunError, SensoriumError, StoreError, UsageError
from sensorium_data.files import digest_file, open_objects
from sensorium_data.predictions import verify_run

SETTINGS = {"factorized3d-padded": {"pads_frames": "true"}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def recorded(store: Path) -> dict[str, Recorded]:
    return {alias: record_session(store, alias, n_by_tier={"train": 2, "oracle": 1}) for alias in "FG"}


@pytest.fixture(scope="module")
def positions(recorded: Mapping[str, Recorded]) -> dict[str, np.ndarray]:
    return {one.name: one.positions[:, :2] for one in recorded.values()}


@pytest.mark.parametrize("kind", SMALL)
def test_an_imported_checkpoint_is_exported_bit_by_bit(kind: str, store, positions, tmp_path: Path) -> None:
    state = make_state(SMALL[kind], positions)
    for name, value in state.items():
        if name.endswith("rotate_hermite.H"):
            # Another library may round otherwise.
            state[name] = torch.nextafter(value, torch.ones_like(value))
    path = save_state(tmp_path / "final.pth", state)
    report = import_checkpoint("starter-kit", [path], str(store), tmp_path / "run", settings=SETTINGS.get(kind))
    assert (report.status, report.sessions) == ("imported", tuple(positions))
    assert verify_run(report.run).problems == ()
    assert report.n_parameters == sum(p.numel() for p in load_run(report.run).model().parameters())
    back = tmp_path / "back.pth"
    assert export_checkpoint(report.run, "starter-kit", back).n_weights == len(state)
    found = torch.load(back, weights_only=True)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name
    assert export_checkpoint(report.run, "starter-kit", back).status == "already done"


def test_sessions_are_known_by_alias_scan_and_other_suffixes(store, positions, recorded, tmp_path: Path) -> None:
    f, g = positions.values()
    for number, keys in enumerate((("F", "G"), ("29515-10-12", "dynamic29623-4-9-Video-other"))):
        state = make_state(SMALL["factorized3d"], dict(zip(keys, (f, g), strict=True)))
        del state["core.temporal_regularizer.laplace.filter"]
        path = save_state(tmp_path / f"{number}.pth", {f"module.{name}": value for name, value in state.items()})
        report = import_checkpoint("starter-kit", [path], str(store), tmp_path / f"run{number}")
        assert report.sessions == tuple(positions)
        export_checkpoint(report.run, "starter-kit", tmp_path / f"back{number}.pth")
        # Called as they were, and without what the file lacked.
        assert torch.load(tmp_path / f"back{number}.pth").keys() == state.keys()


def test_the_run_says_what_it_was_imported_from(store, positions, tmp_path: Path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["full3d"], positions))
    run = load_run(import_checkpoint("starter-kit", [path], str(store), tmp_path / "run").run)
    imported = json.loads((run.path / "environment.json").read_text())["imported"]
    assert imported["format"] == "starter-kit"
    assert imported["files"] == [{"name": "final.pth", "size_bytes": path.stat().st_size, "sha256": digest_file(path)}]
    assert digest_file(path) in (run.path / "summary.md").read_text()
    assert (run.best_correlation, run.best_epoch, run.metrics()) == (None, 0, [])
    assert run.config.name == "full3d"
    assert run.config.model.channels == (2, 3)


def test_again_is_already_done_and_nothing_is_written_over(store, positions, tmp_path: Path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["static2d"], positions))
    out = tmp_path / "run"
    import_checkpoint("starter-kit", [path], str(store), out)
    before = digest_file(out / "ledger.json")
    assert import_checkpoint("starter-kit", [path], str(store), out).status == "already done"
    other = save_state(tmp_path / "other.pth", make_state(SMALL["static2d"], positions, seed=1))
    with pytest.raises(RunError, match="another run lies where this one would be"):
        import_checkpoint("starter-kit", [other], str(store), out)
    with pytest.raises(RunError, match="another run lies"):
        import_checkpoint("starter-kit", [path], str(store), out, settings={"n_frames_ignored": "0"})
    assert digest_file(out / "ledger.json") == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError, match="something else lies where the run would be"):
        import_checkpoint("starter-kit", [path], str(store), tmp_path / "mine")
    with pytest.raises(RunError, match="something else lies where the checkpoint would be"):
        export_checkpoint(out, "starter-kit", other)
    with pytest.raises(RunError, match="cannot be written: found No such file"):
        export_checkpoint(out, "starter-kit", tmp_path / "nowhere/back.pth")
    (out / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="not those that were saved"):
        import_checkpoint("starter-kit", [path], str(store), out)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_an_unfinished_training_is_left_alone(
    store, positions, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], positions))
    out = tmp_path / "runs/mine" if place == "local" else "memory://lab/runs/mine"
    kept = open_objects(f"{out}.partial")
    for key in ("config-given.json", "checkpoints/epoch-00001-step-000000004.json"):
        kept.write(key, b'{"preset": "factorized3d", "settings": {}}')
    with pytest.raises(RunError, match=r"mine\.partial: an unfinished training lies where the run would be made"):
        import_checkpoint("starter-kit", [path], str(store), out)
    assert len(kept.keys()) == 2
    kept.delete("checkpoints/epoch-00001-step-000000004.json")
    assert import_checkpoint("starter-kit", [path], str(store), out).status == "imported"
    if place == "memory":
        # Sent again by a machine that has it.
        fsspec.filesystem("memory").rm("/lab/runs/mine", recursive=True)
        assert import_checkpoint("starter-kit", [path], str(store), out).status == "already done"
        assert open_objects(out).exists("model.json")


def test_constants_are_the_runs_own(store, positions, tmp_path: Path) -> None:
    state = make_state(SMALL["gru-equivariant"], positions)
    rounded = "core.features.layer0.hermite_conv.rotate_hermite.H"
    state[rounded] = torch.nextafter(state[rounded], torch.ones_like(state[rounded]))
    path = save_state(tmp_path / "final.pth", state)
    run = Path(import_checkpoint("starter-kit", [path], str(store), tmp_path / "run").run)
    constants = run / "imported.safetensors"
    constants.write_bytes(constants.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"imported\.safetensors: the constants of the checkpoint were changed"):
        export_checkpoint(run, "starter-kit", tmp_path / "back.pth")
    constants.unlink()
    with pytest.raises(RunError, match="the constants of the checkpoint cannot be read"):
        export_checkpoint(run, "starter-kit", tmp_path / "back.pth")
    # Somebody else's, beside a run that has none.
    plain = save_state(tmp_path / "plain.pth", make_state(SMALL["factorized3d"], positions))
    other = Path(import_checkpoint("starter-kit", [plain], str(store), tmp_path / "other").run)
    save_file({"added": torch.zeros(1)}, other / "imported.safetensors")
    export_checkpoint(other, "starter-kit", tmp_path / "back.pth")
    assert "added" not in torch.load(tmp_path / "back.pth")


def test_names_that_mean_something_else_are_refused(store, positions, tmp_path: Path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], positions))
    (tmp_path / "gone").symlink_to("nowhere")
    for out, error, message in (
        (tmp_path / "run.partial", UsageError, r"found \.partial, with which the names of unfinished runs end"),
        (tmp_path / "run.ensemble.json", UsageError, r"found \.ensemble\.json, with which"),
        ("s3://", StoreError, "the URL names no place"),
        ("memory://bucket", RunError, "a run cannot be a whole bucket"),
        (tmp_path / "gone", RunError, "something else has the name of the run: found a link that leads to nothing"),
    ):
        with pytest.raises(error, match=message):
            import_checkpoint("starter-kit", [path], str(store), out)
    assert {entry.name for entry in tmp_path.iterdir()} == {"final.pth", "gone"}


def test_some_sessions_of_a_file_are_taken(store, positions, recorded, tmp_path: Path) -> None:
    f, g = positions.values()
    state = make_state(SMALL["factorized3d"], {"F": f, "dynamic1-2-3-Video-elsewhere": f[:2], "G": g})
    path = save_state(tmp_path / "final.pth", state)
    report = import_checkpoint("starter-kit", [path], str(store), tmp_path / "run", sessions=["G", "F"])
    assert report.sessions == tuple(positions)
    assert report.notes[-1] == "Sessions of the file that are left out: dynamic1-2-3-Video-elsewhere."
    export_checkpoint(report.run, "starter-kit", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth")
    assert back.keys() == {name for name in state if "elsewhere" not in name}
    assert all(torch.equal(value, state[name]) for name, value in back.items())
    with pytest.raises(RunError, match="the checkpoint lacks a session: found F, dynamic1"):
        import_checkpoint("starter-kit", [path], str(store), tmp_path / "other", sessions=["F", "H"])


OTHERS = {
    "a session that the store lacks": (
        lambda f, g: {"H": f},
        "no session of the checkpoint: found H, expected one of",
    ),
    "fewer neurons": (lambda f, g: {"F": f[:-1]}, r"found 5 neurons of F, expected the 6"),
    "another order": (lambda f, g: {"F": f[::-1]}, "another order of them: found normalized places that differ"),
    "another session's": (lambda f, g: {"F": g}, "of other neurons"),
    "one twice": (lambda f, g: {"F": f, "29515-10-12": f}, "names a session twice: found F and 29515-10-12"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_other_neurons_is_refused(case: str, store, positions, tmp_path: Path) -> None:
    make, message = OTHERS[case]
    path = save_state(tmp_path / "final.pth", make_state(SMALL["factorized3d"], make(*positions.values())))
    with pytest.raises(RunError, match=message):
        import_checkpoint("starter-kit", [path], str(store), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_files_and_other_models_are_refused(store, positions, tmp_path: Path) -> None:
    path = save_state(tmp_path / "final.pth", make_state(SMALL["gru"], positions))
    with pytest.raises(UsageError, match="one file: found 2 files"):
        import_checkpoint("starter-kit", [path, path], str(store), tmp_path / "run")
    run = Path(import_checkpoint("starter-kit", [path], str(store), tmp_path / "run").run)
    environment = json.loads((run / "environment.json").read_text())
    for change in ({"imported": 3}, {"imported": environment["imported"] | {"sessions": {"F": "nobody"}}}):
        copy = shutil.copytree(run, tmp_path / "copy", dirs_exist_ok=True)
        (copy / "ledger.json").unlink()
        (copy / "environment.json").write_text(json.dumps(environment | change))
        record = json.loads((copy / "model.json").read_text())
        (copy / "model.json").write_text(json.dumps(record | {"format_version": 1}))
        with pytest.raises(SensoriumError, match=r"imported from|no weight of this name"):
            export_checkpoint(copy, "starter-kit", tmp_path / "back.pth")


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_was_trained_here_is_exported(store, recorded, tmp_path: Path) -> None:
    config = tiny_config(max_epochs=1, batch_size=1, n_windows_per_trial=1)
    run = load_run(train(config, str(store), ["F", "G"], tmp_path / "runs").run)
    export_checkpoint(run.path, "starter-kit", tmp_path / "back.pth")
    # No weight tells strides.
    strides = ",".join(map(str, config.model.spatial_strides))
    loaded = load_checkpoint(tmp_path / "back.pth", settings={"spatial_strides": strides})
    expected = run.model()
    assert loaded.config == config.model
    assert list(loaded.readouts) == [recorded["F"].name, recorded["G"].name]
    assert loaded.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
