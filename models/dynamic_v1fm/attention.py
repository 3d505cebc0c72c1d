"""Attention in shifted windows.

Shape suffixes: B trials of a batch, C channels, T steps, H height, W width, X tokens of all three axes (T × H × W),
Q tokens that ask, in the order of regions, K tokens that answer, those of the padding among them, D heads, 2 keys and
values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.dynamic_v1fm.regions import Order, WindowPlan, index_distances

__all__ = ["ShiftedWindowAttention", "reorder"]


class ShiftedWindowAttention(nn.Module):
    """Let the tokens of a window see each other, with a learned bias for each distance between two of them.

    Parameters
    ----------
    n_channels, n_heads : int
        The heads share the channels.
    window_size : tuple of int
        Steps, rows and columns.

    Notes
    -----
    The shifted-window attention of Video Swin (Liu et al. 2022, "Video Swin Transformer"), as the function
    ``shifted_window_attention_3d`` of torchvision computes it: the map is padded with zeros to whole windows, rolled by
    half a window, and cut into windows. Tokens of a window that were no neighbors before the roll do not see each other
    there because -100 is added to their scores. Here those that do, a *region*, are computed by themselves: what the
    mask leaves of the others is below 1e-43.
    """

    relative_index: torch.Tensor

    def __init__(self, n_channels: int, n_heads: int, window_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.inputs = nn.Linear(n_channels, 3 * n_channels)
        self.outputs = nn.Linear(n_channels, n_channels)
        n_distances = math.prod(2 * size - 1 for size in window_size)
        self.biases = nn.Parameter(torch.empty(n_distances, n_heads))
        # It follows from the window's size.
        self.register_buffer("relative_index", torch.from_numpy(index_distances(window_size)), persistent=False)
        nn.init.trunc_normal_(self.biases, std=0.02)

    def forward(self, tokens_BTHWC: torch.Tensor, plan: WindowPlan) -> torch.Tensor:
        """Return what each token takes from those that it sees, in the same shape.

        Parameters
        ----------
        tokens_BTHWC : Tensor, shape (batch, step, row, column, channel)
            A map.
        plan : WindowPlan
            Of maps of this size and the module's windows.
        """
        n_trials, n_channels = tokens_BTHWC.shape[0], tokens_BTHWC.shape[-1]
        tokens_BXC = tokens_BTHWC.reshape(n_trials, -1, n_channels)
        scale = (n_channels // self.n_heads) ** -0.5
        weight, bias = self.inputs.weight, self.inputs.bias
        queries_BXC = functional.linear(tokens_BXC, weight[:n_channels] * scale, bias[:n_channels] * scale)
        keys_values_BX2C = functional.linear(tokens_BXC, weight[n_channels:], bias[n_channels:])
        queries_BQC = reorder(queries_BXC, plan.queries)
        # Padding is zero before the linear layer, and its bias after.
        keys_values_BK2C = reorder(keys_values_BX2C, plan.keys, bias[n_channels:])
        keys_BKC, values_BKC = keys_values_BK2C.split(n_channels, dim=-1)
        n_queries = [region.n_windows * region.n_queries for region in plan.regions]
        n_keys = [region.n_windows * region.n_keys for region in plan.regions]
        parts = zip(
            plan.regions,
            queries_BQC.split(n_queries, dim=1),
            keys_BKC.split(n_keys, dim=1),
            values_BKC.split(n_keys, dim=1),
            _RegionBiases.apply(self.biases, self.relative_index, plan),
            strict=True,
        )
        attended = [
            self._join(
                _attend(*(self._split(part, region.n_windows) for part in (queries, keys, values)), biases_DQK),
                n_trials,
            )
            for region, queries, keys, values, biases_DQK in parts
        ]
        attended_BXC = reorder(torch.cat(attended, dim=1), plan.back)
        return self.outputs(attended_BXC).view(tokens_BTHWC.shape)

    def _split(self, tokens_BLC: torch.Tensor, n_windows: int) -> torch.Tensor:
        """Return tokens by window and head, shape (trial × window, head, token, channel)."""
        n_trials, n_tokens, n_channels = tokens_BLC.shape
        shape = (n_trials * n_windows, n_tokens // n_windows, self.n_heads, n_channels // self.n_heads)
        return tokens_BLC.reshape(shape).transpose(1, 2)

    def _join(self, tokens: torch.Tensor, n_trials: int) -> torch.Tensor:
        """Return tokens by trial, shape (trial, window × token, head × channel)."""
        return tokens.transpose(1, 2).reshape(n_trials, -1, self.inputs.in_features)


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, biases_DQK: torch.Tensor) -> torch.Tensor:
    """Return softmax(queries · keys + biases) · values, each (window, head, token, channel)."""
    if not _is_fused(queries, biases_DQK):
        scores = queries @ keys.transpose(-1, -2)
        scores += biases_DQK.to(scores.dtype)
        return scores.softmax(dim=-1) @ values
    biases = biases_DQK.to(queries.dtype).expand(len(queries), -1, -1, -1)
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=biases, scale=1.0)


def reorder(tokens_BXC: torch.Tensor, order: Order, padding_C: torch.Tensor | None = None) -> torch.Tensor:
    """Return tokens in another order.

    Parameters
    ----------
    tokens_BXC : Tensor, shape (batch, token, channel)
        What is reordered.
    order : Order
        Where each one goes.
    padding_C : Tensor, shape (channel,), optional
        Stands where the order has padding.

    Returns
    -------
    Tensor, shape (batch, token or padding, channel)
    """
    reordered: torch.Tensor = _Reorder.apply(tokens_BXC, padding_C, order)
    return reordered


def _is_fused(queries: torch.Tensor, biases_DQK: torch.Tensor) -> bool:
    # On a CPU torch's fused kernel gives no gradient to biases, and what it falls back to takes fourfold time.
    return queries.device.type != "cpu" or not (biases_DQK.requires_grad and torch.is_grad_enabled())


class _RegionBiases(torch.autograd.Function):
    """The bias of each pair of a region's tokens, (head, token without padding, token), for all regions.

    As indexing, each region would have a gradient of the whole table's size.
    """

    @staticmethod
    def forward(
        ctx: Any, biases: torch.Tensor, relative_index: torch.Tensor, plan: WindowPlan
    ) -> tuple[torch.Tensor, ...]:
        # A window that shrinks has the first rows and columns of the whole one's, as in torchvision.
        index = relative_index[: plan.window_volume, : plan.window_volume].reshape(-1)
        ctx.plan, ctx.shape = plan, biases.shape
        ctx.save_for_backward(index)
        pairs = biases.t()[:, index]
        return tuple(region.cut_pairs(pairs, plan.window_size) for region in plan.regions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (index,) = ctx.saved_tensors
        n_distances, n_heads = ctx.shape
        of_pairs = gradients[0].new_zeros(n_heads, len(index))
        for region, gradient in zip(ctx.plan.regions, gradients, strict=True):
            region.add_pairs(of_pairs, gradient, ctx.plan.window_size)
        of_biases = of_pairs.new_zeros(n_heads, n_distances)
        of_biases.scatter_add_(1, index.expand(n_heads, -1), of_pairs)
        return of_biases.t(), None, None


class _Reorder(torch.autograd.Function):
    """The gradient of a permutation is the inverse permutation; torch adds it up entry by entry."""

    @staticmethod
    def forward(ctx: Any, tokens_BXC: torch.Tensor, padding_C: torch.Tensor | None, order: Order) -> torch.Tensor:
        ctx.order, ctx.is_padded = order, padding_C is not None
        taken = tokens_BXC.index_select(1, order.take)
        if padding_C is not None:
            taken[:, order.padding] = padding_C.to(taken.dtype)
        return taken

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        order = ctx.order
        of_padding = gradient.index_select(1, order.padding).sum(dim=(0, 1)) if ctx.is_padded else None
        return gradient.index_select(1, order.inverse), of_padding, None
