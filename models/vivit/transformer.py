"""Attention over rows of tokens.

Shape suffixes: X independent rows of attention, L tokens of a row, E numbers of a token, H heads, D numbers of a head,
U hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from models.vivit.config import VivitConfig
from models.vivit.rotary import RotaryPositions

__all__ = ["Transformer"]

# Where more rows are kept, to compute all of them takes less time than to pick them out.
_SHARE_WORTH_GATHERING = 0.8


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

    def forward(self, tokens_XLE: torch.Tensor, positions: RotaryPositions | None) -> torch.Tensor:
        """Return what the tokens become.

        Parameters
        ----------
        tokens_XLE : Tensor, shape (row, token, number)
            Rows do not see each other.
        positions : RotaryPositions or None
            Of the tokens but for registers, which come last; None where they bring their own.
        """
        for block in self.blocks:
            tokens_XLE = block(tokens_XLE, positions)
        return tokens_XLE


class _Block(nn.Module):
    """Attention and hidden units side by side, added to the tokens.

    Neither has a bias. In training, each row skips either half with the probability ``drop_path``. Where many do, what
    is skipped is not computed.
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

    def forward(self, tokens_XLE: torch.Tensor, positions: RotaryPositions | None) -> torch.Tensor:
        normalized_XLE = self.norm(tokens_XLE)
        share_kept = 1 - self._drop_path if self.training else 1.0
        # Two draws, in this order; on the CPU, where how many rows are kept is known at once.
        attending_X, transformed_X = (torch.rand(len(tokens_XLE)) < share_kept for _ in range(2))
        weights = self.fused.weight.split([*[self._n_inner] * 3, self.hidden_out.in_features])
        if share_kept > _SHARE_WORTH_GATHERING:
            attended_XLE = self._attend(normalized_XLE, weights[:3], positions)
            hidden_XLE = self._transform(functional.linear(normalized_XLE, weights[3]))
            if share_kept == 1:
                return tokens_XLE + attended_XLE + hidden_XLE
            for added_XLE, kept_X in ((attended_XLE, attending_X), (hidden_XLE, transformed_X)):
                weight_X11 = kept_X[:, None, None].to(tokens_XLE) / share_kept
                tokens_XLE = torch.addcmul(tokens_XLE, added_XLE.to(tokens_XLE.dtype), weight_X11)
            return tokens_XLE
        kept = [one_X.nonzero()[:, 0].to(tokens_XLE.device) for one_X in (attending_X, transformed_X)]
        first, second = (normalized_XLE.index_select(0, rows) for rows in kept)
        added = (
            self._attend(first, weights[:3], positions),
            self._transform(functional.linear(second, weights[3])),
        )
        for rows, added_XLE in zip(kept, added, strict=True):
            tokens_XLE = tokens_XLE.index_add(0, rows, added_XLE.to(tokens_XLE.dtype), alpha=1 / share_kept)
        return tokens_XLE

    def _attend(
        self,
        normalized_XLE: torch.Tensor,
        weights: Sequence[torch.Tensor],
        positions: RotaryPositions | None,
    ) -> torch.Tensor:
        """Return what attention adds; ``weights`` make queries, keys and values."""
        # Three products of their own: what one product returned would be taken apart and put together again.
        queries_XHLD, keys_XHLD, values_XHLD = (
            functional.linear(normalized_XLE, weight).unflatten(2, (self._n_heads, -1)).transpose(1, 2)
            for weight in weights
        )
        if positions is not None:
            queries_XHLD, keys_XHLD = positions.turn(queries_XHLD), positions.turn(keys_XHLD)
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
