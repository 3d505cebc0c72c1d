"""Classes of users' own as presets: what they are named by, what is read off them, and what is refused."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from fixtures.own_models import FRAMES, WITH_HELPER, write_files
from models.config import TrainingConfig, list_settings, override
from models.factorized3d import Factorized3d
from models.model_config import ForeignModelConfig
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset, list_presets, make_preset
from sensorium_data.errors import RunError, UnknownNameError, UsageError

FULL = """
import torch
from pydantic import Field, model_validator
from torch import nn
import models

class Config(models.ModelConfig):
    gain: float = Field(default=1.0, gt=0, description="What the mean of the video is multiplied with.")

class Mean(models.ResponseModel):
    \"\"\"The mean of each frame.\"\"\"
    config_class = Config
    recipe = {"batch_size": 2, "model": {"gain": 3.0}}

    def __init__(self, config, neurons, *, n_input_channels):
        super().__init__()
        self.core = nn.Linear(1, 1)
        self.gain = config.gain
        self.n_neurons = {name: one.n_neurons for name, one in neurons.items()}

    def predict_rows(self, videos, pupil_center, wanted):
        means = self.gain * self.core(videos[:, :1].mean((-2, -1)).transpose(1, 2)).transpose(1, 2).exp()
        return [means[rows].expand(-1, self.n_neurons[session], -1) for session, rows in wanted]

def small():
    return models.make_preset(Mean, name="mean-small", batch_size=1)

def wide():
    return models.get_preset("factorized3d")

def fails():
    raise ValueError("no")

def nothing():
    return 3

instance = nn.Linear(1, 1)

class Plain:
    pass

class NoRows(models.ResponseModel):
    pass

class NoCore(models.CoreModel):
    pass

class WrongConfig(Mean):
    config_class = dict

class NoDefault(Mean):
    class config_class(models.ModelConfig):
        gain: float

class WrongSignature(Mean):
    def __init__(self, neurons):
        pass

class Checked(Mean):
    class config_class(Config):
        @model_validator(mode="after")
        def _check(self):
            return {1.0: self, 3.0: self}[self.gain]

class NeverFits(Mean):
    class config_class(Config):
        @model_validator(mode="after")
        def _check(self):
            return {}[self.gain]

class WrongRecipe(Mean):
    recipe = {"batch_size": 0}

class UnknownRecipe(Mean):
    recipe = {"batch": 3}
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(write_files(tmp_path, {"full.py": FULL, "net.py": FRAMES}))
    return tmp_path


@pytest.mark.usefixtures("lab")
def test_a_class_has_its_own_recipe_over_the_default_one():
    preset = get_preset("full.py:Mean")
    default = get_preset("factorized3d")
    assert (preset.name, preset.model.kind, preset.batch_size, preset.model.gain) == ("Mean", "full:Mean", 2, 3.0)
    assert preset.learning_rate == default.learning_rate
    assert list(preset.model.code) == ["full.py"]
    assert get_preset("full:Mean") == preset
    changed = override(preset, {"gain": "0.5", "max_epochs": "1"})
    assert (changed.model.gain, changed.max_epochs, type(changed.model)) == (0.5, 1, type(preset.model))
    with pytest.raises(UsageError, match=r"setting model.gain: found '-1', expected a number above 0"):
        override(preset, {"gain": "-1"})
    assert "model.gain" in list_settings(preset)
    assert not {"model.code", "model.kind"} & list_settings(preset).keys()


@pytest.mark.usefixtures("lab")
def test_code_that_checks_settings_and_fails_is_told():
    preset = get_preset("full.py:Checked")
    with pytest.raises(UsageError, match=r"full.py:\d+: the code of Checked fails: found KeyError: 9.0"):
        override(preset, {"gain": "9"})


@pytest.mark.usefixtures("lab")
def test_a_plain_module_is_adapted():
    preset = get_preset("net.py:Frames")
    assert (preset.model.kind, preset.model.hidden, preset.n_frames_window) == ("net:Frames", 2, 30)
    model = build_model(preset, {"F": NeuronInfo(4, np.zeros((4, 2)))})
    assert model.core.layer.out_channels == 2
    assert get_preset("net.py:Frames") == preset


@pytest.mark.usefixtures("lab")
def test_a_function_returns_another_preset():
    small = get_preset("full.py:small")
    assert (small.name, small.batch_size, small.model) == ("mean-small", 1, get_preset("full.py:Mean").model)
    assert get_preset("full.py:wide") == get_preset("factorized3d")


