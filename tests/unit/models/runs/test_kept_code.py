"""Runs of models of users' own: their code is part of what they are, and runs when it may."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fixtures.own_models import WITH_HELPER, no_trust, write_files
from fixtures.recorded_stores import record_session
from models.prediction import predict
from models.registry import get_preset
from models.runs import load_run
from models.training import find_finished_run, train
from sensorium_data.errors import RunError, SensoriumError, UsageError
from sensorium_data.predictions import verify_run
from sensorium_data.testing import serve_directory

pytestmark = pytest.mark.usefixtures("no_curves")

MARK = "MARK = 'this code ran'"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    record_session(path, "F", n_by_tier={"train": 4, "oracle": 2})
    return str(path)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lab(tmp_path):
    return write_files(tmp_path / "lab", WITH_HELPER)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """A finished run, and the folder of its code; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("finished")
        # Code that another test has loaded would be said to be from that test's folder, which is gone by now.
        no_trust(patch, root / "cache")
        lab = write_files(root / "lab", WITH_HELPER)
        return train(get_preset(f"{lab}/net.py:Frames"), store, None, root / "runs").run


def change_layer(lab):
    path = lab / "parts/layers.py"
    path.write_text(path.read_text().replace("nn.Conv3d", "  nn.Conv3d"))


def test_the_code_is_kept_and_belongs_to_the_identity(finished):
    run = load_run(finished)
    assert run.name.startswith("Frames-")
    assert {name: (run.path / "code" / name).read_text() for name in WITH_HELPER} == WITH_HELPER
    config = json.loads((run.path / "config.json").read_text())
    assert config["model"]["kind"] == "net:Frames"
    assert set(config["model"]["code"]) == set(WITH_HELPER)
    given = json.loads((run.path / "config-given.json").read_text())
    assert given == {"preset": "Frames", "model": "net:Frames", "settings": {}}
    ledger = json.loads((run.path / "ledger.json").read_text())
    assert "code/parts/layers.py" in json.dumps(ledger)
    assert not verify_run(finished).problems


def test_changed_code_is_another_run(finished, store, lab):
    runs = Path(finished).parent
    same = get_preset(f"{lab}/net.py:Frames")
    assert find_finished_run(same, store, None, runs).run == finished
    change_layer(lab)
    assert find_finished_run(get_preset(f"{lab}/net.py:Frames"), store, None, runs) is None
    # What nothing imports is no part of it.
    write_files(lab, WITH_HELPER | {"parts/unused.py": "x = 1"})
    assert find_finished_run(get_preset(f"{lab}/net.py:Frames"), store, None, runs).run == finished


def test_an_interrupted_run_is_not_resumed_with_other_code(store, lab, tmp_path, monkeypatch):
    config = get_preset(f"{lab}/net.py:Frames")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, store, None, tmp_path / "runs", on_epoch=stop)
    change_layer(lab)
    write_files(lab, {"more.py": "", "net.py": "import more\n" + WITH_HELPER["net.py"]})
    other = get_preset(f"{lab}/net.py:Frames")
    with pytest.raises(RunError) as refused:
        train(other, store, None, tmp_path / "runs", resume=True)
    assert "the code more.py is new; the code net.py has changed; the code parts/layers.py has changed" in str(
        refused.value
    )
    resumed = train(config, store, None, tmp_path / "runs", resume=True)
    assert resumed.resumed_step > 0


def test_prediction_runs_the_kept_code_and_says_that_the_file_has_changed(finished, store, tmp_path, monkeypatch):
    monkeypatch.setattr("models.runs.run.is_trusted", lambda digest: True)
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    expected = load_run(finished).model().state_dict()
    origin = Path(json.loads((run / "environment.json").read_text())["model_files"]["net.py"])
    text = origin.read_text()
    try:
        origin.write_text("raise RuntimeError('the new code ran')")
        no_trust(monkeypatch, tmp_path)
        report = predict([str(run)], store, ["oracle"], str(tmp_path / "predictions"))
        found = load_run(run).model().state_dict()
    finally:
        origin.write_text(text)
    assert report.n_trials == 2
    assert report.notes == (f"Run copy predicts with the code that it keeps: {origin} has changed since.",)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_two_versions_of_a_model_predict_together(finished, store, lab, tmp_path, monkeypatch):
    change_layer(lab)
    (lab / "net.py").write_text((lab / "net.py").read_text().replace("hidden: int = 2", "hidden: int = 3"))
    other = train(get_preset(f"{lab}/net.py:Frames"), store, None, tmp_path / "runs").run
    runs = [load_run(run).model(trust_code=True) for run in (finished, other)]
    assert [model.config.hidden for model in runs] == [2, 3]
    report = predict([finished, other], store, ["oracle"], str(tmp_path / "both"), trust_code=True)
    assert (report.status, report.n_trials) == ("predicted", 2)


def test_a_strangers_code_does_not_run_until_it_is_trusted(finished, store, tmp_path, monkeypatch):
    no_trust(monkeypatch, tmp_path)
    run = load_run(finished)
    run.require_whole()
    assert run.metrics()
    assert run.config.batch_size == 3
    assert find_finished_run(get_preset_of(tmp_path), store, None, Path(finished).parent).run == finished
    no_trust(monkeypatch, tmp_path)
    arguments = ([finished], store, ["oracle"], str(tmp_path / "predictions"))
    for trust in (False, ["another digest"]):
        with pytest.raises(RunError, match=r"brings code of its own, .*look at its folder code; .*--trust-code"):
            predict(*arguments, trust_code=trust)
    assert not (tmp_path / "predictions").exists()
    assert predict(*arguments, trust_code=[run.code_digest]).n_trials == 2
    no_trust(monkeypatch, tmp_path)
    assert load_run(finished).model(trust_code=True).n_frames_lost == 0
    # Asked for once, it is not trusted ever after.
    no_trust(monkeypatch, tmp_path)
    with pytest.raises(RunError, match="brings code of its own"):
        load_run(finished).model()


