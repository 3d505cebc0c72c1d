"""Operations of a step are those of its products, also where convolutions have groups."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from fixtures.places import CHECKOUT

Count = Callable[[Callable[[], None]], int]


@pytest.fixture(scope="module")
def count() -> Iterator[Count]:
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    try:
        from operations import count_operations

        yield count_operations
    finally:
        sys.path.remove(str(CHECKOUT / "benchmarks"))


@pytest.mark.parametrize("n_groups", [1, 4, 8])
def test_each_weight_meets_each_position_thrice(count: Count, n_groups: int) -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=n_groups)
    images = torch.randn(2, 8, 5, 6, requires_grad=True)
    n_products = 2 * 5 * 6 * 16 * (8 // n_groups) * 9
    assert count(lambda: layer(images).sum().backward()) == 3 * 2 * n_products
    # Without a gradient of the images.
    assert count(lambda: layer(images.detach()).sum().backward()) == 2 * 2 * n_products


def test_convolutions_that_widen_and_products_count_too(count: Count) -> None:
    layer = nn.ConvTranspose2d(4, 6, 2, stride=2)
    images = torch.randn(3, 4, 5, 5, requires_grad=True)
    assert count(lambda: layer(images).sum().backward()) == 3 * 2 * 3 * 5 * 5 * 4 * 6 * 4
    linear, rows = nn.Linear(7, 5), torch.randn(9, 7)
    assert count(lambda: linear(rows).sum().backward()) == 2 * 2 * 9 * 7 * 5


def test_entries_of_sparse_matrices_alone_count(count: Count) -> None:
    dense = torch.randn(6, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse = torch.sparse_csr_tensor([0, 1, 3], [2, 0, 5], [1.0, 2.0, 3.0], (2, 6))
    assert count(lambda: sparse @ dense) == 2 * 3 * 5
    assert count(lambda: dense.T @ dense) == 2 * 5 * 6 * 5
    one, other = torch.randn(2, 7), torch.randn(7, 6)
    assert count(lambda: torch.sparse.sampled_addmm(sparse, one, other, beta=0.0)) == 2 * 3 * 7
