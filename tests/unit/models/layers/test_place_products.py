"""Readouts of places, against torch's sampling of maps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.layers import place_products, read_places

N_FRAMES, N_CHANNELS, N_PLACES, SIZE = 3, 4, 7, (5, 6)


def make_inputs(dtype=torch.float64, size=SIZE):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    places = 1.2 * draw(N_FRAMES, N_PLACES, 2)
    # Corners, a place between a pixel and what is outside, and one far away.
    places[0, :5] = torch.tensor([[-1, -1], [1, 1], [1, -1], [1.1, 0.3], [9, -9]], dtype=dtype)
    inputs = draw(N_FRAMES, N_CHANNELS, *size), places, draw(N_CHANNELS, N_PLACES)
    return tuple(tensor.requires_grad_() for tensor in inputs)


def sample(maps, places, weights):
    sampled = functional.grid_sample(maps, places[:, :, None], align_corners=True)[..., 0]
    return (sampled * weights).sum(1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("has_sparse_products", [True, False])
def test_they_and_their_gradients_are_those_of_sampled_maps(dtype, tolerance, has_sparse_products, monkeypatch):
    monkeypatch.setattr(place_products, "_has_sparse_products", lambda: has_sparse_products)
    results = []
    for read in (read_places, sample):
        inputs = make_inputs(dtype)
        responses = read(*inputs)
        (responses * torch.linspace(-1, 2, N_PLACES, dtype=dtype)).square().sum().backward()
        results.append([responses.detach(), *(one.grad for one in inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_a_part_of_the_gradients_is_had_alone():
    maps, places, weights = (one.detach() for one in make_inputs())
    for wanted in ((maps,), (places,), (weights,), (maps, weights)):
        for one in wanted:
            one.requires_grad_()
        found = torch.autograd.grad(read_places(maps, places, weights).square().sum(), wanted)
        expected = torch.autograd.grad(sample(maps, places, weights).square().sum(), wanted)
        torch.testing.assert_close(found, expected)
        for one in wanted:
            one.requires_grad_(False)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2), (1, 4)])
def test_maps_of_few_pixels_are_read_too(size):
    results = []
    for read in (read_places, sample):
        inputs = make_inputs(size=size)
        responses = read(*inputs)
        responses.square().sum().backward()
        results.append([responses.detach(), *(one.grad for one in inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
