"""The factorized 3D model, against NumPy, torch's own 3D convolutions and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.nn import functional

from models.checkpoints import find_format
from models.factorized3d import Factorized3d, Factorized3dConfig
from models.neurons import NeuronInfo
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.sessions import SESSIONS, Release

ONE, OTHER = "dynamic1-2-3-Video-aa", "dynamic4-5-6-Video-bb"
SMALL = Factorized3dConfig(channels=(4, 5), spatial_kernels=(5, 3), temporal_kernels=(4, 3), spatial_strides=(1, 1))
N_LOST = 5


def neurons_of(n_neurons, seed=0):
    return NeuronInfo(n_neurons, np.random.default_rng(seed).uniform(-700, 200, (n_neurons, 2)))


def make_model(config=SMALL, **sessions):
    torch.manual_seed(0)
    model = Factorized3d(config, sessions or {ONE: neurons_of(6), OTHER: neurons_of(3, seed=1)})
    with torch.no_grad():
        # Nothing stays at a value that hides a mistake: biases of 0, features all alike, norms that do nothing.
        for name, tensor in model.state_dict().items():
            if name.endswith(("bias", "features", "norm.weight", "running_mean")):
                tensor.normal_(std=0.3)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
    return model


def make_inputs(n_trials=2, n_frames=12, *, height=12, width=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(n_trials, 3, n_frames, height, width, generator=generator, dtype=dtype),
        torch.randn(n_trials, 2, n_frames, generator=generator, dtype=dtype),
    )


def run_layer_in_numpy(inputs_CTHW, layer):
    """Spatial and temporal filters, normalization by running statistics, ELU: sums written out."""
    spatial, temporal = layer.spatial, layer.temporal
    kernel = spatial.weight.shape[-1]
    windows = sliding_window_view(inputs_CTHW, (kernel, kernel), axis=(2, 3))
    values = np.einsum("cthwij,ocij->othw", windows, spatial.weight.numpy())
    values = values + spatial.bias.numpy()[:, None, None, None]
    windows = sliding_window_view(values, temporal.weight.shape[2], axis=1)
    values = np.einsum("cthwk,ock->othw", windows, temporal.weight[..., 0].numpy())
    values = values + temporal.bias.numpy()[:, None, None, None]
    mean, variance, weight, bias = (
        tensor.numpy()[:, None, None, None]
        for tensor in (layer.norm.running_mean, layer.norm.running_var, layer.norm.weight, layer.norm.bias)
    )
    values = (values - mean) / np.sqrt(variance + 1e-5) * weight + bias
    return np.where(values > 0, values, np.expm1(np.minimum(values, 0)))


@torch.no_grad()
def test_the_core_is_what_numpy_makes_of_it():
    core = make_model().double().eval().core
    videos, _ = make_inputs(dtype=torch.float64)
    for trial, found in zip(videos.numpy(), core(videos).numpy(), strict=True):
        expected = trial
        for layer in core.layers:
            expected = run_layer_in_numpy(expected, layer)
        np.testing.assert_allclose(found, expected, atol=1e-10)


def to_reference(model):
    """The model's weights as the starter kit names and shapes them."""
    layout, sessions = find_format("starter-kit").layout_of(model.config), {name: name for name in model.readouts}
    return layout.make_constants(model.config) | layout.convert(model.config, model.state_dict(), sessions)