def get_preset_of(folder):
    return get_preset(f"{write_files(folder / 'again', WITH_HELPER)}/net.py:Frames")


def test_code_that_was_changed_in_the_run_does_not_run(finished, tmp_path, monkeypatch):
    no_trust(monkeypatch, tmp_path)
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    (run / "code/net.py").write_text(f"raise SystemExit({MARK!r})")
    with pytest.raises(RunError, match=r"net.py: the code of the run was changed after training"):
        load_run(run).model(trust_code=True)
    assert any("code/net.py" in problem for problem in verify_run(str(run)).problems)


def test_kept_code_that_cannot_be_imported_here(finished, tmp_path, monkeypatch):
    no_trust(monkeypatch, tmp_path)

    def lack(self, fullname):
        raise ModuleNotFoundError("No module named 'einops'")

    monkeypatch.setattr("models.sources.importing._Loader.get_code", lack)
    with pytest.raises(RunError, match=r"cannot be loaded here: found ModuleNotFoundError: .*'einops'; install the"):
        load_run(finished).model(trust_code=True)


def test_a_run_of_own_code_teaches_when_it_is_trusted(finished, store, tmp_path, monkeypatch):
    config = get_preset_of(tmp_path).model_copy(update={"teacher": finished, "distillation_ratio": 0.5, "seed": 1})
    monkeypatch.setattr("models.runs.run.find_loaded", lambda code: None)
    with pytest.raises(RunError, match="brings code of its own"):
        train(config, store, None, tmp_path / "runs")


def test_a_run_behind_a_url_brings_its_code(finished, tmp_path, monkeypatch):
    no_trust(monkeypatch, tmp_path)
    # A web server does not list what it has.
    with serve_directory(Path(finished).parent) as server:
        run = load_run(f"{server.url}/{Path(finished).name}")
        assert run.code().files == {name: text.encode() for name, text in WITH_HELPER.items()}
        with pytest.raises(RunError, match="brings code of its own"):
            run.model()
        assert run.model(trust_code=True).n_frames_lost == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return self.layer(videos)", "return self.layer(videos)[0]", "does not return a feature map"),
        (
            "return self.layer(videos)",
            "return self.layer(videos)[:, :, :20]",
            r"found shape \(1, 2, 20, 7, 14\) of a video .*, and \(1, 2, 20, 7, 14\) of one with 17 frames more",
        ),
        ("return self.layer(videos)", "return self.layer(videos).flatten(3)", "does not return a feature map"),
    ],
)
def test_a_wrong_shape_is_told_before_anything_is_learned(store, lab, tmp_path, old, new, message):
    (lab / "net.py").write_text(WITH_HELPER["net.py"].replace(old, new))
    with pytest.raises(UsageError, match=message):
        train(get_preset(f"{lab}/net.py:Frames"), store, None, tmp_path / "runs")


OWN_OUTPUT = """
from torch import nn

class Net(nn.Module):
    recipe = {"n_frames_window": 30, "batch_size": 3, "max_epochs": 1, "skip_frames": 10, "device": "cpu"}

    def __init__(self, n_neurons: int):
        super().__init__()
        self.pool, self.head = nn.AdaptiveAvgPool3d((None, 1, 1)), nn.Conv1d(3, n_neurons, 1)

    def forward(self, videos):
        responses = nn.functional.softplus(self.head(self.pool(videos).flatten(2)))
        return responses
"""


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "responses[:, 1:]",
            r"session dyn.*: the model returns another shape .*: found \(1, 5, 70\), expected \(1, 6, 70",
        ),
        (
            "responses.transpose(1, 2)",
            r"found shape \(1, 64, 6\) of .*; return the axes in this order: batch, neuron, time",
        ),
        ("responses.sum()", r"found \(\), expected \(1, 6, "),
        ("[responses]", "the module returns no tensor: found list"),
        ("responses > 0", "the model returns no tensor of numbers: found torch.bool"),
        ("responses - 9", r"trial \d+: the model predicts negative responses, .*; let the model end in ELU"),
    ],
)
def test_what_is_wrong_with_a_modules_responses_is_told(store, tmp_path, output, message):
    lab = write_files(tmp_path / "lab", {"net.py": OWN_OUTPUT.replace("return responses", f"return {output}")})
    with pytest.raises(SensoriumError, match=message):
        train(get_preset(f"{lab}/net.py:Net"), store, None, tmp_path / "runs")


def test_a_module_that_returns_responses_is_trained(store, tmp_path):
    lab = write_files(tmp_path / "lab", {"net.py": OWN_OUTPUT})
    report = train(get_preset(f"{lab}/net.py:Net"), store, None, tmp_path / "runs")
    assert (report.status, load_run(report.run).n_frames_lost) == ("trained", 0)


def test_processes_with_different_code_do_not_train_together(store, lab, tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.ranks.Ranks.gather", lambda self, value: [value, "another"])
    with pytest.raises(RunError, match="the processes of the run do not train the same"):
        train(get_preset(f"{lab}/net.py:Frames"), store, None, tmp_path / "runs")