def test_a_class_that_was_imported(lab, monkeypatch):
    write_files(lab, {"imported_lab/__init__.py": "", "imported_lab/net.py": FRAMES})
    monkeypatch.syspath_prepend(lab)
    module = importlib.import_module("imported_lab.net")
    preset = make_preset(module.Frames, seed=3)
    assert (preset.model.kind, preset.seed) == ("imported_lab.net:Frames", 3)
    assert preset.model.code == get_preset("imported_lab.net:Frames").model.code
    assert make_preset(Factorized3d, name="mine").model == get_preset("factorized3d").model


def test_a_class_of_the_script_itself_cannot_be_kept():
    class Local(Factorized3d):
        pass

    Local.__module__ = "__main__"
    with pytest.raises(UsageError, match=r"cannot be kept with a run: .*; put it into a file of its own"):
        make_preset(Local)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Plain", "full.py: Plain is no model: found a class derived from object, expected a class derived from"),
        ("instance", "full.py: instance is no model: found a Linear, .*; name the class Linear"),
        ("NoRows", "full.py: NoRows is no complete model: found no predict_rows"),
        ("NoCore", "full.py: NoCore is no complete model: found no make_core"),
        ("WrongConfig", "full.py: the config_class of WrongConfig is no form of settings"),
        ("NoDefault", "full.py: a setting of NoDefault has no default: found gain"),
        ("WrongSignature", r"full.py: WrongSignature cannot be made as models are: found WrongSignature\(neurons\)"),
        ("NeverFits", "full.py: the settings of NeverFits do not take their own defaults: found KeyError: 1.0"),
        (
            "WrongRecipe",
            "full.py: the recipe of WrongRecipe cannot be used: found batch_size: .* not a number above 0",
        ),
        ("UnknownRecipe", "full.py: the recipe of UnknownRecipe cannot be used: found batch: unknown"),
        ("fails", "full.py: fails is a function, and returns no preset: found ValueError: no"),
        ("nothing", "full.py: nothing is no model: found a int"),
        ("Meen", "unknown class of full: found 'Meen'; did you mean Mean"),
    ],
)
def test_what_is_no_model_says_what_is_missing(name, message):
    with pytest.raises(UsageError, match=message) as refused:
        get_preset(f"full.py:{name}")
    assert "\n" not in str(refused.value)


def test_a_config_whose_code_is_not_loaded_is_read_as_it_is(lab, monkeypatch):
    preset = get_preset("full.py:Mean")
    text = preset.model_dump_json()
    monkeypatch.setattr("models.sources.importing._LOADED", {})
    foreign = TrainingConfig.model_validate_json(text)
    assert isinstance(foreign.model, ForeignModelConfig)
    assert list_settings(foreign)["model.gain"] == 3.0
    assert json.loads(foreign.model_dump_json()) == json.loads(text)
    with pytest.raises(RunError, match="the code of the model is not loaded: found full:Mean"):
        build_model(foreign, {})
    get_preset("full.py:Mean")
    assert TrainingConfig.model_validate_json(text) == get_preset("full.py:Mean")


def offer(monkeypatch, **points):
    found = [EntryPoint(name, value, "sensorium_pipeline.models") for name, value in points.items()]
    monkeypatch.setattr("models.own_models.entry_points", lambda group: found)


def test_entry_points_are_presets(lab, monkeypatch):
    files = WITH_HELPER | {"net.py": WITH_HELPER["net.py"].replace("parts.", "neat_models.parts."), "__init__.py": ""}
    write_files(lab / "neat_models", files)
    write_files(lab, {"broken.py": "import nothing_there"})
    monkeypatch.syspath_prepend(lab)
    offer(
        monkeypatch,
        neat="neat_models.net:Frames",
        broken="broken:Net",
        gone="gone_module:Net",
        factorized3d="neat_models.net:Frames",
    )
    preset = get_preset("neat")
    assert (preset.name, preset.model.kind) == ("neat", "neat_models.net:Frames")
    assert set(preset.model.code) == {f"neat_models/{name}" for name in files}
    listed = {(info.name, info.origin): info for info in list_presets()}
    assert listed["factorized3d", "sensorium-pipeline"].error is None
    assert listed["neat", "neat_models.net:Frames"].description == "One layer on single frames."
    assert "No module named 'nothing_there'" in listed["broken", "broken:Net"].error
    assert "there is no such module" in listed["gone", "gone_module:Net"].error
    assert "a preset of this package has the name" in listed["factorized3d", "neat_models.net:Frames"].error
    assert get_preset("factorized3d").model.kind == "factorized3d"
    with pytest.raises(UnknownNameError, match="did you mean neat"):
        get_preset("naet")