def run_reference(state, videos, pupil_center, session, *, training=False):
    """The starter kit's model, (batch, time, neuron), from its weights: 3D convolutions, one image a frame."""
    features = videos
    for layer in (0, 1):
        name, number = f"core.features.layer{layer}", f"_{layer}" if layer else ""
        for kind in ("spatial", "temporal"):
            weight, bias = (state[f"{name}.conv_{kind}{number}.{part}"] for part in ("weight", "bias"))
            features = functional.conv3d(features, weight, bias)
        mean, variance, weight, bias = (
            state[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        features = functional.elu(functional.batch_norm(features, mean, variance, weight, bias, training))
    n_trials, n_channels, n_frames, height, width = features.shape
    frames = features.transpose(1, 2).reshape(-1, n_channels, height, width)
    shift = pupil_center[:, :, -n_frames:].transpose(1, 2).reshape(-1, 2)
    for layer in (0, 2, 4):
        weight, bias = (state[f"shifter.{session}.mlp.{layer}.{part}"] for part in ("weight", "bias"))
        shift = torch.tanh(shift @ weight.T + bias)
    readout = {part: state[f"readout.{session}.{part}"] for part in ("_features", "bias", "source_grid")}
    w1, b1, w2, b2 = (
        state[f"readout.{session}.mu_transform.{part}"] for part in ("0.weight", "0.bias", "2.weight", "2.bias")
    )
    places = torch.tanh(functional.elu(readout["source_grid"] @ w1.T + b1) @ w2.T + b2)
    grid = (places[None] + shift[:, None])[:, :, None]
    sampled = functional.grid_sample(frames, grid, align_corners=True).squeeze(-1)
    predictions = (sampled * readout["_features"][0, :, 0]).sum(1) + readout["bias"]
    return functional.elu(predictions.reshape(n_trials, n_frames, -1)) + 1


def test_predictions_are_those_of_the_starter_kits_model():
    model = make_model().double().eval()
    videos, pupil_center = make_inputs(dtype=torch.float64)
    state = to_reference(model)
    for session in (ONE, OTHER):
        with torch.no_grad():
            found = model(videos, pupil_center, session)
        assert found.shape == (2, len(model.readouts[session].bias), 12 - N_LOST)
        expected = run_reference(state, videos, pupil_center, session)
        torch.testing.assert_close(found, expected.transpose(1, 2))


def test_training_normalizes_by_the_batch_and_follows_it_with_the_momentum():
    model = make_model(SMALL.model_copy(update={"batch_norm_momentum": 0.7})).double().train()
    layer = model.core.layers[0]
    before = layer.norm.running_mean.clone()
    videos, _ = make_inputs(dtype=torch.float64)
    with torch.no_grad():
        spatial = functional.conv3d(videos, layer.spatial.weight[:, :, None], layer.spatial.bias)
        convolved = functional.conv3d(spatial, layer.temporal.weight[..., None], layer.temporal.bias)
        mean = convolved.mean(dim=(0, 2, 3, 4))
        variance = convolved.var(dim=(0, 2, 3, 4), correction=0)
        normalized = (convolved - mean[:, None, None, None]) / (variance[:, None, None, None] + 1e-5).sqrt()
        normalized = normalized * layer.norm.weight[:, None, None, None] + layer.norm.bias[:, None, None, None]
        found = layer(videos)
    torch.testing.assert_close(found, functional.elu(normalized))
    torch.testing.assert_close(layer.norm.running_mean, 0.3 * before + 0.7 * mean)


@pytest.mark.parametrize(
    ("releases", "n_readouts", "n_total"),
    [((Release.NEW,), 5_325_282, 5_707_743), ((Release.OLD, Release.NEW), 10_488_969, 10_871_715)],
)
def test_the_published_numbers_of_parameters(releases, n_readouts, n_total):
    neurons = {s.name: neurons_of(s.n_neurons) for s in SESSIONS.values() if s.release in releases}
    model = Factorized3d(Factorized3dConfig(), neurons)
    assert sum(p.numel() for p in model.core.parameters()) == 382_176
    assert sum(p.numel() for p in model.readouts.parameters()) == n_readouts
    assert sum(p.numel() for p in model.parameters()) == n_total


def test_the_published_size_of_the_benchmarks_feature_map():
    model = make_model(Factorized3dConfig()).eval()
    videos, pupil_center = make_inputs(1, 20, height=36, width=64)
    with torch.no_grad():
        assert model.core(videos).shape == (1, 128, 2, 18, 46)
        assert model(videos, pupil_center, ONE).shape == (1, 6, 2)
    assert model.n_frames_lost == 18


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (6, 10)),
        ({"pads_frames": True}, (12, 16)),
        ({"spatial_strides": (2, 1)}, (2, 4)),
        ({"pads_frames": True, "spatial_strides": (1, 2)}, (6, 8)),
    ],
)
def test_the_map_shrinks_by_kernels_and_strides(settings, size):
    core = make_model(SMALL.model_copy(update=settings)).core
    assert core(make_inputs(height=12, width=16)[0]).shape == (2, 5, 12 - N_LOST, *size)


def test_a_stride_leaves_out_pixels_of_the_map():
    model = make_model()
    strided = make_model(SMALL.model_copy(update={"spatial_strides": (3, 1)}))
    videos, _ = make_inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            strided.core.layers[0].eval()(videos), model.core.layers[0].eval()(videos)[..., ::3, ::3]
        )


def test_a_window_predicts_what_the_whole_trial_does():
    model = make_model().eval()
    videos, pupil_center = make_inputs(n_frames=20)
    with torch.no_grad():
        whole = model(videos, pupil_center, ONE)
        window = model(videos[:, :, 7:], pupil_center[:, :, 7:], ONE)
    torch.testing.assert_close(window, whole[..., 7:])


def test_a_prediction_depends_on_the_frames_just_before_it_and_on_the_eye_at_its_own():
    model = make_model().eval()
    videos, pupil_center = (tensor.requires_grad_() for tensor in make_inputs(1, 14))
    # The prediction of frame 9.
    model(videos, pupil_center, ONE)[0, :, 9 - N_LOST].sum().backward()
    seen = videos.grad[0].abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist()
    assert seen == [4, 5, 6, 7, 8, 9]
    assert pupil_center.grad[0].abs().sum(dim=0).nonzero().flatten().tolist() == [9]


