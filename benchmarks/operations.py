"""Floating-point operations of a training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["count_operations"]


def count_operations(step: Callable[[], None]) -> int:
    """Return how many operations a step takes, of matrix products and convolutions; it is run once.

    Parameters
    ----------
    step : callable
        Forward and backward pass.

    Notes
    -----
    torch counts the gradient of the weights of a convolution of groups as if there were one group: for filters of
    single channels, as many times too much as there are channels. It counts sparse matrices as if all entries counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counted = {
        torch.ops.aten.convolution_backward: _count_convolution_backward,
        torch.ops.aten.mm: _count_product,
        torch.ops.aten.sparse_sampled_addmm: _count_sampled_product,
    }
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        step()
    return int(counter.get_total_flops())


def _count_convolution_backward(
    gradient_shape: Sequence[int],
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    # The gradients of input and weights take as many products as the convolution: each weight meets each position.
    positions = input_shape if transposed else gradient_shape
    forward = 2 * positions[0] * math.prod(positions[2:]) * math.prod(weight_shape)
    return forward * sum(output_mask[:2])


def _count_product(one: Any, other: Any, **_: Any) -> int:
    return int(2 * _count_entries(one) * other.shape[1])


def _count_sampled_product(pattern: Any, one: Any, _other: Any, **_: Any) -> int:
    return int(2 * _count_entries(pattern) * one.shape[1])


def _count_entries(matrix: Any) -> int:
    return int(matrix.values().numel() if str(matrix.layout) == "torch.sparse_csr" else matrix.numel())


# They are given tensors, not their shapes alone.
for _count in (_count_product, _count_sampled_product):
    _count._get_raw = True  # type: ignore[attr-defined]
