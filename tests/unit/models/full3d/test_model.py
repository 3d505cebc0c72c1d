"""The full 3D model, against NumPy and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from fixtures.numpy_networks import batch_norm, elu, normalize, part
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
from models.full3d import Full3d, Full3dConfig
from models.registry import get_preset
from sensorium_data.sessions import Release

SMALL = Full3dConfig(channels=(4, 5), spatial_kernels=(5, 3), temporal_kernels=(3, 2), spatial_strides=(2, 1))
N_LOST = 3


def convolve_3d(values_CTHW, weights, stride):
    """Space is padded by half a kernel, time is not."""
    padding = weights["weight"].shape[-1] // 2
    padded = np.pad(values_CTHW, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(padded, weights["weight"].shape[2:], axis=(1, 2, 3))[:, :, ::stride, ::stride]
    values = np.einsum("cthwkij,ockij->othw", windows, weights["weight"], optimize=True)
    return values + weights["bias"][:, None, None, None]


def run_core(video_CTHW, core):
    maps = video_CTHW
    for layer, stride in enumerate(SMALL.spatial_strides):
        maps = convolve_3d(maps, part(core, f"layers.{layer}.convolution"), stride)
        maps = elu(batch_norm(maps[None], part(core, f"layers.{layer}.norm"))[0])
    return np.moveaxis(maps, 1, 0)


@pytest.mark.parametrize("readout", ["gaussian", "factorized"])
def test_predictions_are_what_numpy_makes_of_the_weights(readout):
    model = make_model(Full3d, SMALL.model_copy(update={"readout": readout}))
    inputs = make_inputs(n_frames=6)
    for session in (ONE, OTHER):
        with torch.no_grad():
            found = model(*inputs, session).numpy()
        assert found.shape[-1] == 6 - N_LOST
        np.testing.assert_allclose(found, predict_in_numpy(run_core, weights_of(model), *inputs, session), atol=1e-10)


def test_training_normalizes_by_the_batch_and_follows_it_with_the_momentum():
    model = make_model(Full3d, SMALL).train()
    videos, _ = make_inputs()
    weights = part(weights_of(model), "core.layers.0")
    convolved = np.stack([convolve_3d(video, part(weights, "convolution"), 2) for video in videos.numpy()])
    mean, variance = convolved.mean(axis=(0, 2, 3, 4)), convolved.var(axis=(0, 2, 3, 4))
    with torch.no_grad():
        found = model.core.layers[0](videos).numpy()
    np.testing.assert_allclose(found, elu(normalize(convolved, mean, variance, part(weights, "norm"))), atol=1e-10)
    running = 0.3 * weights["norm.running_mean"] + 0.7 * mean
    np.testing.assert_allclose(model.core.layers[0].norm.running_mean.numpy(), running, atol=1e-12)


def test_the_regularizer_adds_roughness_over_space_by_frame_and_over_time_by_pixel():
    config = SMALL.model_copy(update={"spatial_smoothness": 10.0, "temporal_smoothness": 0.01})
    model = make_model(Full3d, config)
    weights = weights_of(model)["core.layers.0.convolution.weight"]
    spatial = temporal = 0.0
    for frame in np.moveaxis(weights, 2, 0):
        padded = np.pad(frame, ((0, 0), (0, 0), (1, 1), (1, 1)))
        neighbors = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        spatial += np.square(4 * frame - neighbors).sum() / np.square(frame).sum()
    for row in np.moveaxis(weights, 3, 0):
        for pixel in np.moveaxis(row, 3, 0):
            padded = np.pad(pixel, ((0, 0), (0, 0), (1, 1)))
            temporal += np.square(4 * pixel - padded[..., :-2] - padded[..., 2:]).sum() / np.square(pixel).sum()
    assert model.regularizer().item() == pytest.approx(10 * spatial + 0.01 * temporal, rel=1e-12)


def test_the_demos_model_is_not_regularized():
    assert make_model(Full3d, SMALL).regularizer().item() == 0


@pytest.mark.parametrize(
    ("releases", "n_readouts", "n_total"),
    [((Release.NEW,), 2_763_106, 4_710_079), ((Release.OLD, Release.NEW), 5_442_377, 7_389_635)],
)
def test_the_published_numbers_of_parameters(releases, n_readouts, n_total):
    model = Full3d(Full3dConfig(), published_neurons(*releases))
    assert count_parameters(model.core) == 1_946_688
    assert count_parameters(model.readouts) == n_readouts
    assert count_parameters(model) == n_total


def test_the_published_size_of_the_map_and_the_recipe():
    preset = get_preset("full3d")
    assert (preset.model.map_size(36, 64), preset.model.n_frames_lost) == ((36, 64), 16)
    assert (preset.n_frames_window, preset.batch_size, preset.learning_rate) == (60, 16, 0.005)
    assert preset.model.batch_norm_momentum == 0.7


def test_a_prediction_depends_on_the_frames_just_before_it_and_on_the_eye_at_its_own():
    model = make_model(Full3d, SMALL)
    videos, pupil_center = (tensor.requires_grad_() for tensor in make_inputs(1, 9))
    model(videos, pupil_center, ONE)[0, :, 6 - N_LOST].sum().backward()
    assert videos.grad[0].abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist() == [3, 4, 5, 6]
    assert pupil_center.grad[0].abs().sum(dim=0).nonzero().flatten().tolist() == [6]


def test_convolutions_start_from_xavier_and_no_bias():
    torch.manual_seed(0)
    first, second = (layer.convolution for layer in Full3d(Full3dConfig(), published_neurons(Release.NEW)).core.layers)
    assert first.weight.std().item() == pytest.approx(np.sqrt(2 / (67 * 9**3)), rel=0.01)
    assert second.weight.std().item() == pytest.approx(np.sqrt(2 / (128 * 9 * 7 * 7)), rel=0.01)
    assert (first.bias == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": (4,)}, "one entry a layer each, but have 1, 2, 2, 2"),
        ({"spatial_kernels": (9, 4)}, "must be odd"),
        ({"temporal_kernels": (0, 1)}, "greater than 0"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        Full3dConfig(**settings)
