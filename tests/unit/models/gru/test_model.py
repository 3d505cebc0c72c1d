"""The recurrent models, against NumPy and the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.numpy_networks import batch_norm, convolve, elu, part, sigmoid
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
from models.gru import Gru, GruConfig
from models.layers.hermite import hermite_functions, rotation_matrices
from models.registry import get_preset
from sensorium_data.sessions import Release

PLAIN = GruConfig(n_features=4, kernels=(5, 3, 3), gru_kernel=3)
#: Four angles of two features.
EQUIVARIANT = GruConfig(n_features=2, n_rotations=4, kernels=(5, 3, 3), gru_kernel=3, stride=2)
CONFIGS = {"plain": PLAIN, "equivariant": EQUIVARIANT}


def render(coefficients, n_rotations, *, sees_rotations):
    """Filters at all angles, rotation-major, from Hermite coefficients."""
    n_in = coefficients.shape[1]
    kernel = int((np.sqrt(8 * len(coefficients) + 1) - 1) / 2)
    functions, orders = hermite_functions(kernel)
    filters = []
    for i, rotation in enumerate(rotation_matrices(orders, n_rotations)):
        fine = np.einsum("khw,kj,jio->oihw", functions, rotation, coefficients)
        pooled = sum(fine[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1))
        filters.append(np.roll(pooled, i * n_in // n_rotations if sees_rotations else 0, axis=1))
    return np.concatenate(filters)


def filters_of(core, config):
    """The filters of each layer, and its bias if it has one."""
    for layer in range(len(config.kernels)):
        weights = part(core, f"frames.layers.{layer}.convolution")
        if config.n_rotations is None:
            yield weights["weight"], weights.get("bias")
        else:
            yield render(weights["coefficients"], config.n_rotations, sees_rotations=layer > 0), None


def run_core(config):
    def run(video_CTHW, core):
        maps = np.moveaxis(video_CTHW, 1, 0)
        last = len(config.kernels) - 1
        for layer, (filters, bias) in enumerate(filters_of(core, config)):
            stride, padding = (config.stride, 0) if layer == 0 else (1, config.kernels[layer] // 2)
            maps = convolve(maps, filters, bias, stride=stride, padding=padding)
            norm = part(core, f"frames.layers.{layer}.norm")
            norm = {name: np.tile(value, config.n_rotations or 1) for name, value in norm.items()}
            maps = batch_norm(maps, norm)
            maps = elu(maps) if layer < last else maps
        state = np.zeros((1, *maps.shape[1:]))
        states = []
        for frame in maps[:, None]:

            def apply(name, values):
                return convolve(values, **part(core, f"gru.{name}"), padding=config.gru_kernel // 2)

            update = sigmoid(apply("update_input", frame) + apply("update_hidden", state))
            reset = sigmoid(apply("reset_input", frame) + apply("reset_hidden", state))
            candidate = np.tanh(apply("candidate_input", frame) + apply("candidate_hidden", reset * state))
            state = (1 - update) * state + update * candidate
            states.append(state[0])
        return np.stack(states)

    return run


@pytest.mark.parametrize("kind", CONFIGS)
def test_predictions_are_what_numpy_makes_of_the_weights(kind):
    config = CONFIGS[kind]
    model, inputs = make_model(Gru, config), make_inputs(n_frames=4)
    for session in (ONE, OTHER):
        with torch.no_grad():
            found = model(*inputs, session).numpy()
        expected = predict_in_numpy(run_core(config), weights_of(model), *inputs, session)
        # Bases of Hermite functions are kept in 32 bits.
        np.testing.assert_allclose(found, expected, atol=1e-10 if kind == "plain" else 1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_regularizer_weighs_rough_first_filters_and_the_length_of_all_others(kind):
    config = CONFIGS[kind].model_copy(update={"spatial_smoothness": 500.0, "filter_sparsity": 5000.0})
    model = make_model(Gru, config)
    (first, _), *others = filters_of(part(weights_of(model), "core"), config)
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    slices = first.reshape(-1, 1, *first.shape[2:])
    roughness = np.square(convolve(slices, laplacian[None, None], padding=1)).sum() / np.square(first).sum()
    lengths = np.mean([np.sqrt(np.square(filters).sum(axis=(2, 3))).mean() for filters, _ in others])
    assert model.regularizer().item() == pytest.approx(500 * roughness + 5000 * lengths, rel=1e-6)


@pytest.mark.parametrize(
    ("preset", "settings", "n_core", "n_gru", "totals"),
    [
        ("gru", {}, 618_368, 1_204_608, (4_586_367, 7_265_923)),
        ("gru-equivariant", {}, 44_152, 1_991_040, (4_798_583, 7_478_139)),
        # The variant of the demo notebook.
        ("gru-equivariant", {"gru_kernel": 7}, 44_152, 1_204_608, (4_012_151, 6_691_707)),
    ],
)
def test_the_published_numbers_of_parameters(preset, settings, n_core, n_gru, totals):
    config = get_preset(preset).model.model_copy(update=settings)
    for releases, n_readouts, total in zip(
        ((Release.NEW,), (Release.OLD, Release.NEW)), (2_763_106, 5_442_377), totals, strict=True
    ):
        model = Gru(config, published_neurons(*releases))
        assert count_parameters(model.core.frames) == n_core
        assert count_parameters(model.core.gru) == n_gru
        assert count_parameters(model.readouts) == n_readouts
        assert count_parameters(model) == total


@pytest.mark.parametrize("preset", ["gru", "gru-equivariant"])
def test_the_published_size_of_the_map(preset):
    config = get_preset(preset).model
    assert (config.n_channels, *config.map_size(36, 64), config.n_frames_lost) == (64, 28, 56, 0)


def test_the_published_recipes():
    # benchmarks_training.ipynb of the starter kit, and its models_demo.ipynb.
    benchmark, demo = get_preset("gru-equivariant"), get_preset("gru")
    assert (benchmark.n_frames_window, benchmark.batch_size, benchmark.model.gru_kernel) == (80, 8, 9)
    assert (demo.n_frames_window, demo.batch_size, demo.model.gru_kernel) == (60, 16, 7)
    for preset in (benchmark, demo):
        assert (preset.learning_rate, preset.weight_decay, preset.loss_scale) == (0.005, 0.01, "starter-kit")
        assert preset.model.kernels == (9, 7, 7, 7)
        assert (preset.model.spatial_smoothness, preset.model.filter_sparsity) == (500, 500_000)
        assert (preset.model.batch_norm_momentum, preset.model.readout_init_sigma) == (0.9, 1)


def test_a_prediction_depends_on_its_frame_and_all_before_it():
    model = make_model(Gru, PLAIN)
    videos, pupil_center = (tensor.requires_grad_() for tensor in make_inputs(1, 6))
    model(videos, pupil_center, ONE)[0, :, 3].sum().backward()
    assert videos.grad[0].abs().sum(dim=(0, 2, 3)).nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert pupil_center.grad[0].abs().sum(dim=0).nonzero().flatten().tolist() == [3]


def test_convolutions_start_from_xavier_and_the_first_has_no_bias():
    torch.manual_seed(0)
    core = Gru(GruConfig(), published_neurons(Release.NEW)).core
    first, second = (core.frames.layers[layer].convolution for layer in (0, 1))
    assert first.bias is None
    assert (second.bias == 0).all()
    assert second.weight.std().item() == pytest.approx(np.sqrt(2 / (128 * 49)), rel=0.01)
    assert first.weight.std().item() == pytest.approx(np.sqrt(2 / (67 * 81)), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": (9, 6)}, "all but the first must be odd"),
        ({"kernels": (37, 3)}, "leave nothing of a 36 × 64 frame"),
        ({"gru_kernel": 4}, "gru_kernel 4 must be odd"),
        ({"n_rotations": 0}, "greater than 0"),
        ({"kernels": ()}, "at least 1 item"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        GruConfig(**settings)
