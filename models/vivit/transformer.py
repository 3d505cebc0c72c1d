"""Attention over rows of tokens.

Shape suffixes: X independent rows of attention, L tokens of a row, E numbers of a token, H heads, D numbers of a head,
U hidden units.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.vivit.config import VivitConfig
from models.vivit.rotary import RotaryPositions

__all__ = ["Transformer"]


class Transformer(nn.Module):
    """Blocks of attention, one after the other.

    Parameters
    ----------
    config : VivitConfig
        Sizes of the blocks.
    n_blocks : int
        How many.
    is_causal : bool
        Whether a token attends to itself and those before it, and to no other.
    """

    blocks: nn.ModuleList

    def __init__(self, config: VivitConfig, n_blocks: int, *, is_causal: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config, is_causal=is_causal) for _ in range(n_blocks))

    def forward(self, tokens_XLE: torch.Tensor, positions: RotaryPositions | None, n_registers: int) -> torch.Tensor:
        """Return what the tokens become.

        Parameters
        ----------
        tokens_XLE : Tensor, shape (row, token, number)
            Rows do not see each other.
        positions : RotaryPositions or None
            Of the tokens; None where they bring their own.
        n_registers : int
            How many of the last tokens have no position.
        """
        for block in self.blocks:
            tokens_XLE = block(tokens_XLE, positions, n_registers)
        return tokens_XLE


class _Block(nn.Module):
    """Attention and hidden units side by side, added to the tokens.

    Neither has a bias. In training, each row skips either half with the probability ``drop_path``; what is skipped is
    not computed.
    """

    def __init__(self, config: VivitConfig, *, is_causal: bool) -> None:
        super().__init__()
        self._n_heads = config.n_heads
        self._is_causal = is_causal
        self._activation = functional.gelu if config.activation == "gelu" else functional.relu
        self._attention_dropout = config.attention_dropout
        self._hidden_dropout = config.hidden_dropout
        self._drop_path = config.drop_path
        self._n_inner = config.n_heads * config.head_size
        self.norm = nn.LayerNorm(config.embedding_size)
        # Queries, keys, values, hidden units.
        self.fused = nn.Linear(config.embedding_size, 3 * self._n_inner + config.hidden_units, bias=False)
        self.attention_out = nn.Linear(self._n_inner, config.embedding_size, bias=False)
        self.hidden_out = nn.Linear(config.hidden_units, config.embedding_size, bias=False)
        for linear in (self.fused, self.attention_out, self.hidden_out):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def forward(self, tokens_XLE: torch.Tensor, positions: RotaryPositions | None, n_registers: int) -> torch.Tensor:
        normalized_XLE = self.norm(tokens_XLE)
        if not self.training or not self._drop_path:
            fused = self.fused(normalized_XLE)
            attended_XLE = self._attend(fused[..., : 3 * self._n_inner], positions, n_registers)
            return tokens_XLE + attended_XLE + self._transform(fused[..., 3 * self._n_inner :])
        share_kept = 1 - self._drop_path
        # Two draws, in this order, on the CPU: how many rows are kept has to be known here.
        attending, transformed = (
            (torch.rand(len(tokens_XLE)) < share_kept).nonzero()[:, 0].to(tokens_XLE.device) for _ in range(2)
        )
        weight_for_attention, weight_for_hidden = self.fused.weight.split([3 * self._n_inner, self._n_hidden])
        attended = self._attend(
            functional.linear(normalized_XLE[attending], weight_for_attention), positions, n_registers
        )
        hidden = self._transform(functional.linear(normalized_XLE[transformed], weight_for_hidden))
        added_XLE = tokens_XLE.index_add(0, attending, attended.to(tokens_XLE.dtype), alpha=1 / share_kept)
        return added_XLE.index_add(0, transformed, hidden.to(tokens_XLE.dtype), alpha=1 / share_kept)

    @property
    def _n_hidden(self) -> int:
        return self.hidden_out.in_features

    def _attend(self, compared: torch.Tensor, positions: RotaryPositions | None, n_registers: int) -> torch.Tensor:
        """Return what attention adds, of queries, keys and values side by side."""
        n_rows, n_tokens, _ = compared.shape
        heads = compared.view(n_rows, n_tokens, 3, self._n_heads, -1).permute(2, 0, 3, 1, 4)
        queries_XHLD, keys_XHLD, values_XHLD = heads.unbind()
        if positions is not None:
            n_placed = n_tokens - n_registers
            queries_XHLD, keys_XHLD = (positions.turn(one, n_placed) for one in (queries_XHLD, keys_XHLD))
        attended_XHLD = functional.scaled_dot_product_attention(
            queries_XHLD, keys_XHLD, values_XHLD, is_causal=self._is_causal
        )
        attended = attended_XHLD.transpose(1, 2).flatten(2)
        attended = functional.dropout(attended, self._attention_dropout, self.training)
        out_XLE: torch.Tensor = self.attention_out(attended)
        return out_XLE

    def _transform(self, hidden_XLU: torch.Tensor) -> torch.Tensor:
        """Return what hidden units add, of their inputs."""
        active_XLU = functional.dropout(self._activation(hidden_XLU), self._hidden_dropout, self.training)
        out_XLE: torch.Tensor = self.hidden_out(active_XLU)
        return out_XLE
