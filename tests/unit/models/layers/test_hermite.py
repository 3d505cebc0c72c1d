"""Hermite functions, filters made of them, and norms that share angles: against scipy and sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import eval_genlaguerre

from fixtures.numpy_networks import convolve, normalize
from models.layers import HermiteConv2d, RotationBatchNorm2d
from models.layers.hermite import hermite_functions, rotation_matrices

N_ROTATIONS = 8


def list_orders(kernel):
    """(angular order, radial order, cosine or sine) of each function, by rank."""
    listed = []
    for rank in range(kernel):
        for order in sorted({abs(m) for m in range(-rank, rank + 1, 2)}):
            waves = ("cosine", "sine") if order else ("cosine",)
            listed += [(order, (rank - order) // 2, wave) for wave in waves]
    return listed


def evaluate(order, radial_order, wave, row, column):
    """The value of one function at one point, up to its positive scale."""
    radius_2 = row**2 + column**2
    angle = order * np.arctan2(row, column)
    value = (-2.0) ** radial_order * eval_genlaguerre(radial_order, order, radius_2 / 2)
    return value * radius_2 ** (order / 2) * np.exp(-radius_2 / 4) * (np.cos if wave == "cosine" else np.sin)(angle)


def grid(kernel):
    edge = 2 * np.sqrt(kernel)
    return (np.arange(2 * kernel) + 0.5) / (2 * kernel) * 2 * edge - edge


@pytest.mark.parametrize("kernel", [1, 2, 5, 9])
def test_functions_are_those_of_laguerre_polynomials_of_length_1(kernel):
    functions, orders = hermite_functions(kernel)
    listed = list_orders(kernel)
    assert len(functions) == len(listed) == kernel * (kernel + 1) // 2
    assert orders == [order for order, _, _ in listed]
    points = grid(kernel)
    for function, one in zip(functions, listed, strict=True):
        expected = np.array([[evaluate(*one, row, column) for column in points] for row in points])
        np.testing.assert_allclose(function, expected / np.linalg.norm(expected), atol=1e-12)


def test_rotated_coefficients_give_the_sum_of_functions_at_a_turned_place():
    listed = list_orders(6)
    coefficients = np.random.default_rng(0).normal(size=len(listed))

    def add_up(coefficients, row, column):
        return sum(c * evaluate(*one, row, column) for c, one in zip(coefficients, listed, strict=True))

    for i, rotation in enumerate(rotation_matrices([order for order, _, _ in listed], N_ROTATIONS)):
        cosine, sine = np.cos(2 * np.pi * i / N_ROTATIONS), np.sin(2 * np.pi * i / N_ROTATIONS)
        for row, column in ((0.3, 1.2), (-2.0, 0.7), (1.5, -1.5)):
            # The point at the same radius, further by the angle; rows are the sine's axis.
            turned = column * sine + row * cosine, column * cosine - row * sine
            found = add_up(rotation @ coefficients, row, column)
            assert found == pytest.approx(add_up(coefficients, *turned), abs=1e-11)


def render_in_numpy(coefficients, kernel, *, sees_rotations):
    """All rotations' filters, one output and input channel after the other."""
    functions, orders = hermite_functions(kernel)
    rotations = rotation_matrices(orders, N_ROTATIONS)
    _, n_in, n_out = coefficients.shape
    filters = np.zeros((N_ROTATIONS * n_out, n_in, kernel, kernel))
    for i, rotation in enumerate(rotations):
        for output in range(n_out):
            for channel in range(n_in):
                fine = np.tensordot(rotation @ coefficients[:, channel, output], functions, axes=1)
                pooled = fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]
                seen_as = (channel + i * (n_in // N_ROTATIONS) * sees_rotations) % n_in
                filters[i * n_out + output, seen_as] = pooled
    return filters


@pytest.mark.parametrize(("n_in", "sees_rotations"), [(3, False), (16, True)])
def test_a_convolution_is_one_with_every_angles_filters(n_in, sees_rotations):
    torch.manual_seed(0)
    layer = HermiteConv2d(n_in, 2, 5, N_ROTATIONS, sees_rotations=sees_rotations, padding=2, stride=2).double()
    filters = render_in_numpy(layer.coefficients.detach().numpy(), 5, sees_rotations=sees_rotations)
    # The basis is kept in 32 bits.
    np.testing.assert_allclose(layer.render_filters().detach().numpy(), filters, atol=1e-6)
    maps = np.random.default_rng(1).normal(size=(2, n_in, 9, 8))
    with torch.no_grad():
        found = layer(torch.tensor(maps)).numpy()
    np.testing.assert_allclose(found, convolve(maps, filters, padding=2, stride=2), atol=1e-5)


def test_a_turned_input_turns_the_maps_and_moves_them_to_other_angles():
    torch.manual_seed(0)
    first = HermiteConv2d(3, 2, 5, N_ROTATIONS, sees_rotations=False).double()
    second = HermiteConv2d(16, 4, 3, N_ROTATIONS, sees_rotations=True, padding=1).double()
    images = torch.randn(1, 3, 12, 12, dtype=torch.float64)

    def by_angle(images):
        return second(torch.tanh(first(images))).unflatten(1, (N_ROTATIONS, 4))

    with torch.no_grad():
        upright, turned = by_angle(images), by_angle(images.rot90(1, (2, 3)))
    # A quarter of a turn are two of the eight angles.
    torch.testing.assert_close(turned, upright.roll(2, dims=1).rot90(1, (3, 4)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(turned, upright.rot90(1, (3, 4)), atol=0.1)


def test_coefficients_start_at_a_tenth_and_are_all_that_is_learned_and_kept():
    torch.manual_seed(0)
    layer = HermiteConv2d(64, 8, 7, N_ROTATIONS, sees_rotations=True)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"coefficients": (28, 64, 8)}
    assert list(layer.state_dict()) == ["coefficients"]
    assert layer.coefficients.std().item() == pytest.approx(0.1, rel=0.02)
    assert layer.coefficients.mean().item() == pytest.approx(0, abs=0.003)


def test_a_norm_has_one_mean_and_variance_for_all_angles_of_a_feature():
    norm = RotationBatchNorm2d(3, N_ROTATIONS, momentum=0.9).double()
    generator = np.random.default_rng(0)
    maps = generator.normal(2, 3, size=(4, 3 * N_ROTATIONS, 5, 6))
    weight, bias = generator.normal(size=(2, 3))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(weight))
        norm.bias.copy_(torch.tensor(bias))
        found = norm(torch.tensor(maps).contiguous(memory_format=torch.channels_last)).numpy()
    mean, variance, unbiased = np.zeros(3), np.zeros(3), np.zeros(3)
    for feature in range(3):
        values = maps[:, feature::3]  # rotation-major channels
        mean[feature], variance[feature], unbiased[feature] = values.mean(), values.var(), values.var(ddof=1)
    weights = {"weight": np.tile(weight, N_ROTATIONS), "bias": np.tile(bias, N_ROTATIONS)}
    expected = normalize(maps, np.tile(mean, N_ROTATIONS), np.tile(variance, N_ROTATIONS), weights)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.9 * mean)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.1 + 0.9 * unbiased)
    norm.eval()
    with torch.no_grad():
        found = norm(torch.tensor(maps)).numpy()
    running = np.tile(0.9 * mean, N_ROTATIONS), np.tile(0.1 + 0.9 * unbiased, N_ROTATIONS)
    np.testing.assert_allclose(found, normalize(maps, *running, weights), atol=1e-12)
