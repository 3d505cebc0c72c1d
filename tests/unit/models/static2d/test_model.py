"""The frame-by-frame model, against NumPy and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.numpy_networks import batch_norm, convolve, elu, part
from fixtures.small_models import (
    ONE,
    OTHER,
    count_parameters,
    make_inputs,
    make_model,
    predict_in_numpy,
    published_neurons,
    weights_of,
)
from models.registry import get_preset
from models.static2d import Static2d, Static2dConfig
from sensorium_data.sessions import Release

SMALL = Static2dConfig(n_features=4, kernels=(5, 3, 5), n_frames_ignored=2)


def run_core(video_CTHW, core):
    maps = np.moveaxis(video_CTHW, 1, 0)
    for layer, kernel in enumerate(SMALL.kernels):
        weights = part(core, f"frames.layers.{layer}.convolution")
        if layer == 0:
            maps = convolve(maps, weights["weight"])
        else:
            maps = convolve(maps, **part(weights, "0"))
            # Each channel by itself.
            each = [
                convolve(maps[:, [channel]], filters[None], bias[None], padding=kernel // 2)
                for channel, (filters, bias) in enumerate(zip(*part(weights, "1").values(), strict=True))
            ]
            maps = convolve(np.concatenate(each, axis=1), **part(weights, "2"))
        maps = elu(batch_norm(maps, part(core, f"frames.layers.{layer}.norm")))
    return maps[2:]


def test_predictions_are_what_numpy_makes_of_the_weights():
    model, inputs = make_model(Static2d, SMALL), make_inputs(n_frames=5)
    for session in (ONE, OTHER):
        with torch.no_grad():
            found = model(*inputs, session).numpy()
        np.testing.assert_allclose(found, predict_in_numpy(run_core, weights_of(model), *inputs, session), atol=1e-10)


def test_a_prediction_depends_on_its_own_frame_alone():
    model = make_model(Static2d, SMALL)
    videos, pupil_center = (tensor.requires_grad_() for tensor in make_inputs(1, 8))
    model(videos, pupil_center, ONE)[0, :, 3].sum().backward()
    for gradient in (videos.grad[0].abs().sum(dim=(0, 2, 3)), pupil_center.grad[0].abs().sum(dim=0)):
        assert gradient.nonzero().flatten().tolist() == [5]


def test_frames_in_another_order_have_the_same_predictions_in_that_order():
    model = make_model(Static2d, SMALL.model_copy(update={"n_frames_ignored": 0}))
    videos, pupil_center = make_inputs()
    order = torch.randperm(videos.shape[2])
    with torch.no_grad():
        in_order = model(videos, pupil_center, ONE)
        shuffled = model(videos[:, :, order], pupil_center[..., order], ONE)
    torch.testing.assert_close(shuffled, in_order[..., order])


def test_ignored_frames_have_no_prediction_but_count_in_batch_norm():
    ignoring = make_model(Static2d, SMALL).train()
    whole = make_model(Static2d, SMALL.model_copy(update={"n_frames_ignored": 0})).train()
    with torch.no_grad():
        maps = [model.core(make_inputs()[0]) for model in (ignoring, whole)]
    torch.testing.assert_close(maps[0], maps[1][:, :, 2:])


def test_readouts_weights_are_penalized_for_the_sessions_of_a_batch():
    model = make_model(Static2d, SMALL.model_copy(update={"readout_sparsity": 0.25}))
    for session in (ONE, OTHER):
        expected = 0.25 * np.abs(weights_of(model)[f"readouts.{session}.features"]).sum()
        assert model.session_regularizer(session).item() == pytest.approx(expected, rel=1e-12)
    unpenalized = make_model(Static2d, SMALL.model_copy(update={"readout_sparsity": 0.0}))
    assert unpenalized.session_regularizer(ONE) is None


def test_the_regularizer_weighs_rough_first_filters():
    model = make_model(Static2d, SMALL.model_copy(update={"spatial_smoothness": 6.0}))
    filters = weights_of(model)["core.frames.layers.0.convolution.weight"].reshape(-1, 1, 5, 5)
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])[None, None]
    roughness = np.square(convolve(filters, laplacian, padding=1)).sum() / np.square(filters).sum()
    assert model.regularizer().item() == pytest.approx(6 * roughness, rel=1e-12)


def test_the_published_numbers_of_parameters():
    model = Static2d(Static2dConfig(), published_neurons(Release.NEW))
    parts = (model.core, model.readouts, model.shifters, model)
    assert [count_parameters(one) for one in parts] == [50_624, 2_763_106, 285, 2_814_015]


def test_the_published_size_of_the_map_and_the_recipe():
    preset = get_preset("static2d")
    assert (preset.model.n_features, *preset.model.map_size(36, 64), preset.model.n_frames_lost) == (64, 28, 56, 18)
    assert (preset.n_frames_window, preset.batch_size, preset.learning_rate, preset.weight_decay) == (
        80,
        8,
        0.005,
        0.01,
    )
    assert (preset.model.spatial_smoothness, preset.model.readout_sparsity) == (6.3831, 0.0076)
    assert (preset.model.readout_init_sigma, preset.model.batch_norm_momentum) == (0.1, 0.9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"kernels": (9, 6)}, "all but the first must be odd"), ({"n_frames_ignored": -1}, "greater than or equal to 0")],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        Static2dConfig(**settings)