def test_predictions_of_trials_do_not_depend_on_each_other():
    model = make_model().eval()
    videos, pupil_center = make_inputs(3)
    with torch.no_grad():
        together = model(videos, pupil_center, ONE)
        alone = torch.cat([model(videos[[i]], pupil_center[[i]], ONE) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_a_batch_trains_the_core_and_its_own_session_only():
    model = make_model().train()
    predictions = model(*make_inputs(), ONE)
    (predictions.sum() + model.regularizer()).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    # A bias before batch norm has no effect.
    expected = {name for name, _ in model.named_parameters() if OTHER not in name}
    idle = {f"core.layers.{layer}.{kind}.bias" for layer in (0, 1) for kind in ("spatial", "temporal")}
    assert trained - idle == expected - idle


def test_the_regularizer_is_the_sum_of_the_two_penalties_of_the_first_layer():
    model = make_model(SMALL.model_copy(update={"spatial_smoothness": 10.0, "temporal_smoothness": 0.01}))
    state = to_reference(model)
    spatial = state["core.features.layer0.conv_spatial.weight"].reshape(-1, 1, 5, 5)
    temporal = state["core.features.layer0.conv_temporal.weight"].reshape(-1, 1, 4)
    # The starter kit's own kernels.
    rough = functional.conv2d(spatial, state["core._input_weight_regularizer.laplace.filter"], padding=1)
    flickering = functional.conv1d(temporal, state["core.temporal_regularizer.laplace.filter"], padding=1)
    expected = 10 * (rough**2).sum() / (spatial**2).sum() + 0.01 * (flickering**2).sum() / (temporal**2).sum()
    torch.testing.assert_close(model.regularizer(), expected)


@pytest.mark.parametrize(("starts_at_mean_response", "offset"), [(False, 1), (True, 0)])
def test_the_readout_starts_from_mean_responses(starts_at_mean_response, offset):
    model = make_model(SMALL.model_copy(update={"starts_at_mean_response": starts_at_mean_response})).eval()
    mean = torch.linspace(0.1, 2, 6)
    model.initialize_readout_bias(ONE, mean)
    with torch.no_grad():
        model.readouts[ONE].features.zero_()
        predictions = model(*make_inputs(), ONE)
    torch.testing.assert_close(predictions, (mean + offset)[None, :, None].expand_as(predictions))
    assert model.readouts[ONE].bias.requires_grad


def test_convolutions_start_from_xavier_and_no_bias():
    torch.manual_seed(0)
    core = Factorized3d(Factorized3dConfig(), {ONE: neurons_of(2)}).core
    # Standard deviations √(2 / (fan in + fan out)) of the 3D kernels, by hand.
    expected = {0: ((3 + 32) * 121, (32 + 32) * 11), 2: ((64 + 128) * 25, (128 + 128) * 5)}
    for layer, fans in expected.items():
        for convolution, fan in zip((core.layers[layer].spatial, core.layers[layer].temporal), fans, strict=True):
            weights = convolution.weight.detach().numpy()
            assert weights.std() == pytest.approx(np.sqrt(2 / fan), rel=0.03)
            assert np.abs(weights).max() > 3.2 * weights.std()  # normal, not uniform
            assert (convolution.bias == 0).all()


def test_an_unknown_session_is_named_beside_the_models():
    with pytest.raises(UnknownNameError, match=f"'dynamic1-2-3-Video-a'; did you mean {ONE}"):
        make_model()(*make_inputs(), "dynamic1-2-3-Video-a")


@pytest.mark.parametrize("n_frames", [1, N_LOST])
def test_a_window_without_a_predictable_frame_is_refused(n_frames):
    with pytest.raises(UsageError, match=f"found {n_frames} frames?, expected at least {N_LOST + 1}"):
        make_model().eval()(*make_inputs(n_frames=n_frames), ONE)
    assert make_model().eval()(*make_inputs(n_frames=N_LOST + 1), ONE).shape == (2, 6, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": (4,)}, "one entry a layer each, but have 1, 3, 3, 3"),
        ({"spatial_strides": (2, 1)}, "one entry a layer each, but have 3, 3, 3, 2"),
        ({"spatial_kernels": (31, 5, 3)}, "leave nothing of a 36 × 64 frame"),
        ({"spatial_strides": (4, 1, 1)}, "leave nothing of a 36 × 64 frame"),
        ({"batch_norm_momentum": 0}, "greater than 0"),
        ({"channels": (0, 1, 1)}, "greater than 0"),
        ({"chanels": (1, 1, 1)}, "Extra inputs are not permitted"),
        ({"spatial_smoothness": float("nan")}, "finite number"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        Factorized3dConfig(**settings)
