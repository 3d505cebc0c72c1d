"""Penalties on rough filters, against scipy and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from models.layers import group_sparsity, spatial_roughness, temporal_roughness


def test_spatial_roughness_is_the_relative_energy_of_the_laplacian():
    weights = np.random.default_rng(0).normal(size=(4, 3, 7, 7))
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    laplacians = [convolve2d(slice_, kernel, mode="same") for slice_ in weights.reshape(-1, 7, 7)]
    expected = np.square(laplacians).sum() / np.square(weights).sum()
    assert float(spatial_roughness(torch.tensor(weights))) == pytest.approx(expected, rel=1e-12)


def test_temporal_roughness_is_the_same_over_time_with_the_fields_kernel():
    weights = np.random.default_rng(1).normal(size=(5, 4, 11))
    filtered = [np.convolve(slice_, [-1, 4, -1], mode="same") for slice_ in weights.reshape(-1, 11)]
    expected = np.square(filtered).sum() / np.square(weights).sum()
    assert float(temporal_roughness(torch.tensor(weights))) == pytest.approx(expected, rel=1e-12)


def test_a_single_pixel_is_rougher_than_a_blob():
    x = np.arange(11) - 5
    blob = np.exp(-(x[:, None] ** 2 + x**2) / 8)
    pixel = np.zeros((11, 11))
    pixel[5, 5] = 1
    roughness = [float(spatial_roughness(torch.tensor(filter_)[None, None])) for filter_ in (blob, pixel)]
    assert roughness[1] == 20  # 4² + 4 · 1²
    assert roughness[0] < 1


def test_descending_the_penalty_smooths_a_filter():
    torch.manual_seed(0)
    weights = torch.randn(2, 1, 9, 9, requires_grad=True)
    before = spatial_roughness(weights)
    before.backward()
    with torch.no_grad():
        after = spatial_roughness(weights - 0.1 * weights.grad)
    assert after < before


def test_filters_of_one_pixel_or_frame_are_taken():
    assert float(spatial_roughness(torch.ones(2, 2, 1, 1))) == 16
    assert float(temporal_roughness(torch.ones(2, 2, 1))) == 16


def test_group_sparsity_is_the_mean_length_of_filters():
    weights = np.random.default_rng(2).normal(size=(4, 3, 5, 5))
    expected = np.mean([[np.linalg.norm(filter_.ravel()) for filter_ in filters] for filters in weights])
    assert float(group_sparsity(torch.tensor(weights))) == pytest.approx(expected, rel=1e-12)


def test_group_sparsity_of_filters_that_are_gone_has_a_gradient_that_is_a_number():
    weights = torch.zeros(2, 2, 3, 3, requires_grad=True)
    group_sparsity(weights).backward()
    assert torch.isfinite(weights.grad).all()
