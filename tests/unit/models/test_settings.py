"""Recipes that contradict themselves are refused, with a reason."""

from __future__ import annotations

import pytest

from models.config import list_settings, override
from models.registry import get_preset
from models.runs import RunData, identify_run
from models.settings import MachineSettings
from sensorium_data.errors import UsageError
from sensorium_data.sessions import Tier
from sensorium_data.statistics.normalizations import NORMALIZATIONS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"session_balance": "mixed"}, "needs n_windows_per_session"),
        ({"n_windows_per_session": "100"}, "is for session_balance mixed"),
        ({"window_position": "tiling", "n_windows_per_trial": "2"}, "covers each trial once"),
        ({"fold": "0"}, "n_folds and fold belong together"),
        ({"n_folds": "7"}, "n_folds and fold belong together"),
        ({"n_folds": "7", "fold": "7"}, "fold 7 is not one of 7"),
        ({"n_folds": "1", "fold": "0"}, "n_folds: found '1', expected a number of at least 2"),
        ({"tiers": "train,oracle"}, "the oracle tier is validated on"),
        ({"tiers": "train,train"}, "a tier is named twice"),
        ({"teacher": "runs/one"}, "a teacher needs a distillation_ratio"),
        (
            {"teacher": "runs/one", "distillation_ratio": "0.36", "loss": "poisson-correlation"},
            "distillation weighs single windows",
        ),
        ({"max_gradient_norm": "1", "gradient_norm_percentile": "10"}, "not by both"),
        ({"betas": "0.9,1"}, "must be at least 0 and below 1"),
        ({"warmup_epochs": "200"}, "leave none of max_epochs 200"),
        ({"score": "reference", "normalization": "none"}, "has no reference"),
        ({"normalization": "dwisneuro"}, "found 'dwisneuro', expected .*; did you mean dwiseneuro"),
        ({"loss_scale": "starterkit"}, "did you mean starter-kit"),
        ({"ema_decay": "1"}, "expected a number below 1"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_with_the_reason(settings, message):
    with pytest.raises(UsageError, match=message):
        override(get_preset("factorized3d"), settings)


def test_the_winners_settings_are_accepted():
    config = override(
        get_preset("factorized3d"),
        {
            "tiers": "train, oracle",
            "n_folds": "7",
            "fold": "0",
            "session_balance": "mixed",
            "n_windows_per_session": "7200",
            "batch_size": "32",
            "loss_scale": "dwiseneuro",
            "normalization": "dwiseneuro",
            "cutmix_probability": "0.5",
            "teacher": "runs/first",
            "distillation_ratio": "0.36",
            "warmup_epochs": "3",
            "max_epochs": "21",
            "schedule": "cosine",
            "ema_decay": "0.999",
            "precision": "16-mixed",
        },
    )
    assert config.tiers == (Tier.TRAIN, Tier.ORACLE)
    assert override(config, {"teacher": "none", "distillation_ratio": "None"}).teacher is None


def test_every_normalization_can_be_chosen():
    for name in NORMALIZATIONS:
        assert override(get_preset("factorized3d"), {"normalization": name}).normalization == name


def test_what_changes_the_learning_changes_the_identity_and_the_machine_does_not():
    preset = get_preset("factorized3d")
    data = RunData(store="here", sessions=())
    identity = identify_run(preset, data)
    others = {
        "device": "cpu",
        "compile": "true",
        "cache": "none",
        "cache_bytes": "5",
        "checkpoint_every_steps": "7",
        "keep_checkpoints": "3",
    }
    assert others.keys() == MachineSettings.model_fields.keys()
    assert identify_run(override(preset, others), data) == identity
    for name, value in {"n_devices": "2", "ema_decay": "0.9", "tiers": "train,final_test_main", "seed": "1"}.items():
        assert name in list_settings(preset)
        assert identify_run(override(preset, {name: value}), data) != identity, name
    for change in ({"split": "a"}, {"teacher": "b"}):
        assert identify_run(preset, data.model_copy(update=change)) != identity
    moved = override(preset, {"teacher": "runs/here", "distillation_ratio": "0.3"})
    assert identify_run(moved, data) == identify_run(override(moved, {"teacher": "runs/there"}), data)


@pytest.mark.parametrize(
    ("preset", "setting", "value", "words"),
    [
        ("dwiseneuro", "prediction_hop", "32", "span 31 frames"),
        ("dwiseneuro", "prediction_offset", "31", "31 frames"),
        ("dwiseneuro", "model.softplus_beta", "1e-300", "0.0001"),
        ("dwiseneuro", "model.spatial_kernel", "999", "255"),
        ("dwiseneuro", "max_epochs", "3", "set warmup_epochs to 2 or less"),
        ("vivit", "model.n_heads", "1000000", "256"),
        ("vivit-causal", "model.embedding_size", "1000000", "65536"),
        ("dynamic-v1fm", "prediction_hop", "31", "span 30 frames"),
        ("dynamic-v1fm", "model.patch_size", "2,2,999", "255"),
    ],
)
def test_slips_of_a_digit_are_told_at_once(preset: str, setting: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        override(get_preset(preset), {setting: value})
