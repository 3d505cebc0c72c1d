"""The models written straightforwardly, which speeds are compared with, predict what the models of this package do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from fixtures.places import CHECKOUT
from models.layouts import find_layout
from models.neurons import NeuronInfo
from models.registry import build_model, get_preset


@pytest.fixture(scope="module")
def speed() -> Iterator[ModuleType]:
    """The script; it imports others beside it."""
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    try:
        import model_speed

        yield model_speed
    finally:
        sys.path.remove(str(CHECKOUT / "benchmarks"))


PRESETS = ["dwiseneuro-debug", "dynamic-v1fm-debug", "factorized3d-debug", "vivit-debug", "vivit-causal-debug"]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_straightforward_way_predicts_and_learns_the_same(speed: ModuleType, preset: str) -> None:
    config = get_preset(preset)
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    neurons = {name: NeuronInfo(n, generator.normal(size=(n, 2))) for name, n in (("one", 5), ("two", 4))}
    model = build_model(config, neurons).double()
    layout = find_layout(config.input_layout)
    videos = torch.randn(3, len(layout.channels), config.n_frames_window, *layout.frame_size, dtype=torch.float64)
    pupil_center = torch.randn(3, 2, config.n_frames_window, dtype=torch.float64)
    wanted = [("one", slice(0, 2)), ("two", slice(2, 3))]
    # Statistics that are not those of the beginning; drawn places would differ.
    with torch.no_grad():
        model.train().predict_rows(videos, pupil_center, wanted)
    model.eval()
    reference = speed.make_reference(model)
    outputs = [one.predict_rows(videos, pupil_center, wanted) for one in (model, reference)]
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
        assert ours.std() > 0
    for of_one in outputs:
        sum((one * one).sum() for one in of_one).backward()
    by_size = [
        sorted(float(p.grad.square().sum()) for p in one.parameters() if p.grad is not None)
        for one in (model, reference)
    ]
    np.testing.assert_allclose(by_size[0], by_size[1], rtol=1e-6, atol=1e-12)
    assert len(by_size[0]) > 5
