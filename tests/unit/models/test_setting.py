"""What `sensorium settings` tells of a preset."""

from __future__ import annotations

import pytest

from models.config import list_settings, override
from models.registry import get_preset, preset_names
from models.setting import describe_settings, find_settings
from sensorium_data.errors import UnknownNameError


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_is_described(name):
    preset = get_preset(name)
    settings = describe_settings(preset)
    assert [setting.name for setting in settings] == list(list_settings(preset))
    for setting in settings:
        assert setting.description, setting.name
        assert setting.type, setting.name


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("learning_rate", "number, above 0"),
        ("batch_size", "whole number, above 0"),
        ("n_trials", "whole number, above 0 or none"),
        ("compile", "true or false"),
        ("schedule", "plateau | restarts | cosine"),
        ("model.channels", "list of: whole number, above 0"),
        ("betas", "list of: number"),
        ("neurons", "text or none"),
        ("cutmix_probability", "number, at least 0, at most 1"),
    ],
)
def test_types_are_in_words(name, type_):
    (setting,) = find_settings(get_preset("factorized3d"), name)
    assert setting.type == type_


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("lr", ["learning_rate"]),
        ("learning_rate", ["learning_rate"]),
        ("channels", ["model.channels"]),
        ("weight_decay", ["weight_decay"]),
        ("decay", ["weight_decay", "core_weight_decay", "ema_decay"]),
        ("lerning_rate", ["learning_rate"]),
        ("AutoClip", ["gradient_norm_percentile"]),
    ],
)
def test_settings_are_found_by_what_people_type(text, names):
    found = [setting.name for setting in find_settings(get_preset("factorized3d"), text)]
    assert set(names) <= set(found)
    assert len(found) <= len(names) + 2


def test_what_no_setting_means():
    with pytest.raises(UnknownNameError, match="unknown setting: found 'xyzzy'; `sensorium settings factorized3d"):
        find_settings(get_preset("factorized3d"), "xyzzy")


def test_an_abbreviation_is_proposed_where_a_name_is_wanted():
    with pytest.raises(UnknownNameError, match="unknown setting: found 'lr'; did you mean learning_rate"):
        override(get_preset("factorized3d"), {"lr": "1"})
