"""The comparison of models: what its intervals hold."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from fixtures.places import CHECKOUT
from sensorium_data.scoring.bootstrap import Resampled


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    """The script; it imports another one beside it."""
    folder = CHECKOUT / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("model_comparison", folder / "model_comparison.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.mark.parametrize(("of_trials", "of_seeds"), [(1.0, 0.1), (1.0, 1.0), (0.1, 1.0)])
def test_intervals_hold_the_difference_for_other_trials_and_other_seeds(
    comparison: ModuleType, of_trials: float, of_seeds: float
) -> None:
    """A difference of 0.5, of which each recording and each seed shows another one."""
    rng = np.random.default_rng(0)
    n_held = 0
    for _ in range(400):
        shift = rng.normal(0, of_trials)
        resamples = rng.normal(0, of_trials, 300)
        estimates = 0.5 + shift + rng.normal(0, of_seeds, 3)
        mean, low, high = comparison.combine_seeds([Resampled(one, one + resamples) for one in estimates])
        assert mean == pytest.approx(np.mean(estimates))
        n_held += low < 0.5 < high
    assert 0.92 <= n_held / 400 <= 0.99


def test_one_seed_has_the_interval_of_its_trials(comparison: ModuleType) -> None:
    one = Resampled(0.5, np.random.default_rng(0).normal(0.5, 0.1, 1000))
    assert comparison.combine_seeds([one])[1:] == pytest.approx(one.interval(0.95))
