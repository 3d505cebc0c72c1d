"""Presets, and what can be changed in them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from models.config import TrainingConfig, list_settings, override
from models.factorized3d import Factorized3d
from models.registry import NeuronInfo, build_model, get_preset, make_preset, preset_names
from sensorium_data.errors import UnknownNameError, UsageError

SESSION = "dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20"


def test_every_model_has_a_debug_size():
    official = {name for name in preset_names() if not name.endswith("-debug")}
    assert "factorized3d" in official
    assert set(preset_names()) == official | {f"{name}-debug" for name in official}


@pytest.mark.parametrize("name", preset_names())
def test_presets_bear_their_name_and_survive_json(name):
    preset = get_preset(name)
    assert preset.name == name
    assert TrainingConfig.model_validate_json(preset.model_dump_json()) == preset


def test_the_official_recipe():
    # benchmarks_training.ipynb of the starter kit.
    preset = get_preset("factorized3d")
    assert preset.model.channels == (32, 64, 128)
    assert preset.model.spatial_kernels == preset.model.temporal_kernels == (11, 5, 5)
    assert preset.model.spatial_strides == (1, 1, 1)
    assert not preset.model.pads_frames
    assert preset.model.batch_norm_momentum == 0.7
    assert (preset.model.spatial_smoothness, preset.model.temporal_smoothness) == (10, 0.01)
    assert preset.model.readout_init_sigma == 1
    assert (preset.n_frames_window, preset.batch_size, preset.seed) == (80, 8, 42)
    assert (preset.learning_rate, preset.weight_decay, preset.min_learning_rate) == (0.005, 0.01, 0.0001)
    assert (preset.max_epochs, preset.early_stopping_patience, preset.n_rounds, preset.tolerance) == (200, 5, 4, 1e-6)
    assert (preset.plateau_factor, preset.plateau_patience) == (0.3, 5)
    assert (preset.normalization, preset.skip_frames, preset.precision) == ("competition", 50, "32-true")


def test_an_unknown_preset_names_the_near_ones():
    with pytest.raises(UnknownNameError, match="unknown preset: found 'factorised3d'; did you mean factorized3d or"):
        get_preset("factorised3d")


def test_the_same_seed_builds_the_same_model():
    config = get_preset("factorized3d-debug")
    neurons = {SESSION: NeuronInfo(4, np.random.default_rng(0).normal(size=(4, 2)))}
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_model(config, neurons).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_presets_are_had_without_torch():
    program = (
        "import sys; from models.registry import get_preset, preset_names; from models.config import override;"
        "[override(get_preset(name), {'seed': '1'}) for name in preset_names()];"
        "print([name for name in ('torch', 'prefect', 'matplotlib', 'lightning_fabric') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def models_in(config: BaseModel):
    yield config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from models_in(value)


@pytest.mark.parametrize("name", preset_names())
def test_every_field_of_the_form_is_described(name):
    for model in models_in(get_preset(name)):
        for name, field in type(model).model_fields.items():
            assert field.description, f"{type(model).__name__}.{name}"


def test_configs_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        get_preset("factorized3d").seed = 1


def test_settings_are_changed_by_dotted_or_short_name():
    preset = get_preset("factorized3d")
    changed = override(
        preset,
        {
            "learning_rate": "1e-3",
            "max_epochs": " 3 ",
            "model.channels": "8,16, 16",
            "spatial_kernels": "[9, 5, 5]",
            "model.pads_frames": "true",
            "device": "cpu",
        },
    )
    assert changed.learning_rate == 0.001
    assert changed.max_epochs == 3
    assert changed.model.channels == (8, 16, 16)
    assert changed.model.spatial_kernels == (9, 5, 5)
    assert changed.model.pads_frames is True
    assert changed.device == "cpu"
    untouched = {"seed", "batch_size", "weight_decay", "name"}
    assert changed.model_dump(include=untouched) == preset.model_dump(include=untouched)
    assert preset == get_preset("factorized3d")


def test_a_setting_given_under_both_names_is_refused():
    with pytest.raises(UsageError, match=r"model.channels is given twice: found '8,8,8' and '4,4,4'"):
        override(get_preset("factorized3d"), {"channels": "8,8,8", "model.channels": "4,4,4"})


def test_no_settings_change_nothing():
    assert override(get_preset("factorized3d"), {}) == get_preset("factorized3d")


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_can_be_given_as_it_is_printed(name):
    preset = get_preset(name)
    settings = {
        setting: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for setting, value in list_settings(preset).items()
    }
    assert override(preset, settings) == preset


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("lerning_rate", "did you mean learning_rate"),
        ("model.chanels", "did you mean model.channels"),
        ("chanels", "did you mean channels"),
        ("recipe.learning_rate", "did you mean learning_rate"),
        # What a preset is cannot be changed; its name would lie.
        ("name", "choose one of"),
        ("model.kind", ""),
        ("model", ""),
    ],
)
def test_an_unknown_setting_names_the_near_ones(setting, near):
    with pytest.raises(UnknownNameError, match=f"unknown setting: found '{setting}'; .*{near}"):
        override(get_preset("factorized3d"), {setting: "1"})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("learning_rate", "fast", "setting learning_rate: found 'fast', expected a number$"),
        ("learning_rate", "-1", "setting learning_rate: found '-1', expected a number above 0"),
        ("learning_rate", "nan", "found 'nan', expected a finite number"),
        ("batch_size", "2.5", "found '2.5', expected a whole number$"),
        ("channels", "8,x,16", "setting model.channels: found '8,x,16', expected a whole number$"),
        ("channels", "", "setting model.channels: found '', expected a list of at least 1 value$"),
        ("device", "tpu", "found 'tpu', expected 'auto', 'cpu' or 'cuda'"),
        ("seed", str(2**63), "expected a number below 9223372036854775808"),
        ("pads_frames", "perhaps", "expected true or false"),
        ("channels", "8", "one entry a layer each, but have 1, 3, 3, 3: found model.channels=8"),
        ("n_frames_window", "18", "windows of 18 frames leave nothing to predict: the model loses 18"),
    ],
)
def test_a_wrong_value_says_what_was_found_and_expected(setting, value, message):
    with pytest.raises(UsageError, match=message) as refused:
        override(get_preset("factorized3d"), {setting: value})
    assert "\n" not in str(refused.value)


def test_a_name_that_occurs_twice_must_be_given_whole():
    # No two settings of the presets share a name, so two are made up.
    class Part(BaseModel):
        size: int = 1

    class Model(BaseModel):
        core: Part = Part()
        readout: Part = Part()

    config = TrainingConfig.model_construct(**dict(get_preset("factorized3d")) | {"model": Model()})
    with pytest.raises(UsageError, match=r"ambiguous setting: found 'size', expected model.core.size or model.readout"):
        override(config, {"size": "2"})


def test_a_config_written_by_another_version_is_refused():
    content = json.loads(get_preset("factorized3d").model_dump_json()) | {"warmup": 3}
    with pytest.raises(ValueError, match="Extra inputs"):
        TrainingConfig.model_validate(content)


@pytest.mark.parametrize(
    ("n_neurons", "positions", "message"),
    [
        (3, np.zeros((2, 2)), r"expected positions of shape \(3, 2\)"),
        (3, np.zeros((3, 3)), r"found shape \(3, 3\)"),
        (0, np.zeros((0, 2)), "at least one neuron"),
        (1, np.array([[np.nan, 0]]), "finite"),
    ],
)
def test_neurons_without_a_place_are_refused(n_neurons, positions, message):
    with pytest.raises(ValueError, match=message):
        NeuronInfo(n_neurons, positions)


@pytest.mark.parametrize("channels", ["1000000000,1000000000", f"{10**30},16"])
def test_a_model_without_memory_for_it_is_told(channels):
    config = override(get_preset("factorized3d-debug"), {"model.channels": channels})
    neurons = {SESSION: NeuronInfo(5, np.zeros((5, 2)))}
    with pytest.raises(
        UsageError, match=r"a model of the sizes of factorized3d-debug cannot be made: .*make it smaller"
    ):
        build_model(config, neurons)


def test_a_preset_of_a_class_takes_settings_of_the_model():
    preset = make_preset(Factorized3d, model={"channels": (8, 8, 8)}, max_epochs=3)
    assert (preset.name, preset.max_epochs) == ("Factorized3d", 3)
    assert preset.model.channels == (8, 8, 8)
